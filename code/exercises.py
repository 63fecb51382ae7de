"""Checks of the lessons' exercises: each says what is wrong with an answer, never what the answer is.

    check_left_padded(left_padded)      not attempted yet
                                        not yet right: wrong for the example: padded on the right ...
                                        correct: the last column is a real token in every row ...

A check returns a `Result`, which shows its message and nothing else when it ends a notebook cell. It
never raises, whatever the answer is or does. Answers are compared with a reference that is written
here as plainly as possible, so this file is best read after the exercises.
"""

from __future__ import annotations

import copy
import math
import numbers
import reprlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

RELATIVE, ABSOLUTE = 1e-4, 1e-5  # what two ways to add the same floats may differ by

# --- What all checks share ---------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Result:
    """What a check found. True in a condition only when the answer is correct."""

    outcome: Literal["correct", "wrong", "not attempted"]
    message: str

    def __repr__(self) -> str:
        return self.message

    def __bool__(self) -> bool:
        return self.outcome == "correct"


class _NotAttempted(Exception):
    pass


class _Wrong(Exception):
    pass


Function = Callable[..., Any]


def _exercise(learned: str) -> Callable[[Function], Callable[..., Result]]:
    """Turns a function that complains by raising into a check; what it returns is added to `learned`."""

    def decorate(examine: Function) -> Callable[..., Result]:
        @wraps(examine)
        def check(*answers: Any) -> Result:
            try:
                if all(_is_blank(answer) for answer in answers):
                    raise _NotAttempted
                remark = examine(*answers)
            except _NotAttempted as reason:
                return Result("not attempted", f"not attempted yet: {reason}" if str(reason) else "not attempted yet")
            except _Wrong as complaint:
                return Result("wrong", f"not yet right: {complaint}")
            except Exception as error:  # an answer that cannot even be looked at, such as an int too large for a float
                return Result("wrong", f"not yet right: the answer cannot be compared ({type(error).__name__})")
            return Result("correct", f"correct: {learned}" + (f"; {remark}" if remark else ""))

        return check

    return decorate


def _is_blank(answer: Any) -> bool:
    return answer is None or answer is Ellipsis


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())


def _number(name: str, answer: Any, expected: float, mistakes: Mapping[float, str]) -> None:
    """Complain unless the answer is the expected number; `mistakes` explains some wrong ones."""
    if _is_blank(answer):
        raise _NotAttempted(f"{name} is still blank")
    complaint = _difference(answer, expected)
    if complaint:
        hints = [why for wrong, why in mistakes.items() if _difference(answer, wrong) is None]
        raise _Wrong(f"{name}: {hints[0] if hints else complaint}")


def _compare(
    function: Any, reference: Function, cases: Mapping[str, tuple], mistakes: Mapping[str, Function] | None = None
) -> None:
    """Complain unless the function agrees with the reference on every case.

    Args:
        cases: what each is called in a message, and the arguments.
        mistakes: explanations, each with the function somebody wrote who needs it.
    """
    passed: list[str] = []
    for name, arguments in cases.items():
        result = _call(function, name, copy.deepcopy(arguments), blank_is_wrong=bool(passed))
        complaint = _difference(result, reference(*arguments))
        if complaint:
            hints = [why for why, wrong in (mistakes or {}).items() if _difference(result, wrong(*arguments)) is None]
            so_far = f"right for {passed[-1]}, " if passed else ""
            raise _Wrong(f"{so_far}wrong for {name}: {hints[0] if hints else complaint}")
        passed.append(name)


def _call(function: Any, case: str, arguments: tuple, *, blank_is_wrong: bool = False) -> Any:
    if not callable(function):
        raise _Wrong(f"expected a function, got {_short(function)}")
    try:
        result = function(*arguments)
    except Exception as error:
        # Torch raises NotImplementedError too, for operations that a dtype does not have.
        if isinstance(error, NotImplementedError) and "not implemented for" not in str(error):
            raise _NotAttempted from error
        text = (str(error).strip() or "no message").splitlines()[0]
        raise _Wrong(f"your function raised {type(error).__name__} for {case}: {text}") from error
    if _is_blank(result) and not blank_is_wrong:
        raise _NotAttempted("the function returns nothing")
    return result


def _difference(actual: Any, expected: Any) -> str | None:
    """What is wrong with a value, in words that do not give the expected one away; `None` if nothing is."""
    if isinstance(expected, Tensor):
        return _tensor_difference(actual, expected)
    if isinstance(expected, (list, tuple)):
        return _sequence_difference(actual, expected)
    if isinstance(actual, bool) or not isinstance(actual, numbers.Real):
        advice = "; .item() turns a tensor of one value into a number" if isinstance(actual, Tensor) else ""
        return f"expected a number, got {_short(actual)} ({type(actual).__name__}){advice}"
    if isinstance(expected, int) and actual != int(actual if math.isfinite(actual) else 0):
        return f"expected a whole number, got {actual:g}"
    if isinstance(expected, int) and actual == expected:
        return None
    if not isinstance(expected, int) and math.isclose(actual, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return None
    return f"{actual:.6g} is not right" + ("" if math.isnan(actual) else f", it is too {_size(actual, expected)}")


def _size(actual: float, expected: float) -> str:
    return "large" if actual > expected else "small"


def _sequence_difference(actual: Any, expected: Sequence) -> str | None:
    kind = type(expected).__name__
    if not isinstance(actual, (list, tuple)):
        return f"expected a {kind}, got {_short(actual)} ({type(actual).__name__})"
    if len(actual) != len(expected):
        return f"expected a {kind} of {len(expected)}, got {len(actual)}"
    found = ((index, _difference(one, other)) for index, (one, other) in enumerate(zip(actual, expected, strict=True)))
    return next((f"item {index} of the {kind}: {complaint}" for index, complaint in found if complaint), None)


def _tensor_difference(actual: Any, expected: Tensor) -> str | None:
    if not isinstance(actual, Tensor):
        return f"expected a tensor, got {_short(actual)} ({type(actual).__name__})"
    if actual.layout != torch.strided or actual.device != expected.device:
        return f"expected an ordinary tensor on the {expected.device}, got {actual.layout} on {actual.device}"
    if actual.shape != expected.shape:
        return f"expected the shape {tuple(expected.shape)}, got {tuple(actual.shape)}"
    if actual.dtype != expected.dtype:
        return f"expected the dtype {expected.dtype}, got {actual.dtype}"
    exact = not expected.is_floating_point()
    same = actual == expected if exact else torch.isclose(actual.detach(), expected, rtol=RELATIVE, atol=ABSOLUTE)
    if same.all():
        return None
    place = tuple((~same).nonzero()[0].tolist())
    off, first = int((~same).sum()), actual[place].item()
    return f"{off} of {same.numel()} values are off, the first of them {first:.6g} at {place}"


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Lesson 1: text generation -----------------------------------------------------------------------


@_exercise("sharing each key and value head among four query heads makes room for four times as many users")
def check_kv_cache(llama_bytes_per_token: int | None, llama_users: int | None) -> None:
    """Exercise 1.1: the KV cache of Llama-3-8B, in bytes per token and in users that fit."""
    layers, query_heads, kv_heads, head_dim, bf16_bytes = 32, 32, 8, 128, 2
    expected = 2 * layers * kv_heads * head_dim * bf16_bytes
    mistakes = {
        expected * query_heads // kv_heads: "too large: grouped-query attention keeps fewer heads for K and V than Q",
        expected // 2: "too small: keys and values are both kept",
        expected // layers: "that is one layer",
    }
    _number("llama_bytes_per_token", llama_bytes_per_token, expected, mistakes)
    memory, tokens = 30 * 10**9, 8192
    fits = memory // (expected * tokens)
    mistakes = {
        fits + 1: "the last of them has no room for the whole of its cache",
        30 * 2**30 // (expected * tokens): "30 GB are 30 * 10**9 bytes",
    }
    _number("llama_users", llama_users, fits, mistakes)


def _positions(prompt_length: int, new_tokens: int, use_cache: bool) -> int:
    sent = [prompt_length + made for made in range(new_tokens)]  # the whole sequence, for every new token
    return sum(sent) if not use_cache else sum(sent[:1]) + len(sent[1:])


@_exercise("without a cache the work grows with the square of the length, with one it grows with the length")
def check_positions_processed(function: Function | None) -> None:
    """Exercise 1.2: token positions that go through the model."""
    cases = {
        "the example with a cache": (7, 3, True),
        "the example without a cache": (7, 3, False),
        "a long answer with a cache": (100, 900, True),
        "a long answer without a cache": (100, 900, False),
        "one new token": (5, 1, True),
        "no new token": (5, 0, True),
    }
    mistakes = {
        "the last token is never sent through the model": lambda p, n, cached: (
            p + n if cached else _positions(p, n + 1, False)
        ),
        "the prompt is sent again with every token": lambda p, n, cached: p * n,
    }
    _compare(function, _positions, cases, mistakes)


def _floor_ms(weight_bytes: float, kv_bytes_per_token: float, lengths: list[int], bytes_per_s: float) -> float:
    return (weight_bytes + kv_bytes_per_token * sum(lengths)) / bytes_per_s * 1000


@_exercise("one reading of the weights serves the whole batch, but every request brings its own cache to read")
def check_decode_floor(function: Function | None) -> None:
    """Exercise 1.3: the time below which a decode step cannot go."""
    cases = {
        "the example": (100e6, 1e6, [20, 80], 100e9),
        "one request of GPT-2's size": (497_759_232, 73_728, [500], 30e9),
        "a batch of 64": (16e9, 131_072, [8192] * 64, 3.35e12),
    }
    mistakes = {
        "that is in seconds": lambda *given: _floor_ms(*given) / 1000,
        "the cache has to be read too": lambda weights, kv, lengths, speed: weights / speed * 1000,
        "the weights are read once for the whole batch": lambda w, kv, n, speed: _floor_ms(w * len(n), kv, n, speed),
    }
    _compare(function, _floor_ms, cases, mistakes)


def _tempered(logits: Tensor, temperatures: Tensor) -> Tensor:
    rows = []
    for row, temperature in zip(logits, temperatures.tolist(), strict=True):
        greedy = torch.zeros_like(row)
        greedy[row.argmax()] = 1.0
        rows.append(torch.softmax(row / temperature, dim=-1) if temperature else greedy)
    return torch.stack(rows)  # (B, V)


@_exercise("below 1 the likely tokens gain, above 1 the unlikely ones do, and 0 is greedy decoding")
def check_tempered(function: Function | None) -> None:
    """Exercise 1.4: probabilities at a temperature per row."""
    logits = _normal(4, 12)
    cases = {
        "a temperature of 1": (logits[:1], torch.tensor([1.0])),
        "rows of different temperature": (logits, torch.tensor([0.5, 1.0, 2.0, 5.0])),
        "a temperature of 0": (logits, torch.tensor([0.7, 0.0, 1.5, 0.0])),
        "logits in the hundreds": (logits * 300, torch.tensor([1.0, 0.5, 2.0, 0.0])),
    }
    mistakes = {
        "multiplied by the temperature; divide": lambda logits, t: torch.softmax(logits * t[:, None], dim=-1),
        "each row must sum to 1, not each column": lambda logits, t: torch.softmax(logits / t[:, None], dim=0),
    }
    _compare(function, _tempered, cases, mistakes)


def _keep_top_p(logits: Tensor, top_p: float, *, keep_crossing: bool = True) -> Tensor:
    kept = torch.full_like(logits, -math.inf)
    for row, probabilities in enumerate(torch.softmax(logits, dim=-1)):
        order, total, taken = probabilities.argsort(descending=True).tolist(), 0.0, 0
        while taken < len(order) and total < top_p:
            total += float(probabilities[order[taken]])
            taken += 1
        chosen = order[: taken if keep_crossing else max(1, taken - 1)]
        kept[row, chosen] = logits[row, chosen]
    return kept


@_exercise("top-p keeps few tokens where the model is sure and many where it is not, which no fixed top-k does")
def check_keep_top_p(function: Function | None) -> None:
    """Exercise 1.5: the logits of the nucleus."""
    unsure_to_sure = _normal(5, 40) * torch.tensor([0.2, 1.0, 2.0, 4.0, 20.0])[:, None]
    cases = {
        "the example": (torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log(), 0.7),
        "rows from unsure to sure": (unsure_to_sure, 0.9),
        "a top_p of 1": (unsure_to_sure[:3], 1.0),
        "a top_p so small that one token is enough": (unsure_to_sure, 0.001),
    }
    mistakes = {
        "the token that reaches top_p is kept too": lambda logits, p: _keep_top_p(logits, p, keep_crossing=False),
        "put each value back in its own column": lambda logits, p: (
            _keep_top_p(logits, p).sort(-1, descending=True).values
        ),
        "return logits, not probabilities": lambda logits, p: _keep_top_p(logits, p).softmax(dim=-1),
    }
    _compare(function, _keep_top_p, cases, mistakes)


# --- Lesson 2: batching ------------------------------------------------------------------------------


@_exercise("batches of similar lengths are nearly all tokens, which is why batch jobs sort by length")
def check_padding_cells(padding_one_batch: int | None, padding_two_batches: int | None) -> None:
    """Exercise 2.1: padding cells of one batch, and of two that were sorted by length."""
    lengths = [12, 7, 31, 4, 28, 18]

    def padding(*batches: list[int]) -> int:
        return sum(max(batch) - length for batch in batches for length in batch)

    mistakes = {
        sum(lengths): "those are the real tokens",
        len(lengths) * max(lengths): "those are all cells, real tokens included",
    }
    _number("padding_one_batch", padding_one_batch, padding(lengths), mistakes)
    ordered = sorted(lengths)
    mistakes = {
        padding(lengths[:3], lengths[3:]): "sort the prompts by length before they are split",
        padding(ordered[:3]): "that is the batch of the short ones alone",
    }
    _number("padding_two_batches", padding_two_batches, padding(ordered[:3], ordered[3:]), mistakes)


def _left_padded(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = [[pad_id] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)  # (B, width) each


def _right_padded(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    ids, mask = _left_padded([row[::-1] for row in rows], pad_id)
    return ids.flip(1), mask.flip(1)


def _masked_by_id(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    ids = _left_padded(rows, pad_id)[0]
    return ids, (ids != pad_id).long()


@_exercise("the last column is a real token in every row, and the mask comes from lengths, not from ids")
def check_left_padded(function: Function | None) -> None:
    """Exercise 2.2: a ragged list of prompts as one rectangle."""
    cases = {
        "the example": ([[5, 6, 7], [8]], 0),
        "rows of one length": ([[1, 2], [3, 4]], 9),
        "a prompt that contains the pad id": ([[9, 4, 9], [9], [2, 9]], 9),
    }
    mistakes = {
        "padded on the right, so the last position of a short row is no token": _right_padded,
        "a token with the pad's id is still a token; take the mask from the lengths": _masked_by_id,
    }
    _compare(function, _left_padded, cases, mistakes)


def _positions_of(mask: Tensor) -> Tensor:
    positions = torch.zeros_like(mask)
    for row, cells in enumerate(mask.tolist()):
        real = [column for column, cell in enumerate(cells) if cell]
        for position, column in enumerate(real):
            positions[row, column] = position
    return positions


@_exercise("each row counts from its own first token, so it sees the positions it would see alone")
def check_positions_of(function: Function | None) -> None:
    """Exercise 2.3: positions of left-padded rows."""
    cases = {
        "the example": (torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),),
        "rows without padding": (torch.ones(2, 5, dtype=torch.long),),
        "a batch whose rows all differ": (torch.tensor([[0] * (6 - n) + [1] * n for n in (6, 1, 4, 2)]),),
    }
    mistakes = {
        "the columns are numbered, not the tokens of a row": lambda mask: torch.arange(mask.shape[1]).expand_as(mask),
        "the first token of a row has position 0": lambda mask: mask.cumsum(dim=1),
        "a pad must get 0; a negative position is outside the embedding": lambda mask: mask.cumsum(dim=1) - 1,
        "a pad must get 0": lambda mask: (mask.cumsum(dim=1) - 1).masked_fill(mask == 0, 1),
    }
    _compare(function, _positions_of, cases, mistakes)


def _crossover(flops_per_s: float, bytes_per_s: float, bytes_per_weight: float) -> float:
    reading_s, computing_s_per_row = bytes_per_weight / bytes_per_s, 2 / flops_per_s  # of one weight
    return reading_s / computing_s_per_row


@_exercise("up to this batch size arithmetic hides behind reading, and half the bytes per weight halve it")
def check_crossover_batch(function: Function | None) -> None:
    """Exercise 2.4: the batch size at which computing takes as long as reading the weights."""
    cases = {
        "a laptop": (1e12, 40e9, 4),
        "the example": (100, 100, 4),
        "bfloat16 on a large GPU": (989e12, 3.35e12, 2),
        "one byte per weight": (1979e12, 3.35e12, 1),
    }
    mistakes = {
        "a multiplication and an addition are two operations": lambda f, b, size: 2 * _crossover(f, b, size),
        "upside down": lambda f, b, size: 1 / _crossover(f, b, size),
        "reading a weight takes longer the more bytes it has": lambda f, b, size: _crossover(f, b, 1),
        "more bytes hide more arithmetic, not less": lambda f, b, size: _crossover(f, b, 1) / size,
    }
    _compare(function, _crossover, cases, mistakes)


def _batch_latencies(arrivals_s: list[float], batch_size: int, batch_s: float, *, one_server: bool = True) -> list:
    latencies, free_s = [], 0.0
    for first in range(0, len(arrivals_s), batch_size):
        batch = arrivals_s[first : first + batch_size]
        free_s = max(batch[-1], free_s if one_server else 0.0) + batch_s
        latencies += [free_s - arrival for arrival in batch]
    return latencies


@_exercise("a person waits for the batch to fill and for the batch before it, not only for the forward passes")
def check_batch_latencies(function: Function | None) -> None:
    """Exercise 2.5: latency with the time in the queue."""
    cases = {
        "the example": ([0.0, 1.0, 5.0, 6.0], 2, 3.0),
        "a server that is still busy": ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 2, 3.0),
        "a last batch that is not full": ([0.0, 1.0, 2.0, 9.0], 3, 2.0),
        "batches of one": ([0.0, 1.0, 1.5], 1, 2.0),
    }
    mistakes = {
        "that is the time in the batch; waiting counts too": lambda a, size, batch_s: [batch_s] * len(a),
        "a batch waits until the one before it is done": lambda a, n, s: _batch_latencies(a, n, s, one_server=False),
        "those are points in time; count from each arrival": lambda a, size, batch_s: (
            [late + at for late, at in zip(_batch_latencies(a, size, batch_s), a, strict=True)]
        ),
    }
    _compare(function, _batch_latencies, cases, mistakes)


# --- Lesson 3: continuous batching -------------------------------------------------------------------


def _serve(budgets: Sequence[int], order: Sequence[int], slots: int) -> tuple[list[int], list[int]]:
    """At which forward each request gets its first and its last token, by continuous batching."""
    first, last, made = ([0] * len(budgets) for _ in range(3))
    waiting, running, forwards = deque(order), [], 0

    def step(rows: list[int]) -> list[int]:
        """One forward over these rows, if there are any; those that go on."""
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


@_exercise("a slot that is refilled at once makes the same tokens in fewer forwards")
def check_forward_counts(static_count: int | None, continuous_count: int | None, busy_share: float | None) -> None:
    """Exercise 3.1: forwards and slot utilization, counted by hand."""
    budgets, slots = [5, 1, 2, 4, 1], 3
    expected = max(budgets[:3]) + max(budgets[3:])
    mistakes = {
        sum(budgets): "those are the tokens; a forward makes one for every row that is not done",
        expected + 2: "the prefill already makes the first token of every row",
        expected - 2: "a prefill is a forward too",
    }
    _number("static_count", static_count, expected, mistakes)
    forwards = max(_serve(budgets, range(len(budgets)), slots)[1])
    mistakes = {
        expected: "that is the static count; B's slot is free after the first forward",
        max(budgets): "the newcomers' prefill is a forward of its own",
        forwards + 1: "one too many: a prefill makes a token, and so does every decode step",
    }
    _number("continuous_count", continuous_count, forwards, mistakes)
    busy = sum(budgets) / (slots * forwards)
    mistakes = {
        sum(budgets) / (slots * expected): "that is the static run's",
        1 - busy: "that is the idle share",
        100 * busy: "give a share between 0 and 1",
        sum(budgets) / forwards: "that is tokens per forward; divide by the slots too",
    }
    _number("busy_share", busy_share, busy, mistakes)


def _nearest_rank(values: list[float], percent: float) -> float:
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def _ttft_percentile(sent_s: list[float], token_times_s: list[list[float]], percent: float) -> float:
    waits = [times[0] - sent for sent, times in zip(sent_s, token_times_s, strict=True)]
    return _nearest_rank(waits, percent)


@_exercise("a percentile is somebody's real wait, counted from when that person asked")
def check_ttft_percentile(function: Function | None) -> None:
    """Exercise 3.2: percentile of the time to first token."""
    sent = [0.0, 0.5, 1.0, 4.0, 4.5, 4.6, 7.0, 7.1, 8.0, 9.0]
    waits = [0.9, 0.3, 2.1, 0.4, 0.7, 1.6, 0.2, 0.5, 0.6, 3.0]
    times = [[at + wait + 0.1 * k for k in range(3 + int(at))] for at, wait in zip(sent, waits, strict=True)]
    cases = {
        "the example": ([0.0, 1.0, 1.0, 2.0], [[0.5, 0.9], [1.2, 1.6], [3.0], [2.4, 2.5]], 50),
        "the 90th percentile of ten requests": (sent, times, 90),
        "the 95th percentile of ten requests": (sent, times, 95),
        "the 100th percentile": (sent, times, 100),
    }
    mistakes = {
        "count from when each request was sent, not from 0": lambda sent, times, p: _nearest_rank(
            [t[0] for t in times], p
        ),
        "that is the time to the last token": lambda sent, times, p: _ttft_percentile(sent, [t[-1:] for t in times], p),
        "interpolated between two waits; take one that happened": lambda sent, times, percent: (
            torch.tensor([row[0] - at for row, at in zip(times, sent, strict=True)], dtype=torch.float64)
            .quantile(percent / 100)
            .item()
        ),
    }
    _compare(function, _ttft_percentile, cases, mistakes)


def _filtered_mask(mask: Tensor, finished: list[bool]) -> Tensor:
    rows = [cells for cells, done in zip(mask.tolist(), finished, strict=True) if not done]
    width = max((sum(cells) for cells in rows), default=0)  # the longest row that stays
    kept = [cells[len(cells) - width :] for cells in rows]
    return torch.tensor(kept, dtype=mask.dtype).reshape(len(rows), width)


@_exercise("when the longest row leaves, the columns that only it needed leave with it")
def check_filtered_mask(function: Function | None) -> None:
    """Exercise 3.3: the mask after the finished rows have left."""
    ragged = torch.tensor([[0] * (6 - n) + [1] * n for n in (3, 6, 4, 1)])
    cases = {
        "the example": (torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]), [True, False, False]),
        "the longest row staying": (ragged, [True, False, False, True]),
        "the shortest row staying alone": (ragged, [True, True, True, False]),
        "nothing finished": (ragged, [False] * 4),
        "everything finished": (ragged, [True] * 4),
    }
    mistakes = {
        "columns that are padding in every remaining row are still there": lambda mask, done: mask[~torch.tensor(done)],
        "those are the finished rows; the others stay": lambda mask, done: _filtered_mask(mask, [not d for d in done]),
    }
    _compare(function, _filtered_mask, cases, mistakes)


def _admitted(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for prompt_tokens, max_tokens in waiting[:free_slots]:
        free_tokens -= prompt_tokens + max_tokens
        if free_tokens < 0:
            break
        admitted += 1
    return admitted


def _admitted_out_of_turn(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for prompt_tokens, max_tokens in waiting:
        if admitted < free_slots and prompt_tokens + max_tokens <= free_tokens:
            free_tokens -= prompt_tokens + max_tokens
            admitted += 1
    return admitted


@_exercise("memory, not the number of slots, often decides how many requests run together")
def check_admitted_count(function: Function | None) -> None:
    """Exercise 3.4: how many waiting requests are admitted."""
    queue = [(7, 10), (7, 100), (500, 12), (30, 30), (7, 10)]
    cases = {
        "the example": ([(10, 20), (5, 45), (8, 8)], 8, 90),
        "few slots": (queue, 2, 10_000),
        "little memory": (queue, 5, 400),
        "memory that is just enough": (queue, 5, sum(map(sum, queue))),
        "a first request that does not fit": (queue[2:], 5, 100),
        "nobody waiting": ([], 5, 100),
    }
    mistakes = {
        "a request overtook one that came earlier": _admitted_out_of_turn,
        "there are not that many free slots": lambda waiting, slots, n: _admitted(waiting, len(waiting), n),
        "reserve room for the answer too": lambda waiting, slots, n: _admitted(
            [(prompt, 0) for prompt, _ in waiting], slots, n
        ),
        "a request that fills the memory exactly still fits": lambda waiting, slots, n: _admitted(
            waiting, slots, n - 1
        ),
    }
    _compare(function, _admitted, cases, mistakes)


@_exercise("who goes first decides who waits, at the same number of tokens")
def check_admission_order(function: Function | None) -> str:
    """Exercise 3.5: an order of admission that lowers the mean time to first token."""
    workloads = {
        "the course's workload": ([100 if index % 8 == 0 else 10 for index in range(32)], 8),
        "twelve mixed requests": ([60, 5, 40, 8, 30, 3, 20, 12, 50, 4, 9, 6], 3),
        "equal budgets": ([10] * 12, 4),
    }
    means: dict[str, tuple[float, float]] = {}
    for name, (budgets, slots) in workloads.items():
        order = _call(function, name, (list(budgets), slots), blank_is_wrong=bool(means))
        order = order.tolist() if hasattr(order, "tolist") else order
        if not isinstance(order, (list, tuple)) or not all(isinstance(index, numbers.Integral) for index in order):
            raise _Wrong(f"expected a list of indices for {name}, got {_short(order)} ({type(order).__name__})")
        if sorted(order) != list(range(len(budgets))):
            raise _Wrong(f"for {name} every index from 0 to {len(budgets) - 1} must be there once, got {_short(order)}")
        means[name] = tuple(
            sum(_serve(budgets, chosen, slots)[0]) / len(budgets) for chosen in (order, range(len(budgets)))
        )
    for name, (mean, in_turn) in means.items():
        must_gain = len(set(workloads[name][0])) > 1
        if mean > (0.9 if must_gain else 1.0) * in_turn:
            aim = "not a tenth lower" if must_gain else "higher"
            raise _Wrong(f"for {name} the mean is {mean:.1f} forwards, in order of arrival {in_turn:.1f}: {aim}")
    mean, in_turn = means["the course's workload"]
    return f"mean time to first token {mean:.1f} forwards instead of {in_turn:.1f} on the course's workload"


# --- Lesson 4: quantization --------------------------------------------------------------------------


@_exercise("the scale spreads the range over 255 steps, and the zero point makes 0.0 one of the levels")
def check_scale_and_zero_point(
    scale_by_hand: float | None, zero_point_by_hand: int | None, code_by_hand: int | None
) -> None:
    """Exercise 4.1: zero-point quantization by hand."""
    low, high, value = -2.0, 3.1, 0.777
    step = (high - low) / 255
    mistakes = {
        (high - low) / 256: "256 levels have one step less between them",
        high / 127: "that is symmetric; here the codes start at the smallest value",
        1 / step: "upside down: the scale is the size of a step",
    }
    _number("scale_by_hand", scale_by_hand, step, mistakes)
    zero = round(-low / step)
    mistakes = {
        low: "that is the smallest value; the zero point is a code, and 0.0 gets it",
        -zero: "a code is not negative",
        255 - zero: "count from the smallest value, not from the largest",
    }
    _number("zero_point_by_hand", zero_point_by_hand, zero, mistakes)
    exact = value / step + zero
    mistakes = {
        math.floor(exact): "cut off; round to the nearest code",
        round(value / step): "the zero point is missing",
        round(value / step) - zero: "the zero point is added, not subtracted",
    }
    _number("code_by_hand", code_by_hand, round(exact), mistakes)


@_exercise("the scales and zero points of small groups are part of the size, and few bits make them count")
def check_grouped_bytes(int4_layer_bytes: int | None, int4_bits_per_weight: float | None) -> None:
    """Exercise 4.2: a 4-bit layer with a scale and a zero point per group."""
    weights, group = 14336 * 4096, 128
    expected = weights // 2 + weights // group * (2 + 1)
    mistakes = {
        weights // 2: "the groups' scales and zero points take room too",
        weights + weights // group * 3: "two 4-bit codes share a byte",
        weights // 2 + weights // group * 2: "every group has a zero point too",
        weights // 2 + weights // group * 5: "a float16 scale takes 2 bytes",
        weights // 2 + 14336 * 3: "every group has its own scale, and a row has many groups",
    }
    _number("int4_layer_bytes", int4_layer_bytes, expected, mistakes)
    bits = 8 * expected / weights
    mistakes = {
        4: "scales and zero points count too",
        expected / weights: "that is in bytes",
        4 + 3 / group: "a byte has 8 bits",
    }
    _number("int4_bits_per_weight", int4_bits_per_weight, bits, mistakes)


def _mean_error(values: Tensor, scale: float, zero_point: int, truncate: bool) -> float:
    errors = []
    for value in values.tolist():
        level = value / scale + zero_point
        code = math.floor(level) if truncate else round(level)
        errors.append((code - zero_point) - value / scale)
    return sum(errors) / len(errors)


@_exercise("rounding errs in both directions and cancels, truncation shifts all weights by half a step")
def check_mean_error(function: Function | None) -> None:
    """Exercise 4.3: the bias of truncating and of rounding."""
    fractions = torch.tensor([0.1, 0.2, 0.4, 0.6, 0.8, 0.9])
    values = 0.25 * (torch.arange(-40, 80)[:, None] + fractions).flatten()
    example = torch.tensor([0.0, 0.26, 0.5, 0.74])
    cases = {
        "the example truncated": (example, 0.5, 10, True),
        "the example rounded": (example, 0.5, 10, False),
        "many values truncated": (values, 0.25, 60, True),
        "many values rounded": (values, 0.25, 60, False),
        "skewed values rounded": (0.25 * (torch.arange(-9, 50) + 0.3), 0.25, 60, False),
    }
    mistakes = {
        "the sign: the error is the dequantized value minus the value": lambda *given: -_mean_error(*given),
        "give the error in steps: divide by the scale": lambda *given: _mean_error(*given) * given[1],
        "the zero point has to come off again": lambda v, scale, zero, cut: _mean_error(v, scale, zero, cut) + zero,
        "that truncates and rounds the wrong way round": lambda v, scale, zero, cut: _mean_error(
            v, scale, zero, not cut
        ),
    }
    _compare(function, _mean_error, cases, mistakes)


def _grouped_int4(
    weight: Tensor, group_size: int, *, levels: int = 7, rounding: Function = torch.round
) -> tuple[Tensor, Tensor]:
    codes, scales = torch.zeros_like(weight, dtype=torch.int8), []
    for first in range(0, weight.shape[1], group_size):
        group = weight[:, first : first + group_size]
        largest = group.abs().amax(dim=1, keepdim=True)
        scale = torch.where(largest == 0, torch.ones_like(largest), largest / levels)
        codes[:, first : first + group_size] = rounding(group / scale).to(torch.int8)
        scales.append(scale)
    return codes, torch.cat(scales, dim=1)  # (out, in), (out, in / group_size)


@_exercise("an outlier coarsens only its own group, and the smaller the group the fewer weights pay for it")
def check_grouped_int4(function: Function | None) -> None:
    """Exercise 4.4: symmetric 4-bit codes with a scale per group."""
    weight = _normal(6, 32)
    with_outlier, with_zeros = weight.clone(), weight.clone()
    with_outlier[2, 5], with_zeros[1, 8:16] = 40.0, 0.0
    cases = {
        "the example": (torch.tensor([[0.7, -0.32, 14.0, 4.4]]), 2),
        "one group per row": (weight, 32),
        "four groups per row": (weight, 8),
        "an outlier": (with_outlier, 8),
        "a group of zeros": (with_zeros, 8),
    }
    mistakes = {
        "that is one scale per row; every group has its own": lambda w, n: _grouped_int4(w, w.shape[1]),
        "the largest weight of a group must get the code 7 or -7": lambda w, n: _grouped_int4(w, n, levels=8),
        "cut off towards zero; round to the nearest code": lambda w, n: _grouped_int4(w, n, rounding=torch.trunc),
        "cut off downwards; round to the nearest code": lambda w, n: _grouped_int4(w, n, rounding=torch.floor),
    }
    _compare(function, _grouped_int4, cases, mistakes)


def _integer_linear(x_codes: Tensor, x_scale: float, x_zero_point: int, w_codes: Tensor, w_scale: Tensor) -> Tensor:
    x, weight = (x_codes.double() - x_zero_point) * x_scale, w_codes.double() * w_scale.double()[:, None]
    return (x @ weight.T).float()  # (B, out)


@_exercise("the sums are exact in integers, the floats come in once per output: a fused int8 kernel does this")
def check_integer_linear(function: Function | None) -> None:
    """Exercise 4.5: a linear layer on integer codes."""

    def case(rows: int, width: int, outputs: int, zero_point: int) -> tuple:
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (rows, width), generator=generator).to(torch.uint8)
        weight = torch.randint(-127, 128, (outputs, width), generator=generator).to(torch.int8)
        return x, 0.02, zero_point, weight, _normal(outputs).abs() * 0.01 + 0.001

    small = torch.tensor([[4, 1]], dtype=torch.uint8), 0.5, 2, torch.tensor([[3, 1]], dtype=torch.int8)
    cases = {
        "the example": (*small, torch.tensor([0.1])),
        "a zero point of 0": case(3, 64, 5, 0),
        "a zero point of 117": case(3, 64, 5, 117),
        "a wide layer": case(2, 4096, 3, 128),
    }

    def overflowing(x: Tensor, x_scale: float, zero_point: int, weight: Tensor, w_scale: Tensor) -> Tensor:
        sums = (x.int() - zero_point) @ weight.int().T
        return sums.to(torch.int8).float() * x_scale * w_scale

    def wrapped(x: Tensor, x_scale: float, zero_point: int, weight: Tensor, w_scale: Tensor) -> Tensor:
        shifted = (x - torch.tensor(zero_point, dtype=torch.uint8)).int()
        return (shifted @ weight.int().T).float() * x_scale * w_scale

    mistakes = {
        "the zero point of x was left out": lambda x, s, _, *weight: _integer_linear(x, s, 0, *weight),
        "the sums overflow 8 bits; convert to int32 before the multiplication": overflowing,
        "uint8 has no negative numbers; convert to int32 before the zero point is subtracted": wrapped,
        "the scale of x was left out": lambda x, _, *others: _integer_linear(x, 1.0, *others),
        "the scales of the weight were left out": lambda *given: _integer_linear(*given[:4], torch.ones_like(given[4])),
    }
    _compare(function, _integer_linear, cases, mistakes)


# --- Lesson 5: low-rank adaptation -------------------------------------------------------------------


@_exercise("a quarter of a percent of GPT-2's parameters is trained, and only they need optimizer memory")
def check_trainable_parameters(lora_parameters: int | None, lora_adam_bytes: int | None) -> None:
    """Exercise 5.1: trainable parameters and optimizer memory of LoRA on GPT-2's attention."""
    layers, rank, width = 12, 8, 768
    expected = layers * rank * (width + 3 * width)
    mistakes = {
        expected // layers: "that is one layer",
        layers * rank * 2 * width: "c_attn makes queries, keys and values in one: it is wider on the way out",
        3 * layers * rank * 2 * width: "one pair of factors serves queries, keys and values together",
        layers * rank * width: "that is A alone",
        layers * width * 3 * width: "those are the frozen weights",
    }
    _number("lora_parameters", lora_parameters, expected, mistakes)
    mistakes = {
        4 * expected: "Adam keeps two numbers for every trainable parameter",
        12 * expected: "count what the optimizer keeps, not the parameters themselves",
    }
    _number("lora_adam_bytes", lora_adam_bytes, 8 * expected, mistakes)


def _smallest_rank(update: Tensor, tolerance: float) -> int:
    u, s, v = torch.linalg.svd(update.double(), full_matrices=False)
    for rank in range(len(s) + 1):
        error = update - u[:, :rank] * s[:rank] @ v[:rank]
        if error.norm() <= tolerance * update.norm():
            return rank
    return len(s)


def _with_singular_values(values: list[float], out_features: int, in_features: int) -> Tensor:
    left = torch.linalg.qr(_normal(out_features, len(values), seed=1).double()).Q
    right = torch.linalg.qr(_normal(in_features, len(values), seed=2).double()).Q
    return (left * torch.tensor(values, dtype=torch.float64) @ right.T).float()


@_exercise("the singular values tell how much of an update every further rank can hold")
def check_smallest_rank(function: Function | None) -> None:
    """Exercise 5.2: the smallest rank that holds an update."""
    halving = [2.0**-index for index in range(12)]
    cases = {
        "an update of rank 3": (_with_singular_values([5.0, 3.0, 1.0], 24, 16), 0.01),
        "singular values that halve": (_with_singular_values(halving, 16, 40), 0.1),
        "a large matrix of small values": (_with_singular_values([0.03, 0.02, 0.02, 0.02], 30, 30), 0.5),
        "the example": (torch.diag(torch.tensor([4.0, 3.0, 0.0])), 0.7),
        "a zero matrix": (torch.zeros(5, 7), 0.1),
    }

    def by_tail(power: int) -> Function:
        def rank_of(update: Tensor, tolerance: float) -> int:
            s = torch.linalg.svdvals(update.double()) ** power
            return next(r for r in range(len(s) + 1) if s[r:].sum() <= tolerance * s.sum())

        return rank_of

    mistakes = {
        "that is the rank itself; a tolerance allows less": lambda update, _: int(torch.linalg.matrix_rank(update)),
        "the tolerance is on the norm: the square root of the sum of squares, not the sum": by_tail(1),
        "that compares squared norms; take the square root": by_tail(2),
        "the tolerance is relative to the whole norm": lambda update, t: int((torch.linalg.svdvals(update) > t).sum()),
    }
    _compare(function, _smallest_rank, cases, mistakes)


def _merged_weight(layer: nn.Module, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    update = scaling * torch.einsum("or,ri->oi", b, a)  # (out, in)
    return layer.weight.detach() + (update.T if isinstance(layer, Conv1D) else update)


@_exercise("nn.Linear keeps (out, in) and Conv1D (in, out); only layers that are not square show the difference")
def check_merged_weight(function: Function | None) -> None:
    """Exercise 5.3: a low-rank update merged into a layer of either kind."""

    def case(kind: type, in_features: int, out_features: int, scaling: float) -> tuple:
        shape = (out_features, in_features) if kind is nn.Linear else (in_features, out_features)
        layer = kind(in_features, out_features) if kind is nn.Linear else kind(out_features, in_features)
        layer.weight = nn.Parameter(_normal(*shape))
        return layer, _normal(2, in_features, seed=1), _normal(out_features, 2, seed=2), scaling

    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        cases = {
            "an nn.Linear": case(nn.Linear, 6, 4, 1.0),
            "a scaling of 2": case(nn.Linear, 6, 4, 2.0),
            "a Conv1D": case(Conv1D, 6, 4, 2.0),
            "a square Conv1D": case(Conv1D, 5, 5, 0.5),
        }
    mistakes = {
        "the scaling is missing": lambda layer, a, b, scaling: _merged_weight(layer, a, b, 1.0),
        "add the layer's weight": lambda layer, *given: _merged_weight(layer, *given) - layer.weight,
        "a Conv1D keeps its weight as (in, out), square or not": lambda layer, a, b, scaling: (
            layer.weight + scaling * b @ a if a.shape[1] == b.shape[0] else layer.weight
        ),
        "return the weight as the layer keeps it": lambda *given: _merged_weight(*given).T,
    }
    _compare(function, _merged_weight, cases, mistakes)
    layer, *others = copy.deepcopy(cases["a Conv1D"])
    before = layer.weight.detach().clone()
    _call(function, "a Conv1D", (layer, *others))
    if not torch.equal(layer.weight, before):
        raise _Wrong("the result is right, but the layer was changed; return a new tensor")


def _row_norms(weight: Tensor) -> Tensor:
    return torch.stack([row.square().sum().sqrt() for row in weight])[:, None]  # (out, 1)


def _dora_weight(
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    magnitude: Tensor,
    alpha: float,
    *,
    power: float = 0.5,
    norm_of: Function = _row_norms,
) -> Tensor:
    turned = weight + alpha / len(a) ** power * (b @ a)  # (out, in)
    return magnitude[:, None] * turned / norm_of(turned)


@_exercise("LoRA turns the rows, one number each sets their length, and alpha / sqrt(r) keeps large ranks alive")
def check_dora_weight(function: Function | None) -> None:
    """Exercise 5.4: the weight of a DoRA layer with rsLoRA's scaling."""

    def case(out_features: int, in_features: int, rank: int, alpha: float) -> tuple:
        a, b = _normal(rank, in_features, seed=1), _normal(out_features, rank, seed=2)
        return _normal(out_features, in_features), a, b, _normal(out_features, seed=3).abs() + 0.5, alpha

    weight, a, b, _, alpha = case(6, 4, 2, 3.0)
    cases = {
        "a fresh adapter": (weight, a, torch.zeros_like(b), weight.norm(dim=1), alpha),
        "the example": (
            torch.tensor([[3.0, 0.0]]),
            torch.tensor([[0.0, 4.0]]),
            torch.ones(1, 1),
            torch.tensor([10.0]),
            1.0,
        ),
        "rank 1": case(6, 4, 1, 3.0),
        "rank 4": case(8, 12, 4, 2.0),
        "a square weight": case(7, 7, 3, 2.0),
    }
    mistakes = {
        "the scaling is alpha / r; rsLoRA divides by the square root": lambda *given: _dora_weight(*given, power=1.0),
        "the scaling is missing": lambda w, a, b, m, alpha: _dora_weight(w, a, b, m, len(a) ** 0.5),
        "divide by the new norm, not by the old one": lambda w, *given: _dora_weight(
            w, *given, norm_of=lambda _: w.norm(dim=1, keepdim=True)
        ),
        "take the norm of each row, that is of each output": lambda *given: _dora_weight(
            *given, norm_of=lambda v: v.norm(dim=0)
        ),
        "the rows have length 1; multiply by the magnitude": lambda w, a, b, m, alpha: _dora_weight(
            w, a, b, m / m, alpha
        ),
    }
    _compare(function, _dora_weight, cases, mistakes)


def _adapter_updates(x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, adapter: Tensor) -> Tensor:
    rows = [
        torch.zeros(x.shape[1], b.shape[1]) if index < 0 else scaling[index] * (row @ a[index].T @ b[index].T)
        for row, index in zip(x, adapter.tolist(), strict=True)
    ]
    return torch.stack(rows)  # (B, T, out)


@_exercise("requests of different customers share one batch, and a row without an adapter is the base model's")
def check_adapter_updates(function: Function | None) -> None:
    """Exercise 5.5: the updates of a batch in which every row has its own adapter."""
    adapters, rank, in_features, out_features = 3, 2, 6, 4
    a, b = _normal(adapters, rank, in_features, seed=1), _normal(adapters, out_features, rank, seed=2)
    scaling = torch.tensor([1.0, 2.0, 0.5])

    def case(tokens: int, chosen: list[int]) -> tuple:
        return _normal(len(chosen), tokens, in_features), a, b, scaling, torch.tensor(chosen)

    cases = {
        "one adapter for all rows": case(1, [0, 0, 0]),
        "an adapter for every row": case(1, [2, 0, 1]),
        "several tokens per row": case(5, [1, 1, 2, 0]),
        "rows without an adapter": case(3, [-1, 2, -1, 0]),
        "no row with an adapter": case(2, [-1, -1]),
    }
    mistakes = {
        "-1 picked the last adapter; such a row gets zeros": lambda *g: _adapter_updates(*g[:4], g[4] % len(g[1])),
        "every adapter has its own scaling": lambda *g: _adapter_updates(*g[:3], torch.ones(len(g[3])), g[4]),
        "every row got the first row's adapter": lambda *g: _adapter_updates(*g[:4], g[4][:1].expand_as(g[4])),
    }
    _compare(function, _adapter_updates, cases, mistakes)
