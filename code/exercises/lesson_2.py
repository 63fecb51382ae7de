"""The checks of Lesson 2, batching."""

from __future__ import annotations

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


def _left_padded(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = [[pad_id] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)  # (B, width) each


def _right_padded(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    ids, mask = _left_padded([row[::-1] for row in rows], pad_id)
    return ids.flip(1), mask.flip(1)


def _masked_by_id(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    ids, _ = _left_padded(rows, pad_id)
    return ids, (ids != pad_id).long()


def _inverted(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    ids, mask = _left_padded(rows, pad_id)
    return ids, 1 - mask


@exercise("the last column is a real token in every row, and the mask comes from lengths, not from ids")
def check_left_padded(function: Function | None) -> None:
    """Exercise 2.2: a ragged list of prompts as one rectangle."""
    cases = {
        "the example": ([[5, 6, 7], [8]], 0),
        "rows of one length": ([[1, 2], [3, 4]], 9),
        "the longest prompt in the middle": ([[3], [4, 5, 6, 7], [8, 9]], 1),
        "a single prompt": ([[3, 9]], 9),
        "a prompt that contains the pad id": ([[2, 9], [9], [9, 4, 9]], 9),
    }
    mistakes = {
        "this pads on the right, so the last position of a short row is no token": _right_padded,
        "a token with the pad's id is still a token; take the mask from the lengths": _masked_by_id,
        "the mask is 1 at a token and 0 at padding": _inverted,
    }
    compare_function(function, _left_padded, cases, mistakes)


def _positions_of(mask: Tensor) -> Tensor:
    positions = torch.zeros_like(mask)
    for row, cells in enumerate(mask.tolist()):
        real = [column for column, cell in enumerate(cells) if cell]
        for position, column in enumerate(real):
            positions[row, column] = position
    return positions


@exercise("each row counts from its own first token, so it sees the positions it would see alone")
def check_positions_of(function: Function | None) -> None:
    """Exercise 2.3: positions of left-padded rows."""
    cases = {
        "the example": (torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),),
        "rows without padding": (torch.ones(2, 5, dtype=torch.long),),
        "a single row": (torch.tensor([[0, 1, 1]]),),
        "a batch whose rows all differ": (torch.tensor([[0] * (6 - n) + [1] * n for n in (6, 1, 4, 2)]),),
    }
    mistakes = {
        "the columns are numbered, not the tokens of a row": lambda mask: torch.arange(mask.shape[1]).expand_as(mask),
        "the first token of a row has position 0": lambda mask: mask.cumsum(dim=1),
        "a pad must get 0; a negative position is outside the embedding": lambda mask: mask.cumsum(dim=1) - 1,
        "a pad must get 0, not 1": lambda mask: (mask.cumsum(dim=1) - 1).masked_fill(mask == 0, 1),
    }
    compare_function(function, _positions_of, cases, mistakes)


def _crossover(flops_per_s: float, bytes_per_s: float, bytes_per_weight: float) -> float:
    reading_s, computing_s_per_row = bytes_per_weight / bytes_per_s, 2 / flops_per_s  # of one weight
    return reading_s / computing_s_per_row


@exercise("up to this batch size arithmetic hides behind reading, and half the bytes per weight halve it")
def check_crossover_batch(function: Function | None) -> None:
    """Exercise 2.4: the batch size at which computing takes as long as reading the weights."""
    cases = {
        "the example": (1200, 100, 4),
        "a laptop": (1e12, 40e9, 4),
        "bfloat16 on a large GPU": (989e12, 3.35e12, 2),
        "one byte per weight": (1979e12, 3.35e12, 1),
    }
    mistakes = {
        "a multiplication and an addition are two operations": lambda flops, speed, size: (
            2 * _crossover(flops, speed, size)
        ),
        "that is upside down": lambda flops, speed, size: 1 / _crossover(flops, speed, size),
        "operations per second and bytes per second have changed places": lambda flops, speed, size: _crossover(
            speed, flops, size
        ),
        "reading a weight takes longer the more bytes it has": lambda flops, speed, size: _crossover(flops, speed, 1),
        "a weight of more bytes hides more arithmetic, not less": lambda flops, speed, size: (
            _crossover(flops, speed, 1) / size
        ),
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
