"""What only Lesson 3 draws, on small data."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

import figures
from figure_checks import assert_readable, texts
from helpers import Request, generate_next_token, init_batch, merge_batches, run_continuous, run_static
from measure import Trace

drawings = figures.lesson_3


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    figures.use_style()
    yield
    plt.close("all")


@pytest.fixture
def traces(gpt2) -> dict[str, Trace]:
    requests = [Request([1, 2], budget, ignore_eos=True) for budget in (9, 2, 2, 9, 2, 2)]
    traces = {"static": Trace(), "continuous": Trace()}
    for trace, run in zip(traces.values(), (run_static, run_continuous), strict=True):
        run(requests, 2, model=gpt2, trace=trace)
    return traces


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def test_batches_show_every_token_in_its_cell(gpt2):
    prefilled = generate_next_token(init_batch([Request([5, 6, 7], 9), Request([8], 9)]), gpt2)
    newcomer = generate_next_token(init_batch([Request([9, 9], 9)]), gpt2)
    parts = {"running": prefilled, "newcomer": newcomer, "merged": merge_batches(prefilled, newcomer)}
    figure = drawings.batches("A title", parts, lambda ids: f"t{ids[0]}\n")
    assert_readable(figure)
    shown = words(figure)
    assert {"A title", "running", "newcomer", "merged", "padding", "row"} <= set(shown)
    first = prefilled.requests[0].output_ids[0]
    assert [word for word in shown if word.startswith("t") and word[1:-1].isdigit()][:4] == [
        f"t{first}\u21b5",
        "t7\u21b5",
        "t6\u21b5",
        "t5\u21b5",
    ]
    assert shown.count("t9\u21b5") >= 4, "the newcomer's two tokens, alone and merged"
    assert all(ax.get_xlabel() == "column, counted from the newest" for ax in figure.axes)


def test_time_lines_share_one_scale_and_one_legend(traces):
    figure = drawings.time_lines(traces, long_request=9)
    assert_readable(figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    static, continuous = traces.values()
    assert titles[0].startswith(f"Static batching takes {static.forwards} forwards, and ")
    assert titles[1].startswith(f"Continuous batching takes {continuous.forwards} forwards, and ")
    assert [ax.get_legend() is not None for ax in figure.axes] == [False, True]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_gains_show_counts_medians_and_their_range():
    ax = drawings.gains({"long and short": 3.0, "all 16": 1.0}, {"long and short": [2.5, 2.75, 4.0], "all 16": [0.9]})
    assert_readable(ax.figure)
    assert ax.get_title(loc="left") == "The mix of lengths decides: the gain goes from 2.75 down to 0.90 times"
    assert {"3.00", "1.00", "2.75", "0.90", "long and short", "all 16"} <= set(words(ax.figure))
    assert ax.get_ylabel() == "time static / time continuous" and ax.get_xlabel() == "tokens asked for"
    assert ax.get_ylim()[1] > 4


def test_titles_of_waits_are_those_of_the_run(traces):
    figure = drawings.first_tokens_and_answers(traces)
    assert_readable(figure)
    static, continuous = traces.values()
    means = static.ttft_s().mean(), continuous.ttft_s().mean()
    assert figure.axes[0].get_title(loc="left") == "The mean TTFT goes from {:.2f} s to {:.2f} s".format(*means)
    means = static.latency_s().mean(), continuous.latency_s().mean()
    assert figure.axes[1].get_title(loc="left") == "The mean latency goes from {:.2f} s to {:.2f} s".format(*means)
    assert all(ax.get_xlabel().endswith("(s)") for ax in figure.axes)
    assert figure.axes[0].get_ylabel() == "requests (%)"


def test_numbers_of_slots_are_compared_with_the_first_of_them(gpt2):
    sweep = {slots: Trace() for slots in (2, 3, 4)}
    for slots, trace in sweep.items():
        run_continuous([Request([1, 2], 3, ignore_eos=True) for _ in range(4)], slots, model=gpt2, trace=trace)
    figure = drawings.numbers_of_slots(sweep)
    assert_readable(figure)
    ratio = sweep[4].throughput / sweep[2].throughput
    assert figure.axes[0].get_title(loc="left") == f"4 slots make {ratio:.1f} times the tokens/s of 2 slots"
    counted = figure.axes[0].get_lines()[0].get_ydata()
    assert counted[-1] == pytest.approx(2 * counted[0]), "half of the forwards"
    assert [ax.get_ylabel() for ax in figure.axes] == ["throughput (tokens/s)", "latency (s)"]


def test_seconds_are_split_into_forwards_and_the_time_between_them(traces):
    ax = drawings.seconds_taken_apart({"static": 2.0, "continuous": 1.0}, traces)
    assert_readable(ax.figure)
    static, continuous = traces.values()
    gain = static.total_s / continuous.total_s
    title = f"Continuous batching is {gain:.2f} times as fast here; the prices say 2.00 times"
    assert ax.get_title(loc="left") == title
    predicted, inside, between = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert predicted == [2.0, 1.0]
    assert [a + b for a, b in zip(inside, between, strict=True)] == pytest.approx([static.total_s, continuous.total_s])
    assert ax.get_xlabel() == "time (s)"
