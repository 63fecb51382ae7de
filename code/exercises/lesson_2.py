"""The checks of Lesson 2, batching."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checking import Function, compare_function, compare_number, exercise


@exercise("batches of similar lengths are nearly all tokens, which is why batch jobs sort by length")
def check_padding_cells(padding_one_batch: int | None, padding_two_batches: int | None) -> None:
    """Exercise 2.1: padding cells of one batch, and of two that were sorted by length."""
    lengths = [12, 7, 31, 4, 28, 18]
    cells = len(lengths) * max(lengths)
    mistakes = {
        "those are the real tokens": sum(lengths),
        "those are all cells, real tokens included": cells,
    }
    compare_number("padding_one_batch", padding_one_batch, _padding(lengths), mistakes)
    ordered = sorted(lengths)
    mistakes = {
        "sort the prompts by length before they are split": _padding(lengths[:3], lengths[3:]),
        "that is the batch of the short ones alone": _padding(ordered[:3]),
        "that is the batch of the long ones alone": _padding(ordered[3:]),
        "those are all cells, real tokens included": _padding(ordered[:3], ordered[3:]) + sum(lengths),
    }
    compare_number("padding_two_batches", padding_two_batches, _padding(ordered[:3], ordered[3:]), mistakes)


def _padding(*batches: list[int]) -> int:
    """The cells of padding in all these batches together, each of them given by its prompts' lengths."""
    return sum(max(batch) - length for batch in batches for length in batch)


def _batch_sizes(lengths: list[int], max_cells: int) -> list[int]:
    sizes = []
    rows = width = 0  # of the batch that is being filled
    for length in lengths:
        if rows > 0 and (rows + 1) * max(width, length) > max_cells:
            sizes.append(rows)
            rows = width = 0
        rows, width = rows + 1, max(width, length)
    return [*sizes, rows]


def _sizes_while(fits: Function) -> Function:
    """A way to cut a queue into batches: `fits(lengths, max_cells)` says whether the last may join."""

    def sizes(lengths: list[int], max_cells: int) -> list[int]:
        batches: list[list[int]] = [[]]
        for length in lengths:
            if batches[-1] and not fits([*batches[-1], length], max_cells):
                batches.append([])
            batches[-1].append(length)
        return [len(batch) for batch in batches]

    return sizes


def _without_the_last_batch(lengths: list[int], max_cells: int) -> list[int]:
    return _batch_sizes(lengths, max_cells)[:-1]


def _with_empty_batches(lengths: list[int], max_cells: int) -> list[int]:
    sizes = []
    rows = width = 0
    for length in lengths:
        if (rows + 1) * max(width, length) > max_cells:
            sizes.append(rows)
            rows = width = 0
        rows, width = rows + 1, max(width, length)
    return [*sizes, rows]


def _never_narrower(lengths: list[int], max_cells: int) -> list[int]:
    sizes, rows, width = [], 0, 0
    for length in lengths:
        width = max(width, length)
        if rows > 0 and (rows + 1) * width > max_cells:
            sizes.append(rows)
            rows = 0
        rows += 1
    return [*sizes, rows]


@exercise("a limit on cells lets many short prompts share a batch, and gives a long one more room of its own")
def check_batch_sizes(function: Function | None) -> None:
    """Exercise 2.2: batches under a limit on the cells of the rectangle."""
    cases = {
        "the example": ([5, 5, 2, 9, 1], 10),
        "a rectangle that fills the limit exactly": ([5, 5, 5, 2], 15),
        "prompts of one length": ([2, 2, 2, 2, 2, 2, 2], 6),
        "a prompt that is longer than the limit": ([2, 30, 3, 1], 10),
        "a prompt that is longer than the limit, and first": ([30, 2, 2], 10),
        "everybody in one batch": ([1, 7, 3], 100),
        "a single prompt": ([4], 10),
        "a long prompt behind short ones": ([1, 1, 1, 1, 6, 1], 12),
        "a long prompt before short ones": ([6, 1, 1, 1, 1], 12),
    }
    mistakes = {
        "pads are cells too: count rows times the longest, not the tokens": _sizes_while(
            lambda rows, most: sum(rows) <= most
        ),
        "a rectangle of exactly max_cells is allowed": _sizes_while(lambda rows, most: len(rows) * max(rows) < most),
        "a newcomer that is longer makes every row of the batch wider": _sizes_while(
            lambda rows, most: len(rows) * max(rows[:-1]) <= most
        ),
        "a batch is as wide as its longest prompt, not as its last one": _sizes_while(
            lambda rows, most: len(rows) * rows[-1] <= most
        ),
        "a batch is as wide as its longest prompt, not as its first one": _sizes_while(
            lambda rows, most: len(rows) * rows[0] <= most
        ),
        "the last batch is missing": _without_the_last_batch,
        "no batch is empty, also when its first prompt is longer than the limit": _with_empty_batches,
        "a new batch is only as wide as its own prompts": _never_narrower,
    }
    compare_function(function, _batch_sizes, cases, mistakes)


def _one_row(lengths: list[int]) -> tuple[Tensor, Tensor]:
    owners = [(prompt, position) for prompt, length in enumerate(lengths) for position in range(length)]
    positions = torch.tensor([position for _, position in owners])  # (N,)
    looks = [[mine == other and at <= now for other, at in owners] for mine, now in owners]
    return positions, torch.tensor(looks)  # (N,), (N, N)


def _one_row_of_one_prompt(lengths: list[int]) -> tuple[Tensor, Tensor]:
    return _one_row(lengths)[0], _one_row([sum(lengths)])[1]


def _one_row_numbered_through(lengths: list[int]) -> tuple[Tensor, Tensor]:
    return _one_row([sum(lengths)])[0], _one_row(lengths)[1]


def _one_row_looking_ahead(lengths: list[int]) -> tuple[Tensor, Tensor]:
    positions, looks = _one_row(lengths)
    return positions, looks | looks.T


@exercise("without a rectangle there are no pads; the mask alone keeps the prompts apart")
def check_one_row(function: Function | None) -> None:
    """Exercise 2.3: several prompts in one row, without padding."""
    cases = {
        "the example": ([2, 1],),
        "three prompts": ([3, 1, 4],),
        "one prompt": ([5],),
        "prompts of one token": ([1, 1, 1],),
        "prompts of one length": ([3, 3],),
    }
    mistakes = {
        "a token must not look at another prompt": _one_row_of_one_prompt,
        "every prompt counts its positions from 0": _one_row_numbered_through,
        "every prompt counts its positions from 0, and a token must not look at another prompt": lambda lengths: (
            _one_row([sum(lengths)])
        ),
        "a token must not look at those that come after it": _one_row_looking_ahead,
        "the row of the mask is the token that looks, the column the one it looks at": lambda lengths: (
            _one_row(lengths)[0],
            _one_row(lengths)[1].T,
        ),
        "True means that a token may look, False that it may not": lambda lengths: (
            _one_row(lengths)[0],
            ~_one_row(lengths)[1],
        ),
        "a token looks at itself too": lambda lengths: (
            _one_row(lengths)[0],
            _one_row(lengths)[1] & ~torch.eye(sum(lengths), dtype=torch.bool),
        ),
    }
    compare_function(function, _one_row, cases, mistakes)


def _crossover(
    weights: int, bytes_per_weight: float, cache_bytes: float, flops_per_s: float, bytes_per_s: float
) -> float:
    computing_s = 2 * weights / flops_per_s  # of each row
    reading_s = cache_bytes / bytes_per_s  # of each row: its own cache
    shared_s = weights * bytes_per_weight / bytes_per_s  # whatever the number of rows
    if computing_s <= reading_s:
        return math.inf
    return shared_s / (computing_s - reading_s)


def _crossover_unguarded(
    weights: int, bytes_per_weight: float, cache_bytes: float, flops_per_s: float, bytes_per_s: float
) -> float:
    gained_s = 2 * weights / flops_per_s - cache_bytes / bytes_per_s
    return weights * bytes_per_weight / bytes_per_s / gained_s if gained_s else 0.0


@exercise("every row reads a cache of its own, so with long caches the crossover comes later, or not at all")
def check_crossover_batch(function: Function | None) -> None:
    """Exercise 2.4: the batch size at which computing takes as long as reading weights and caches."""
    cases = {
        "the example": (100, 4, 10, 1200, 100),
        "no cache at all": (100, 4, 0, 1200, 100),
        "a cache that takes longer than the arithmetic": (100, 4, 40, 1200, 100),
        "a cache that takes as long as the arithmetic": (50, 4, 100, 100, 100),
        "GPT-2 small with 128 cached tokens a row, on a laptop": (124_439_808, 4, 128 * 73_728, 1e12, 40e9),
        "bfloat16 on a large GPU": (7_000_000_000, 2, 16_000_000, 989e12, 3.35e12),
        "one byte per weight": (7_000_000_000, 1, 16_000_000, 989e12, 3.35e12),
    }
    mistakes = {
        "every row reads its own cache": lambda w, size, cache, flops, speed: _crossover(w, size, 0, flops, speed),
        "every row reads a cache; this one is read once for all": lambda w, size, cache, flops, speed: _crossover(
            w, size + cache / w, 0, flops, speed
        ),
        "a multiplication and an addition are two operations": lambda w, size, cache, flops, speed: _crossover(
            w, size, cache, 2 * flops, speed
        ),
        "that is upside down": lambda *given: 1 / _crossover(*given),
        "operations per second and bytes per second have changed places": lambda w, size, cache, flops, speed: (
            _crossover(w, size, cache, speed, flops)
        ),
        "reading a weight takes longer the more bytes it has": lambda w, size, cache, flops, speed: _crossover(
            w, 1, cache, flops, speed
        ),
        "where every row reads longer than it computes, computing never catches up": _crossover_unguarded,
    }
    compare_function(function, _crossover, cases, mistakes)


def _batch_latencies(arrivals_s: list[float], batch_size: int, batch_s: float) -> list[float]:
    latencies, free_s = [], 0.0
    for first in range(0, len(arrivals_s), batch_size):
        batch = arrivals_s[first : first + batch_size]
        free_s = max(batch[-1], free_s) + batch_s
        latencies += [free_s - arrival for arrival in batch]
    return latencies


def _without_queue(arrivals_s: list[float], batch_size: int, batch_s: float) -> list[float]:
    batches = [arrivals_s[first : first + batch_size] for first in range(0, len(arrivals_s), batch_size)]
    return [latency for batch in batches for latency in _batch_latencies(batch, batch_size, batch_s)]


def _without_waiting_for_members(arrivals_s: list[float], batch_size: int, batch_s: float) -> list[float]:
    firsts = [arrivals_s[index // batch_size * batch_size] for index in range(len(arrivals_s))]
    latencies = _batch_latencies(firsts, batch_size, batch_s)
    return [latency + first - own for latency, first, own in zip(latencies, firsts, arrivals_s, strict=True)]


def _points_in_time(arrivals_s: list[float], batch_size: int, batch_s: float) -> list[float]:
    latencies = _batch_latencies(arrivals_s, batch_size, batch_s)
    return [latency + arrival for latency, arrival in zip(latencies, arrivals_s, strict=True)]


@exercise("a person waits for the batch to fill and for the batch before it, not only for the forward passes")
def check_batch_latencies(function: Function | None) -> None:
    """Exercise 2.5: latency with the time in the queue."""
    cases = {
        "the example": ([0.0, 1.0, 5.0, 6.0], 2, 3.0),
        "a server that is still busy": ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 2, 3.0),
        "a last batch that is not full": ([0.0, 1.0, 2.0, 9.0], 3, 2.0),
        "batches of one": ([0.0, 1.0, 1.5], 1, 2.0),
        "fewer requests than a batch holds": ([2.0, 3.5], 4, 1.0),
    }
    mistakes = {
        "that is the time in the batch, and waiting for it counts too": lambda arrivals, size, batch_s: (
            [batch_s] * len(arrivals)
        ),
        "a batch waits until the one before it is done": _without_queue,
        "those are points in time; count from each arrival": _points_in_time,
        "a batch waits until the last of its members has arrived": _without_waiting_for_members,
    }
    compare_function(function, _batch_latencies, cases, mistakes)
