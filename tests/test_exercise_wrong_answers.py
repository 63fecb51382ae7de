"""Every check refuses plausible wrong answers, and gives a reason that fits the mistake."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from exercise_answers import CALCULATIONS, CHECKS, changed, hand_in, module_of, right_answers, solved, with_arguments
from helpers import positions_from_mask

our_grouped_int4 = module_of("check_grouped_int4")._grouped_int4


def padded_on_the_right(rows: list[list[int]], pad_id: int) -> tuple:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


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


def interpolated_percentile(sent: list[float], times: list[list[float]], percent: float) -> float:
    return float(np.percentile([row[0] - at for row, at in zip(times, sent, strict=True)], percent))


def changes_the_layer(layer: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    update = scaling * b @ a
    layer.weight.data += update if isinstance(layer, nn.Linear) else update.T
    return layer.weight


def merged_by_shape(layer: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    update = scaling * b @ a
    return layer.weight.detach() + (update if update.shape == layer.weight.shape else update.T)


def without_the_old_weight(layer: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    return scaling * (b @ a if isinstance(layer, nn.Linear) else a.T @ b.T)


def rank_by_the_sum(update: torch.Tensor, tolerance: float) -> int:
    values = torch.linalg.svdvals(update.double())
    return int((values.flip(0).cumsum(0).flip(0) > tolerance * values.sum()).sum())


def numbered_columns(mask: torch.Tensor) -> torch.Tensor:
    return torch.arange(mask.shape[1]).repeat(len(mask), 1)


def without_new_tokens_the_prompt(prompt_length: int, new_tokens: int, use_cache: bool) -> int:
    if new_tokens == 0:
        return 0 if use_cache else prompt_length
    return solved()["positions_processed"](prompt_length, new_tokens, use_cache)


def sending_the_last_token_without_a_cache(prompt_length: int, new_tokens: int, use_cache: bool) -> int:
    return solved()["positions_processed"](prompt_length, new_tokens + (not use_cache), use_cache)


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
        (lambda p, n, cached: p + n if cached else n * p + n * (n - 1) // 2, "last token is never sent"),
        (sending_the_last_token_without_a_cache, "without a cache, the last token"),
        (lambda p, n, cached: p * n, "the prompt is sent only once"),
        (lambda p, n, cached: max(0, p + n - 1) if n else 0, "without a cache, the whole sequence is sent"),
        (lambda p, n, cached: n * p + n * (n - 1) // 2, "is not sent again"),
        (lambda p, n, cached: n if cached else n * p + n * (n - 1) // 2, "too small"),
        (lambda p, n, cached: p + n - 1 if cached else n * p + n * (n - 1) // 2, "no new token with a cache"),
        (without_new_tokens_the_prompt, "no new token without a cache"),
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
    "check_left_padded": [
        (padded_on_the_right, "pads on the right"),
        (changed("left_padded", lambda pair, rows, pad: (pair[0], (pair[0] != pad).long())), "from the lengths"),
        (changed("left_padded", lambda pair, *_: (pair[0], 1 - pair[1])), "1 at a token"),
        (changed("left_padded", lambda pair, *_: (pair[0], pair[1].float())), "dtype torch.int64, got torch.float32"),
        (changed("left_padded", lambda pair, *_: pair[0]), "expected a tuple"),
        (changed("left_padded", lambda pair, *_: pair[::-1]), "item 0"),
        (changed("left_padded", lambda pair, *_: [part.tolist() for part in pair]), "expected a tensor"),
    ],
    "check_positions_of": [
        (numbered_columns, "columns are numbered"),
        (lambda mask: mask.cumsum(dim=1), "position 0"),
        (lambda mask: mask.cumsum(dim=1) - 1, "outside the embedding"),
        (positions_from_mask, "a pad must get 0"),
        (lambda mask: solved()["positions_of"](mask)[:1], "expected the shape"),
    ],
    "check_crossover_batch": [
        (changed("crossover_batch", lambda rows, *_: 2 * rows), "two operations"),
        (changed("crossover_batch", lambda rows, *_: 1 / rows), "upside down"),
        (lambda flops, speed, size: flops / speed / 2, "more bytes it has"),
        (with_arguments("crossover_batch", lambda flops, speed, size: (speed, flops, size)), "have changed places"),
        (lambda flops, speed, size: flops / speed / 2 / size, "not less"),
        (changed("crossover_batch", lambda rows, *_: int(rows)), "too small"),
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
    "check_filtered_mask": [
        (lambda mask, done: mask[[not flag for flag in done]], "still there"),
        (with_arguments("filtered_mask", lambda mask, done: (mask, [not flag for flag in done])), "the others stay"),
        (lambda mask, done: mask[[not flag for flag in done]][:, mask.any(dim=0)], "still there"),
        (lambda mask, done: solved()["filtered_mask"](mask, done) if any(done) else mask, "no row has finished"),
        (changed("filtered_mask", lambda mask, *_: mask.bool()), "dtype torch.int64, got torch.bool"),
        (lambda mask, done: mask[:, mask[~torch.tensor(done)].any(dim=0)], "finished rows are still there"),
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
        (
            lambda waiting, slots, tokens: sum(sum(request) <= tokens for request in waiting[:slots]),
            "its part of the room",
        ),
    ],
    "check_admission_order": [
        (lambda budgets, slots: list(range(len(budgets))), "not a tenth lower"),
        (lambda budgets, slots: sorted(range(len(budgets)), key=lambda index: -budgets[index]), "not a tenth lower"),
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
    "check_integer_linear": [
        (with_arguments("integer_linear", lambda x, s, zero, *w: (x, s, 0, *w)), "zero point of x was left out"),
        (with_arguments("integer_linear", lambda x, s, *others: (x, 1.0, *others)), "scale of x"),
        (
            with_arguments("integer_linear", lambda *given: (*given[:4], torch.ones_like(given[4]))),
            "scales of the weight",
        ),
        (lambda x, s, zero, w, ws: ((x - zero).int() @ w.int().T) * s * ws, "no negative numbers"),
        (lambda x, s, zero, w, ws: ((x.int() - zero) @ w.int().T).to(torch.int8) * s * ws, "overflow"),
        (changed("integer_linear", lambda y, *_: y.T), "wrong for"),
    ],
    "check_trainable_parameters": [
        ((24576, 2359296), "one layer"),
        ((147456, 2359296), "wider on the way out"),
        ((442368, 2359296), "together"),
        ((73728, 2359296), "A alone"),
        ((21233664, 2359296), "frozen"),
        ((294912, 1179648), "two numbers"),
        ((294912, 3538944), "not the parameters themselves"),
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
        (lambda layer, a, b, scaling: layer.weight + scaling * b @ a, "raised RuntimeError for a Conv1D"),
        (with_arguments("merged_weight", lambda layer, a, b, scaling: (layer, a, b, 1.0)), "scaling is missing"),
        (without_the_old_weight, "add the layer's own weight"),
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
