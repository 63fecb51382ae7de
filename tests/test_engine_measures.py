"""The engine's measurements at toy size: whatever is compared gives the same tokens, and the file says what was found.

No test asserts how long anything took.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import engine_chunks
import engine_measures
import engine_pieces
import engine_prefixes
import engine_slots
import report_engine
from call_times import seconds_of_calls
from conftest import random_requests, tiny_model
from engine import Engine, Sampling
from engine_serving import engine_for, serve_by_engine
from engine_sizes import ROWS, SMOKE, Target
from helpers import Request, run_continuous
from measure import Trace
from results_file import BUILD, RESULTS


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict[str, Any]:
    """What a run of all parts at toy size writes."""
    out = tmp_path_factory.mktemp("engine") / "engine.json"
    assert engine_measures.main(["--smoke", "--out", str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["engine.json"]
    return json.loads(out.read_text(encoding="utf-8"))


def test_every_part_was_measured_and_the_machine_is_described(result):
    assert list(result["parts"]) == list(engine_measures.PARTS)
    assert result["machine"]["torch"] and result["sizes"]["prefix"] == SMOKE.prefix
    assert "/" not in json.dumps(result), "a path or a division in words"


def test_whatever_is_compared_gives_the_same_answers(result):
    parts = result["parts"]
    for row in parts["speed"].values():
        assert row["same_answers"] == row["requests"] == SMOKE.workload.requests
    for kinds in parts["prefixes"].values():
        assert all(row["same_answers"] == row["requests"] == SMOKE.sharers for row in kinds.values())
    for row in parts["lora"].values():
        assert row["identical_rows"] == row["rows_without_an_adapter"] == row["rows_that_their_adapter_changes"] == 4
    for contexts in parts["slots"].values():
        assert [int(context) for context in contexts] == list(SMOKE.contexts)
        assert all(row["same_answers"] == ROWS for row in contexts.values())


def test_targets_are_those_of_the_parts_and_say_whether_they_are_met(result):
    assert len(result["targets"]) == 6 + 2 + 4 + 4 + 4
    for row in result["targets"]:
        reached = row["measured"] >= row["target"] if row["bound"] == "at least" else row["measured"] <= row["target"]
        assert row["met"] == reached
    assert [Target("", 3, 3).met, Target("", 2.9, 3).met] == [True, False]
    assert [Target("", 3, 3, "at most").met, Target("", 3.1, 3, "at most").met] == [True, False]
    table = report_engine.engine_targets(result)
    assert table.count("\n| ") == 1 + len(result["targets"]) and str(result["machine"]["cpu threads"]) in table


def test_a_prefix_is_found_with_the_cache_and_only_where_there_is_one(result):
    for kinds in result["parts"]["prefixes"].values():
        assert kinds["shared"]["cached_tokens"] > 0 == kinds["shared"]["cached_tokens_without"]
        assert kinds["own"]["cached_tokens"] == kinds["own"]["cached_tokens_without"] == 0


def test_gaps_are_those_of_the_rows_that_decode(result):
    for rows in result["parts"]["chunks"].values():
        assert [row["step_tokens"] for row in rows] == list(SMOKE.step_budgets)
        for row in rows:
            others = [gap for end, gap in row["gaps_s"] if 0 < end <= row["rounds"][-1]["ttft_s"]]
            assert row["rounds"][-1]["longest_gap_s"] >= max(others) > 0
            assert row["longest_gap_in_ordinary_steps"] == pytest.approx(row["longest_gap_s"] / row["ordinary_step_s"])
        with_chunks, whole = (len([e for e, _ in row["gaps_s"] if 0 < e <= row["ttft_s"]]) for row in rows)
        assert with_chunks > whole == 1  # the whole prompt is one step, and 9 tokens a step are several


def test_pieces_are_less_than_the_whole_step(result):
    for row in result["parts"]["pieces"].values():
        pieces = {name.partition(" (")[0]: piece for name, piece in row["pieces"].items()}
        assert {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2", "ln_f", "mlp.act"} <= set(
            pieces
        )
        assert {"wte", "wpe", "lm_head", "sampling", "scheduling and blocks", "tables and masks"} <= set(pieces)
        assert pieces["attn.c_attn"]["calls"] == pieces["attention: product"]["calls"] == 2  # layers
        assert pieces["attention: pages gathered"]["calls"] == 2
        assert all(0 < piece["seconds"] < row["watched_step_s"] for piece in pieces.values())
        assert 0 < row["rest_s"] < row["watched_step_s"]


def test_overheads_are_parts_of_a_step(result):
    for rows in result["parts"]["overheads"].values():
        assert [int(waiting) for waiting in rows] == list(SMOKE.waiting)
        for row in rows.values():
            assert 0 < row["scheduling_s"] < row["step_s"] and 0 < row["sampling_s"] < row["step_s"]
            assert 0 < row["share"] < 1


# --- The parts by themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_slots_give_the_tokens_of_pages_whoever_comes_and_goes(architecture):
    model, requests = tiny_model(architecture), [r for r in random_requests(14, seed=3) if r.max_tokens]
    engine = engine_slots.engine_with_slots(model, requests, 3)
    views = []
    forward = engine.paged.forward

    def watched(work):
        result = forward(work)
        views.extend(engine.paged.views)
        return result

    engine.paged.forward = watched
    served = run_continuous(requests, 3, model=model)
    assert [request.output_ids for request in engine.run()] == [request.output_ids for request in served]
    assert {isinstance(view.slots, slice) for view in views} == {True, False}


def test_the_scheduler_without_prefixes_finds_nothing_and_changes_nothing_else():
    model, prompt = tiny_model("gpt2"), list(range(40))
    for scheduler, found in ((engine_prefixes.Scheduler, 32), (engine_prefixes.WithoutPrefixes, 0)):
        run = engine_prefixes.serve(model, [prompt, prompt, prompt], scheduler, step_tokens=40)
        assert run["cached_tokens"] == 2 * found
        assert len({tuple(answer) for answer in run["answers"]}) == 1


def test_a_prompt_that_arrives_is_read_in_chunks_of_what_the_others_leave():
    run = engine_chunks.arrival(tiny_model("gpt2"), list(range(40)), step_tokens=ROWS - 1 + 10)
    chunks = [gap for end, gap in run["gaps_s"] if 0 < end <= run["ttft_s"]]
    assert len(chunks) == 4 and run["longest_gap_s"] > 0  # 40 tokens, 10 at a time


def test_requests_of_the_course_are_served_by_the_engine(gpt2):
    requests = [Request([1, 2, 3], 4), Request([4], 1), Request(list(range(30)), 6, ignore_eos=True)]
    gpt2.generation_config.eos_token_id = run_continuous(requests[:1], model=gpt2)[0].output_ids[1]
    trace = Trace()
    served = serve_by_engine(gpt2, requests, 2, trace)
    assert [r.output_ids for r in served] == [r.output_ids for r in run_continuous(requests, model=gpt2)]
    assert [len(r.output_ids) for r in served] == [2, 1, 6] == [len(times) for times in trace.token_times_s()]
    assert trace.forwards == 7 and trace.slots == 2
    assert engine_for(gpt2, requests, 2).scheduler.blocks.count == 2 * 3  # 30 + 6 tokens are three blocks


def test_calls_are_watched_and_afterwards_everything_is_as_it_was(gpt2):
    engine = Engine(gpt2, None)
    engine.add([1, 2, 3], Sampling(5))
    before = dict(vars(engine.scheduler)), dict(vars(torch.Tensor))
    with (
        seconds_of_calls(engine.scheduler, "schedule") as schedule,
        seconds_of_calls(torch.Tensor, "index_copy_") as written,
        seconds_of_calls(gpt2.lm_head, "forward") as head,
    ):
        engine.run()
    assert (len(schedule), len(written), len(head)) == (5, 5 * 2 * 2, 5) and min(schedule) > 0
    assert (dict(vars(engine.scheduler)).keys(), dict(vars(torch.Tensor))) == (before[0].keys(), before[1])
    assert "forward" not in vars(gpt2.lm_head)


def test_layers_of_all_blocks_have_one_name():
    names = [engine_pieces.piece_name(name, torch.nn.GELU()) for name in ("transformer.h.3.mlp.act", "lm_head")]
    assert names == ["mlp.act (GELU)", "lm_head (GELU)"]
    assert engine_pieces.piece_name("model.layers.11.self_attn.q_proj", torch.nn.GELU()) == "self_attn.q_proj (GELU)"


# --- The command -------------------------------------------------------------------------------------


def test_only_a_whole_run_may_replace_published_results(monkeypatch, capsys):
    parse = engine_measures.parse_arguments
    assert parse([]).out == RESULTS / "engine-cpu.json"
    assert parse(["--only", "chunks"]).out.parent == parse(["--smoke"]).out.parent == BUILD
    for arguments in (["--repeats", "0"], ["--repeats", "2"], ["--only", "nothing"]):
        with pytest.raises(SystemExit):
            parse(arguments)
    monkeypatch.setenv("COURSE_REPEATS", "1")
    with pytest.raises(SystemExit):
        parse([])
    assert "COURSE_REPEATS is set to 1" in capsys.readouterr().err


def test_an_interrupted_run_leaves_the_old_results(tmp_path, monkeypatch):
    def interrupted(sizes):
        raise KeyboardInterrupt

    out = tmp_path / "engine.json"
    out.write_text("{}")
    monkeypatch.setitem(engine_measures.PARTS, "slots", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine_measures.main(["--smoke", "--only", "slots", "--out", str(out)])
    assert [path.name for path in tmp_path.iterdir()] == ["engine.json"] and out.read_text() == "{}"
