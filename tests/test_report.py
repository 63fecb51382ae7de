"""What README and notes say was measured is what the results files hold, and those are of whole runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import ladder
import peers
import report


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "table", "results"),
    [
        ("README.md", report.ladder_table, "ladder-cpu.json"),
        ("notes/Lesson_0.md", report.decode_step_table, "ladder-cpu.json"),
        ("notes/Lesson_0.md", report.decode_step_caption, "ladder-cpu.json"),
        ("notes/Lesson_0.md", report.peers_table, "peers-cpu.json"),
        ("notes/Lesson_0.md", report.peers_caption, "peers-cpu.json"),
    ],
)
def test_tables_are_those_of_the_results(page, table, results):
    expected = table(report.read(results))
    assert expected.count("\n") > 2
    assert expected in text_of(page), f"{page} does not show {results}; run benchmarks/report.py and paste its table"


def test_a_table_puts_numbers_on_the_right():
    assert report.markdown(["a", "b"], [["x", "1.0"], ["y", "2"]]) == (
        "| a | b |\n| --- | ---: |\n| x | 1.0 |\n| y | 2 |"
    )


def test_the_committed_ladder_is_a_whole_run():
    result = report.read("ladder-cpu.json")
    assert result["requests"] == 32 and result["tokens"] == 680 and result["device"] == "cpu"
    assert [row["name"] for row in result["rungs"]] == [rung.name for rung in ladder.RUNGS]
    for row in result["rungs"]:
        assert len(row["seconds"]) >= 3 and row["resident_bytes"] > 1e8
        assert row["same_answers"] == result["requests"] or not row["exact"]
        assert row["storyteller_perplexity"] == pytest.approx(result["rungs"][0]["storyteller_perplexity"], rel=0.01)
    assert [queue["requests"] for queue in result["queues"]] == [32, 1000, 10_000]


def test_the_committed_peers_are_all_there_and_fp32_has_our_tokens():
    result = report.read("peers-cpu.json")
    assert [row["key"] for row in result["systems"]] == [system.key for system in peers.SYSTEMS]
    assert result["skipped"] == [] and result["rounds"] >= 3
    for row in result["systems"]:
        assert row["tokens"]["equal_requests"] == result["requests"] or row["precision"] != "fp32"


def test_results_tell_no_paths():
    for path in report.RESULTS.glob("*.json"):
        assert "/" not in path.read_text(encoding="utf-8"), path.name
