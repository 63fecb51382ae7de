"""No check calls a wrong answer correct: right answers, changed in one place, are handed in.

Two kinds of changes are tried. One changes the source of the solutions and of the references by one constant,
comparison, operation, index or call (mutation.py). The other leaves the answer right except in one situation,
which therefore must occur among the cases of the check. A change that no check can notice is listed in UNNOTICED.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import mutation
from exercise_answers import (
    CALCULATIONS,
    CHECKS,
    COMPARED,
    FUNCTIONS,
    anatomy,
    hand_in,
    module_of,
    numbers_of,
    right_answers,
    solution_source,
    solved,
)
from mutation import mutants

# --- Changes of the source -----------------------------------------------------------------------------


def sources(name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The right answers of a check: a function's name, the source with all that it calls of ours, and its names."""
    yield *solution_source(name), solved()
    if name in COMPARED:
        names = vars(module_of(name))
        needed = [anatomy(name).reference.__name__]
        for function in needed:  # grows while it is read
            used = [names[other] for other in names[function].__code__.co_names if inspect.isfunction(names.get(other))]
            ours = [other.__name__ for other in used if other.__module__ == names["__name__"]]
            needed += [other for other in ours if other not in needed]
        yield needed[0], "\n\n".join(inspect.getsource(names[function]) for function in needed), dict(names)


def unnoticed_changes(name: str) -> list[str]:
    """The mutants of a check's right answers that the check calls correct."""
    found = []
    for function_name, source, namespace in sources(name):
        for title, module in mutants(source, function_name).items():
            result = hand_in(name, mutation.define(module, function_name, namespace))
            assert result.outcome != "not checked", (title, result)
            if result:
                found.append(title.partition(" → ")[2])
    return found


LAST = "of two dimensions the last one is dimension 1"
NEGATIVE = "it is never negative"
ROUNDING = "whether probabilities add up to exactly top_p is a matter of rounding"
OVERWRITTEN = "all of it is written over afterwards"
TENSORS = "a tensor of one value serves as well as the number"

# For each check: why a changed statement makes no difference, and the statements as they are after the change.
UNNOTICED: dict[str, dict[str, list[str]]] = {
    "check_keep_top_p": {
        "the last dimension is the default": [
            "ordered, columns = logits.sort(descending=True)",
        ],
        ROUNDING: [
            "is_outside = (before >= top_p).scatter(1, columns, before > top_p)",
            "while taken < len(order) and (total <= top_p or top_p == 1):",
        ],
        "top_p is at most 1": [
            "return logits if top_p >= 1.0 else logits.masked_fill(is_outside, -torch.inf)",
            "while taken < len(order) and (total < top_p or top_p >= 1):",
        ],
        LAST: [
            "ordered, columns = logits.sort(dim=1, descending=True)",
            "probabilities = ordered.softmax(dim=1)",
            "before = probabilities.cumsum(dim=1) - probabilities",
            "for row, probabilities in enumerate(torch.softmax(logits, dim=1)):",
        ],
        OVERWRITTEN: [
            "is_outside = (before > top_p).scatter(1, columns, before >= top_p)",
            "is_outside = (before < top_p).scatter(1, columns, before >= top_p)",
        ],
        TENSORS: [
            "order, total, taken = (probabilities.argsort(descending=True), 0.0, 0)",
            "total += probabilities[order[taken]]",
        ],
    },
    "check_positions_processed": {
        NEGATIVE: [
            "if new_tokens <= 0:",
        ],
        "a whole number may be a float": [
            "return new_tokens * prompt_length + new_tokens * (new_tokens - 1) / 2",
        ],
    },
    "check_tempered": {
        NEGATIVE: [
            "is_greedy = temperatures[:, None] <= 0",
            "rows.append(greedy if temperature <= 0 else torch.softmax(row / temperature, dim=-1))",
        ],
        "rows of temperature 0 are replaced, whatever they were divided by": [
            "divisors = temperatures[:, None]",
            "divisors = temperatures[:, None].masked_fill(is_greedy, 1.5)",
            "divisors = temperatures[:, None].masked_fill(is_greedy, 0.5)",
        ],
        LAST: [
            "probabilities = torch.softmax(logits / divisors, dim=1)",
            "greedy = torch.zeros_like(logits).scatter(1, logits.argmax(dim=1, keepdim=True), 1.0)",
        ],
        TENSORS: [
            "for row, temperature in zip(logits, temperatures):",
        ],
        "a row has one dimension": [
            "rows.append(greedy if temperature == 0 else torch.softmax(row / temperature, dim=-0))",
        ],
    },
    "check_batch_latencies": {
        "any time before the first arrival will do as the start": [
            "latencies, done_s = ([], -0.5)",
            "latencies, free_s = ([], -0.5)",
        ],
    },
    "check_positions_of": {
        OVERWRITTEN: [
            "positions = mask",
        ],
        "position 0 is there from the start": [
            "for position, column in list(enumerate(real))[1:]:",
        ],
        TENSORS: [
            "for row, cells in enumerate(mask):",
        ],
    },
    "check_grouped_int4": {
        NEGATIVE: [
            "scale = scale.masked_fill(scale <= 0, 1.0)",
            "scale = torch.where(largest <= 0, torch.ones_like(largest), largest / levels)",
        ],
        OVERWRITTEN: [
            "codes, scales = (torch.ones_like(weight, dtype=torch.int8), [])",
        ],
        "what is written into a tensor takes its dtype": [
            "codes[:, first:first + group_size] = rounding(group / scale)",
        ],
    },
    "check_integer_linear": {
        "integers are added up in 64 bits, which is exact too": [
            "sums = sums - x_zero_point * w_codes.sum(dim=1)",
        ],
        "the product is a float64 tensor all the same": [
            "x, weight = ((x_codes.double() - x_zero_point) * x_scale, w_codes * w_scale.double()[:, None])",
            "x, weight = ((x_codes.double() - x_zero_point) * x_scale, w_codes.double() * w_scale[:, None])",
        ],
    },
    "check_adapter_updates": {
        "a strength of 0 makes zeros of whatever adapter was picked": [
            "index = adapter",
            "index = adapter.clamp(min=-1)",
        ],
        TENSORS: [
            "rows = [torch.zeros(x.shape[1], b.shape[1]) if index < 0 else scaling[index] * (row @ "
            "a[index].T @ b[index].T) for row, index in zip(x, adapter)]",
        ],
    },
    "check_dora_weight": {
        "dimension 1 is the default": [
            "return magnitude[:, None] * nn.functional.normalize(turned)",
        ],
    },
    "check_merged_weight": {
        "the sum is a new tensor, and one that can be trained further is right as well": [
            "return layer.weight + update",
            "return layer.weight + (update.T if isinstance(layer, Conv1D) else update)",
        ],
    },
    "check_smallest_rank": {
        "how many of them are too large does not depend on their order": [
            "dropped = squares.flip(0).cumsum(0)",
            "dropped = squares.flip(0).cumsum(0).flip(-1)",
        ],
        "float32 is precise enough": [
            "squares = torch.linalg.svdvals(update).square()",
            "u, s, v = torch.linalg.svd(update, full_matrices=False)",
        ],
        "a vector has one dimension": [
            "dropped = squares.flip(0).cumsum(-1).flip(0)",
            "dropped = squares.flip(-1).cumsum(0).flip(0)",
        ],
        "the vectors beyond the last singular value are not used": [
            "u, s, v = torch.linalg.svd(update.double())",
            "u, s, v = torch.linalg.svd(update.double(), full_matrices=True)",
        ],
        "the full rank leaves nothing out, so the loop ends there": [
            "for rank in range(len(s) + 2):",
        ],
    },
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_change_in_one_place_is_noticed(name: str) -> None:
    excused = [change for changes in UNNOTICED.get(name, {}).values() for change in changes]
    assert sorted(unnoticed_changes(name)) == sorted(excused)


@pytest.mark.parametrize("name", CALCULATIONS)
def test_a_number_that_is_off_by_one_is_noticed(name: str) -> None:
    right = right_answers(name)
    for place, (blank, expected, _) in enumerate(numbers_of(name)):
        steps = (1, -1) if isinstance(expected, int) else (0.001 * expected, -0.001 * expected)
        for wrong in [expected + step for step in steps] + [-expected, 2 * expected, expected / 2]:
            result = CHECKS[name](*right[:place], wrong, *right[place + 1 :])
            assert result.outcome == "wrong" and f": {blank}: " in repr(result)


def test_numbers_that_have_changed_places_are_noticed() -> None:
    for name in CALCULATIONS:
        assert CHECKS[name](*reversed(right_answers(name))).outcome == "wrong"


# --- Situations ----------------------------------------------------------------------------------------


def dead_columns(mask: torch.Tensor) -> bool:
    return not mask.any(dim=0).all()


# For each check, what an answer could forget: each of these must hold for the arguments of some case.
SITUATIONS: dict[str, dict[str, Callable[..., bool]]] = {
    "check_positions_processed": {
        "no new token with a cache": lambda prompt, new, cached: new == 0 and cached,
        "no new token without a cache": lambda prompt, new, cached: new == 0 and not cached,
        "one new token with a cache": lambda prompt, new, cached: new == 1 and cached,
        "one new token without a cache": lambda prompt, new, cached: new == 1 and not cached,
        "more new tokens than the prompt has": lambda prompt, new, cached: new > prompt,
    },
    "check_decode_floor": {
        "a batch of one": lambda weights, kv, lengths, speed: len(lengths) == 1,
        "lengths that differ": lambda weights, kv, lengths, speed: len(set(lengths)) > 1,
        "more cache than weights": lambda weights, kv, lengths, speed: kv * sum(lengths) > weights,
        "less cache than weights": lambda weights, kv, lengths, speed: kv * sum(lengths) < weights,
    },
    "check_tempered": {
        "one row": lambda logits, t: len(t) == 1,
        "a temperature of 0 beside others": lambda logits, t: 0 < (t == 0).sum() < len(t),
        "two temperatures of 0": lambda logits, t: (t == 0).sum() == 2,
        "a temperature below 0.01": lambda logits, t: ((t > 0) & (t < 0.01)).any(),
        "a temperature above 2": lambda logits, t: (t > 2).any(),
        "logits too large for exp": lambda logits, t: logits.max() > 100,
        "close logits at a temperature of 0": lambda logits, t: logits.max() < 0.1 and (t == 0).any(),
    },
    "check_keep_top_p": {
        "one row": lambda logits, p: len(logits) == 1,
        "rows whose nuclei differ in size": lambda logits, p: len(logits) > 1 and 0.5 < p < 1,
        "a top_p of 1": lambda logits, p: p == 1,
        "a token of probability 1 and a top_p of 1": lambda logits, p: p == 1 and logits.softmax(-1).max() == 1,
        "a top_p below every first probability": lambda logits, p: p < 0.01,
    },
    "check_left_padded": {
        "the longest prompt first": lambda rows, pad: len(rows[0]) > max(map(len, rows[1:])),
        "the longest prompt last": lambda rows, pad: len(rows[-1]) > max(map(len, rows[:-1])),
        "the longest prompt in between": lambda rows, pad: len(rows[1]) > max(len(rows[0]), len(rows[-1])),
        "prompts of one length": lambda rows, pad: len(set(map(len, rows))) == 1,
        "the pad id at the start of a prompt": lambda rows, pad: any(row[0] == pad for row in rows),
        "the pad id at the end of a prompt": lambda rows, pad: any(row[-1] == pad for row in rows),
        "a prompt of the pad id alone": lambda rows, pad: [pad] in rows,
        "a pad id of 0": lambda rows, pad: pad == 0,
        "another pad id": lambda rows, pad: pad != 0,
        "one prompt": lambda rows, pad: len(rows) == 1,
    },
    "check_positions_of": {
        "no padding": lambda mask: mask.all(),
        "one token": lambda mask: (mask.sum(dim=1) == 1).any(),
        "a row without padding that is not the first": lambda mask: mask[1].all() and not mask[0].all(),
        "one row": lambda mask: len(mask) == 1,
    },
    "check_crossover_batch": {
        "one byte": lambda flops, speed, size: size == 1,
        "two bytes": lambda flops, speed, size: size == 2,
        "four bytes": lambda flops, speed, size: size == 4,
        "numbers of a real machine": lambda flops, speed, size: flops > 1e9,
    },
    "check_batch_latencies": {
        "a server that is still busy": lambda arrivals, size, batch_s: arrivals[size:] and arrivals[-1] < batch_s,
        "a server that waits": lambda arrivals, size, batch_s: arrivals[-1] - arrivals[0] > 2 * batch_s,
        "a last batch that is not full": lambda arrivals, size, batch_s: len(arrivals) % size != 0,
        "batches of one": lambda arrivals, size, batch_s: size == 1,
        "one batch that is not full": lambda arrivals, size, batch_s: len(arrivals) < size,
        "a first arrival after the start": lambda arrivals, size, batch_s: arrivals[0] > 0,
    },
    "check_ttft_percentile": {
        "requests that were not sent at 0": lambda sent, times, percent: sent[-1] > 0,
        "an even number of requests": lambda sent, times, percent: len(sent) % 2 == 0,
        "the largest wait": lambda sent, times, percent: percent == 100,
        "less than one request": lambda sent, times, percent: percent * len(sent) < 100,
        "a rank that is no whole number": lambda sent, times, percent: percent * len(sent) % 100,
        "a rank that is one": lambda sent, times, percent: percent * len(sent) % 100 == 0 and percent < 100,
        "many requests": lambda sent, times, percent: len(sent) > 100,
        "one request": lambda sent, times, percent: len(sent) == 1,
    },
    "check_filtered_mask": {
        "nothing finished, no dead column": lambda mask, done: not any(done) and not dead_columns(mask),
        "nothing finished, a dead column": lambda mask, done: not any(done) and dead_columns(mask),
        "everything finished": lambda mask, done: all(done),
        "the first row finished": lambda mask, done: done[0] and not all(done),
        "the last row finished": lambda mask, done: done[-1] and not all(done),
        "the longest row staying": lambda mask, done: any(done) and mask[~torch.tensor(done)].all(dim=1).any(),
        "one row staying": lambda mask, done: sum(done) == len(done) - 1,
    },
    "check_admitted_count": {
        "nobody waiting": lambda waiting, slots, tokens: not waiting,
        "no free slot": lambda waiting, slots, tokens: waiting and slots == 0,
        "no free token": lambda waiting, slots, tokens: waiting and tokens == 0,
        "fewer slots than requests": lambda waiting, slots, tokens: 0 < slots < len(waiting),
        "as many slots as requests": lambda waiting, slots, tokens: slots == len(waiting),
        "more slots than requests": lambda waiting, slots, tokens: slots > len(waiting) > 0,
        "just enough memory": lambda waiting, slots, tokens: tokens == sum(map(sum, waiting)),
        "one token too few": lambda waiting, slots, tokens: tokens == sum(map(sum, waiting)) - 1,
        "a first request that does not fit": lambda waiting, slots, tokens: waiting and sum(waiting[0]) > tokens > 0,
        "a later request that would fit": lambda waiting, slots, tokens: (
            len(waiting) > 2 and sum(waiting[0]) > tokens >= sum(waiting[-1])
        ),
    },
    "check_mean_error": {
        "negative values truncated": lambda values, scale, zero, truncate: truncate and values.min() < 0,
        "negative values rounded": lambda values, scale, zero, truncate: not truncate and values.min() < 0,
        "a zero point of 0": lambda values, scale, zero, truncate: zero == 0,
    },
    "check_grouped_int4": {
        "one group in a row": lambda weight, size: weight.shape[1] == size,
        "groups of one weight": lambda weight, size: size == 1,
        "one row": lambda weight, size: len(weight) == 1,
        "a group of zeros": lambda weight, size: (weight.view(len(weight), -1, size) == 0).all(dim=-1).any(),
        "the largest weight of a group is negative": lambda weight, size: (
            weight.view(len(weight), -1, size).amin(-1) < -weight.view(len(weight), -1, size).amax(-1)
        ).any(),
        "an outlier": lambda weight, size: weight.max() > 30,
    },
    "check_integer_linear": {
        "a zero point of 0": lambda x, x_scale, zero, weight, w_scale: zero == 0,
        "a zero point above every code but not 0": lambda x, x_scale, zero, weight, w_scale: 0 < zero < 255,
        "one row": lambda x, x_scale, zero, weight, w_scale: len(x) == 1,
        "one output": lambda x, x_scale, zero, weight, w_scale: len(weight) == 1,
        "as many rows as outputs": lambda x, x_scale, zero, weight, w_scale: len(x) == len(weight) > 1,
        "sums beyond 16 bits": lambda x, x_scale, zero, weight, w_scale: x.shape[1] > 1000,
        "negative weights": lambda x, x_scale, zero, weight, w_scale: weight.min() < 0,
    },
    "check_smallest_rank": {
        "a zero matrix": lambda update, tolerance: not update.any(),
        "a tolerance above 1": lambda update, tolerance: tolerance > 1,
        "a full rank": lambda update, tolerance: update.any() and tolerance < 0.01 and min(update.shape) == 4,
        "more rows than columns": lambda update, tolerance: update.shape[0] > update.shape[1],
        "more columns than rows": lambda update, tolerance: update.shape[0] < update.shape[1],
        "a square matrix": lambda update, tolerance: update.shape[0] == update.shape[1],
    },
    "check_merged_weight": {
        "a Linear": lambda layer, a, b, scaling: isinstance(layer, nn.Linear),
        "a square Linear": lambda layer, a, b, scaling: isinstance(layer, nn.Linear) and len(b) == a.shape[1],
        "a Conv1D": lambda layer, a, b, scaling: isinstance(layer, Conv1D) and len(b) != a.shape[1],
        "a square Conv1D": lambda layer, a, b, scaling: isinstance(layer, Conv1D) and len(b) == a.shape[1],
        "a scaling above 1": lambda layer, a, b, scaling: scaling > 1,
        "a scaling below 1": lambda layer, a, b, scaling: scaling < 1,
    },
    "check_dora_weight": {
        "a fresh adapter": lambda weight, a, b, magnitude, alpha: not b.any(),
        "a rank of 1": lambda weight, a, b, magnitude, alpha: len(a) == 1,
        "a rank above 1": lambda weight, a, b, magnitude, alpha: len(a) > 1 and b.any(),
        "one row": lambda weight, a, b, magnitude, alpha: len(weight) == 1,
        "a square weight": lambda weight, a, b, magnitude, alpha: weight.shape[0] == weight.shape[1],
    },
    "check_adapter_updates": {
        "no row with an adapter": lambda x, a, b, scaling, adapter: (adapter < 0).all(),
        "a row without an adapter first": lambda x, a, b, scaling, adapter: adapter[0] < 0 < adapter.max(),
        "one adapter for all rows": lambda x, a, b, scaling, adapter: len(set(adapter.tolist())) == 1,
        "an adapter used twice": lambda x, a, b, scaling, adapter: (adapter == 1).sum() == 2,
        "one token": lambda x, a, b, scaling, adapter: x.shape[1] == 1,
        "several tokens": lambda x, a, b, scaling, adapter: x.shape[1] > 1,
        "more rows than adapters": lambda x, a, b, scaling, adapter: len(x) > len(a),
        "as many rows as adapters": lambda x, a, b, scaling, adapter: len(x) == len(a),
        "the last adapter": lambda x, a, b, scaling, adapter: (adapter == len(a) - 1).any(),
    },
}


def forgetful(right: Callable[..., Any], forgotten: Callable[..., bool]) -> Callable[..., Any]:
    """The right function, which forgets to return anything in one situation."""
    return lambda *arguments: None if forgotten(*arguments) else right(*arguments)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_forgotten_situation_is_noticed(name: str) -> None:
    (right,) = right_answers(name)
    unnoticed = [title for title, holds in SITUATIONS[name].items() if hand_in(name, forgetful(right, holds))]
    assert unnoticed == []


def test_every_compared_function_has_situations() -> None:
    assert sorted(SITUATIONS) == sorted(COMPARED)
