"""What the pages say about the engine: its rungs on the ladder, and what was aimed at in engine_measures.py.

Results that were measured before the engine had any rungs have nothing about it, and neither have the pages then.
"""

from __future__ import annotations

from typing import Any

from markdown_text import listed, markdown, wrap


def plain_rungs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rungs that the functions of `helpers` serve."""
    return [row for row in result["rungs"] if not row.get("engine")]


def engine_rungs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The engine's rungs, none in older results."""
    return [row for row in result["rungs"] if row.get("engine")]


def weights_of(row: dict[str, Any]) -> str:
    """What the weights of an engine's rung are: fp32, bf16 or int8."""
    return row["name"].rpartition(" ")[2]


def engine_answers(result: dict[str, Any]) -> str:
    """A sentence on how many answers the engine leaves as they are; nothing where it has no rungs."""
    rows = engine_rungs(result)
    if not rows:
        return ""
    counts = listed([f"{row['same_answers']} in {weights_of(row)}" for row in rows])
    trained = listed([f"{row['storyteller_same_answers']} in {weights_of(row)}" for row in rows])
    return (
        f"The engine reads the same packed weights in forwards of its own: {counts} of {result['requests']} answers "
        f"with random weights are those of the first rung, and {trained} of {rows[0]['storyteller_answers']} answers "
        "of the storyteller. "
    )


def engine_gain(result: dict[str, Any]) -> list[str]:
    """A paragraph on what the engine gains over `run_continuous`; none where it has no rungs."""
    rows = engine_rungs(result)
    if not rows:
        return []
    beside = {row["name"]: row for row in plain_rungs(result)}[rows[0]["rung_before"]]
    seconds = listed([f"{row['median_s']:.1f} s in {weights_of(row)}" for row in rows])
    gains = listed([f"{row['times_the_rung_before']:.2f}" for row in rows])
    return [
        "**The engine.** One forward of the engine reads the prompts of newcomers together with the next tokens of the "
        f"rows that run already, so it needs {rows[0]['forwards']} forwards instead of {beside['forwards']}. On the "
        f"same packed weights the workload takes {seconds}, which is {gains} times as fast as continuous batching."
    ]


def engine_targets(result: dict[str, Any]) -> str:
    """A row per target: what was measured, what was aimed at, and whether that was reached."""
    rows = [
        [
            row["what"],
            f"{row['measured']:.{decimals(row)}f}",
            f"{row['bound']} {row['target']:.{decimals(row)}f}",
            "yes" if row["met"] else "no",
        ]
        for row in result["targets"]
    ]
    table = markdown(["What", "Measured", "Aim", "Reached"], rows)
    machine = result["machine"]
    caption = wrap(
        "*Measured* is a ratio, the median over pairs of runs that took turns, except where a share is named. This run "
        f"had {machine['cpu threads']} threads on this processor: {machine['processor']}."
    )
    return f"{table}\n\n{caption}"


def decimals(row: dict[str, Any]) -> int:
    """How many decimals a target's numbers need: shares are small."""
    return 3 if row["target"] < 0.1 else 2
