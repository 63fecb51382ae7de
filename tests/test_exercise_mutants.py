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
    "check_chunked_prefill": {
        OVERWRITTEN: [
            "first_token = [1] * len(unread)",
            "first_token = [-1] * len(unread)",
        ],
        "every call gets a list of its own": [
            "unread = prompt_tokens",
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
    "check_stacked_loras": {
        "all adapters are of the same layer": [
            "loras_a = torch.zeros(len(adapters), adapters[-1][0].shape[1], rank)",
            "loras_b = torch.zeros(len(adapters), rank, len(adapters[-1][1]))",
        ],
    },
    "check_share_in_time": {
        NEGATIVE: [
            "if tokens <= 0:",
        ],
        "no promise is below 0, so a gap of less than that keeps every promise": [
            "gap = (last - first) / (tokens - 1) if tokens > 1 else -0.5",
            "gap = (last - first) / (tokens - 1) if tokens > 1 else -0.5",
        ],
    },
    "check_dora_weight": {
        "dimension 1 is the default": [
            "return magnitude[:, None] * nn.functional.normalize(turned)",
        ],
    },
    "check_merged_weight": {
        "the sum is a new tensor, and one that can be trained further is right as well": [
            "merged = layer.weight",
            "weight = layer.weight.clone()",
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


# For each check, what an answer could forget: each of these must hold for the arguments of some case.
SITUATIONS: dict[str, dict[str, Callable[..., bool]]] = {
    "check_positions_processed": {
        "one turn with the cache kept": lambda turns, keep: len(turns) == 1 and keep,
        "one turn without the cache": lambda turns, keep: len(turns) == 1 and not keep,
        "an answer of one token": lambda turns, keep: turns[0][1] == 1,
        "more than two turns with the cache kept": lambda turns, keep: len(turns) > 2 and keep,
        "more than two turns without the cache": lambda turns, keep: len(turns) > 2 and not keep,
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
    "check_batch_sizes": {
        "a rectangle of exactly max_cells": lambda lengths, most: len(lengths) > 1 and lengths[:3] == [5, 5, 5],
        "a prompt that is longer than the limit": lambda lengths, most: max(lengths[1:], default=0) > most,
        "a first prompt that is longer than the limit": lambda lengths, most: lengths[0] > most,
        "one batch for all": lambda lengths, most: 1 < len(lengths) * max(lengths) <= most and len(lengths) > 1,
        "one prompt": lambda lengths, most: len(lengths) == 1,
        "a longer newcomer": lambda lengths, most: len(lengths) > 2 and lengths[0] < lengths[1] <= most,
        "a shorter newcomer": lambda lengths, most: len(lengths) > 2 and most >= lengths[0] > lengths[1],
        "prompts of one length": lambda lengths, most: len(lengths) > 1 and len(set(lengths)) == 1,
    },
    "check_one_row": {
        "one prompt": lambda lengths: len(lengths) == 1,
        "two prompts": lambda lengths: len(lengths) == 2,
        "three prompts": lambda lengths: len(lengths) == 3,
        "a prompt of one token": lambda lengths: 1 in lengths,
        "prompts of one token": lambda lengths: set(lengths) == {1},
        "a later prompt that is longer": lambda lengths: lengths[-1] > lengths[0],
        "prompts of one length": lambda lengths: len(lengths) > 1 and len(set(lengths)) == 1,
    },
    "check_crossover_batch": {
        "no cache": lambda w, size, cache, flops, speed: cache == 0,
        "one byte a weight": lambda w, size, cache, flops, speed: size == 1,
        "two bytes a weight": lambda w, size, cache, flops, speed: size == 2,
        "four bytes a weight": lambda w, size, cache, flops, speed: size == 4 and cache < 10,
        "numbers of a real machine": lambda w, size, cache, flops, speed: flops > 1e9,
        "a cache that is read as long as the row computes": lambda w, size, cache, flops, speed: (
            2 * w * speed == cache * flops
        ),
        "a cache that is read longer": lambda w, size, cache, flops, speed: 2 * w * speed < cache * flops,
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
    "check_chunked_prefill": {
        "no running rows": lambda prompts, running, budget: prompts and running == 0,
        "nobody waiting": lambda prompts, running, budget: not prompts,
        "one prompt": lambda prompts, running, budget: len(prompts) == 1,
        "a prompt that fills its forward": lambda prompts, running, budget: prompts and prompts[0] == budget - running,
        "a prompt of many pieces": lambda prompts, running, budget: prompts and max(prompts) > 2 * budget,
        "prompts that fit together": lambda prompts, running, budget: len(prompts) > 1 and sum(prompts) < budget // 2,
        "just enough room for everybody": lambda prompts, running, budget: running + len(prompts) == budget - 1,
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
    "check_best_clip": {
        "one clip": lambda weights, bits, clips: len(clips) == 1,
        "the first clip is the best": lambda weights, bits, clips: (
            len(clips) > 1 and clips[0] == solved()["best_clip"](weights, bits, clips)[0]
        ),
        "the last clip is the best": lambda weights, bits, clips: (
            clips[-1] == solved()["best_clip"](weights, bits, clips)[0]
        ),
        "a clip in between is the best": lambda weights, bits, clips: (
            solved()["best_clip"](weights, bits, clips)[0] in clips[1:-1]
        ),
        "2 bits": lambda weights, bits, clips: bits == 2,
        "8 bits": lambda weights, bits, clips: bits == 8,
        "zeros": lambda weights, bits, clips: not weights.any(),
        "no positive weight": lambda weights, bits, clips: weights.max() < 0,
        "clips in no order": lambda weights, bits, clips: clips not in (sorted(clips), sorted(clips, reverse=True)),
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
        "a Linear": lambda layer, adapters: isinstance(layer, nn.Linear),
        "a square Linear": lambda layer, adapters: isinstance(layer, nn.Linear) and len(set(layer.weight.shape)) == 1,
        "a Conv1D": lambda layer, adapters: isinstance(layer, Conv1D) and len(set(layer.weight.shape)) == 2,
        "a square Conv1D": lambda layer, adapters: isinstance(layer, Conv1D) and len(set(layer.weight.shape)) == 1,
        "a scaling above 1": lambda layer, adapters: any(scaling > 1 for _, _, scaling in adapters),
        "a scaling below 1": lambda layer, adapters: any(scaling < 1 for _, _, scaling in adapters),
        "no adapter": lambda layer, adapters: not adapters,
        "one adapter": lambda layer, adapters: len(adapters) == 1,
        "two adapters of one rank": lambda layer, adapters: [len(a) for a, _, _ in adapters] == [1, 1],
        "adapters of several ranks": lambda layer, adapters: len({len(a) for a, _, _ in adapters}) > 1,
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
    "check_padded_share": {
        "equal ranks": lambda ranks: len(ranks) > 1 and len(set(ranks)) == 1,
        "one adapter": lambda ranks: len(ranks) == 1,
        "two adapters": lambda ranks: len(ranks) == 2,
        "the highest rank first": lambda ranks: ranks[0] == max(ranks) > min(ranks),
        "the highest rank last": lambda ranks: ranks[-1] == max(ranks) > min(ranks),
        "the highest rank in the middle": lambda ranks: max(ranks) > max(ranks[0], ranks[-1]),
        "a rank of 1": lambda ranks: 1 in ranks,
    },
    "check_adapter_loads": {
        "nobody": lambda wanted, slots: not wanted,
        "one voice": lambda wanted, slots: len(set(wanted)) == 1,
        "one slot": lambda wanted, slots: slots == 1 and len(set(wanted)) > 1,
        "room for all": lambda wanted, slots: slots >= len(set(wanted)) > 1,
        "two slots": lambda wanted, slots: slots == 2,
        "three slots and more voices": lambda wanted, slots: 2 < slots < len(set(wanted)),
        "the same voice twice in a row": lambda wanted, slots: any(
            one == other for one, other in zip(wanted, wanted[1:], strict=False)
        ),
    },
    "check_stacked_loras": {
        "one adapter": lambda adapters: len(adapters) == 1,
        "equal ranks": lambda adapters: len(adapters) > 1 and len({len(a) for a, _, _ in adapters}) == 1,
        "the highest rank first": lambda adapters: len(adapters[0][0]) > len(adapters[1][0]),
        "the highest rank in the middle": lambda adapters: len(adapters) == 3 and len(adapters[1][0]) == 4,
        "a square layer": lambda adapters: len(adapters[0][1]) == adapters[0][0].shape[1],
        "more outputs than inputs": lambda adapters: len(adapters[0][1]) > adapters[0][0].shape[1],
        "more inputs than outputs": lambda adapters: len(adapters[0][1]) < adapters[0][0].shape[1],
    },
    "check_share_in_time": {
        "nobody refused": lambda answers, *_: all(tokens for *_, tokens in answers),
        "somebody refused": lambda answers, *_: any(not tokens for *_, tokens in answers) and len(answers) > 1,
        "one request": lambda answers, *_: len(answers) == 1,
        "a single token": lambda answers, *_: any(tokens == 1 for *_, tokens in answers),
        "nobody in time": lambda answers, ttft, _: all(first - at > ttft for at, first, *_ in answers),
    },
    "check_knee": {
        "kept everywhere": lambda rates, shares, wanted: min(shares) >= wanted and len(rates) > 1,
        "kept nowhere": lambda rates, shares, wanted: max(shares) < wanted,
        "a lucky run": lambda rates, shares, wanted: shares != sorted(shares, reverse=True),
        "exactly at the promise": lambda rates, shares, wanted: wanted in shares,
        "one rate": lambda rates, shares, wanted: len(rates) == 1,
    },
    "check_places_of": {
        "no tokens": lambda table, size, start, count: not count,
        "from the first token on": lambda table, size, start, count: not start and count,
        "one token": lambda table, size, start, count: count == 1,
        "from the last place of a block on": lambda table, size, start, count: start % size == size - 1 > 0,
        "a block that comes before the one before it": lambda table, size, start, count: table != sorted(table),
        "blocks of one token": lambda table, size, start, count: size == 1,
        "more than two blocks": lambda table, size, start, count: count > 2 * size,
    },
    "check_found_tokens": {
        "nothing in the cache": lambda prompt, earlier, size: not earlier,
        "the same prompt": lambda prompt, earlier, size: prompt in earlier,
        "a longer earlier prompt": lambda prompt, earlier, size: (
            earlier and len(earlier[0]) > len(prompt) > 1 and earlier[0][: len(prompt)] == prompt
        ),
        "one token": lambda prompt, earlier, size: len(prompt) == 1,
        "another first token": lambda prompt, earlier, size: all(other[0] != prompt[0] for other in earlier[:1]),
        "several earlier prompts": lambda prompt, earlier, size: len(earlier) > 2,
        "blocks larger than what is common": lambda prompt, earlier, size: size == 4 and len(prompt) == 6,
    },
    "check_rows_that_fit": {
        "nothing shared": lambda count, size, shared, own: not shared,
        "less shared than a block": lambda count, size, shared, own: 0 < shared < size,
        "whole blocks shared": lambda count, size, shared, own: shared and shared % size == 0,
        "no room for anybody": lambda count, size, shared, own: shared >= count * size,
        "a shared part larger than the cache": lambda count, size, shared, own: shared > count * size,
        "blocks of one token": lambda count, size, shared, own: size == 1,
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
