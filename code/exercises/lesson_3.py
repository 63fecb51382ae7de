"""The checks of Lesson 3, continuous batching."""

from __future__ import annotations

import itertools
import math
import numbers
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from .checking import Function, Wrong, call, compare_function, compare_number, exercise, looking_at_the_answer, short


def _serve(budgets: Sequence[int], order: Sequence[int], slots: int) -> tuple[list[int], list[int]]:
    """At which forward each request gets its first and its last token, by continuous batching."""
    first, last, made = ([0] * len(budgets) for _ in range(3))
    waiting, running, forwards = deque(order), [], 0

    def step(rows: list[int]) -> list[int]:
        """Run one forward over these rows, if there are any, and return the rows that go on."""
        nonlocal forwards
        forwards += bool(rows)
        for row in rows:
            first[row] = first[row] or forwards
            last[row] = forwards
            made[row] += 1
        return [row for row in rows if made[row] < budgets[row]]

    while waiting or running:
        newcomers = [waiting.popleft() for _ in range(min(slots - len(running), len(waiting)))]
        running = running + step(newcomers)
        running = step(running)
    return first, last


@exercise("a slot that is refilled at once makes the same tokens in fewer forwards")
def check_forward_counts(static_count: int | None, continuous_count: int | None, busy_share: float | None) -> None:
    """Exercise 3.1: forwards and slot utilization, counted by hand."""
    budgets, slots = [5, 1, 2, 4, 1], 3
    static = max(budgets[:3]) + max(budgets[3:])
    mistakes = {
        "those are the tokens; a forward makes one for every row that is not done": sum(budgets),
        "the prefill already makes the first token of every row": static + 2,
        "a prefill is a forward too": static - 2,
    }
    compare_number("static_count", static_count, static, mistakes)
    continuous = max(_serve(budgets, range(len(budgets)), slots)[1])
    mistakes = {
        "that is the static count; B's slot is free after the first forward": static,
        "the newcomers' prefill is a forward of its own": max(budgets),
        "one too many: a prefill makes a token too, and no prefill directly follows another": continuous + 1,
    }
    compare_number("continuous_count", continuous_count, continuous, mistakes)
    busy = sum(budgets) / (slots * continuous)
    mistakes = {
        "that is the share of the static run": sum(budgets) / (slots * static),
        "that is the share that was idle": 1 - busy,
        "give a share between 0 and 1": 100 * busy,
        "you have rounded; let Python divide, and keep all digits": round(busy, 2),
        "that is tokens per forward; divide by the slots too": sum(budgets) / continuous,
    }
    compare_number("busy_share", busy_share, busy, mistakes)


def _nearest_rank(values: list[float], percent: float) -> float:
    rank = math.ceil(percent * len(values) / 100)  # so many values do not exceed the percentile
    return sorted(values)[rank - 1]


def _ttft_percentile(sent_s: list[float], token_times_s: list[list[float]], percent: float) -> float:
    waits = [times[0] - sent for sent, times in zip(sent_s, token_times_s, strict=True)]
    return _nearest_rank(waits, percent)


def _interpolated(sent_s: list[float], token_times_s: list[list[float]], percent: float) -> float:
    waits = [times[0] - sent for sent, times in zip(sent_s, token_times_s, strict=True)]
    return torch.tensor(waits, dtype=torch.float64).quantile(percent / 100).item()


def _one_rank_too_high(sent_s: list[float], token_times_s: list[list[float]], percent: float) -> float:
    waits = sorted(times[0] - sent for sent, times in zip(sent_s, token_times_s, strict=True))
    return waits[min(len(waits) - 1, int(percent * len(waits) / 100))]


@exercise("a percentile is somebody's real wait, counted from when that person asked")
def check_ttft_percentile(function: Function | None) -> None:
    """Exercise 3.2: percentile of the time to first token."""
    sent = [0.0, 0.5, 1.0, 4.0, 4.5, 4.6, 7.0, 7.1, 8.0, 9.0]
    waits = [0.9, 0.3, 2.1, 0.4, 0.7, 1.6, 0.2, 0.5, 0.6, 3.0]
    times = [[at + wait + 0.1 * k for k in range(3 + int(at))] for at, wait in zip(sent, waits, strict=True)]
    cases = {
        "the example": ([0.0, 1.0, 1.0, 2.0], [[0.5, 0.9], [1.2, 1.6], [3.0], [2.4, 2.5]], 50),
        "the 90th percentile of ten requests": (sent, times, 90),
        "the 95th percentile of ten requests": (sent, times, 95),
        "the 82nd percentile of ten requests": (sent, times, 82),
        "the 100th percentile": (sent, times, 100),
        "the first percentile": (sent, times, 1),
        "a single request": ([2.0], [[2.5, 2.6]], 10),
        "the 75th percentile of two hundred requests": ([0.0] * 200, [[k * 37 % 200 / 100] for k in range(200)], 75),
    }
    mistakes = {
        "count from when each request was sent, not from 0": lambda sent, times, percent: _ttft_percentile(
            [0.0] * len(sent), times, percent
        ),
        "that is the time to the last token": lambda sent, times, percent: _ttft_percentile(
            sent, [row[-1:] for row in times], percent
        ),
        "this interpolates between two waits; take one that somebody had": _interpolated,
        "that is one rank too high; a smaller wait will do as well": _one_rank_too_high,
    }
    compare_function(function, _ttft_percentile, cases, mistakes)


def _first_tokens(prompt_tokens: list[int], running: int, token_budget: int) -> list[int]:
    unread = list(prompt_tokens)
    first_token = [0] * len(unread)
    forward = 0
    while any(unread):
        forward += 1
        room = token_budget - running
        for index, tokens in enumerate(unread):
            piece = min(tokens, room)
            room -= piece
            unread[index] -= piece
            if piece and not unread[index]:  # its last token has been read
                first_token[index] = forward
                running += 1  # it takes a token of every later forward
    return first_token


def _one_prompt_a_forward(prompt_tokens: list[int], running: int, token_budget: int) -> list[int]:
    first_token, forward = [], 0
    for index, tokens in enumerate(prompt_tokens):
        forward += math.ceil(tokens / (token_budget - running - index))
        first_token.append(forward)
    return first_token


def _newcomers_never_decode(prompt_tokens: list[int], running: int, token_budget: int) -> list[int]:
    read = itertools.accumulate(prompt_tokens)
    return [math.ceil(tokens / (token_budget - running)) for tokens in read]


def _shortest_first(prompt_tokens: list[int], running: int, token_budget: int) -> list[int]:
    order = sorted(range(len(prompt_tokens)), key=lambda index: prompt_tokens[index])
    served = _first_tokens([prompt_tokens[index] for index in order], running, token_budget)
    return [first for _, first in sorted(zip(order, served, strict=True))]


@exercise("a long prompt in pieces stalls nobody, and its own first token comes a little later")
def check_chunked_prefill(function: Function | None) -> None:
    """Exercise 3.3: which forward gives each request its first token when prompts are read in pieces."""
    cases = {
        "the example": ([7, 3, 1], 2, 6),
        "one long prompt": ([100], 3, 32),
        "a prompt that fills its forward": ([8, 3], 2, 10),
        "no running rows": ([5, 4, 6], 0, 4),
        "many running rows and little room": ([5, 3], 6, 9),
        "prompts that fit together": ([1, 2, 1, 3], 1, 20),
        "a long prompt in the middle": ([2, 40, 1, 5], 1, 12),
        "nobody waiting": ([], 2, 6),
    }
    mistakes = {
        "a request that has its first token runs, and takes a token of every later forward": _newcomers_never_decode,
        "every running row takes one token of a forward": lambda prompts, running, budget: _first_tokens(
            prompts, 0, budget
        ),
        "what one prompt leaves of a forward, the next one uses": _one_prompt_a_forward,
        "forwards are counted from 1": lambda *given: [forward - 1 for forward in _first_tokens(*given)],
        "the forward that reads a prompt's last token gives the first token already": lambda *given: [
            forward + 1 for forward in _first_tokens(*given)
        ],
        "prompts are read in order of arrival": _shortest_first,
    }
    compare_function(function, _first_tokens, cases, mistakes)


def _admitted(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for prompt_tokens, max_tokens in waiting[:free_slots]:
        free_tokens -= prompt_tokens + max_tokens
        if free_tokens < 0:
            break
        admitted += 1
    return admitted


def _admitted_into_the_same_room(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    fits = itertools.takewhile(lambda request: sum(request) <= free_tokens, waiting[:free_slots])
    return len(list(fits))


def _admitted_out_of_turn(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for prompt_tokens, max_tokens in waiting:
        if admitted < free_slots and prompt_tokens + max_tokens <= free_tokens:
            free_tokens -= prompt_tokens + max_tokens
            admitted += 1
    return admitted


@exercise("memory, not the number of slots, often decides how many requests run together")
def check_admitted_count(function: Function | None) -> None:
    """Exercise 3.4: how many waiting requests are admitted."""
    queue = [(7, 10), (7, 100), (500, 12), (30, 30), (7, 10)]
    needed = sum(map(sum, queue))
    cases = {
        "the example": ([(10, 20), (40, 35), (15, 60), (20, 60)], 8, 70),
        "few slots": (queue, 2, 10_000),
        "little memory": (queue, 5, 120),
        "memory that is just enough": (queue, 5, needed),
        "memory for all tokens but one": (queue, 5, needed - 1),
        "a first request that does not fit": (queue[2:], 5, 100),
        "no room at all": (queue, 5, 0),
        "no free slot": (queue, 0, 10_000),
        "nobody waiting": ([], 5, 100),
    }
    mistakes = {
        "a request overtook one that came earlier": _admitted_out_of_turn,
        "there are not that many free slots": lambda waiting, slots, tokens: _admitted(waiting, len(waiting), tokens),
        "reserve room for the answer too": lambda waiting, slots, tokens: _admitted(
            [(prompt, 0) for prompt, _ in waiting], slots, tokens
        ),
        "reserve room for the prompt too": lambda waiting, slots, tokens: _admitted(
            [(0, answer) for _, answer in waiting], slots, tokens
        ),
        "reserve room for every token, the last of the answer included": lambda waiting, slots, tokens: _admitted(
            [(prompt, answer - 1) for prompt, answer in waiting], slots, tokens
        ),
        "requests that fill the memory exactly still fit": lambda waiting, slots, tokens: _admitted(
            waiting, slots, tokens - 1
        ),
        "the memory has no room for so many": lambda waiting, slots, tokens: min(slots, len(waiting)),
        "every admitted request takes its part of the room": _admitted_into_the_same_room,
    }
    compare_function(function, _admitted, cases, mistakes)


def _checked_order(order: Any, workload: str, count: int) -> list[int]:
    """The order as a list, after a look at whether it holds every index from 0 to `count - 1` once."""
    with looking_at_the_answer():
        order = order.tolist() if hasattr(order, "tolist") else order
        if not isinstance(order, (list, tuple)) or not all(isinstance(index, numbers.Integral) for index in order):
            raise Wrong(f"expected a list of indices for {workload}, got {short(order)} ({type(order).__name__})")
        if sorted(order) != list(range(count)):
            raise Wrong(f"for {workload} every index from 0 to {count - 1} must be there once, got {short(order)}")
        return [int(index) for index in order]


def _mean_first_token(budgets: Sequence[int], order: Sequence[int], slots: int) -> float:
    first, _ = _serve(budgets, order, slots)
    return sum(first) / len(budgets)


@exercise("who goes first decides who waits, at the same number of tokens")
def check_admission_order(function: Function | None) -> str:
    """Exercise 3.5: an order of admission with a low mean time to first token."""
    workloads = {
        "the course's workload": ([100 if index % 8 == 0 else 10 for index in range(32)], 8),
        "twelve mixed requests": ([60, 5, 40, 8, 30, 3, 20, 12, 50, 4, 9, 6], 3),
        "a single slot": ([4, 9, 2, 7, 1], 1),
        "equal budgets": ([10] * 12, 4),
        "an order of arrival that cannot be bettered": ([1, 2, 4, 7, 9, 12], 2),
    }
    means: dict[str, tuple[float, float]] = {}
    for name, (budgets, slots) in workloads.items():
        order = call(function, name, (budgets, slots), blank_is_wrong=bool(means))
        order = _checked_order(order, name, len(budgets))
        ours = sorted(range(len(budgets)), key=lambda index: budgets[index])
        mean, best = (_mean_first_token(budgets, one, slots) for one in (order, ours))
        if mean > best:
            raise Wrong(f"for {name} the mean is {mean:.1f} forwards; another order brings it down to {best:.1f}")
        means[name] = mean, _mean_first_token(budgets, range(len(budgets)), slots)
    mean, in_turn = means["the course's workload"]
    return f"mean time to first token {mean:.1f} forwards instead of {in_turn:.1f} on the course's workload"
