"""The ladder: every rung serves the same requests, is what its name says, and the JSON says what was measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import ladder
import packed
import results_file
import rung_memory
import rung_quality
import rung_server
import rung_steps
import rungs
import utils
from conftest import tiny_model
from workload import COURSE, QUICK


@pytest.fixture(scope="module")
def result(tmp_path_factory, tokenizer) -> dict[str, Any]:
    """What a quick run on a tiny model writes."""
    folder = tmp_path_factory.mktemp("ladder")
    tiny_model("gpt2").float().save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    out = folder / "ladder.json"
    command = ["--quick", "--model", str(folder / "tiny"), "--out", str(out)]
    assert ladder.main(command) == 0
    assert [path.name for path in folder.iterdir() if path.suffix == ".unfinished"] == []
    return json.loads(out.read_text())


def test_rungs_up_to_packed_fp32_change_no_token(result):
    rows = {row["name"]: row for row in result["rungs"]}
    assert list(rows) == [rung.name for rung in rungs.RUNGS]
    exact = [row for row in rows.values() if row["exact"]]
    assert len(exact) == 6 and all(row["same_answers"] == result["requests"] for row in exact)
    assert all(0 <= row["same_answers"] <= result["requests"] for row in rows.values())


def test_forwards_are_those_that_can_be_counted(result):
    forwards = {row["name"]: row["forwards"] for row in result["rungs"]}
    workload = result["workload"]
    per_batch = workload["long_tokens"]
    assert result["tokens"] == 2 * workload["long_tokens"] + 6 * workload["short_tokens"]
    assert forwards["one at a time, no cache"] == forwards["KV cache"] == result["tokens"]
    assert forwards["static batches"] == 2 * per_batch
    assert per_batch <= forwards["continuous batching"] < forwards["static batches"]
    assert len({forwards[rung.name] for rung in rungs.RUNGS[3:] if not rung.engine}) == 1
    budgets = [request.max_tokens for request in QUICK.make(100)]
    (by_engine,) = {forwards[rung.name] for rung in rungs.RUNGS if rung.engine}
    assert by_engine == simulated_steps(budgets, workload["slots"]) < forwards["continuous batching"]


def simulated_steps(budgets: list[int], slots: int) -> int:
    """The engine's steps counted without a model: whoever is admitted gets a first token in the same step."""
    waiting, running, steps = list(budgets), [], 0
    while waiting or running:
        running += [waiting.pop(0) for _ in range(min(slots - len(running), len(waiting)))]
        running = [left - 1 for left in running if left > 1]
        steps += 1
    return steps


def test_rates_and_ratios_follow_from_the_seconds(result):
    first, rows = result["rungs"][0], {row["name"]: row for row in result["rungs"]}
    assert [row["rung_before"] for row in result["rungs"]][:3] == ["one at a time, no cache"] * 2 + ["KV cache"]
    assert rows["engine, packed bf16"]["rung_before"] == "packed weights, bf16"
    for row in result["rungs"]:
        before = rows[row["rung_before"]]
        assert len(row["seconds"]) == 1 and row["median_s"] == row["seconds"][0] > 0
        assert row["tokens_per_s"] == pytest.approx(result["tokens"] / row["median_s"])
        assert row["times_the_first"] == pytest.approx(first["median_s"] / row["median_s"])
        assert row["times_the_rung_before"] == pytest.approx(before["median_s"] / row["median_s"])
        floor_s = row["forwards"] * row["bytes_read_per_forward"] / result["bandwidth_bytes_per_s"]
        assert row["times_the_floor"] == pytest.approx(row["median_s"] / floor_s)


def test_the_machine_is_described_and_no_path_is_told(result):
    assert {"torch", "transformers", "python"} <= result["machine"].keys()
    assert str(ROOT) not in json.dumps({**result, "model": ""})
    lines = ladder.table(result).splitlines()
    assert len(lines) == 1 + len(result["rungs"]) + 1 + len(result["queues"]) + len(ladder.remarks(result))


def test_what_serving_adds_to_the_model_is_measured_for_short_and_long_queues(result):
    for row in result["rungs"]:
        assert row["decode_step_s"].keys() == {"1", str(result["workload"]["slots"])}
        assert all(seconds > 0 for seconds in row["decode_step_s"].values())
        assert row["floor_of_a_forward_s"] == row["bytes_read_per_forward"] / result["bandwidth_bytes_per_s"]
        assert 0 < row["outside_the_model"]["share_of_the_time"] < 1
        assert row["outside_the_model"]["requests"] == result["requests"]
    assert [queue["requests"] for queue in result["queues"]] == [32, 1000]
    for queue in result["queues"]:
        rounds = queue["requests"] // result["workload"]["slots"]
        assert queue["forwards"] == 4 * rounds and queue["seconds_per_forward"] > 0


def test_the_course_workload_is_the_courses():
    requests = COURSE.make(100)
    assert [request.max_tokens for request in requests] == [100 if i % 8 == 0 else 10 for i in range(32)]
    assert {len(request.prompt) for request in requests} == {7}
    assert len({tuple(request.prompt) for request in requests}) == 32


def test_a_rung_that_changes_a_token_is_reported_and_ends_nothing(gpt2):
    def corrupt(model):
        return tiny_model("gpt2", seed=1).float()

    model, requests = gpt2.float(), QUICK.make(100)
    changed = dataclasses.replace(rungs.RUNGS[3], prepare=corrupt)
    models, _ = rungs.prepare_models([rungs.RUNGS[1], changed], model)
    measured = ladder.measure_rungs([rungs.RUNGS[1], changed], models, requests, QUICK.slots, 1, "cpu")
    rows = [
        ladder.row_of(rung, [rungs.RUNGS[1], changed], models[rung.name], requests, measured)
        for rung in (rungs.RUNGS[1], changed)
    ]
    assert rows[0]["same_answers"] == len(requests) > rows[1]["same_answers"]
    result = {"rungs": rows, "requests": len(requests), "left_out": []}
    (remark,) = ladder.remarks(result)
    assert remark == f"continuous batching: {rows[1]['same_answers']} of 8 answers are the same (sums in another order)"


# --- Packed, or not called so ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_last_rung_gives_the_tokens_of_the_others_over_http():
    model = tiny_model("gpt2").float()
    requests = QUICK.make(model.config.vocab_size)
    first, last = rungs.RUNGS[1], rungs.find_rung(rung_server.ENGINE_BESIDE, "cpu")
    models, _ = rungs.prepare_models([first, last], model)
    with rung_server.server_of(model, requests, QUICK.slots) as ask:
        measured = ladder.measure_rungs([first, last], models, requests, QUICK.slots, 1, "cpu", ask)
    names = rung_server.SERVER_RUNG, rung_server.ENGINE_BESIDE, first.name
    row = ladder.speed_of(*names, requests, measured)
    assert row["same_answers"] == len(requests)
    engine = measured.timings[last.name].median_s
    assert row["times_the_rung_before"] == pytest.approx(engine / row["median_s"])


def test_packed_rungs_are_packed_and_the_others_are_not(result):
    layers = 2 * 4 + 1  # four linear layers in each of two blocks, and the output head
    for row, rung in zip(result["rungs"], rungs.RUNGS, strict=True):
        assert row["packed_layers"] == (layers if rung.packed else 0), row["name"]
    assert result["left_out"] == []


def test_rungs_with_the_same_weights_share_one_model(gpt2):
    models, _ = rungs.prepare_models(rungs.RUNGS, gpt2.float())
    assert models["engine, packed int8"] is models["packed int8, head too"] is not models["packed weights, bf16"]
    assert len({id(model) for model in models.values()}) == 4


def without_a_kernel(monkeypatch, kind: str) -> None:
    """A machine that lacks the kernel of one kind of packed layer."""

    def refuse(*_: Any) -> None:
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(getattr(packed, kind), "__init__", refuse)


def test_a_rung_that_cannot_be_packed_is_left_out_and_named(gpt2, monkeypatch):
    without_a_kernel(monkeypatch, "PackedLinear")
    with pytest.warns(UserWarning, match="left 9 linear layers as they are"):
        models, left_out = rungs.prepare_models(rungs.RUNGS, gpt2.float())
    kinds = ["packed weights, fp32", "packed weights, bf16", "engine, packed fp32", "engine, packed bf16"]
    assert [row["name"] for row in left_out] == kinds
    assert left_out[0]["reason"].startswith("9 of 9 linear layers could not be packed")
    assert list(models) == [rung.name for rung in rungs.RUNGS if rung.name not in {row["name"] for row in left_out}]
    remarks = ladder.remarks({"left_out": left_out, "rungs": [], "requests": 8})
    assert remarks[0].startswith("left out: packed weights, fp32 (9 of 9 linear layers")


def test_a_model_that_is_packed_in_part_is_not_called_packed(gpt2):
    part = utils.pack_model(gpt2.float(), skip=["lm_head"])
    assert rungs.why_not_packed(part).startswith("1 of 9 linear layers could not be packed")
    assert rungs.why_not_packed(utils.pack_model(gpt2.float())) is None
    assert rungs.why_not_packed(torch.nn.GELU()) is not None


def test_on_a_gpu_there_is_no_packed_rung():
    assert not any(rung.packed or "packed" in rung.name for rung in rungs.rungs_for("cuda"))


# --- What may be written where -----------------------------------------------------------------------


def test_rounds_are_counted_not_claimed(gpt2, monkeypatch):
    monkeypatch.setenv("COURSE_REPEATS", "2")
    result = ladder.climb(gpt2.float(), QUICK, "cpu", 5, quality=False, memory=False, queue_lengths=())
    assert result["rounds"] == 2 and all(len(row["seconds"]) == 2 for row in result["rungs"])
    assert all(row["decode_steps_timed"] == 2 for row in result["rungs"])


@pytest.mark.parametrize("script", ["ladder", "peers"])
def test_a_capped_run_does_not_replace_published_results(script, monkeypatch, capsys, tmp_path):
    parse = __import__(script).parse_arguments
    monkeypatch.setenv("COURSE_REPEATS", "1")
    with pytest.raises(SystemExit):
        parse([])
    said = capsys.readouterr().err
    assert "COURSE_REPEATS is set to 1, which leaves out rounds" in said
    assert f"would replace benchmarks/results/{script}-cpu.json" in said
    assert "unset COURSE_REPEATS, or name another file with --out" in said
    assert parse(["--out", str(tmp_path / "a.json")]).out == tmp_path / "a.json"
    assert parse(["--quick"]).out.parent == results_file.BUILD
    with pytest.raises(SystemExit):
        parse(["--quick", "--out", str(results_file.RESULTS / "a.json")])
    monkeypatch.delenv("COURSE_REPEATS")
    assert parse([]).out == results_file.RESULTS / f"{script}-cpu.json"
    with pytest.raises(SystemExit):
        parse(["--repeats", "2"])
    assert "takes 3 rounds or more; name another file with --out" in capsys.readouterr().err


def test_another_model_does_not_replace_published_results():
    assert ladder.parse_arguments(["--model", "gpt2"]).out == results_file.BUILD / "ladder-cpu.json"


def test_an_incomplete_result_does_not_replace_a_published_one(capsys, tmp_path):
    published = results_file.RESULTS / "ladder-cpu.json"
    assert results_file.where_to_write(published, []) == published
    assert results_file.where_to_write(tmp_path / "a.json", ["KV cache"]) == tmp_path / "a.json"
    assert capsys.readouterr().out == ""
    assert results_file.where_to_write(published, ["KV cache"]) == results_file.BUILD / "ladder-cpu.json"
    assert capsys.readouterr().out == (
        "benchmarks/results/ladder-cpu.json stays as it is, because this run lacks KV cache; "
        "it is in build/ladder-cpu.json instead\n"
    )


# --- The parts ---------------------------------------------------------------------------------------


def test_an_embedding_that_is_only_looked_up_is_not_read(gpt2):
    whole = utils.size_in_bytes(gpt2)
    assert rung_steps.bytes_read(gpt2) == whole  # tied: the head reads it
    packed = utils.pack_model(gpt2.float())
    assert rung_steps.bytes_read(packed) < utils.size_in_bytes(packed)


def test_packed_fp32_leaves_the_storyteller_alone_and_int8_nearly():
    sample, (first, packed, _, int8, engine) = rung_quality.storyteller_quality(rungs.RUNGS[3:8], "cpu")
    assert rungs.RUNGS[7].engine and engine == packed
    assert packed["storyteller_same_answers"] == packed["storyteller_answers"] == 32
    assert packed["storyteller_perplexity"] == pytest.approx(first["storyteller_perplexity"], abs=2e-3)
    assert int8["storyteller_perplexity"] == pytest.approx(first["storyteller_perplexity"], rel=0.01)
    committed = json.loads((results_file.RESULTS / "ladder-cpu.json").read_text(encoding="utf-8"))
    assert sample == committed["storyteller_sample"]


def test_peak_memory_sees_what_was_there_only_for_a_while():
    process = psutil.Process()
    before = process.memory_info().rss
    with rung_memory.PeakMemory(process) as peak:
        block = np.ones(100_000_000, dtype=np.uint8)
        torch.ones(10).sum()
        for _ in range(20):
            block += 1
        del block
    assert peak.rss - before > 80_000_000


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    memory = rung_memory.memory_of("packed int8, head too", "cpu")
    assert 1e8 < memory["resident_bytes"] <= memory["peak_bytes"] < 5e8
