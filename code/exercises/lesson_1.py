"""The checks of Lesson 1, text generation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checking import Function, compare_function, compare_number, exercise, normal


@exercise("sharing each key and value head among four query heads makes room for four times as many users")
def check_kv_cache(llama_bytes_per_token: int | None, llama_users: int | None) -> None:
    """Exercise 1.1: the KV cache of Llama-3-8B, in bytes per token and in users that fit."""
    layers, query_heads, kv_heads, head_dim, bf16_bytes = 32, 32, 8, 128, 2
    expected = 2 * layers * kv_heads * head_dim * bf16_bytes
    mistakes = {
        "too large: grouped-query attention has fewer heads for keys and values than for queries": (
            expected * query_heads // kv_heads
        ),
        "too small: both keys and values are kept": expected // 2,
        "a bfloat16 number takes 2 bytes": 2 * expected,
        "that is the cache of one layer": expected // layers,
        "that is the cache of one head in every layer": expected // kv_heads,
    }
    compare_number("llama_bytes_per_token", llama_bytes_per_token, expected, mistakes)
    memory, tokens = 30 * 10**9, 8192
    fits = memory // (expected * tokens)
    mistakes = {
        "the last of them has no room for the whole of its cache": fits + 1,
        "30 GB are 30 * 10**9 bytes here, not 30 * 2**30": 30 * 2**30 // (expected * tokens),
        "every user has 8192 cached tokens, not one": memory // expected,
    }
    compare_number("llama_users", llama_users, fits, mistakes)


def _positions(turns: list[tuple[int, int]], keep_cache: bool) -> int:
    total, earlier = 0, 0  # earlier: tokens of the conversation before this turn
    for user, answer in turns:
        unread = min(earlier, 1) if keep_cache else earlier  # the last token of an answer is in no cache
        total += unread + user + answer - 1
        earlier += user + answer
    return total


@exercise("a kept cache saves reading the conversation again, at the price of the memory it takes while nobody writes")
def check_positions_processed(function: Function | None) -> None:
    """Exercise 1.2: how many token positions go through the model in a conversation."""
    cases = {
        "the example without the cache": ([(7, 3), (4, 2)], False),
        "the example with the cache kept": ([(7, 3), (4, 2)], True),
        "a single turn without the cache": ([(5, 9)], False),
        "a single turn with the cache kept": ([(5, 9)], True),
        "three answers of one token without the cache": ([(4, 1), (1, 1), (6, 1)], False),
        "three answers of one token with the cache kept": ([(4, 1), (1, 1), (6, 1)], True),
        "twenty turns without the cache": ([(30, 100)] * 20, False),
        "twenty turns with the cache kept": ([(30, 100)] * 20, True),
    }
    mistakes = {
        "the last token of an answer is not read for that answer": lambda turns, keep: (
            sum(map(sum, turns)) if keep else _positions(turns, False) + len(turns)
        ),
        "with the cache kept, the last token of an answer still has to be read in the next turn": lambda turns, keep: (
            sum(user + answer - 1 for user, answer in turns) if keep else _positions(turns, False)
        ),
        "the last token of the conversation is only written down, even if the cache is kept": lambda turns, keep: (
            sum(map(sum, turns)) if keep else _positions(turns, False)
        ),
        "with the cache kept, what was read once is not read again": lambda turns, keep: _positions(turns, False),
        "without the cache, every turn reads the whole conversation again": lambda turns, keep: _positions(turns, True),
        "within an answer the model uses a cache": lambda turns, keep: sum(
            sum(map(sum, turns[:turn])) * answer + user * answer + answer * (answer - 1) // 2
            for turn, (user, answer) in enumerate(turns)
        ),
        "without the cache, the model reads its own earlier answers again too": lambda turns, keep: (
            _positions(turns, True)
            if keep
            else sum(sum(user for user, _ in turns[: turn + 1]) + turns[turn][1] - 1 for turn in range(len(turns)))
        ),
    }
    compare_function(function, _positions, cases, mistakes)


def _floor_ms(weight_bytes: float, kv_bytes_per_token: float, lengths: list[int], bytes_per_s: float) -> float:
    return (weight_bytes + kv_bytes_per_token * sum(lengths)) / bytes_per_s * 1000


@exercise("one reading of the weights serves the whole batch, but every request brings its own cache to read")
def check_decode_floor(function: Function | None) -> None:
    """Exercise 1.3: the time below which a decode step cannot go."""
    cases = {
        "the example": (300e6, 1e6, [20, 30, 50], 100e9),
        "one request of GPT-2's size": (497_759_232, 73_728, [500], 30e9),
        "a batch of 64": (16e9, 131_072, [8192] * 64, 3.35e12),
    }
    mistakes = {
        "that is in seconds": lambda *given: _floor_ms(*given) / 1000,
        "the cache has to be read too": lambda weights, kv, lengths, speed: _floor_ms(weights, 0, lengths, speed),
        "the weights have to be read too": lambda weights, kv, lengths, speed: _floor_ms(0, kv, lengths, speed),
        "the weights are read once for the whole batch": lambda weights, kv, lengths, speed: _floor_ms(
            weights * len(lengths), kv, lengths, speed
        ),
        "the cache per token holds keys and values already": lambda weights, kv, lengths, speed: _floor_ms(
            weights, 2 * kv, lengths, speed
        ),
        "every request has its own length; only the tokens that are there are read": (
            lambda weights, kv, lengths, speed: _floor_ms(weights, kv, [max(lengths)] * len(lengths), speed)
        ),
        "every request has a cache to read, not only the longest": lambda weights, kv, lengths, speed: _floor_ms(
            weights, kv, [max(lengths)], speed
        ),
    }
    compare_function(function, _floor_ms, cases, mistakes)


def _tempered(logits: Tensor, temperatures: Tensor) -> Tensor:
    rows = []
    for row, temperature in zip(logits, temperatures.tolist(), strict=True):
        greedy = torch.zeros_like(row)
        greedy[row.argmax()] = 1.0
        rows.append(greedy if temperature == 0 else torch.softmax(row / temperature, dim=-1))
    return torch.stack(rows)  # (B, V)


@exercise("below 1 the likely tokens gain, above 1 the unlikely ones do, and 0 is greedy decoding")
def check_tempered(function: Function | None) -> None:
    """Exercise 1.4: probabilities at a temperature per row."""
    logits = normal(4, 12)
    cases = {
        "the example at a temperature of 1": (torch.tensor([[0.0, 1.0]]), torch.tensor([1.0])),
        "rows of different temperatures": (logits, torch.tensor([0.5, 1.0, 2.0, 5.0])),
        "some temperatures of 0": (logits, torch.tensor([0.7, 0.0, 1.5, 0.0])),
        "logits in the hundreds": (logits * 300, torch.tensor([1.0, 0.5, 2.0, 0.0])),
        "very low temperatures, and logits as close together": (
            logits * 0.002,
            torch.tensor([0.001, 0.002, 0.0, 0.01]),
        ),
    }
    mistakes = {
        "this multiplies by the temperature; divide by it": lambda logits, t: torch.softmax(
            logits * t[:, None], dim=-1
        ),
        "each row must sum to 1, not each column": lambda logits, t: torch.softmax(logits / t[:, None], dim=0),
        "the temperature was not used": lambda logits, t: torch.softmax(logits, dim=-1),
        "every row has its own temperature": lambda logits, t: torch.softmax(logits / t[0], dim=-1),
    }
    compare_function(function, _tempered, cases, mistakes)


def _keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    kept = torch.full_like(logits, -math.inf)
    for row, probabilities in enumerate(torch.softmax(logits, dim=-1)):
        order, total, taken = probabilities.argsort(descending=True).tolist(), 0.0, 0
        while taken < len(order) and (total < top_p or top_p == 1):
            total += float(probabilities[order[taken]])
            taken += 1
        kept[row, order[:taken]] = logits[row, order[:taken]]
    return kept


def _without_crossing_token(logits: Tensor, top_p: float, fewest: int) -> Tensor:
    """The mistake of keeping only the tokens that stay below top_p together, though at least so many of them."""
    probabilities, columns = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    kept = probabilities.cumsum(dim=-1) < top_p
    kept[:, :fewest] = True
    return logits.masked_fill(~kept.scatter(1, columns, kept), -math.inf)


def _sorted_mask(logits: Tensor, top_p: float) -> Tensor:
    """The mistake of applying the mask of the sorted tokens to the tokens in their own order."""
    probabilities = logits.softmax(dim=-1).sort(dim=-1, descending=True).values
    before = probabilities.cumsum(dim=-1) - probabilities  # what the likelier tokens add up to
    return logits.masked_fill(before >= top_p, -math.inf)


@exercise("top-p keeps few tokens where the model is sure and many where it is not, which no fixed top-k does")
def check_keep_top_p(function: Function | None) -> None:
    """Exercise 1.5: the logits of the nucleus."""
    unsure_to_sure = normal(5, 40) * torch.tensor([0.2, 1.0, 2.0, 4.0, 20.0])[:, None]
    cases = {
        "the example": (torch.tensor([[0.15, 0.5, 0.05, 0.3], [0.1, 0.05, 0.8, 0.05]]).log(), 0.7),
        "rows from unsure to sure": (unsure_to_sure, 0.9),
        "a single row": (unsure_to_sure[1:2], 0.7),
        "a top_p so small that one token is enough": (unsure_to_sure, 0.001),
        "a top_p of 1, which keeps every token": (torch.tensor([[30.0, 1.0, 0.0], [0.2, 0.1, 0.0]]), 1.0),
    }
    mistakes = {
        "the token that reaches top_p is kept too": lambda logits, p: _without_crossing_token(logits, p, 1),
        "the token that reaches top_p is kept too, even if it is the first": lambda logits, p: _without_crossing_token(
            logits, p, 0
        ),
        "sorting has changed the order; each token has to be kept or left out in its own column": _sorted_mask,
        "put each value back into its own column": lambda logits, p: (
            _keep_top_p(logits, p).sort(dim=-1, descending=True).values
        ),
        "return logits, not probabilities": lambda logits, p: _keep_top_p(logits, p).softmax(dim=-1),
        "the most likely tokens are kept, not the least likely": lambda logits, p: (
            _keep_top_p(-logits, p).neg().nan_to_num(posinf=-math.inf)
        ),
    }
    compare_function(function, _keep_top_p, cases, mistakes)
