"""Exercise 1.6: a KV cache, tried on small tensors and then inside every layer of the course model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from exercises.checking import NotAttempted, Wrong, difference, exercise, normal, running, short
from helpers import shared_course_model

from .parts import LayerCache, plugged_cache

PROMPTS = ["Once upon a time there was a", "The rain in Spain falls mainly on", "What comes up must"]
NEW_TOKENS = 80  # of each answer: more than the room that a cache may have to spare
SPARE_TOKENS = 64
SINGLE_TOKENS, MOST_ALLOCATIONS = 640, 20

# Each case: how many tokens come in each call, the shape (B, H, D), and the dtype.
SMALL_CASES = {
    "a prompt of 3 tokens and two single ones": ([3, 1, 1], (1, 2, 4), torch.float32),
    "a batch of 2, in chunks of 2 and 5 tokens": ([2, 5], (2, 3, 4), torch.float32),
    "a single token, then 100 at once, then 3": ([1, 100, 3], (2, 1, 2), torch.float32),
    "a prompt of 7 tokens, then 64, then a single one": ([7, 64, 1], (1, 2, 4), torch.float32),
    "a prompt of 200 tokens and a single one": ([200, 1], (1, 2, 4), torch.float32),
    "keys and values in float16": ([4, 1], (1, 2, 4), torch.float16),
}

Pair = tuple[Tensor, Tensor]  # keys and values, (B, H, T, D) each


@exercise("most calls of append copy no old token, and the model writes the same text as without a cache")
def check_cache(cache_class: Callable[[], LayerCache] | None) -> None:
    """Exercise 1.6: build it, a KV cache."""
    if not inspect.isclass(cache_class):
        raise Wrong(f"expected a class, got {short(cache_class)}")
    for case, (lengths, (rows, heads, depth), dtype) in SMALL_CASES.items():
        pieces = _pieces(lengths, (rows, heads, depth), dtype)
        _check_appended(cache_class, case, pieces)
    _check_independence(cache_class)
    _check_memory(cache_class)
    _check_in_the_model(cache_class)


def _pieces(lengths: Sequence[int], sizes: tuple[int, int, int], dtype: torch.dtype, seed: int = 0) -> list[Pair]:
    """Keys and values for each call, (B, H, T, D) with T from `lengths`; no two numbers in them are equal."""
    rows, heads, depth = sizes
    whole = normal(2, rows, heads, sum(lengths), depth, seed=seed).to(dtype)
    return list(zip(*(kind.split(list(lengths), dim=2) for kind in whole), strict=True))


def _joined(pieces: Sequence[Pair]) -> Pair:
    """All keys and all values of these calls, oldest first."""
    keys, values = zip(*pieces, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _append(cache: Any, cache_class: type, case: str, piece: Pair) -> Pair:
    """What the learner's `append` returns for copies of these keys and values."""
    with running(cache_class, case):
        returned = cache.append(*(tensor.clone() for tensor in piece))
    if returned is None or returned is Ellipsis:
        raise NotAttempted("append returns nothing")
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise Wrong(f"append has to return two tensors, all keys and all values; it returned {short(returned)}")
    return tuple(returned)


def _new_cache(cache_class: type, case: str) -> Any:
    with running(cache_class, case):
        return cache_class()


def _check_appended(cache_class: type, case: str, pieces: Sequence[Pair]) -> None:
    """Append these pieces to a new cache; what comes back must be right after every call, and stay right."""
    cache = _new_cache(cache_class, case)
    earlier: list[tuple[Pair, Pair]] = []
    for call, piece in enumerate(pieces, 1):
        returned = _append(cache, cache_class, case, piece)
        _compare(returned, pieces[:call], f"{case}, in call {call}")
        earlier.append((returned, _joined(pieces[:call])))
    for call, (returned, right) in enumerate(earlier, 1):
        if any(difference(*pair) is not None for pair in zip(returned, right, strict=True)):
            raise Wrong(f"for {case}, what call {call} had returned was changed by a later call")


def _compare(returned: Pair, pieces: Sequence[Pair], where: str) -> None:
    """Complain unless these are all keys and all values of the pieces."""
    right = _joined(pieces)
    complaints = [difference(*pair) for pair in zip(returned, right, strict=True)]
    if complaints == [None, None]:
        return
    known = {
        "only the new tokens came back; later tokens look at all of them": pieces[-1],
        "the new tokens came first; the oldest token has to be the first one": _joined(pieces[::-1]),
        "keys and values have changed places": right[::-1],
    }
    for why, mistaken in known.items():
        if all(difference(*pair) is None for pair in zip(returned, mistaken, strict=True)):
            raise Wrong(f"wrong for {where}: {why}")
    name, complaint = ("keys", complaints[0]) if complaints[0] is not None else ("values", complaints[1])
    raise Wrong(f"wrong for {where}: {name}: {complaint}")


def _check_independence(cache_class: type) -> None:
    """Two layers append in turn; neither may see what the other one has been given."""
    case = "two caches in turn"
    caches = [_new_cache(cache_class, case) for _ in range(2)]
    pieces = [_pieces([3, 1, 1], (1, 2, 4), torch.float32, seed=seed) for seed in (1, 2)]
    for call in range(3):
        for cache, own in zip(caches, pieces, strict=True):
            returned = _append(cache, cache_class, case, own[call])
            if any(difference(*pair) is not None for pair in zip(returned, _joined(own[: call + 1]), strict=True)):
                raise Wrong("two caches in turn: each has to keep its own keys and values and share nothing")


def _check_memory(cache_class: type) -> None:
    """After a prompt, let many tokens come one by one, and look at the memory that the answers lie in."""
    case = f"a prompt and {SINGLE_TOKENS} single tokens"
    cache, pieces = _new_cache(cache_class, case), _pieces([7] + [1] * SINGLE_TOKENS, (1, 1, 2), torch.float32)
    returned = _append(cache, cache_class, case, pieces[0])
    _check_room(returned, pieces[0][0].shape[2])
    allocations = 0
    for held, piece in enumerate(pieces[1:], 8):
        before, returned = returned, _append(cache, cache_class, case, piece)  # both alive: no memory is reused
        _check_room(returned, held)
        allocations += _memory_of(returned).keys() != _memory_of(before).keys()
    if allocations > MOST_ALLOCATIONS:
        raise Wrong(
            f"the numbers are right, but while {SINGLE_TOKENS} tokens came one by one, what append returned lay in new "
            f"memory {allocations} times; at most {MOST_ALLOCATIONS} are allowed"
        )
    _compare(returned, pieces, case)


def _memory_of(pair: Pair) -> dict[int, int]:
    """Where the memory of these keys and values begins -> its bytes; one entry if they share it."""
    storages = [tensor.untyped_storage() for tensor in pair]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _check_room(pair: Pair, held: int) -> None:
    """Complain about memory for many more tokens than the cache holds."""
    bytes_per_token = sum(tensor[:, :, :1].numel() * tensor.element_size() for tensor in pair)
    spare = sum(_memory_of(pair).values()) // bytes_per_token - held
    if spare > SPARE_TOKENS:
        raise Wrong(
            f"the numbers are right, but a cache that holds {held} tokens has room for {spare} more; "
            f"at most {SPARE_TOKENS} are allowed"
        )


@torch.inference_mode()
def _check_in_the_model(cache_class: type) -> None:
    """Answer the course's prompts, one new token per forward, and compare with a forward that reads all at once."""
    model, tokenizer = shared_course_model()
    prompts = [tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device) for prompt in PROMPTS]
    with tqdm(total=len(prompts) * NEW_TOKENS, desc="the course's prompts", leave=False) as bar:
        for text, prompt in zip(PROMPTS, prompts, strict=True):
            with running(cache_class, f"“{text}” in the model"):
                cache = plugged_cache(cache_class, model.config.num_hidden_layers)
                new_ids, said = prompt, []  # (1, T): what is read next
                for made in range(NEW_TOKENS):
                    inputs = {"input_ids": new_ids, "attention_mask": prompt.new_ones(1, prompt.shape[1] + made)}
                    logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                    new_ids = logits[:, -1].argmax(dim=-1)[:, None]  # (1, 1)
                    said.append(new_ids)
                    bar.update()
            _compare_with_no_cache(model, prompt, torch.cat(said, dim=1), text)


def _compare_with_no_cache(model: Any, prompt: Tensor, answer: Tensor, text: str) -> None:
    """Complain unless each token of the answer (1, N) is what the model says without a cache after those before it."""
    whole = torch.cat([prompt, answer[:, :-1]], dim=1)
    logits = model(whole, attention_mask=torch.ones_like(whole), use_cache=False).logits  # (1, S, V)
    right = logits[:, prompt.shape[1] - 1 :].argmax(dim=-1)  # (1, N)
    differs = (right != answer)[0].nonzero()
    if len(differs):
        place = int(differs[0]) + 1
        raise Wrong(f"in the model, token {place} after “{text}” is not the one that it says without a cache")
