"""A long prompt arrives among decoding rows: how long these wait for their next token, with chunks and without.

step_tokens = 32     7 rows and 25 tokens of the prompt, again and again: every step is a little longer
step_tokens = 2048   7 rows and the whole prompt: one step that is much longer
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from engine import Engine, Sampling
from engine_sizes import ROWS, Outcome, Sizes, Target, random_prompts
from packed import pack_model

STEPS_BEFORE, TOKENS_AFTER = 16, 4  # decode steps before the prompt arrives, and tokens that it gets
AT_MOST = 3.0  # ordinary steps


def measure(sizes: Sizes) -> Outcome:
    """Let the prompt arrive with every budget of tokens per step, in turn."""
    measured, lines, targets = {}, [], []
    for name, make in sizes.long_models().items():
        rows = measured[name] = with_budgets(f"{name}, chunks", pack_model(make()), sizes)
        lines += table(name, rows)
        *chunked, whole = rows
        best = min(chunked, key=lambda row: row["longest_gap_in_ordinary_steps"])
        what = f"{name}: longest gap in ordinary steps, {best['step_tokens']} tokens per step"
        targets.append(Target(what, best["longest_gap_in_ordinary_steps"], AT_MOST, "at most"))
    return Outcome(measured, lines, targets)


def with_budgets(label: str, model: PreTrainedModel, sizes: Sizes) -> list[dict[str, Any]]:
    """A row per budget: medians over the rounds, and the gaps of the last round for a figure."""
    runs: dict[int, list[dict[str, Any]]] = {budget: [] for budget in sizes.step_budgets}
    (prompt,) = random_prompts(model, 1, sizes.long_prompt, seed=1)
    for _ in tqdm(range(sizes.long_repeats), desc=label, leave=False):
        for budget, rounds in runs.items():
            rounds.append(arrival(model, prompt, budget))
    return [
        {
            "step_tokens": budget,
            **{key: median(run[key] for run in rounds) for key in ("ordinary_step_s", "longest_gap_s", "ttft_s")},
            "longest_gap_in_ordinary_steps": median(run["longest_gap_s"] / run["ordinary_step_s"] for run in rounds),
            "rounds": [{key: run[key] for key in run if key != "gaps_s"} for run in rounds],
            "gaps_s": rounds[-1]["gaps_s"],
        }
        for budget, rounds in runs.items()
    ]


def arrival(model: PreTrainedModel, prompt: Sequence[int], step_tokens: int) -> dict[str, Any]:
    """Let the prompt arrive among rows that decode, and see how long these wait for each of their tokens.

    Of one decoding row, `gaps_s` has (when the gap ended, since the prompt arrived; how long it was).
    """
    others = ROWS - 1
    steps = STEPS_BEFORE + -(-len(prompt) // (step_tokens - others)) + TOKENS_AFTER + 16  # more than are needed
    room = others * (steps + 32) + len(prompt) + 2 * 16 * ROWS
    engine = Engine(model, None, ROWS, step_tokens, cache_tokens=room)
    numbers = [engine.add(ids, Sampling(steps, ignore_eos=True)) for ids in random_prompts(model, others, 8)]
    decoding = [engine.requests[number] for number in numbers]
    while min(request.output_tokens for request in decoding) <= STEPS_BEFORE:
        engine.step()
    newcomer = engine.requests[engine.add(prompt, Sampling(TOKENS_AFTER, ignore_eos=True))]
    while newcomer.output_tokens < TOKENS_AFTER:
        engine.step()
    common = min(request.output_tokens for request in decoding)  # the first ones were admitted earlier
    ends = np.array([request.token_times_s[-common:] for request in decoding])  # (rows, tokens)
    gaps, ends, first_s = np.diff(ends), ends[:, 1:], newcomer.token_times_s[0]
    before, during = ends <= newcomer.arrival_s, (ends > newcomer.arrival_s) & (ends <= first_s)
    return {
        "ordinary_step_s": float(np.median(gaps[before])),
        "longest_gap_s": float(gaps[during].max()),
        "ttft_s": first_s - newcomer.arrival_s,
        "gaps_s": np.stack([ends[0] - newcomer.arrival_s, gaps[0]], axis=1).tolist(),
    }


def table(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line per budget."""
    lines = [f"{name:28}{'ordinary ms':>12}{'longest gap ms':>16}{'in steps':>10}{'TTFT of the prompt s':>22}"]
    for row in rows:
        budget = f"  {row['step_tokens']} tokens per step"
        lines.append(
            f"{budget:28}{row['ordinary_step_s'] * 1e3:12.1f}"
            f"{row['longest_gap_s'] * 1e3:16.1f}{row['longest_gap_in_ordinary_steps']:10.1f}{row['ttft_s']:22.2f}"
        )
    return lines
