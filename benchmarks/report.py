"""The tables of the README and of the notes, from what ladder.py and peers.py have written to results/.

    python benchmarks/report.py    print them, to be pasted in

A test holds what is pasted equal to what is printed.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BASELINES = {"fp32": "ours-packed", "bf16": "ours-packed-bf16", "int8": "ours-packed-int8-head"}  # of the ratios


def read(name: str) -> dict[str, Any]:
    """One results file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def ladder_table(result: dict[str, Any]) -> str:
    """A row per rung: how long, how much faster, and how many answers are still those of the first rung."""
    header = ["", "Seconds", "Tokens/s", "Times the first", "Forwards", "Same answers"]
    rows = [
        [
            row["name"],
            f"{row['median_s']:.1f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['times_the_first']:.1f}",
            f"{row['forwards']}",
            f"{row['same_answers']} of {result['requests']}",
        ]
        for row in result["rungs"]
    ]
    return markdown(header, rows)


def peers_table(result: dict[str, Any]) -> str:
    """A row per system, slowest first: how long, and how many times as long as ours in the same precision."""
    header = ["System", "Weights", "Batching", "Seconds", "Times ours", "Same answers"]
    rows = [
        [
            row["label"],
            row["precision"],
            row["batching"],
            f"{row['median_s']:.2f}",
            f"{row['times_ours'][BASELINES[row['precision']]]:.2f}",
            f"{row['tokens']['equal_requests']} of {row['tokens']['requests']}",
        ]
        for row in sorted(result["systems"], key=lambda row: -row["median_s"])
    ]
    return markdown(header, rows)


def decode_step_table(result: dict[str, Any]) -> str:
    """A row per kind of weights: one decode step, its floor, the memory of the process, and what text costs."""
    slots = str(result["workload"]["slots"])
    header = ["Weights", "1 row, ms", f"{slots} rows, ms", "Floor, ms", "1 row / floor", "Resident, MB", "Perplexity"]
    header.append("Answers unchanged")
    rows = [
        [
            row["name"].replace("continuous batching", "as they are, fp32").replace(" weights", ""),
            f"{row['decode_step_s']['1'] * 1e3:.1f}",
            f"{row['decode_step_s'][slots] * 1e3:.1f}",
            f"{row['floor_of_a_forward_s'] * 1e3:.1f}",
            f"{row['decode_step_s']['1'] / row['floor_of_a_forward_s']:.1f}",
            f"{row['resident_bytes'] / 1e6:.0f}",
            f"{row['storyteller_perplexity']:.4f}",
            f"{row['storyteller_same_answers']} of {row['storyteller_answers']}",
        ]
        for row in result["rungs"][3:]
    ]
    return markdown(header, rows)


def decode_step_caption(result: dict[str, Any]) -> str:
    """What the columns of `decode_step_table` mean."""
    bandwidth = result["bandwidth_bytes_per_s"] / 1e9
    before, after = (value / 1e9 for value in result["bandwidth_before_and_after_bytes_per_s"])
    return wrap(
        f"Floor: the weights' bytes over a memory bandwidth of {bandwidth:.1f} GB/s, the better of two measurements in "
        f"the same run ({before:.1f} and {after:.1f}: on a shared machine it comes and goes). Resident: what the "
        "process grows by. Packed models hold the embedding twice, for the lookup and packed for the output head. "
        f"Perplexity and answers are those of the storyteller, on 60 held-out documents. Processor: "
        f"{result['machine']['processor']}."
    )


def peers_caption(result: dict[str, Any]) -> str:
    """What the columns of `peers_table` mean."""
    return wrap(
        "Times ours: how many times as long as this project's packed model in the same precision (int8: with the "
        f"head), taken within each of {result['rounds']} rounds; the median of these need not be the ratio of the "
        "medians. Every fp32 system finds the same tokens. OpenVINO GenAI is ahead. One difference is that it compiles "
        "the whole forward into one graph, where the loop here starts every operation from Python; and its int8, "
        "unlike ours, also computes in bf16 and keeps the cache in 8 bits where the processor can."
    )


def wrap(text: str) -> str:
    """Lines as long as those of the notes."""
    return "\n".join(textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with numbers on the right."""
    numeric = [all(row[column][:1].isdigit() for row in rows) for column in range(len(header))]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def main() -> None:
    """Print the tables."""
    ladder, peers = read("ladder-cpu.json"), read("peers-cpu.json")
    for part in (ladder_table(ladder), decode_step_table(ladder), decode_step_caption(ladder)):
        print(part, end="\n\n")
    for part in (peers_table(peers), peers_caption(peers)):
        print(part, end="\n\n")


if __name__ == "__main__":
    main()
