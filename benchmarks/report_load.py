"""What the page says about the servers: what load.py has measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from markdown_text import listed, markdown, wrap

OURS = "this server"


class Aim(NamedTuple):
    """What was measured, and what was aimed at."""

    what: str
    measured: float
    bound: str  # "at least" or "at most"
    target: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.target if self.bound == "at least" else self.measured <= self.target


def load_targets(result: dict[str, Any]) -> str:
    """A row per aim: what was measured, what was aimed at, and whether that was reached."""
    rows = [
        [aim.what, f"{aim.measured:.2f}{aim.unit}", f"{aim.bound} {aim.target:g}{aim.unit}", "yes" if aim.met else "no"]
        for aim in aims(result)
    ]
    return markdown(["What", "Measured", "Aim", "Reached"], rows)


def aims(result: dict[str, Any]) -> list[Aim]:
    """All of them; ratios are of the medians of rounds that took turns."""
    small, large = result["closed"]["storyteller"], result["closed"]["gpt2-sized"]
    return [
        Aim("storyteller: tokens per second, vLLM's are 1", over_vllm(small, "tokens_per_s"), "at least", 1.5),
        Aim("storyteller: median TTFT, vLLM's is 1", over_vllm(small, "ttft_s"), "at most", 1),
        Aim("storyteller: median TPOT, vLLM's is 1", over_vllm(small, "tpot_s"), "at most", 1),
        Aim("GPT-2's size: tokens per second, vLLM's are 1", over_vllm(large, "tokens_per_s"), "at least", 1),
        Aim(
            "GPT-2's size: speed over HTTP, the engine's alone is 1",
            result["http"]["server_by_engine"],
            "at least",
            0.85,
        ),
        Aim("storyteller: time from the start until it is ready", small[OURS]["ready_s"], "at most", 10, " s"),
    ]


def over_vllm(rows: dict[str, Any], key: str) -> float:
    """This server's number divided by vLLM's."""
    return rows[OURS][key] / rows["vLLM"][key]


def load_reading(result: dict[str, Any]) -> str:
    """The closed loop in numbers, and how much each system serves in time at the highest rate."""
    closed = [
        f"on {name} this server makes {rows[OURS]['tokens_per_s']:.0f} tokens per second and vLLM "
        f"{rows['vLLM']['tokens_per_s']:.0f} (median TTFT {rows[OURS]['ttft_s'] * 1e3:.0f} and "
        f"{rows['vLLM']['ttft_s'] * 1e3:.0f} ms, median TPOT {rows[OURS]['tpot_s'] * 1e3:.1f} and "
        f"{rows['vLLM']['tpot_s'] * 1e3:.1f} ms)"
        for name, rows in (
            ("the storyteller", result["closed"]["storyteller"]),
            ("the model of GPT-2's size", result["closed"]["gpt2-sized"]),
        )
    ]
    promise = result["promise"]
    knees = listed([f"{knee(rows) or 'none'} ({system})" for system, rows in by_system(result).items()])
    return wrap(
        f"With 8 requests at a time, 32 tokens in and 32 out, {listed(closed)}. In the picture requests arrive at "
        "random, whatever becomes of those before them. An answer is in time if its first token comes within "
        f"{promise['ttft_s'] * 1e3:.0f} ms and each further one within {promise['tpot_s'] * 1e3:.0f} ms on average. "
        f"The highest rates per second, up to which nine of ten answers are in time, are {knees}."
    )


def generators_table(result: dict[str, Any]) -> str:
    """What each load generator says of the same server under the same load."""
    load = result["load"]
    caption = (
        f"Three load generators take turns at this server ({load['requests']} requests for the storyteller, "
        f"{load['at_a_time']} at a time, {load['prompt_tokens']} tokens in, {load['max_tokens']} out, "
        f"{result['threads']} thread), and each gets every answer."
    )
    rows = [
        [
            f"{name} {row['version']}",
            f"{row['requests']} of {row['requests']}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['ttft_s'] * 1e3:.0f}",
            f"{row['tpot_s'] * 1e3:.1f}",
        ]
        for name, row in result["generators"].items()
    ]
    header = ["Load generator", "Answers", "Tokens/s", "Median TTFT, ms", "Median TPOT, ms"]
    return wrap(caption) + "\n\n" + markdown(header, rows)


def by_system(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of the open loop for each system, by rising rate."""
    names = dict.fromkeys(row["system"] for row in result["open"])
    rows = sorted(result["open"], key=lambda row: row["rate_per_s"])
    return {name: [row for row in rows if row["system"] == name] for name in names}


def knee(rows: Sequence[dict[str, Any]], share: float = 0.9) -> float:
    """The highest rate up to which this share of the answers is in time, at it and at all lower ones; 0 if none."""
    best = 0.0
    for row in rows:
        if row["in_time"] < share * row["asked"]:
            break
        best = row["rate_per_s"]
    return best
