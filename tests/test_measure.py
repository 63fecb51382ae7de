"""Traces hold what really ran; figures can be drawn from them. No test asserts how long anything took."""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pytest

import figures
import measure
from conftest import random_requests
from engine import Engine, Sampling
from helpers import Request, run_continuous, run_static
from measure import Comparison, Timing, Trace, compare, memory_bandwidth, seconds_inside, step_seconds, timed

mpl.use("Agg")

COURSE_WORKLOAD = [Request([1, 2, 3, 4, 5, 6, 7], 100 if i % 8 == 0 else 10, ignore_eos=True) for i in range(32)]


def simulated_forwards(budgets: list[int], slots: int) -> int:
    """Continuous batching counted without a model: each turn admits and prefills, then decodes."""
    waiting, running, forwards = list(budgets), [], 0
    while waiting or running:
        newcomers = [waiting.pop(0) for _ in range(min(slots - len(running), len(waiting)))]
        forwards += bool(newcomers)
        running += [left - 1 for left in newcomers if left > 1]
        forwards += bool(running)
        running = [left - 1 for left in running if left > 1]
    return forwards


@pytest.fixture
def big_context_gpt2(gpt2):
    import torch

    gpt2.transformer.wpe = torch.nn.Embedding(128, 32, dtype=torch.float64)
    gpt2.config.n_positions = 128
    return gpt2


def test_static_forwards_of_the_course_workload(big_context_gpt2):
    trace = Trace()
    run_static(COURSE_WORKLOAD, 8, model=big_context_gpt2, trace=trace)
    assert trace.forwards == 400  # 4 batches, each as long as its 100-token request
    assert trace.tokens == 680 and trace.slot_utilization == 680 / 3200
    assert trace.padded_tokens == 0


def test_continuous_forwards_of_the_course_workload(big_context_gpt2):
    trace = Trace()
    run_continuous(COURSE_WORKLOAD, 8, model=big_context_gpt2, trace=trace)
    assert trace.tokens == 680
    assert trace.forwards == simulated_forwards([r.max_tokens for r in COURSE_WORKLOAD], 8) < 140


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_continuous_forwards_equal_a_simulation(gpt2, slots):
    requests = random_requests(17, seed=4)
    trace = Trace()
    run_continuous(requests, slots, model=gpt2, trace=trace)
    assert trace.forwards == simulated_forwards([r.max_tokens for r in requests if r.max_tokens], slots)
    assert max(len(row.requests) for row in trace.rows) <= slots


def test_a_small_schedule_by_hand(gpt2):
    """Budgets 1, 3, 2 in two slots.

    forward    1        2       3       4
    slot 0     r0       r2      .       r2      r0 leaves at prefill, r2 takes its slot
    slot 1     r1       .       r1 ...
    """
    requests = [Request([1, 2, 3], 1), Request([4], 3), Request([5, 6], 2)]
    trace = Trace()
    run_continuous(requests, 2, model=gpt2, trace=trace)
    seen = [(row.phase, row.requests, row.gained, row.width, row.padded_tokens) for row in trace.rows]
    assert seen == [
        ("prefill", (0, 1), (0, 1), 3, 2),
        ("decode", (1,), (1,), 2, 0),
        ("prefill", (2,), (2,), 2, 0),
        ("decode", (1, 2), (1, 2), 3, 0),
    ]
    assert trace.slot_rows() == [[0, 1], [None, 1], [2, None], [2, 1]]
    assert trace.slot_utilization == 6 / 8


def test_static_rows_ride_along(gpt2):
    trace = Trace()
    run_static([Request([1], 1), Request([2, 3], 3)], 2, model=gpt2, trace=trace)
    assert [row.requests for row in trace.rows] == [(0, 1)] * 3
    assert [row.gained for row in trace.rows] == [(0, 1), (1,), (1,)]
    assert [row.padded_tokens for row in trace.rows] == [1, 1, 1]
    assert trace.slot_rows() == [[0, 1], [None, 1], [None, 1]]


def test_a_static_schedule_by_hand(gpt2):
    """Budgets 2, 4, 1 in two slots: a batch of two for 4 forwards, then the third request alone.

    forward    1        2        3        4        5
    slot 0     r0       r0       (r0)     (r0)     r2      (r0) rides along
    slot 1     r1       r1       r1       r1       .
    width      3        4        5        6        2       prompts of 3, 1 and 2 tokens
    padding    2        2        2        2        0
    """
    requests = [Request([1, 2, 3], 2), Request([4], 4), Request([5, 6], 1)]
    trace = Trace()
    run_static(requests, 2, model=gpt2, trace=trace)
    assert [row.phase for row in trace.rows] == ["prefill", "decode", "decode", "decode", "prefill"]
    assert [row.requests for row in trace.rows] == [(0, 1)] * 4 + [(2,)]
    assert [row.gained for row in trace.rows] == [(0, 1), (0, 1), (1,), (1,), (2,)]
    assert [row.width for row in trace.rows] == [3, 4, 5, 6, 2]
    assert [row.padded_tokens for row in trace.rows] == [2, 2, 2, 2, 0]
    assert (trace.forwards, trace.tokens, trace.padded_tokens) == (5, 7, 8)
    assert trace.slot_utilization == 7 / 10


def test_times_of_requests_follow_from_the_rows(gpt2):
    requests = random_requests(11)
    trace = Trace()
    served = run_continuous(requests, 3, model=gpt2, trace=trace)
    times = trace.token_times_s()
    assert [len(t) for t in times] == [len(request.output_ids) for request in served]
    for index, request in enumerate(served):
        count = len(request.output_ids)
        if count == 0:
            assert math.isnan(trace.ttft_s()[index]) and math.isnan(trace.latency_s()[index])
        elif count == 1:
            assert math.isnan(trace.tpot_s()[index]) and trace.ttft_s()[index] == trace.latency_s()[index]
        else:
            total = trace.ttft_s()[index] + trace.tpot_s()[index] * (count - 1)
            assert total == pytest.approx(trace.latency_s()[index])
    assert len(trace.itl_s()) == sum(max(0, len(t) - 1) for t in times)
    assert trace.throughput == pytest.approx(trace.tokens / trace.total_s)
    assert np.nanmax(trace.latency_s()) == trace.total_s == trace.rows[-1].end_s
    assert times == [[row.end_s for row in trace.rows if index in row.gained] for index in range(len(requests))]


@dataclass
class Ended:
    """What a trace reads of a request that holds its own times."""

    arrival_s: float
    token_times_s: list[float]
    end_s: float | None = 0.0


def test_times_that_requests_hold_themselves_by_hand():
    """The first request is sent at 100 s; the second one later, and it is answered first."""
    trace = Trace()
    trace.read([Ended(100, [104, 105, 107]), Ended(102, [103]), Ended(103, [])], slots=2, forwards=4)
    assert trace.token_times_s() == [[4, 5, 7], [3], []]
    np.testing.assert_array_equal(trace.ttft_s(), [4, 1, np.nan])
    np.testing.assert_array_equal(trace.latency_s(), [7, 1, np.nan])
    np.testing.assert_array_equal(trace.tpot_s(), [1.5, np.nan, np.nan])
    assert trace.itl_s().tolist() == [1, 2]
    assert (trace.tokens, trace.total_s, trace.throughput) == (4, 7, 4 / 7)
    assert (trace.request_count, trace.forwards, trace.slot_utilization) == (3, 4, 4 / 8)


def test_a_request_that_has_not_ended_is_refused_and_changes_nothing():
    trace = Trace()
    trace.read([Ended(1, [2])])
    with pytest.raises(ValueError, match="1 of 2 requests have not ended, first 1"):
        trace.read([Ended(1, [2, 3]), Ended(1, [], None)])
    assert trace.token_times_s() == [[1]] and (trace.slots, trace.forwards, trace.slot_utilization) == (0, 0, 0)


def test_the_engines_requests_are_read_like_any_others(gpt2):
    ticks = iter(range(10, 100))
    engine = Engine(gpt2, None, max_rows=2, step_tokens=2)
    engine.clock = lambda: next(ticks)
    for prompt, budget in (([1, 2, 3], 2), ([4], 1), ([5], 3)):
        engine.add(prompt, Sampling(budget))  # at 10, 11 and 12 s; each step ends a second after the one before
    ended, trace = engine.run(), Trace()
    trace.read(ended)
    assert [request.token_times_s for request in ended] == [[14, 15], [14], [15, 16, 17]]
    assert trace.token_times_s() == [[4, 5], [4], [5, 6, 7]]
    assert trace.ttft_s().tolist() == [4, 3, 3] and trace.total_s == 7 and trace.tokens == 6


def test_a_trace_that_was_read_watches_a_run_again(gpt2):
    trace = Trace()
    trace.read([Ended(1, [2]), Ended(1, [2, 3])], slots=5, forwards=9)
    run_static(random_requests(7), 2, model=gpt2, trace=trace)
    assert trace.forwards == len(trace.rows) > 0 and trace.slots == 2 and trace.request_count == 7
    trace.read([Ended(1, [2])])
    assert trace.rows == [] and trace.request_count == 1


def test_a_trace_can_be_used_again(gpt2):
    trace = Trace()
    for count in (7, 3):
        run_static(random_requests(count), 2, model=gpt2, trace=trace)
    assert trace.request_count == 3 and len(trace.ttft_s()) == 3


def test_an_empty_trace_has_no_rates():
    trace = Trace()
    assert (trace.forwards, trace.throughput, trace.slot_utilization, trace.total_s) == (0, 0, 0, 0)
    assert len(trace.itl_s()) == 0


def test_timed_runs_warmup_and_repeats(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(measure, "perf_counter", lambda: next(ticks))
    calls = []
    timing = timed(lambda: calls.append(1), repeats=4, warmup=2)
    assert len(calls) == 6 and timing.seconds == (1, 1, 1, 1)


def test_course_repeats_caps_the_runs(monkeypatch):
    monkeypatch.setenv("COURSE_REPEATS", "2")
    calls = []
    assert len(timed(lambda: calls.append(1), repeats=5, warmup=3).seconds) == len(calls) == 2
    assert len(timed(int, repeats=1).seconds) == 1


def test_compare_interleaves():
    calls = []
    result = compare(lambda: calls.append("a"), lambda: calls.append("b"), repeats=3, warmup=1)
    assert "".join(calls) == "abababab"
    assert len(result.a.seconds) == len(result.b.seconds) == 3


def test_any_number_of_functions_interleave():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = measure.interleaved(functions, repeats=2, warmup=0)
    assert "".join(calls) == "abcabc"
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 2, "b": 2, "c": 2}


def test_median_quartiles_and_ratio():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 50.0))
    assert timing.median_s == 3 and timing.quartiles_s == (2, 4)
    assert str(timing) == "3000.0 ms (quartiles 2000.0 to 4000.0, 5 runs)"
    assert Timing((2.0,)).quartiles_s == (2, 2)
    assert Comparison(Timing((2.0, 9.0, 4.0)), Timing((1.0, 1.0, 1.0))).ratio == 4


def test_step_seconds_has_one_time_per_item():
    assert len(step_seconds(iter(range(7)))) == 7


def test_memory_bandwidth_is_a_rate():
    assert memory_bandwidth(size_bytes=2**20, repeats=2) > 0


def draw_everything(trace: Trace) -> list:
    return [
        figures.timeline(trace, long_request=9),
        figures.per_step_curves({"cached": [0.1] * 30, "uncached": list(np.linspace(0.1, 1, 30))}),
        figures.throughput_and_latency([1, 2, 4], [10, 20, 30], [1, 1.1, 1.4]),
        figures.timing_bars({"a": Timing((1.0, 2.0)), "b": Timing((0.01,))}),
    ]


def test_figures_have_units_and_legends_and_redraw_the_same(gpt2, tmp_path):
    figures.use_style()
    trace = Trace()
    run_continuous(random_requests(9), 3, model=gpt2, trace=trace)
    for index, (ax, again) in enumerate(zip(draw_everything(trace), draw_everything(trace), strict=True)):
        assert ax.get_xlabel() and ax.get_ylabel() or ax.get_yticklabels()
        assert index == 3 or ax.get_legend() is not None
        figures.save_svg(ax.figure, tmp_path / "first.svg")
        figures.save_svg(again.figure, tmp_path / "again.svg")
        assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()


@pytest.mark.parametrize(("budgets", "shades"), [([9, 2], [False, False]), ([9, 2, 2], [True, False])])
def test_a_time_line_speaks_of_two_shades_only_where_there_are_two(gpt2, budgets, shades):
    trace = Trace()
    run_continuous([Request([1], budget, ignore_eos=True) for budget in budgets], 2, model=gpt2, trace=trace)
    ax = figures.timeline(trace, long_request=9)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [("two shades" in label) for label in labels[:2]] == shades


def test_running_median_ignores_an_outlier():
    assert figures.running_median([1, 1, 99, 1, 1], window=3).tolist() == [1, 1, 1, 1, 1]


def test_the_time_inside_a_model_is_told_apart(gpt2):
    requests = random_requests(9, seed=4)
    trace = Trace()
    with seconds_inside(gpt2) as inside:
        run_continuous(requests, 3, model=gpt2, trace=trace)
    assert len(inside) == trace.forwards > 9
    # The trace's own times have the choice of the token and the next batch on top.
    assert all(0 < within < row.seconds for within, row in zip(inside, trace.rows, strict=True))
    run_continuous(requests, 3, model=gpt2)
    assert len(inside) == trace.forwards  # nothing is left in the model
