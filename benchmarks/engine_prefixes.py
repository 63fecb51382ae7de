"""Requests over one long prefix, and requests with a prefix of their own each: with and without the prefix cache."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from engine import Engine, Request, Sampling
from engine.scheduler import Scheduler
from engine_sizes import ROWS, Outcome, Sizes, Target, random_prompts
from measure import Trace
from packed import pack_model

QUESTION_TOKENS, ANSWER_TOKENS = 16, 4  # behind the prefix, and of each answer
AT_LEAST, AT_MOST = 5.0, 1.05


class WithoutPrefixes(Scheduler):
    """Computes no key of any block, so no block is ever found again."""

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        request.block_keys = lambda count, block_tokens: []
        super().add(request)


SCHEDULERS = {"with": Scheduler, "without": WithoutPrefixes}


def measure(sizes: Sizes) -> Outcome:
    """Serve both kinds of requests with both schedulers, in turn."""
    measured, lines, targets = {}, [], []
    for name, make in sizes.long_models().items():
        row = measured[name] = with_and_without(f"{name}, prefixes", pack_model(make()), sizes)
        lines += table(name, row)
        gain, cost = row["shared"]["without_over_with"], 1 / row["own"]["without_over_with"]
        targets += [
            Target(f"{name}: one prefix: median TTFT without the prefix cache, with it is 1", gain, AT_LEAST),
            Target(
                f"{name}: own prefixes: median TTFT with the prefix cache, without it is 1", cost, AT_MOST, "at most"
            ),
        ]
    return Outcome(measured, lines, targets)


def prompts_of(model: PreTrainedModel, sizes: Sizes) -> dict[str, list[list[int]]]:
    """The same questions behind one prefix, and behind one prefix each."""
    questions = random_prompts(model, sizes.sharers, QUESTION_TOKENS)
    prefixes = random_prompts(model, sizes.sharers, sizes.prefix, seed=1)
    return {
        "shared": [prefixes[0] + question for question in questions],
        "own": [prefix + question for prefix, question in zip(prefixes, questions, strict=True)],
    }


def with_and_without(label: str, model: PreTrainedModel, sizes: Sizes) -> dict[str, Any]:
    """For each kind of requests: the median TTFT of every round, the ratio, and how many answers are the same."""
    prompts = prompts_of(model, sizes)
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {(p, s): [] for p in prompts for s in SCHEDULERS}
    for _ in tqdm(range(sizes.long_repeats), desc=label, leave=False):
        for (kind, scheduler), rounds in runs.items():
            rounds.append(serve(model, prompts[kind], SCHEDULERS[scheduler], sizes.prefix_budget))
    result = {}
    for kind in prompts:
        with_cache, without = runs[kind, "with"], runs[kind, "without"]
        pairs = list(zip(without, with_cache, strict=True))
        result[kind] = {
            "with_ttft_s": [run["median_ttft_s"] for run in with_cache],
            "without_ttft_s": [run["median_ttft_s"] for run in without],
            "without_over_with": median(one["median_ttft_s"] / other["median_ttft_s"] for one, other in pairs),
            "total_without_over_with": median(one["total_s"] / other["total_s"] for one, other in pairs),
            "cached_tokens": with_cache[-1]["cached_tokens"],
            "cached_tokens_without": without[-1]["cached_tokens"],
            "same_answers": sum(map(list.__eq__, with_cache[-1]["answers"], without[-1]["answers"])),
            "requests": sizes.sharers,
        }
    return result


def serve(
    model: PreTrainedModel, prompts: Sequence[list[int]], scheduler: type[Scheduler], step_tokens: int
) -> dict[str, Any]:
    """Serve requests that all come at once."""
    longest = len(prompts[0]) + ANSWER_TOKENS
    engine = Engine(model, None, ROWS, step_tokens, cache_tokens=ROWS * (longest + 16))
    engine.scheduler = scheduler(engine.scheduler.blocks, ROWS, step_tokens)
    for prompt in prompts:
        engine.add(prompt, Sampling(ANSWER_TOKENS, ignore_eos=True))
    ended, trace = engine.run(), Trace()
    trace.read(ended, slots=ROWS)
    return {
        "median_ttft_s": float(np.median(trace.ttft_s())),
        "total_s": trace.total_s,
        "cached_tokens": sum(request.cached_tokens for request in ended),
        "answers": [request.output_ids for request in ended],
    }


def table(name: str, kinds: dict[str, dict[str, Any]]) -> list[str]:
    """A line per kind of requests."""
    lines = [f"{name:28}{'TTFT without s':>16}{'with s':>9}{'times':>8}{'total, times':>14}{'same answers':>14}"]
    for kind, row in kinds.items():
        words = {"shared": "  one prefix", "own": "  a prefix each"}[kind]
        same = f"{row['same_answers']} of {row['requests']}"
        lines.append(
            f"{words:28}{median(row['without_ttft_s']):16.3f}{median(row['with_ttft_s']):9.3f}"
            f"{row['without_over_with']:8.2f}{row['total_without_over_with']:14.2f}"
            f"{same:>14}"
        )
    return lines
