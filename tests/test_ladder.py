"""benchmarks/ladder.py: every rung serves the same requests, and the JSON says what was measured."""

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
from conftest import tiny_model


@pytest.fixture(scope="module")
def result(tmp_path_factory, tokenizer) -> dict[str, Any]:
    """What a quick run on a tiny model writes."""
    folder = tmp_path_factory.mktemp("ladder")
    tiny_model("gpt2").float().save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    out = folder / "ladder.json"
    assert ladder.main(["--quick", "--model", str(folder / "tiny"), "--out", str(out)]) == 0
    assert [path.name for path in folder.iterdir() if path.suffix == ".unfinished"] == []
    return json.loads(out.read_text())


def test_rungs_up_to_packed_fp32_change_no_token(result):
    rows = {row["name"]: row for row in result["rungs"]}
    assert list(rows) == [rung.name for rung in ladder.RUNGS]
    exact = [row for row in rows.values() if row["exact"]]
    assert len(exact) == 5 and all(row["same_answers"] == result["requests"] for row in exact)
    assert all(0 <= row["same_answers"] <= result["requests"] for row in rows.values())


def test_forwards_are_those_that_can_be_counted(result):
    forwards = {row["name"]: row["forwards"] for row in result["rungs"]}
    workload = result["workload"]
    per_batch = workload["long_tokens"]
    assert result["tokens"] == 2 * workload["long_tokens"] + 6 * workload["short_tokens"]
    assert forwards["one at a time, no cache"] == forwards["KV cache"] == result["tokens"]
    assert forwards["static batches"] == 2 * per_batch
    assert per_batch <= forwards["continuous batching"] < forwards["static batches"]
    assert len({forwards[rung.name] for rung in ladder.RUNGS[3:]}) == 1


def test_rates_and_ratios_follow_from_the_seconds(result):
    first = result["rungs"][0]
    before = first
    for row in result["rungs"]:
        assert len(row["seconds"]) == 1 and row["median_s"] == row["seconds"][0] > 0
        assert row["tokens_per_s"] == pytest.approx(result["tokens"] / row["median_s"])
        assert row["times_the_first"] == pytest.approx(first["median_s"] / row["median_s"])
        assert row["times_the_rung_before"] == pytest.approx(before["median_s"] / row["median_s"])
        floor_s = row["forwards"] * row["bytes_read_per_forward"] / result["bandwidth_bytes_per_s"]
        assert row["times_the_floor"] == pytest.approx(row["median_s"] / floor_s)
        before = row


def test_the_machine_is_described_and_no_path_is_told(result):
    assert {"torch", "transformers", "python"} <= result["machine"].keys()
    assert str(ROOT) not in json.dumps({**result, "model": ""})
    assert ladder.table(result).count("\n") == len(result["rungs"]) + 1 + len(result["queues"])


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
    requests = ladder.COURSE.make(100)
    assert [request.max_tokens for request in requests] == [100 if i % 8 == 0 else 10 for i in range(32)]
    assert {len(request.prompt) for request in requests} == {7}
    assert len({tuple(request.prompt) for request in requests}) == 32


def test_a_rung_that_changes_a_token_is_not_timed(gpt2, monkeypatch):
    def corrupt(model):
        changed = tiny_model("gpt2", seed=1)
        return changed.float()

    rungs = (ladder.RUNGS[1], dataclasses.replace(ladder.RUNGS[3], prepare=corrupt))
    monkeypatch.setattr(ladder, "RUNGS", rungs)
    with pytest.raises(AssertionError, match="'continuous batching' changes a token"):
        ladder.climb(gpt2.float(), ladder.QUICK, "cpu", 1, quality=False, memory=False)


def test_an_embedding_that_is_only_looked_up_is_not_read(gpt2):
    whole = ladder.size_in_bytes(gpt2)
    assert ladder.bytes_read(gpt2) == whole  # tied: the head reads it
    packed = ladder.pack_model(gpt2.float())
    assert ladder.bytes_read(packed) < ladder.size_in_bytes(packed)


def test_packed_fp32_leaves_the_storyteller_alone_and_int8_nearly():
    first, packed, _, int8 = ladder.storyteller_quality(ladder.RUNGS[3:], "cpu")
    assert packed["storyteller_same_answers"] == packed["storyteller_answers"] == 32
    assert packed["storyteller_perplexity"] == pytest.approx(first["storyteller_perplexity"], abs=2e-3)
    assert int8["storyteller_perplexity"] == pytest.approx(first["storyteller_perplexity"], rel=0.01)


def test_peak_memory_sees_what_was_there_only_for_a_while():
    process = psutil.Process()
    before = process.memory_info().rss
    with ladder.PeakMemory(process) as peak:
        block = np.ones(100_000_000, dtype=np.uint8)
        torch.ones(10).sum()
        for _ in range(20):
            block += 1
        del block
    assert peak.rss - before > 80_000_000
