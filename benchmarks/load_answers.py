"""What one asker saw of an answer, and what follows for many: percentiles, and goodput."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers import Request

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Ask:
    """A request, and when it is sent, in seconds since the run began."""

    prompt: list[int]
    max_tokens: int
    arrival_s: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The times of one answer, in seconds, all by one clock. `tokens` is 0 for a request that was refused."""

    arrival_s: float
    first_s: float
    last_s: float
    tokens: int

    @property
    def ttft_s(self) -> float:
        """Time to first token, queueing included."""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; 0 for a single token."""
        return (self.last_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else 0.0


@dataclass(frozen=True)
class Promise:
    """What every asker is to get: goodput counts the answers that keep both."""

    ttft_s: float
    tpot_s: float

    def kept(self, answer: Answer) -> bool:
        """Whether this answer came in time."""
        return answer.tokens > 0 and answer.ttft_s <= self.ttft_s and answer.tpot_s <= self.tpot_s


def poisson(requests: Sequence[Request], rate: float, seed: int) -> list[Ask]:
    """The requests at random times, `rate` of them per second on average, whatever becomes of those before."""
    gaps_s = np.random.default_rng(seed).exponential(1 / rate, len(requests))
    times_s = np.cumsum(gaps_s).tolist()
    return [Ask(request.prompt, request.max_tokens, at_s) for request, at_s in zip(requests, times_s, strict=True)]


def summary(answers: Sequence[Answer], promise: Promise) -> dict[str, Any]:
    """Of one run: how many were answered, at what rate, how fast, and how many of them in time."""
    given = [answer for answer in answers if answer.tokens]
    seconds = max(answer.last_s for answer in given) - min(answer.arrival_s for answer in answers)
    kept = sum(map(promise.kept, answers))
    return {
        "asked": len(answers),
        "answered": len(given),
        "seconds": seconds,
        "tokens_per_s": sum(answer.tokens for answer in given) / seconds,
        "ttft_s": percentiles([answer.ttft_s for answer in given]),
        "tpot_s": percentiles([answer.tpot_s for answer in given if answer.tokens > 1]),
        "in_time": kept,
        "goodput_per_s": kept / seconds,
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The percentiles by name: {"p50": ..., ...}."""
    return {f"p{percent}": float(np.percentile(seconds, percent)) for percent in PERCENTILES}
