"""What README and the notes say was measured is what the results files hold, and these come from whole runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import peers
import report
import report_engine
import rungs


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PAGES = ("README.md", report.LADDER_PAGE)


@pytest.mark.parametrize("block", report.BLOCKS, ids=lambda block: f"{block.page}-{block.make.__name__}")
def test_pages_show_what_the_results_say(block):
    assert len(block.text) > 100
    assert block.text in text_of(block.page), (
        f"{block.page} does not show {block.results}; run benchmarks/report.py --write"
    )


def test_every_place_on_a_page_has_its_block():
    for page in PAGES:
        names = [block.make.__name__ for block in report.BLOCKS if block.page == page]
        assert re.findall(r"<!-- measured: (\w+) -->", text_of(page)) == names


@pytest.fixture
def copy_of_pages(tmp_path) -> Path:
    """The pages in a folder of their own."""
    (tmp_path / "notes").mkdir()
    for page in PAGES:
        (tmp_path / page).write_text(text_of(page), encoding="utf-8")
    return tmp_path


def test_pages_are_written_where_they_differ(copy_of_pages):
    assert report.write_pages(copy_of_pages) == []
    ladder = copy_of_pages / report.LADDER_PAGE
    ladder.write_text(ladder.read_text(encoding="utf-8").replace("32 of 32", "31 of 32"), encoding="utf-8")
    assert report.write_pages(copy_of_pages) == [report.LADDER_PAGE]
    assert ladder.read_text(encoding="utf-8") == text_of(report.LADDER_PAGE)


def test_no_other_page_has_a_place():
    """A table on a page that the program does not write would grow old unseen."""
    with_places = [path for path in (ROOT / "notes").glob("*.md") if "<!-- measured:" in path.read_text("utf-8")]
    assert [path.relative_to(ROOT).as_posix() for path in with_places] == [report.LADDER_PAGE]


def test_a_page_without_a_place_for_a_table_is_an_error(copy_of_pages):
    page = copy_of_pages / report.LADDER_PAGE
    page.write_text(page.read_text(encoding="utf-8").replace("<!-- measured: ladder_table -->", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="has 0 places for ladder_table"):
        report.write_pages(copy_of_pages)


def test_sentences_follow_the_numbers():
    ladder = report.read("ladder-cpu.json")
    static = next(row for row in ladder["rungs"] if row["name"] == "static batches")
    kv = next(row for row in ladder["rungs"] if row["name"] == "KV cache")
    static["median_s"] = 2 * kv["median_s"]
    assert "static batches are slower than no batches" in report.static_batches_text(ladder)
    static["median_s"] = kv["median_s"] / 2
    gain = report.static_batches_text(ladder)
    assert "slower" not in gain and "less of a gain than 400 forwards instead of 680 promise" in gain
    assert "not one token changes" in report.answers_text(ladder)
    kv["same_answers"] = 30
    assert "30 of 32 answers stay the same" in report.answers_text(ladder)


def test_what_is_said_of_the_engines_rungs_follows_the_numbers():
    ladder = report.read("ladder-cpu.json")
    rows = report_engine.engine_rungs(ladder)
    for row in rows:
        row |= {"forwards": 127, "median_s": 1.25, "times_the_rung_before": 1.5, "same_answers": 29}
    said = " ".join(report.count_and_clock(ladder).split())
    assert "needs 127 forwards instead of 132" in said and "1.50, 1.50 and 1.50 times as fast" in said
    assert "takes 1.2 s in fp32, 1.2 s in bf16 and 1.2 s in int8" in said
    said = " ".join(report.answers_text(ladder).split())
    assert "29 in fp32, 29 in bf16 and 29 in int8 of 32 answers" in said
    assert "Down to the rung *packed weights, fp32*" in said, "the rungs before are spoken of by themselves"


def test_what_is_said_of_the_engine_follows_the_numbers():
    engine = report.read("engine-cpu.json")
    engine["targets"][0] |= {"measured": 3.456, "target": 2.0, "met": True}
    assert "| 3.46 | at least 2.00 | yes |" in report.engine_targets(engine)
    engine["parts"]["speed"]["GPT-2's size, packed fp32"]["times_as_fast"] = 7.0
    engine["parts"]["slots"]["GPT-2's size"]["1500"]["pages_over_slots"] = 3.0
    engine["parts"]["chunks"]["GPT-2's size"][0]["ttft_s"] = 44.0
    engine["parts"]["overheads"]["greedy"]["10"]["share"] = 0.25
    said = " ".join(report.engine_reading(engine).split())
    for words in ("7.00 times as fast", "3.00 times with 1,500", "waits 44.0 s", "25.0 % of a greedy step"):
        assert words in said


def test_what_is_said_of_the_servers_follows_the_numbers():
    load = report.read("load-cpu.json")
    ours, vllm = (load["closed"]["storyteller"][name] for name in ("this server", "vLLM"))
    ours |= {"tokens_per_s": 300.0, "ready_s": 12.0}
    vllm |= {"tokens_per_s": 100.0}
    table = report.load_targets(load)
    assert "| storyteller: tokens per second, vLLM's are 1 | 3.00 | at least 1.5 | yes |" in table
    assert "| 12.00 s | at most 10 s | no |" in table
    assert "makes 300 tokens per second and vLLM 100" in " ".join(report.load_reading(load).split())


def test_a_system_that_is_slower_in_one_round_and_faster_in_another_is_called_a_tie():
    result = report.read("peers-cpu.json")
    rows = {row["key"]: row for row in result["systems"]}
    for key, ratios in (("transformers-static", (0.9, 1.0, 1.2)), ("transformers-manager", (1.1, 1.2, 1.3))):
        rows[key]["seconds"] = [r * s for r, s in zip(ratios, rows[rows[key]["like"]]["seconds"], strict=True)]
    tie = report.near_ties(rows)
    assert "from 0.90 to 1.20 for `generate`" in tie and "manager" not in tie
    rows["transformers-static"]["seconds"] = [2 * s for s in rows["ours-static"]["seconds"]]
    assert report.near_ties(rows) == ""


def test_positions_are_those_that_lesson_0_counts():
    one = {"requests": 1, "prompt_tokens": 7, "long_tokens": 100, "short_tokens": 10, "every": 8}
    assert report.positions(one, cached=False) == 5650 and report.positions(one, cached=True) == 106


def test_a_table_puts_numbers_on_the_right():
    assert report.markdown(["a", "b"], [["x", "1.0"], ["y", ""]]) == (
        "| a | b |\n| --- | ---: |\n| x | 1.0 |\n| y |  |"
    )


def test_the_committed_ladder_is_a_whole_run():
    result = report.read("ladder-cpu.json")
    assert result["requests"] == 32 and result["tokens"] == 680 and result["device"] == "cpu"
    assert [row["name"] for row in result["rungs"]] == [rung.name for rung in rungs.RUNGS]
    assert result["rounds"] >= 3 and result["left_out"] == []
    for row in result["rungs"]:
        assert len(row["seconds"]) == result["rounds"] and row["resident_bytes"] > 1e8
        assert row["same_answers"] == result["requests"] or not row["exact"]
        assert row["storyteller_perplexity"] == pytest.approx(result["rungs"][0]["storyteller_perplexity"], rel=0.01)
    assert [queue["requests"] for queue in result["queues"]] == [32, 1000, 10_000]


def test_the_committed_peers_are_all_there_and_fp32_has_our_tokens():
    result = report.read("peers-cpu.json")
    assert [row["key"] for row in result["systems"]] == [system.key for system in peers.SYSTEMS]
    assert result["skipped"] == [] and result["rounds"] >= 3
    for row in result["systems"]:
        assert row["tokens"]["equal_requests"] == result["requests"] or row["precision"] != "fp32"
        assert len(row["seconds"]) == result["rounds"]
    assert {row["key"]: row["like"] for row in result["systems"]} == {s.key: s.like for s in peers.SYSTEMS}


def test_results_tell_no_paths():
    for path in report.RESULTS.glob("*.json"):
        assert "/" not in path.read_text(encoding="utf-8"), path.name
