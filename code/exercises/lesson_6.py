"""The checks of Lesson 6, many adapters in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checking import Function, compare_function, compare_number, exercise, normal


@exercise("hundreds of customers fit beside one base, where a copy of the model would leave no room for a second one")
def check_room_for_adapters(adapter_bytes: int | None, adapters_that_fit: int | None) -> None:
    """Exercise 6.1: the bytes of an adapter, and how many of them fit into a given room."""
    layers, width, rank, room = 32, 4096, 16, 10**10
    pair = rank * (width + width)  # numbers in A and B of one layer
    expected = 2 * 4 * layers * pair
    mistakes = {
        "that is one block; the model has more": expected // layers,
        "an adapter changes four layers of each block": expected // 4,
        "that is half: a number takes two bytes, and an adapter has both A and B": expected // 2,
        "fp16 takes two bytes, not four": 2 * expected,
        "those are the frozen weights": 2 * 4 * layers * width**2,
    }
    compare_number("adapter_bytes", adapter_bytes, expected, mistakes)
    mistakes = {
        "the last one does not fit as a whole": room // expected + 1,
        "a GB is 10**9 bytes here": 10 * 2**30 // expected,
        "the adapters are in fp16": room // (2 * expected),
    }
    compare_number("adapters_that_fit", adapters_that_fit, room // expected, mistakes)


def _padded_share(ranks: Sequence[int]) -> float:
    slots = len(ranks) * max(ranks)
    return (slots - sum(ranks)) / slots


@exercise("one adapter of a high rank makes a stack of all pay for it, and groups have no stack to pad")
def check_padded_share(function: Function | None) -> None:
    """Exercise 6.2: which share of a stack of adapters is padding."""
    cases = {
        "the example": ([4, 8, 16, 8],),
        "equal ranks": ([8, 8, 8],),
        "one adapter": ([16],),
        "one high rank among low ones": ([4, 4, 4, 64],),
        "the highest rank first": ([32, 8],),
        "two adapters": ([1, 3],),
    }
    mistakes = {
        "that is the share which is used": lambda ranks: 1 - _padded_share(ranks),
        "compare the padding with the whole stack, not with what is used": lambda ranks: (
            (len(ranks) * max(ranks) - sum(ranks)) / sum(ranks)
        ),
        "every adapter is padded to the highest rank, not to the sum": lambda ranks: 1 - 1 / len(ranks),
        "every adapter is padded to the highest rank, wherever it stands": lambda ranks: (
            1 - sum(ranks) / (len(ranks) * ranks[-1])
        ),
        "that counts ranks; divide by the whole stack": lambda ranks: float(len(ranks) * max(ranks) - sum(ranks)),
    }
    compare_function(function, _padded_share, cases, mistakes)


def _adapter_loads(wanted: Sequence[str], slots: int) -> int:
    loaded, loads = [], 0  # the least recently used first
    for name in wanted:
        if name in loaded:
            loaded.remove(name)
        else:
            loads += 1
            loaded = loaded[max(0, len(loaded) - slots + 1) :]
        loaded.append(name)
    return loads


def _loads_first_in_first_out(wanted: Sequence[str], slots: int) -> int:
    loaded, loads = [], 0
    for name in wanted:
        if name not in loaded:
            loads += 1
            loaded = [*loaded, name][-slots:]
    return loads


def _loads_throwing_out_the_newest(wanted: Sequence[str], slots: int) -> int:
    loaded, loads = [], 0
    for name in wanted:
        if name not in loaded:
            loads += 1
            loaded = [*loaded[: slots - 1], name]
    return loads


@exercise("voices in turn are the worst order for such a cache: with one slot too few, nobody ever finds their own")
def check_adapter_loads(function: Function | None) -> None:
    """Exercise 6.3: how often a cache of adapters has to load one."""
    cases = {
        "the example": (["p", "w", "p", "t", "p", "w", "v", "t"], 2),
        "nobody": ([], 2),
        "one voice": (["p", "p", "p"], 1),
        "one slot": (["p", "w", "w", "p"], 1),
        "room for all": (["p", "w", "w", "t", "p", "w", "t"], 3),
        "three voices in turn, then a fourth, and room for two": ([*["p", "w", "t"] * 2, "v", "p"], 2),
        "a favourite among others": (["p", "w", "p", "t", "p", "v", "p", "w"], 2),
        "three slots": (["p", "w", "t", "p", "v", "w", "t", "p"], 3),
        "four slots": (["p", "w", "t", "p", "v", "w", "s", "t", "p"], 4),
    }
    mistakes = {
        "those are the different adapters; one that was thrown out is loaded again": lambda wanted, slots: len(
            set(wanted)
        ),
        "that counts the requests whose adapter was there already": lambda wanted, slots: (
            len(wanted) - _adapter_loads(wanted, slots)
        ),
        "an adapter that is used again becomes the most recent one": _loads_first_in_first_out,
        "the least recently used one has to go, not the newest": _loads_throwing_out_the_newest,
        "there are as many slots as were given": lambda wanted, slots: _adapter_loads(wanted, slots + 1),
        "that counts how often the adapter changes": lambda wanted, slots: _adapter_loads(wanted, 1),
    }
    compare_function(function, _adapter_loads, cases, mistakes)


Adapters = list[tuple[Tensor, Tensor, float]]  # for each adapter a (r, in), b (out, r) and its scaling


def _stacked_loras(adapters: Adapters) -> tuple[Tensor, Tensor]:
    rank = max(len(a) for a, _, _ in adapters)
    loras_a = torch.zeros(len(adapters), adapters[0][0].shape[1], rank)  # (n, in, R)
    loras_b = torch.zeros(len(adapters), rank, len(adapters[0][1]))  # (n, R, out)
    for index, (a, b, scaling) in enumerate(adapters):
        loras_a[index, :, : len(a)] = a.T
        loras_b[index, : len(a)] = scaling * b.T
    return loras_a, loras_b


def _adapters_of(ranks: Sequence[int], in_features: int, out_features: int) -> tuple[Adapters]:
    """As many adapters as there are ranks, each with a scaling of its own."""
    return (
        [
            (normal(rank, in_features, seed=2 * index), normal(out_features, rank, seed=2 * index + 1), 0.5 + index)
            for index, rank in enumerate(ranks)
        ],
    )


@exercise("zeros fill a low rank up and change nothing, so adapters of all ranks can share one gather")
def check_stacked_loras(function: Function | None) -> None:
    """Exercise 6.4: adapters of different ranks in the two stacks that a gather reads."""
    example = [(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), 2.0)]
    example += [(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[4.0, 5.0]]), 1.0)]
    cases = {
        "the example": (example,),
        "one adapter": _adapters_of([2], 5, 3),
        "equal ranks": _adapters_of([2, 2], 5, 3),
        "a square layer": _adapters_of([1, 3], 4, 4),
        "the highest rank first": _adapters_of([4, 1, 2], 6, 5),
        "the highest rank in the middle": _adapters_of([1, 4, 2], 5, 6),
    }

    def scaled(adapters: Adapters, of_a: Function, of_b: Function) -> tuple[Tensor, Tensor]:
        plain_a, plain_b = _stacked_loras([(a, b, 1.0) for a, b, _ in adapters])
        scalings = torch.tensor([scaling for _, _, scaling in adapters])[:, None, None]
        return plain_a * of_a(scalings), plain_b * of_b(scalings)

    mistakes = {
        "the scaling is missing": lambda adapters: scaled(adapters, torch.ones_like, torch.ones_like),
        "the scaling counts once; it is in loras_a and in loras_b": lambda adapters: scaled(
            adapters, torch.clone, torch.clone
        ),
        "the scaling belongs into loras_b": lambda adapters: scaled(adapters, torch.clone, torch.ones_like),
        "the factors stand the other way round: x is multiplied by them as they are": lambda adapters: tuple(
            stack.mT for stack in _stacked_loras(adapters)
        ),
        "the two stacks are exchanged": lambda adapters: _stacked_loras(adapters)[::-1],
        "every adapter has a scaling of its own": lambda adapters: _stacked_loras(
            [(a, b, adapters[0][2]) for a, b, _ in adapters]
        ),
    }
    compare_function(function, _stacked_loras, cases, mistakes)


@exercise("merging pays only while nobody with another voice waits; a batch serves everybody, and costs a little more")
def check_merge_or_batch(merged_from: int | None, gain: float | None) -> None:
    """Exercise 6.5: from how many tokens on a merged adapter is faster, and what one batch gains for eight voices."""
    change_ms, merged_ms, beside_ms, mixed_ms, voices, tokens = 62.0, 35.2, 36.0, 90.0, 8, 20
    expected = int(change_ms / (beside_ms - merged_ms)) + 1
    mistakes = {
        "with so many tokens it is not faster yet": expected - 1,
        "compare the saving of each token with the cost of the change": int(change_ms / merged_ms) + 1,
    }
    compare_number("merged_from", merged_from, expected, mistakes)
    in_turn_ms = voices * (change_ms + tokens * merged_ms)
    mistakes = {
        "the change of voice costs time too": voices * merged_ms / mixed_ms,
        "every voice needs a change of its own": (change_ms + voices * tokens * merged_ms) / (tokens * mixed_ms),
        "that is the batch's time divided by the other": tokens * mixed_ms / in_turn_ms,
        "that is for one voice; there are eight": in_turn_ms / voices / (tokens * mixed_ms),
        "merged voices take the time of a merged step": voices * (change_ms + tokens * beside_ms) / (tokens * mixed_ms),
    }
    compare_number("gain", gain, in_turn_ms / (tokens * mixed_ms), mistakes)
