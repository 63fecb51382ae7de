"""Every check refuses plausible wrong answers, and gives a reason that fits the mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from os.path import commonprefix
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from exercise_answers import CALCULATIONS, CHECKS, changed, hand_in, module_of, right_answers, solved, with_arguments

our_grouped_int4 = module_of("check_grouped_int4")._grouped_int4


def nucleus_without_the_crossing_token(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, columns = logits.sort(dim=-1, descending=True)
    outside = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
    outside[:, 0] = False
    return logits.masked_fill(outside.scatter(1, columns, outside), -math.inf)


def nucleus_in_sorted_order(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    return solved()["keep_top_p"](logits, top_p).sort(dim=-1, descending=True).values


def admitting_whoever_fits(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for request in waiting:
        if admitted < free_slots and sum(request) <= free_tokens:
            admitted, free_tokens = admitted + 1, free_tokens - sum(request)
    return admitted


def admitting_into_the_same_room(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for prompt_tokens, max_tokens in waiting[:free_slots]:
        if prompt_tokens + max_tokens > free_tokens:
            break
        admitted += 1
    return admitted


def loads_first_in_first_out(wanted: list[str], slots: int) -> int:
    queue: list[str] = []
    loads = 0
    for name in wanted:
        if name not in queue:
            loads += 1
            queue = ([*queue, name])[-slots:]
    return loads


def loads_replacing_the_newest(wanted: list[str], slots: int) -> int:
    loaded: list[str] = []
    loads = 0
    for name in wanted:
        if name not in loaded:
            loads += 1
            if len(loaded) == slots:
                loaded.pop()
            loaded.append(name)
    return loads


def chunked(
    prompts: list[int], running: int, budget: int, *, newcomers_run: bool = True, share: bool = True
) -> list[int]:
    first, forward, room = [], 1, budget - running
    for tokens in prompts:
        while tokens > room:
            tokens -= room
            forward += 1
            room = budget - running - (len(first) if newcomers_run else 0)
        room = room - tokens if share else 0
        first.append(forward)
    return first


def shortest_of_two_halves(budgets: list[int], slots: int) -> list[int]:
    middle = len(budgets) // 2
    halves = range(middle), range(middle, len(budgets))
    return [index for half in halves for index in sorted(half, key=lambda index: budgets[index])]


def interpolated_percentile(sent: list[float], times: list[list[float]], percent: float) -> float:
    return float(np.percentile([row[0] - at for row, at in zip(times, sent, strict=True)], percent))


def changes_the_layer(layer: nn.Module, adapters: list) -> torch.Tensor:
    for a, b, scaling in adapters:
        update = scaling * b @ a
        layer.weight.data += update if isinstance(layer, nn.Linear) else update.T
    return layer.weight


def merged_by_shape(layer: nn.Module, adapters: list) -> torch.Tensor:
    update = sum(scaling * b @ a for a, b, scaling in adapters)
    return layer.weight.detach() + (update if update.shape == layer.weight.shape else update.T)


def merged_without_the_old_weight(layer: nn.Module, adapters: list) -> torch.Tensor:
    update = sum(scaling * b @ a for a, b, scaling in adapters)
    return update if isinstance(layer, nn.Linear) else update.T


def merged_one_after_another(layer: nn.Module, adapters: list) -> torch.Tensor:
    """Adds the old weight once for every adapter."""
    one = solved()["merged_weight"]
    return sum((one(layer, [adapter]) for adapter in adapters), torch.zeros_like(layer.weight))


def merged_in_one_product(layer: nn.Module, adapters: list) -> torch.Tensor:
    a = sum(a for a, _, _ in adapters)
    b = sum(scaling * b for _, b, scaling in adapters)
    return solved()["merged_weight"](layer, [(a, b, 1.0)])


def rank_by_the_sum(update: torch.Tensor, tolerance: float) -> int:
    values = torch.linalg.svdvals(update.double())
    return int((values.flip(0).cumsum(0).flip(0) > tolerance * values.sum()).sum())


def batch_sizes_by(fits: Callable[[list[int], int], bool]) -> Callable[..., Any]:
    """Batches that are closed as soon as `fits` refuses a newcomer."""

    def batch_sizes(lengths: list[int], max_cells: int) -> list[int]:
        batches: list[list[int]] = []
        for length in lengths:
            if batches and fits(batches[-1] + [length], max_cells):
                batches[-1].append(length)
            else:
                batches.append([length])
        return [len(batch) for batch in batches]

    return batch_sizes


def reading_the_last_token_at_once(turns: list[tuple[int, int]], keep_cache: bool) -> int:
    return solved()["positions_processed"](turns, keep_cache) + (1 if keep_cache else len(turns))


def forgetting_the_last_token(turns: list[tuple[int, int]], keep_cache: bool) -> int:
    if not keep_cache:
        return solved()["positions_processed"](turns, keep_cache)
    return sum(user + answer for user, answer in turns) - len(turns)


def forgetting_its_own_answers(turns: list[tuple[int, int]], keep_cache: bool) -> int:
    if keep_cache:
        return solved()["positions_processed"](turns, keep_cache)
    total = conversation = 0
    for user, answer in turns:
        conversation += user
        total += conversation + answer - 1
    return total


def nucleus_that_forgets_that_one_keeps_all(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, columns = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    outside = probabilities.cumsum(dim=-1) - probabilities >= top_p
    return logits.masked_fill(outside.scatter(1, columns, outside), -math.inf)


def without_waiting_for_members(arrivals: list[float], size: int, batch_s: float) -> list[float]:
    starts = [arrivals[index // size * size] for index in range(len(arrivals))]
    late = solved()["batch_latencies_s"](starts, size, batch_s)
    return [latency + start - arrival for latency, start, arrival in zip(late, starts, arrivals, strict=True)]


def one_rank_too_high(sent: list[float], times: list[list[float]], percent: float) -> float:
    waits = sorted(row[0] - at for row, at in zip(times, sent, strict=True))
    return waits[min(len(waits) - 1, int(percent / 100 * len(waits)))]


def mean_error_towards_zero(values: torch.Tensor, scale: float, zero_point: int, truncate: bool) -> float:
    steps = values / scale
    return ((steps.trunc() if truncate else steps.round()) - steps).mean().item()


# For each check: wrong answers, and a word or more that the message about it must hold.
def clipped(
    weights: torch.Tensor, bits: int, clips: list[float], *, clamp: bool = True, rounding: Any = torch.round
) -> tuple[float, float]:
    largest, errors = 2 ** (bits - 1) - 1, []
    for clip in clips:
        codes = rounding(weights.double() * largest / clip)
        codes = codes.clamp(-largest, largest) if clamp else codes
        errors.append((codes * clip / largest - weights).square().mean().sqrt().item())
    return clips[errors.index(min(errors))], min(errors)


def in_time(
    answers: list[tuple[float, float, float, int]],
    ttft_s: float,
    tpot_s: float,
    *,
    tokens: int = 1,
    gaps: int = 1,
    since: int = 1,
) -> float:
    """The share of those with so many tokens or more that were in time, their pace since that time."""
    kept = [
        answer
        for answer in answers
        if answer[3] >= tokens
        and answer[1] - answer[0] <= ttft_s
        and (answer[3] <= 1 or (answer[2] - answer[since]) / (answer[3] - gaps) <= tpot_s)
    ]
    return len(kept) / len(answers)


WRONG: dict[str, list[tuple[Any, str]]] = {
    "check_kv_cache": [
        ((524288, 27), "fewer heads"),
        ((65536, 27), "keys and values"),
        ((4096, 27), "one layer"),
        ((131072, 28), "no room"),
        ((131072, 27.94), "whole number"),
        ((131072, 30), "10**9"),
        ((131073, 27), "too large"),
    ],
    "check_positions_processed": [
        (reading_the_last_token_at_once, "is not read for that answer"),
        (forgetting_the_last_token, "still has to be read in the next turn"),
        (with_arguments("positions_processed", lambda turns, keep: (turns, False)), "is not read again"),
        (with_arguments("positions_processed", lambda turns, keep: (turns, True)), "the whole conversation again"),
        (forgetting_its_own_answers, "its own earlier answers"),
        (lambda turns, keep: sum(user + answer for user, answer in turns), "too small"),
        (changed("positions_processed", lambda total, turns, keep: total - keep), "with the cache kept"),
        (changed("positions_processed", lambda total, turns, keep: total + (len(turns) == 1)), "a single turn"),
        (changed("positions_processed", lambda total, turns, keep: total / len(turns)), "too small"),
    ],
    "check_decode_floor": [
        (changed("decode_floor_ms", lambda ms, *_: ms / 1000), "seconds"),
        (lambda weights, kv, lengths, speed: 1000 * weights / speed, "the cache has to be read"),
        (lambda weights, kv, lengths, speed: 1000 * kv * sum(lengths) / speed, "the weights have to be read"),
        (with_arguments("decode_floor_ms", lambda w, kv, n, speed: (w, 2 * kv, n, speed)), "keys and values already"),
        (with_arguments("decode_floor_ms", lambda w, kv, n, speed: (2 * w, kv, n, speed)), "too large"),
        (lambda weights, kv, lengths, speed: 1000 * len(lengths) * weights / speed, "too large"),
        (with_arguments("decode_floor_ms", lambda w, kv, n, speed: (w * len(n), kv, n, speed)), "once for the whole"),
        (with_arguments("decode_floor_ms", lambda w, kv, n, speed: (w, kv, [max(n)], speed)), "only the longest"),
    ],
    "check_tempered": [
        (lambda logits, t: (logits * t[:, None]).softmax(dim=-1), "divide"),
        (lambda logits, t: (logits / t[:, None]).softmax(dim=-1), "some temperatures of 0"),
        (lambda logits, t: (logits / t[:, None].clamp(min=0.05)).softmax(dim=-1), "very low temperatures"),
        (lambda logits, t: (logits / t[:, None].clamp(min=1e-4)).softmax(dim=-1), "very low temperatures"),
        (lambda logits, t: (logits / t[:, None]).softmax(dim=0), "not each column"),
        (lambda logits, t: logits.softmax(dim=-1), "was not used"),
        (lambda logits, t: (logits / t[0]).softmax(dim=-1), "its own temperature"),
        (changed("tempered", lambda p, *_: p.double()), "dtype torch.float32, got torch.float64"),
    ],
    "check_keep_top_p": [
        (nucleus_without_the_crossing_token, "reaches top_p"),
        (nucleus_in_sorted_order, "own column"),
        (nucleus_that_forgets_that_one_keeps_all, "a top_p of 1, which keeps every token"),
        (changed("keep_top_p", lambda kept, *_: kept.softmax(dim=-1)), "return logits"),
        (lambda logits, p: logits.masked_fill(logits.softmax(dim=-1) < 1 - p, -math.inf), "rows from unsure to sure"),
        (lambda logits, p: solved()["keep_top_p"](logits.flatten()[None], p).view_as(logits), "unsure to sure"),
    ],
    "check_padding_cells": [
        ((100, 29), "real tokens"),
        ((186, 29), "all cells"),
        ((86, 77), "sort the prompts"),
        ((86, 13), "short ones alone"),
        ((86, 30), "too large"),
    ],
    "check_batch_sizes": [
        (batch_sizes_by(lambda rows, most: sum(rows) <= most), "pads are cells too"),
        (batch_sizes_by(lambda rows, most: len(rows) * max(rows) < most), "exactly max_cells"),
        (batch_sizes_by(lambda rows, most: len(rows) * max(rows[:-1]) <= most), "makes every row of the batch wider"),
        (batch_sizes_by(lambda rows, most: len(rows) * rows[-1] <= most), "not as its last one"),
        (changed("batch_sizes", lambda sizes, *_: sizes[:-1]), "the last batch is missing"),
        (changed("batch_sizes", lambda sizes, *_: [*sizes, 0]), "expected a list of length"),
        (changed("batch_sizes", lambda sizes, *_: len(sizes)), "expected a list"),
        (with_arguments("batch_sizes", lambda lengths, most: (sorted(lengths), most)), "list of length 4, got one of"),
    ],
    "check_one_row": [
        (changed("one_row", lambda pair, n: (pair[0], torch.ones_like(pair[1]).tril())), "look at another prompt"),
        (changed("one_row", lambda pair, n: (torch.arange(sum(n)), pair[1])), "counts its positions from 0"),
        (changed("one_row", lambda pair, n: (pair[0], pair[1] | pair[1].T)), "come after it"),
        (changed("one_row", lambda pair, n: (pair[0], pair[1].T)), "the token that looks"),
        (changed("one_row", lambda pair, n: (pair[0], pair[1].tril(-1))), "looks at itself too"),
        (changed("one_row", lambda pair, n: (pair[0] + 1, pair[1])), "item 0"),
        (changed("one_row", lambda pair, n: (pair[0], pair[1].long())), "dtype torch.bool, got torch.int64"),
        (changed("one_row", lambda pair, n: pair[1]), "expected a tuple"),
    ],
    "check_crossover_batch": [
        (lambda w, size, cache, flops, speed: flops * size / (2 * speed), "its own cache"),
        (lambda w, size, cache, flops, speed: flops * (w * size + cache) / (2 * w * speed), "once for all"),
        (with_arguments("crossover_batch", lambda w, z, c, f, s: (w, z, c, 2 * f, s)), "two operations"),
        (changed("crossover_batch", lambda rows, *_: 1 / rows), "upside down"),
        (with_arguments("crossover_batch", lambda w, z, c, f, s: (w, z, c, s, f)), "have changed places"),
        (with_arguments("crossover_batch", lambda w, z, c, f, s: (w, 1, c, f, s)), "more bytes it has"),
        (lambda w, z, c, f, s: w * z / s / (2 * w / f - c / s), "never catches up"),
        (changed("crossover_batch", lambda rows, *_: rows if rows < math.inf else -1.0), "too small"),
    ],
    "check_batch_latencies": [
        (lambda arrivals, size, batch_s: [batch_s] * len(arrivals), "counts too"),
        (
            lambda a, size, s: [max(a[i // size * size :][:size]) + s - at for i, at in enumerate(a)],
            "before it is done",
        ),
        (changed("batch_latencies_s", lambda late, a, *_: [x + y for x, y in zip(late, a, strict=True)]), "arrival"),
        (changed("batch_latencies_s", lambda late, *_: sum(late) / len(late)), "expected a list"),
        (without_waiting_for_members, "the last of its members"),
        (changed("batch_latencies_s", lambda late, a, size, s: late[: len(a) // size * size]), "last batch"),
    ],
    "check_forward_counts": [
        ((13, 6, 13 / 18), "those are the tokens"),
        ((11, 6, 13 / 18), "first token"),
        ((7, 6, 13 / 18), "prefill is a forward"),
        ((9, 5, 13 / 18), "of its own"),
        ((9, 9, 13 / 18), "static count"),
        ((9, 7, 13 / 18), "one too many"),
        ((9, 6, 13 / 27), "static run"),
        ((9, 6, 5 / 18), "idle"),
        ((9, 6, 1300 / 18), "between 0 and 1"),
        ((9, 6, 13 / 6), "by the slots too"),
    ],
    "check_ttft_percentile": [
        (lambda sent, times, percent: sorted(row[0] for row in times)[-1], "too large"),
        (with_arguments("ttft_percentile_s", lambda sent, *others: ([0.0] * len(sent), *others)), "not from 0"),
        (with_arguments("ttft_percentile_s", lambda sent, times, p: (sent, [t[-1:] for t in times], p)), "last token"),
        (interpolated_percentile, "interpolates"),
        (lambda sent, times, percent: times[0][0] - sent[0], "too large"),
        (one_rank_too_high, "one rank too high"),
    ],
    "check_chunked_prefill": [
        (lambda prompts, running, budget: chunked(prompts, running, budget, newcomers_run=False), "runs, and takes"),
        (with_arguments("chunked_first_tokens", lambda prompts, running, budget: (prompts, 0, budget)), "one token of"),
        (changed("chunked_first_tokens", lambda first, *_: [number - 1 for number in first]), "counted from 1"),
        (changed("chunked_first_tokens", lambda first, *_: [number + 1 for number in first]), "first token already"),
        (lambda prompts, running, budget: chunked(prompts, running, budget, share=False), "the next one uses"),
        (changed("chunked_first_tokens", lambda first, *_: sorted(first)[-1:]), "of length 3, got one of length 1"),
        (
            lambda prompts, running, budget: [math.ceil(tokens / (budget - running)) for tokens in prompts],
            "wrong for the example",
        ),
        (
            lambda prompts, running, budget: [
                first
                for _, first in sorted(
                    zip(
                        sorted(range(len(prompts)), key=prompts.__getitem__),
                        solved()["chunked_first_tokens"](sorted(prompts), running, budget),
                        strict=True,
                    )
                )
            ],
            "in order of arrival",
        ),
    ],
    "check_admitted_count": [
        (admitting_whoever_fits, "overtook"),
        (with_arguments("admitted_count", lambda w, slots, tokens: (w, len(w), tokens)), "free slots"),
        (with_arguments("admitted_count", lambda w, *free: ([(p, 0) for p, _ in w], *free)), "the answer too"),
        (with_arguments("admitted_count", lambda w, slots, tokens: (w, slots, tokens - 1)), "exactly"),
        (with_arguments("admitted_count", lambda w, *free: ([(0, n) for _, n in w], *free)), "the prompt too"),
        (
            with_arguments("admitted_count", lambda w, *free: ([(p, n - 1) for p, n in w], *free)),
            "the last of the answer",
        ),
        (with_arguments("admitted_count", lambda w, *free: ([(p - 1, n) for p, n in w], *free)), "every token"),
        (lambda waiting, slots, tokens: min(slots, len(waiting)), "memory"),
        (lambda waiting, slots, tokens: sum(sum(request) <= tokens for request in waiting[:slots]), "too large"),
        (admitting_into_the_same_room, "its part of the room"),
    ],
    "check_admission_order": [
        (lambda budgets, slots: list(range(len(budgets))), "another order brings it down"),
        (lambda budgets, slots: sorted(range(len(budgets)), key=lambda index: -budgets[index]), "brings it down"),
        (lambda budgets, slots: list(range(len(budgets)))[::-1], "another order brings it down"),
        (shortest_of_two_halves, "another order brings it down"),
        (lambda budgets, slots: sorted(budgets), "every index from 0"),
        (lambda budgets, slots: [budgets.index(budget) for budget in sorted(budgets)], "every index from 0"),
        (lambda budgets, slots: list(range(1, len(budgets) + 1)), "every index from 0"),
        (lambda budgets, slots: [index for index, budget in enumerate(budgets) if budget == 10], "every index from 0"),
    ],
    "check_scale_and_zero_point": [
        ((5.1 / 256, 100, 139), "256 levels"),
        ((3.1 / 127, 100, 139), "symmetric"),
        ((50.0, 100, 139), "upside down"),
        ((0.02, -2.0, 139), "is a code"),
        ((0.02, 155, 139), "not from the largest"),
        ((0.02, -100, 139), "not negative"),
        ((0.02, 100, 138), "cut off"),
        ((0.02, 100, 39), "missing"),
        ((0.02, 100, -61), "added"),
    ],
    "check_grouped_bytes": [
        ((29360128, 4.1875), "scales and zero points"),
        ((60096512, 4.1875), "share a byte"),
        ((30277632, 4.1875), "zero point too"),
        ((31653888, 4.1875), "2 bytes"),
        ((29403136, 4.1875), "many groups"),
        ((30736384, 4.0), "count too"),
        ((30736384, 4.1875 / 8), "in bytes"),
        ((30736384, 4.0234375), "a byte has 8 bits"),
    ],
    "check_mean_error": [
        (changed("mean_error_steps", lambda error, *_: -error), "the sign"),
        (changed("mean_error_steps", lambda error, values, scale, *_: error * scale), "in steps"),
        (with_arguments("mean_error_steps", lambda v, scale, zero, truncate: (v, scale, zero, False)), "rounds where"),
        (with_arguments("mean_error_steps", lambda v, scale, zero, truncate: (v, scale, zero, True)), "truncates even"),
        (with_arguments("mean_error_steps", lambda v, scale, zero, cut: (v, scale, zero, not cut)), "rounds where"),
        (mean_error_towards_zero, "for negative values too"),
        (changed("mean_error_steps", lambda error, values, scale, zero, _: error + zero), "come off again"),
        (changed("mean_error_steps", lambda error, *_: abs(error)), "the sign"),
        (changed("mean_error_steps", lambda error, *_: torch.tensor(error)), ".item()"),
    ],
    "check_grouped_int4": [
        (lambda weight, size: our_grouped_int4(weight, size, levels=8), "7 or -7"),
        (lambda weight, size: our_grouped_int4(weight, size, rounding=torch.trunc), "cuts off towards zero"),
        (lambda weight, size: our_grouped_int4(weight, size, rounding=torch.floor), "rounds down"),
        (lambda weight, size: solved()["grouped_int4"](weight, weight.shape[1]), "one scale per row"),
        (changed("grouped_int4", lambda pair, *_: (pair[0].to(torch.uint8), pair[1])), "torch.int8, got torch.uint8"),
        (changed("grouped_int4", lambda pair, w, n: (pair[0], w.view(len(w), -1, n).abs().amax(2) / 7)), "zeros"),
    ],
    "check_best_clip": [
        (lambda w, bits, clips: clipped(w, bits, clips, clamp=False), "has to be cut off there"),
        (lambda w, bits, clips: clipped(w, bits + 1, clips), "codes without a sign"),
        (lambda w, bits, clips: clipped(w, bits, clips, rounding=torch.floor), "rounds down"),
        (lambda w, bits, clips: clipped(w, bits, clips, rounding=torch.trunc), "cuts the fraction off"),
        (changed("best_clip", lambda best, *_: (best[0], best[1] ** 2)), "the root is missing"),
        (changed("best_clip", lambda best, w, bits, clips: (max(clips), best[1])), "item 0 of the tuple"),
        (changed("best_clip", lambda best, w, bits, clips: (clips.index(best[0]), best[1])), "item 0 of the tuple"),
        (changed("best_clip", lambda best, *_: best[0]), "expected a tuple"),
        (with_arguments("best_clip", lambda w, bits, clips: (w, bits, clips[::-1])), "the first is wanted"),
        (
            lambda w, bits, clips: min((clipped(w, bits, [clip])[1], clip) for clip in clips)[::-1],
            "weights of zero",
        ),
    ],
    "check_trainable_parameters": [
        ((19968, 1916928), "one block"),
        ((165888, 1916928), "wider on the way out"),
        ((313344, 1916928), "together"),
        ((147456, 1916928), "c_attn alone"),
        ((92160, 1916928), "c_fc alone"),
        ((331776, 1916928), "a rank of its own"),
        ((258048, 1916928), "exchanged"),
        ((55296, 1916928), "A alone"),
        ((184320, 1916928), "B alone"),
        ((49545216, 1916928), "frozen"),
        ((239617, 1916928), "too large"),
        ((239616, 958464), "two numbers"),
        ((239616, 479232), "4 bytes"),
        ((239616, 2875392), "not the parameters themselves"),
    ],
    "check_smallest_rank": [
        (lambda update, tolerance: int(torch.linalg.matrix_rank(update)), "the rank itself"),
        (rank_by_the_sum, "sum of squares, not the sum"),
        (lambda update, tolerance: int((torch.linalg.svdvals(update) > tolerance).sum()), "relative"),
        (with_arguments("smallest_rank", lambda update, tolerance: (update, tolerance**0.5)), "square root"),
        (changed("smallest_rank", lambda rank, *_: rank + 1), "too large"),
        (changed("smallest_rank", lambda rank, *_: max(rank, 1)), "a tolerance above 1"),
        (lambda update, tolerance: min(update.shape), "too large"),
    ],
    "check_merged_weight": [
        (merged_by_shape, "square or not"),
        (with_arguments("merged_weight", lambda layer, adapters: (layer, adapters[:1])), "the first adapter alone"),
        (lambda layer, adapters: sum((s * b @ a for a, b, s in adapters), layer.weight), "RuntimeError for a Conv1D"),
        (
            with_arguments("merged_weight", lambda layer, adapters: (layer, [(a, b, 1.0) for a, b, _ in adapters])),
            "a scaling of its own",
        ),
        (merged_without_the_old_weight, "add the layer's own weight"),
        (merged_one_after_another, "own weight once"),
        (merged_in_one_product, "before you add anything up"),
        (with_arguments("merged_weight", lambda layer, adapters: (layer, adapters[-1:])), "the last adapter alone"),
        (changed("merged_weight", lambda weight, *_: weight.T), "as the layer keeps it"),
        (changes_the_layer, "the layer was changed"),
    ],
    "check_dora_weight": [
        (lambda w, a, b, m, alpha: w + alpha / len(a) ** 0.5 * b @ a, "wrong for the example"),
        (with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m, alpha / len(a) ** 0.5)), "alpha / r"),
        (with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m, len(a) ** 0.5)), "scaling is missing"),
        (with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m / m, alpha)), "by the magnitude"),
        (
            lambda w, a, b, m, alpha: m[:, None] * F.normalize(w + alpha / len(a) ** 0.5 * b @ a, dim=0),
            "norm of each row",
        ),
        (
            lambda w, a, b, m, alpha: (w + alpha / len(a) ** 0.5 * b @ a) * (m / w.norm(dim=1))[:, None],
            "not by the old one",
        ),
        (lambda w, a, b, m, alpha: (w + alpha * b @ a) * (m / w.norm(dim=1))[:, None], "wrong for the example"),
        (
            with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m, alpha * len(a) ** 0.5)),
            "root of the rank",
        ),
    ],
    "check_adapter_updates": [
        (with_arguments("adapter_updates", lambda *g: (*g[:4], g[4] % 3)), "-1 picked the last"),
        (with_arguments("adapter_updates", lambda *g: (*g[:4], g[4].clamp(min=0))), "got the first adapter"),
        (with_arguments("adapter_updates", lambda *g: (*g[:3], torch.ones(3), g[4])), "its own scaling"),
        (with_arguments("adapter_updates", lambda *g: (*g[:4], g[4][:1].expand_as(g[4]))), "first row's"),
        (changed("adapter_updates", lambda y, *_: y[:, 0]), "expected the shape"),
    ],
    "check_room_for_adapters": [
        ((2 * 4 * 16 * 8192, 298), "the model has more"),
        ((2 * 32 * 16 * 8192, 298), "four layers of each block"),
        ((32 * 4 * 16 * 8192, 298), "a number takes two bytes"),
        ((4 * 32 * 4 * 16 * 8192, 298), "fp16 takes two bytes"),
        ((2 * 32 * 4 * 4096**2, 298), "the frozen weights"),
        ((33554432, 299), "does not fit as a whole"),
        ((33554432, 320), "a GB is 10**9 bytes"),
        ((33554432, 298.02), "expected a whole number"),
    ],
    "check_padded_share": [
        (changed("padded_share", lambda share, *_: 1 - share), "the share which is used"),
        (lambda ranks: (len(ranks) * max(ranks) - sum(ranks)) / sum(ranks), "with the whole stack"),
        (lambda ranks: 1 - sum(ranks) / (len(ranks) * ranks[-1]), "wherever it stands"),
        (lambda ranks: len(ranks) * max(ranks) - sum(ranks), "divide by the whole stack"),
        (changed("padded_share", lambda share, *_: 100 * share), "too large"),
    ],
    "check_adapter_loads": [
        (lambda wanted, slots: len(set(wanted)), "is loaded again"),
        (changed("adapter_loads", lambda loads, wanted, slots: len(wanted) - loads), "was there already"),
        (loads_first_in_first_out, "becomes the most recent one"),
        (loads_replacing_the_newest, "not the newest"),
        (with_arguments("adapter_loads", lambda wanted, slots: (wanted, slots + 1)), "as many slots as were given"),
        (with_arguments("adapter_loads", lambda wanted, slots: (wanted, 1)), "how often the adapter changes"),
    ],
    "check_stacked_loras": [
        (
            with_arguments("stacked_loras", lambda adapters: ([(a, b, 1.0) for a, b, _ in adapters],)),
            "the scaling is missing",
        ),
        (
            with_arguments("stacked_loras", lambda adapters: ([(s * a, b, s) for a, b, s in adapters],)),
            "the scaling counts once",
        ),
        (
            with_arguments("stacked_loras", lambda adapters: ([(s * a, b, 1.0) for a, b, s in adapters],)),
            "belongs into loras_b",
        ),
        (changed("stacked_loras", lambda stacks, _: (stacks[0].mT, stacks[1].mT)), "the other way round"),
        (changed("stacked_loras", lambda stacks, _: stacks[::-1]), "are exchanged"),
        (
            with_arguments("stacked_loras", lambda adapters: ([(a, b, adapters[0][2]) for a, b, _ in adapters],)),
            "a scaling of its own",
        ),
        (changed("stacked_loras", lambda stacks, _: stacks[0]), "expected a tuple"),
    ],
    "check_merge_or_batch": [
        ((77, 3.4044), "not faster yet"),
        ((2, 3.4044), "cost of the change"),
        ((78, 8 * 35.2 / 90), "costs time too"),
        ((78, (62 + 8 * 20 * 35.2) / 1800), "a change of its own"),
        ((78, 1800 / 6128), "divided by the other"),
        ((78, 766 / 1800), "there are eight"),
        ((78, 8 * (62 + 20 * 36) / 1800), "merged step"),
    ],
    "check_capacity": [
        ((3.125, 0.6), "that is one row"),
        ((1600, 0.6), "tokens per second"),
        ((0.32, 0.6), "the time of one answer"),
        ((0.04, 0.6), "between two answers"),
        ((26, 0.6), "too large"),
        ((25, 5 / 3), "by the one that can be completed"),
        ((25, 0.4), "that are free"),
        ((25, 4.8), "divide it by eight"),
    ],
    "check_closed_loop": [
        ((0.04, 20), "the askers share it"),
        ((0.5, 20), "turn it round"),
        ((1.68, 20), "all the time"),
        ((2, 4), "at the same time"),
        ((2, 1.25), "several in a second"),
        ((2, 25), "cannot fill eight rows"),
    ],
    "check_share_in_time": [
        (lambda answers, ttft, tpot: in_time(answers, ttft, tpot, tokens=0), "a refusal is no answer"),
        (lambda answers, ttft, tpot: in_time(answers, math.inf, tpot), "the first token is to come in time"),
        (lambda answers, ttft, tpot: in_time(answers, ttft, math.inf), "the pace is part of the promise"),
        (lambda answers, ttft, tpot: in_time(answers, ttft, tpot, gaps=0), "four gaps"),
        (lambda answers, ttft, tpot: in_time([a for a in answers if a[3]] or [(0, 9, 9, 1)], ttft, tpot), "who asked"),
        (
            lambda answers, ttft, tpot: in_time(answers, ttft, tpot, since=0),
            "from the first token on",
        ),
        (changed("share_in_time", lambda share, *_: 1 - share), "was not in time"),
        (changed("share_in_time", lambda share, answers, *_: share * len(answers)), "divide by the number"),
    ],
    "check_knee": [
        (
            lambda rates, shares, wanted: max(
                (r for r, s in zip(rates, shares, strict=True) if s >= wanted), default=0
            ),
            "behind the first one that fails",
        ),
        (
            lambda rates, shares, wanted: next(
                (r for r, s in zip(rates, shares, strict=True) if s < wanted), rates[-1]
            ),
            "the first rate that fails",
        ),
        (
            with_arguments("knee", lambda rates, shares, wanted: (rates, shares, wanted + 1e-9)),
            "exactly the wanted one",
        ),
        (
            changed("knee", lambda best, rates, shares, _: dict(zip(rates, shares, strict=True)).get(best, 0.0)),
            "not its share",
        ),
        (lambda rates, shares, wanted: rates[0], "wrong for the example"),
    ],
    "check_queue_room": [
        ((31, 15), "takes time, too"),
        ((29, 15), "would still be in time"),
        ((38, 15), "no part of the queue"),
        ((1, 15), "completed in a second"),
        ((30, 25), "completed, not refused"),
        ((30, 40), "takes nobody in"),
        ((30, -15), "does not swallow"),
        ((30.5, 15), "whole number"),
    ],
    "check_flat_tokens": [
        ((7200, 217 / 225), "the padded matrix"),
        ((225, 217 / 225), "read a token each"),
        ((257, 217 / 225), "its chunk only"),
        ((256, 8 / 225), "the share that is used"),
        ((256, 1 - 256 / 6975), "32 rows"),
        ((256, 100 * 217 / 225), "between 0 and 1"),
        ((256, (7200 - 256) / 256), "with all cells"),
    ],
    "check_places_of": [
        (
            lambda table, size, start, count: [
                table[start // size] * size + start % size + step for step in range(count)
            ],
            "need not be the next one",
        ),
        (with_arguments("places_of", lambda table, size, start, count: (table, size, 0, count)), "from `start` on"),
        (
            changed("places_of", lambda places, table, size, *_: [place // size for place in places]),
            "not the places",
        ),
        (
            changed("places_of", lambda places, table, size, *_: [place % size for place in places]),
            "inside the blocks",
        ),
        (changed("places_of", lambda places, *_: places[:-1]), "length"),
    ],
    "check_found_tokens": [
        (
            lambda prompt, earlier, size: (
                max([len(commonprefix([prompt, other])) for other in earlier], default=0) // size * size
            ),
            "always read",
        ),
        (
            lambda prompt, earlier, size: min(
                len(prompt) - 1, max([len(commonprefix([prompt, other])) for other in earlier], default=0)
            ),
            "whole blocks only",
        ),
        (with_arguments("found_tokens", lambda prompt, earlier, size: (prompt, earlier[:1], size)), "at the first"),
        (with_arguments("found_tokens", lambda prompt, earlier, size: (prompt, earlier[-1:], size)), "at the last"),
        (changed("found_tokens", lambda found, prompt, earlier, size: found // size), "give tokens"),
        (changed("found_tokens", lambda found, prompt, *_: len(prompt) - found), "has to be read"),
    ],
    "check_rows_that_fit": [
        (lambda count, size, shared, own: count // math.ceil((shared + own) / size), "is stored once"),
        (lambda count, size, shared, own: max(0, count * size - shared) // own, "as a whole"),
        (
            lambda count, size, shared, own: max(0, count - math.ceil(shared / size)) // math.ceil(own / size),
            "is not full cannot be shared",
        ),
        (
            lambda count, size, shared, own: max(0, count - shared // size) // math.ceil(own / size),
            "behind the last full common block",
        ),
        (
            lambda count, size, shared, own: count // (math.ceil((shared + own) / size) - shared // size),
            "needs room, once",
        ),
    ],
    "check_draft_gain": [
        ((2.3616, 2.4011), "a token of its own"),
        ((4.2, 2.4011), "all before it"),
        ((2.952, 2.4011), "one token more"),
        ((5, 2.4011), "not all are right"),
        ((0.4096, 2.4011), "the whole draft"),
        ((3.3616, 3.3616), "takes longer"),
        ((3.3616, 1.4 / 3.3616), "inverse"),
        ((3.3616, 3.3616 * 1.4), "divide by"),
        ((3.3616, 3.3616 / 5.6), "need not be multiplied"),
    ],
}
REJECTED = [(name, answer, reason) for name, answers in WRONG.items() for answer, reason in answers]


def shown_numbers(message: str) -> set[float]:
    return {float(text.replace(",", "")) for text in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", message)}


@pytest.mark.parametrize(("name", "answer", "reason"), REJECTED, ids=[f"{n[6:]}-{r}" for n, _, r in REJECTED])
def test_check_refuses_and_says_why(name: str, answer: Any, reason: str) -> None:
    result = hand_in(name, answer)
    assert result.outcome == "wrong" and not result
    assert repr(result).startswith("not yet right: ") and "\n" not in repr(result)
    assert reason in repr(result)
    if name in CALCULATIONS:
        assert not shown_numbers(repr(result)) & set(map(float, right_answers(name)))


def test_every_check_is_tried_with_three_wrong_answers() -> None:
    assert all(len(WRONG[name]) >= 3 for name in CHECKS)
