"""Every check takes right answers that are written in other styles than the solutions."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import OrderedDict, deque
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from exercise_answers import CHECKS, changed, hand_in


def positions_by_sending(turns: list[tuple[int, int]], keep_cache: bool) -> int:
    read = written = total = 0
    for user, answer in turns:
        read = read if keep_cache else 0
        written += user
        for _ in range(answer):
            total += written - read
            read = written
            written += 1
    return total


def floor_by_request(weight_bytes: float, kv_bytes_per_token: float, lengths: list[int], bytes_per_s: float) -> float:
    seconds = weight_bytes / bytes_per_s
    for length in lengths:
        seconds += kv_bytes_per_token * length / bytes_per_s
    return seconds * 1e3


def tempered_by_row(logits: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    result = torch.zeros_like(logits)
    for row in range(len(logits)):
        if temperatures[row] == 0:
            result[row, logits[row].argmax()] = 1
        else:
            shifted = logits[row] - logits[row].max()
            result[row] = (shifted / temperatures[row]).exp()
            result[row] /= result[row].sum()
    return result


def nucleus_by_counting(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    if top_p >= 1:
        return logits.clone()
    probabilities, columns = torch.softmax(logits, 1).sort(1, descending=True)
    sizes = (probabilities.cumsum(1) < top_p).sum(1) + 1
    ranks = columns.argsort(1)
    return torch.where(ranks < sizes[:, None], logits, torch.tensor(-math.inf))


def nucleus_row_by_row(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    kept = torch.full_like(logits, float("-inf"))
    for row in range(logits.shape[0]):
        probabilities = logits[row].double().softmax(0)
        total = 0.0
        for token in sorted(range(logits.shape[1]), key=lambda token: -logits[row, token]):
            if total >= top_p and top_p < 1:
                break
            total += probabilities[token].item()
            kept[row, token] = logits[row, token]
    return kept


def batches_of_lists(lengths: list[int], max_cells: int) -> list[int]:
    batches = [lengths[:1]]
    for length in lengths[1:]:
        joined = [*batches[-1], length]
        if len(joined) * max(joined) <= max_cells:
            batches[-1] = joined
        else:
            batches.append([length])
    return [len(batch) for batch in batches]


def batches_by_slices(lengths: list[int], max_cells: int) -> list[int]:
    first, sizes = 0, []
    while first < len(lengths):
        size = 1
        while first + size < len(lengths) and (size + 1) * max(lengths[first : first + size + 1]) <= max_cells:
            size += 1
        sizes.append(size)
        first += size
    return sizes


def one_row_by_owners(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))  # (N,)
    places = torch.arange(len(owner))
    firsts = torch.tensor([sum(lengths[:prompt]) for prompt in owner.tolist()])
    return places - firsts, (owner[:, None] == owner) & (places <= places[:, None])


def one_row_block_by_block(lengths: list[int]) -> list[torch.Tensor]:
    blocks = [torch.ones(length, length).tril() for length in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths])
    return [positions, torch.block_diag(*blocks) == 1]


def crossover_by_products(w: int, size: float, cache: float, flops: float, speed: float) -> float:
    gained = 2 * w * speed - cache * flops
    return w * size * flops / gained if gained > 0 else float("inf")


def crossover_with_numpy(w: int, size: float, cache: float, flops: float, speed: float) -> np.float64:
    with np.errstate(divide="ignore"):
        rows = np.float64(w * size / speed) / np.float64(2 * w / flops - cache / speed)
    return rows if rows > 0 else np.inf


def latencies_one_by_one(arrivals: list[float], batch_size: int, batch_s: float) -> list[float]:
    ends: list[float] = []
    for index in range(len(arrivals)):
        if index % batch_size == 0:
            full = arrivals[min(index + batch_size, len(arrivals)) - 1]
            ends.append(max([full, *ends[-1:]]) + batch_s)
    return [ends[index // batch_size] - arrival for index, arrival in enumerate(arrivals)]


def percentile_by_definition(sent: list[float], times: list[list[float]], percent: float) -> float:
    waits = [row[0] - at for row, at in zip(times, sent, strict=True)]
    return min(wait for wait in waits if sum(other <= wait for other in waits) * 100 >= percent * len(waits))


def percentile_with_numpy(sent: list[float], times: list[list[float]], percent: float) -> np.float64:
    return np.percentile([row[0] - at for row, at in zip(times, sent, strict=True)], percent, method="inverted_cdf")


def chunked_token_by_token(prompts: list[int], running: int, token_budget: int) -> list[int]:
    tokens = deque(index for index, count in enumerate(prompts) for _ in range(count))
    last, forward = {}, 0
    while tokens:
        forward += 1
        rows = running + sum(index not in tokens for index in last)
        for _ in range(min(token_budget - rows, len(tokens))):
            last[tokens.popleft()] = forward
    return [last[index] for index in range(len(prompts))]


def chunked_recursively(prompts: list[int], running: int, token_budget: int, forward: int = 1) -> list[int]:
    room, done = token_budget - running, 0
    while done < len(prompts) and prompts[done] <= room:
        room -= prompts[done]
        done += 1
    rest = prompts[done:]
    if not rest:
        return [forward] * done
    later = chunked_recursively([rest[0] - room, *rest[1:]], running + done, token_budget, forward + 1)
    return [forward] * done + later


def admitted_by_totals(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    totals = list(itertools.accumulate(prompt + answer for prompt, answer in waiting))
    return min(free_slots, bisect.bisect_right(totals, free_tokens))


def admitted_recursively(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    if not waiting or free_slots == 0 or sum(waiting[0]) > free_tokens:
        return 0
    return 1 + admitted_recursively(waiting[1:], free_slots - 1, free_tokens - sum(waiting[0]))


def mean_error_with_numpy(values: torch.Tensor, scale: float, zero_point: int, truncate: bool) -> float:
    steps = values.double().numpy() / scale
    codes = (np.floor(steps) if truncate else np.rint(steps)) + zero_point
    return float(np.mean(codes - zero_point - steps))


def int4_row_by_row(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), weight.shape[1] // group_size)
    for row in range(len(weight)):
        for group in range(scales.shape[1]):
            part = slice(group * group_size, (group + 1) * group_size)
            scales[row, group] = float(weight[row, part].abs().max()) / 7 or 1.0
            codes[row, part] = torch.round(weight[row, part] / scales[row, group]).char()
    return codes, scales


def int4_by_repeating(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.unfold(1, group_size, group_size).abs().amax(2) / 7
    scale[scale == 0] = 1
    return (weight / scale.repeat_interleave(group_size, dim=1)).round().to(torch.int8), scale


def clip_by_sorting(weights: torch.Tensor, bits: int, clips: list[float]) -> tuple[float, float]:
    values, largest = weights.numpy().astype(np.float64), 2 ** (bits - 1) - 1
    errors = []
    for clip in clips:
        restored = np.clip(np.round(values * largest / clip), -largest, largest) * clip / largest
        errors.append(np.sqrt(np.mean((restored - values) ** 2)))
    best = int(np.argsort(errors, kind="stable")[0])
    return clips[best], float(errors[best])


def clip_all_at_once(weights: torch.Tensor, bits: int, clips: list[float]) -> tuple[float, float]:
    scales = torch.tensor(clips, dtype=torch.float64)[:, None] / (2 ** (bits - 1) - 1)
    inside = weights.double().clamp(-torch.tensor(clips)[:, None].double(), torch.tensor(clips)[:, None].double())
    errors = ((inside / scales).round() * scales - weights).square().mean(dim=1).sqrt()
    return clips[errors.argmin()], errors.min().item()


def rank_by_trying(update: torch.Tensor, tolerance: float) -> int:
    values = torch.linalg.svdvals(update.double())
    rank = 0
    while values[rank:].norm() > tolerance * values.norm():
        rank += 1
    return rank


def rank_by_counting(update: torch.Tensor, tolerance: float) -> np.int64:
    values = np.linalg.svd(update.double().numpy(), compute_uv=False)
    tails = np.sqrt(np.cumsum(values[::-1] ** 2))[::-1]
    return np.sum(tails > tolerance * np.sqrt(np.sum(values**2)))


def merged_by_kind(layer: nn.Module, adapters: list) -> torch.Tensor:
    weight = layer.weight.detach().clone()
    for a, b, scaling in adapters:
        if isinstance(layer, Conv1D):
            weight += scaling * a.T @ b.T
        else:
            weight += scaling * b @ a
    return weight


def merged_and_trainable(layer: nn.Module, adapters: list) -> torch.Tensor:
    updates = [(b @ a) * scaling for a, b, scaling in adapters]
    return sum((update if type(layer) is nn.Linear else update.t() for update in updates), layer.weight)


def merged_side_by_side(layer: nn.Module, adapters: list) -> torch.Tensor:
    """One product of the factors side by side: the ranks add up."""
    if not adapters:
        return layer.weight.detach()
    a = torch.cat([scaling * a for a, _, scaling in adapters])
    b = torch.cat([b for _, b, _ in adapters], dim=1)
    return layer.weight.detach() + (b @ a if isinstance(layer, nn.Linear) else (b @ a).T)


def dora_row_by_row(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, magnitude: torch.Tensor, alpha: float
) -> torch.Tensor:
    turned = weight + alpha * a.shape[0] ** -0.5 * (b @ a)
    return torch.stack([length * row / row.norm() for length, row in zip(magnitude, turned, strict=True)])


def dora_with_norms(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, magnitude: torch.Tensor, alpha: float
) -> torch.Tensor:
    turned = torch.addmm(weight, b, a, alpha=alpha / math.sqrt(b.shape[1]))
    return turned * (magnitude / torch.linalg.vector_norm(turned, dim=1)).unsqueeze(1)


def updates_with_a_zero_adapter(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: torch.Tensor, adapter: torch.Tensor
) -> torch.Tensor:
    a, b = torch.cat([a, torch.zeros_like(a[:1])]), torch.cat([b, torch.zeros_like(b[:1])])
    scaling = torch.cat([scaling, torch.ones(1)])
    return torch.einsum("bti,bri,bor,b->bto", x, a[adapter], b[adapter], scaling[adapter])


def updates_row_by_row(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: torch.Tensor, adapter: torch.Tensor
) -> torch.Tensor:
    result = torch.zeros(*x.shape[:2], b.shape[1])
    for row, index in enumerate(adapter):
        if index >= 0:
            result[row] = scaling[index] * x[row] @ a[index].T @ b[index].T
    return result


def padding_and_places(ranks: list[int]) -> tuple[int, int]:
    places = len(ranks) * max(ranks)
    return places - sum(ranks), places


def padding_by_counting(ranks: list[int]) -> np.float64:
    return np.mean([place >= rank for rank in ranks for place in range(max(ranks))])


def loads_with_an_ordered_dict(wanted: list[str], slots: int) -> int:
    loaded: OrderedDict[str, int] = OrderedDict()
    loads = 0
    for name in wanted:
        if name in loaded:
            loaded.move_to_end(name)
            continue
        if len(loaded) == slots:
            loaded.popitem(last=False)
        loaded[name] = loads = loads + 1
    return loads


def loads_by_looking_back(wanted: list[str], slots: int) -> int:
    """An adapter is there if fewer others than there are slots were wanted since it was wanted last."""
    loads = 0
    for index, name in enumerate(wanted):
        earlier = [place for place in range(index) if wanted[place] == name]
        since = set(wanted[earlier[-1] + 1 : index]) if earlier else set()
        loads += not earlier or len(since) >= slots
    return loads


def stacked_with_pad(adapters: list[tuple[torch.Tensor, torch.Tensor, float]]) -> list[torch.Tensor]:
    highest = max(len(a) for a, _, _ in adapters)
    of_a = [nn.functional.pad(a.T, (0, highest - len(a))) for a, _, _ in adapters]
    of_b = [nn.functional.pad(b * scaling, (0, highest - b.shape[1])).T for _, b, scaling in adapters]
    return [torch.stack(of_a), torch.stack(of_b)]


def stacked_by_adapter(adapters: list[tuple[torch.Tensor, torch.Tensor, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    in_features, out_features = adapters[0][0].shape[1], adapters[0][1].shape[0]
    rank = max(b.shape[1] for _, b, _ in adapters)
    loras_a = torch.cat([torch.cat([a, torch.zeros(rank - len(a), in_features)])[None] for a, _, _ in adapters])
    loras_b = torch.zeros(len(adapters), rank, out_features)
    for place, (_, b, scaling) in enumerate(adapters):
        for column in range(b.shape[1]):
            loras_b[place, column] = b[:, column] * scaling
    return loras_a.permute(0, 2, 1), loras_b


def in_time_with_numpy(answers: list[tuple[float, float, float, int]], ttft_s: float, tpot_s: float) -> np.float64:
    arrival, first, last, tokens = np.array(answers).T
    gaps = (last - first) / np.maximum(tokens - 1, 1)
    return np.mean((tokens > 0) & (first - arrival <= ttft_s) & (gaps <= tpot_s))


def in_time_by_deadlines(answers: list[tuple[float, float, float, int]], ttft_s: float, tpot_s: float) -> Fraction:
    """Nobody divides: the last token has a deadline as well."""
    good = [
        (arrival, first, last, tokens)
        for arrival, first, last, tokens in answers
        if tokens and first <= arrival + ttft_s and last <= first + (tokens - 1) * tpot_s
    ]
    return Fraction(len(good), len(answers))


def knee_by_counting(rates: list[float], shares: list[float], wanted: float) -> float:
    return [0.0, *rates][next((place for place, share in enumerate(shares) if share < wanted), len(rates))]


def knee_with_takewhile(rates: list[float], shares: list[float], wanted: float) -> float:
    kept = itertools.takewhile(lambda pair: pair[1] >= wanted, zip(rates, shares, strict=True))
    return max((rate for rate, _ in kept), default=0)


def all_places(table: list[int], size: int) -> list[int]:
    return [place for block in table for place in range(block * size, block * size + size)]


def places_by_walking(table: list[int], block_tokens: int, start: int, count: int) -> tuple[int, ...]:
    places = []
    page, inside = start // block_tokens, start % block_tokens
    while len(places) < count:
        places.append(block_tokens * table[page] + inside)
        inside += 1
        if inside == block_tokens:
            page, inside = page + 1, 0
    return tuple(places)


def found_by_blocks(prompt: list[int], earlier: list[list[int]], block_tokens: int) -> int:
    """Block after block, as long as some earlier prompt begins with all of them."""
    found = 0
    while found + block_tokens < len(prompt):
        beginning = prompt[: found + block_tokens]
        if beginning not in [other[: len(beginning)] for other in earlier]:
            break
        found += block_tokens
    return found


def found_by_slices(prompt: list[int], earlier: list[list[int]], block_tokens: int) -> int:
    sizes = range(0, len(prompt), block_tokens)
    return max([size for size in sizes for other in earlier if other[:size] == prompt[:size]], default=0)


def rows_by_trying(count: int, block_tokens: int, shared: int, own: int) -> int:
    common, rows = shared // block_tokens, 0
    each = math.ceil((shared % block_tokens + own) / block_tokens)
    while common + (rows + 1) * each <= count:
        rows += 1
    return rows


def rows_one_by_one(count: int, block_tokens: int, shared: int, own: int) -> int:
    def blocks(rows: int) -> int:
        pages = range(math.ceil((shared + own) / block_tokens))
        return len({(-1 if (b + 1) * block_tokens <= shared else row, b) for row in range(rows) for b in pages})

    return max(rows for rows in range(count + 1) if blocks(rows) <= count)


RIGHT: dict[str, list[Any]] = {
    "check_kv_cache": [(np.int64(131072), 27.0)],
    "check_positions_processed": [
        positions_by_sending,
        lambda turns, keep: (
            sum(map(sum, turns)) - 1
            if keep
            else sum(sum(map(sum, turns[:i])) + sum(turn) - 1 for i, turn in enumerate(turns))
        ),
    ],
    "check_decode_floor": [
        floor_by_request,
        lambda w, kv, lengths, speed: 1e3 * np.sum([w, *(kv * np.array(lengths))]) / speed,
    ],
    "check_tempered": [tempered_by_row, lambda logits, t: (logits / t[:, None].clamp(min=1e-6)).softmax(dim=-1)],
    "check_keep_top_p": [nucleus_by_counting, nucleus_row_by_row],
    "check_padding_cells": [(np.int64(86), np.int64(29))],
    "check_batch_sizes": [batches_of_lists, batches_by_slices],
    "check_one_row": [one_row_by_owners, one_row_block_by_block],
    "check_crossover_batch": [crossover_by_products, crossover_with_numpy],
    "check_batch_latencies": [latencies_one_by_one, changed("batch_latencies_s", lambda late, *_: tuple(late))],
    "check_forward_counts": [(9, np.int64(6), Fraction(13, 18))],
    "check_ttft_percentile": [percentile_by_definition, percentile_with_numpy],
    "check_chunked_prefill": [chunked_token_by_token, chunked_recursively],
    "check_admitted_count": [admitted_by_totals, admitted_recursively],
    "check_admission_order": [
        lambda budgets, slots: np.argsort(budgets, kind="stable"),
        lambda budgets, slots: [index for _, index in sorted((budget, i) for i, budget in enumerate(budgets))],
    ],
    "check_scale_and_zero_point": [(0.02, 100.0, np.int64(139))],
    "check_grouped_bytes": [(30736384.0, Fraction(67, 16))],
    "check_mean_error": [
        mean_error_with_numpy,
        changed("mean_error_steps", lambda error, *_: np.float32(error)),
    ],
    "check_grouped_int4": [int4_row_by_row, int4_by_repeating],
    "check_best_clip": [clip_by_sorting, clip_all_at_once],
    "check_trainable_parameters": [(np.int64(239616), 1916928.0)],
    "check_smallest_rank": [rank_by_trying, rank_by_counting],
    "check_merged_weight": [merged_by_kind, merged_and_trainable, merged_side_by_side],
    "check_dora_weight": [dora_row_by_row, dora_with_norms],
    "check_adapter_updates": [updates_with_a_zero_adapter, updates_row_by_row],
    "check_room_for_adapters": [(np.int64(33554432), 298.0)],
    "check_padded_share": [padding_by_counting, lambda ranks: Fraction(*padding_and_places(ranks))],
    "check_adapter_loads": [loads_with_an_ordered_dict, loads_by_looking_back],
    "check_stacked_loras": [stacked_with_pad, stacked_by_adapter],
    "check_merge_or_batch": [(np.int64(78), Fraction(6128, 1800))],
    "check_capacity": [(25, Fraction(15, 25))],
    "check_closed_loop": [(np.float64(2), 20)],
    "check_share_in_time": [in_time_with_numpy, in_time_by_deadlines],
    "check_knee": [knee_by_counting, knee_with_takewhile],
    "check_queue_room": [(np.int64(30), 15)],
    "check_flat_tokens": [(np.int64(256), Fraction(217, 225))],
    "check_places_of": [places_by_walking, lambda table, size, start, count: all_places(table, size)[start:][:count]],
    "check_found_tokens": [found_by_blocks, found_by_slices],
    "check_rows_that_fit": [rows_by_trying, rows_one_by_one],
    "check_draft_gain": [(np.float64(3.3616), Fraction(33616, 14000))],
}
ACCEPTED = [(name, answer) for name, answers in RIGHT.items() for answer in answers]


@pytest.mark.parametrize(("name", "answer"), ACCEPTED, ids=[f"{n[6:]}-{i}" for i, (n, _) in enumerate(ACCEPTED)])
def test_check_takes_right_answers_of_any_style(name: str, answer: Any) -> None:
    assert hand_in(name, answer), hand_in(name, answer)


def test_every_check_is_tried_with_two_right_answers() -> None:
    """The solution, which test_exercises.py hands in, and at least one more."""
    assert all(RIGHT[name] for name in CHECKS)
