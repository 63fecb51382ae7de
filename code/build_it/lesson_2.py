"""Lesson 2: a batch step, tried on a model of a few thousand weights and then on the storyteller."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from exercises.checking import NotAttempted, Wrong, difference, exercise, is_blank, running, short
from helpers import generate_tokens, shared_course_model

from .parts import BatchStep

PROMPTS = ["The rain in Spain falls", "Once upon a time there was a", "What comes up must", "Early to bed and", "Dear"]
STEPS = 12

# Each case: the new tokens of every row, forward after forward.
SMALL_CASES = {
    "two prompts of 3 and 1 tokens": [[[5, 6, 7], [8]], [[9], [10]], [[11], [12]]],
    "three prompts, the longest of them last": [[[5], [6, 7], [8, 9, 10, 11]], [[5], [6], [7]]],
    "prompts of one length": [[[5, 6], [7, 8]], [[9], [10]]],
    "a single prompt": [[[5, 6, 7]], [[8]], [[9]]],
}


@exercise("every row of the batch says what it says alone, and one forward serves them all")
def check_batch_step(batch_step: BatchStep | None) -> None:
    """Exercise 2.6: a step for rows of different length."""
    if is_blank(batch_step):
        raise NotAttempted
    if not callable(batch_step):
        raise Wrong(f"expected a function, got {short(batch_step)}")
    model = _small_model()
    with torch.inference_mode():
        for case, forwards in SMALL_CASES.items():
            _try_small(batch_step, model, case, forwards)
        _compare_with_answers_alone(batch_step)


def _small_model() -> PreTrainedModel:
    """A GPT-2 so small that it is made in no time; its weights are random, and always the same."""
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=40, n_positions=32, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).eval()


def _try_small(batch_step: BatchStep, model: PreTrainedModel, case: str, forwards: list[list[list[int]]]) -> None:
    """Run a few forwards, and look at everything that goes into the model and comes back."""
    cache = DynamicCache()
    mask = torch.zeros(len(forwards[0]), 0, dtype=torch.long)  # (B, 0): nothing is cached yet
    for number, new_tokens in enumerate(forwards):
        where = case if number == 0 else f"forward {number + 1} of {case}"
        cached, mask = mask, _mask_after(mask, new_tokens)  # (B, S), (B, S+T)
        with _watched(model) as calls:
            try:
                with running(batch_step, where):
                    answer = batch_step(model, [list(row) for row in new_tokens], cached.clone(), cache)
            except Wrong:
                if calls:  # what the model was given says more than the error that it raised
                    _examine_call(calls, where, new_tokens, mask, cache)
                raise
        if number == 0 and is_blank(answer):
            raise NotAttempted("the function returns nothing")
        _examine_call(calls, where, new_tokens, mask, cache)
        _examine_answer(answer, where, mask)
        if cache.get_seq_length() != mask.shape[1]:
            raise Wrong(f"for {where} the cache should hold {mask.shape[1]} columns, not {cache.get_seq_length()}")


def _mask_after(mask: Tensor, new_tokens: list[list[int]]) -> Tensor:
    """The attention mask (B, S) with the columns of the new tokens, padded on the left: (B, S+T)."""
    width = max(len(row) for row in new_tokens)
    added = [[0] * (width - len(row)) + [1] * len(row) for row in new_tokens]
    return torch.cat([mask, torch.tensor(added)], dim=1)


@contextmanager
def _watched(model: PreTrainedModel) -> Iterator[list[dict[str, Any]]]:
    """A list that gets the arguments, by name, of every call of the model while the block runs."""
    calls: list[dict[str, Any]] = []
    signature = inspect.signature(model.forward)

    def note(_: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append(dict(signature.bind_partial(*args, **kwargs).arguments))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def _examine_call(
    calls: list[dict[str, Any]], where: str, new_tokens: list[list[int]], mask: Tensor, cache: DynamicCache
) -> None:
    """Complain about what the model was given; `mask` is the right one, (B, S+T)."""
    if len(calls) != 1:
        count = f"{len(calls)} times" if calls else "not at all"
        raise Wrong(f"one forward serves the whole batch; for {where} the model was called {count}")
    (given,) = calls
    width = max(len(row) for row in new_tokens)
    _examine_ids(given.get("input_ids"), where, new_tokens, width)
    if given.get("past_key_values") is not cache:
        raise Wrong(f"for {where} the model did not get the cache, as past_key_values")
    _examine_mask(given.get("attention_mask"), where, mask)
    _examine_positions(given.get("position_ids"), where, mask, width)


def _examine_ids(ids: Any, where: str, new_tokens: list[list[int]], width: int) -> None:
    shape = (len(new_tokens), width)
    if not isinstance(ids, Tensor) or ids.shape != shape:
        got = tuple(ids.shape) if isinstance(ids, Tensor) else short(ids)
        raise Wrong(f"for {where} the model needs input_ids of shape {shape}, it got {got}")
    rows = ids.tolist()
    if [row[-1] for row in rows] != [row[-1] for row in new_tokens]:
        raise Wrong(
            f"for {where} the last column of input_ids is not the last token of every row; the next token is read "
            "there, so the pads belong on the left"
        )
    for number, (row, tokens) in enumerate(zip(rows, new_tokens, strict=True)):
        if row[width - len(tokens) :] != tokens:
            raise Wrong(f"for {where} row {number} of input_ids does not end with its own tokens")


def _examine_mask(given: Any, where: str, mask: Tensor) -> None:
    if given is None:
        raise Wrong(f"for {where} the model got no attention_mask, so every row looks at pads")
    if isinstance(given, Tensor) and given.shape == mask.shape and torch.equal(given.long(), 1 - mask):
        raise Wrong(f"for {where} the attention mask is inverted: it is 1 at a token and 0 under a pad")
    if isinstance(given, Tensor) and given.shape[-1] < mask.shape[1]:
        raise Wrong(f"for {where} the model's attention mask has to cover the cached tokens and the new ones")
    complaint = difference(given.long() if isinstance(given, Tensor) else given, mask)
    if complaint is not None:
        raise Wrong(f"for {where} the model's attention mask is not right: {complaint}")


def _examine_positions(given: Any, where: str, mask: Tensor, width: int) -> None:
    if given is None:
        raise Wrong(f"for {where} the model got no position_ids; GPT-2 then numbers the columns, pads included")
    if not isinstance(given, Tensor) or given.shape != (len(mask), width):
        got = tuple(given.shape) if isinstance(given, Tensor) else short(given)
        raise Wrong(f"for {where} position_ids must have the shape of input_ids, {(len(mask), width)}; it has {got}")
    is_real = mask[:, -width:] == 1  # (B, T); whatever stands under a pad is never seen
    right = (mask.cumsum(dim=1) - 1)[:, -width:]
    if not torch.equal(given[is_real], right[is_real]):
        raise Wrong(
            f"for {where} a position is wrong: a token's position is the number of real tokens before it in its own "
            "row, the cached ones included"
        )


def _examine_answer(answer: Any, where: str, mask: Tensor) -> None:
    """Complain about what came back unless it has the form (next ids (B,), attention mask (B, S+T))."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong(f"expected a tuple of the next ids and the attention mask, got {short(answer)}")
    next_ids, returned = answer
    if not isinstance(next_ids, Tensor) or next_ids.shape != (len(mask),) or next_ids.dtype != torch.long:
        got = f"{next_ids.dtype} {tuple(next_ids.shape)}" if isinstance(next_ids, Tensor) else short(next_ids)
        raise Wrong(f"for {where} next_ids must be one int64 id per row, of shape {(len(mask),)}; got {got}")
    if isinstance(returned, Tensor) and returned.shape == (len(mask), mask.shape[1] + 1):
        raise Wrong(
            f"for {where} the mask you return has a column too many: it covers what the cache holds now, and the "
            "token just found is not in the cache yet"
        )
    complaint = difference(returned, mask)
    if complaint is not None:
        raise Wrong(f"for {where} the attention mask you return is not right: {complaint}")


def _compare_with_answers_alone(batch_step: BatchStep) -> None:
    """Serve the course's prompts in one batch, and each of them alone; no token may differ."""
    model, tokenizer = shared_course_model()
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    said: list[list[int]] = [[] for _ in prompts]
    new_tokens, cache = [list(prompt) for prompt in prompts], DynamicCache()
    mask = torch.zeros(len(prompts), 0, dtype=torch.long)
    for _ in tqdm(range(STEPS), desc="a batch of the course's prompts", leave=False):
        with running(batch_step, "the course's prompts"):
            next_ids, mask = batch_step(model, new_tokens, mask, cache)
            for row, token in zip(said, next_ids.tolist(), strict=True):
                row.append(token)
        new_tokens = [row[-1:] for row in said]
    for text, prompt, row in zip(PROMPTS, prompts, said, strict=True):
        alone = list(generate_tokens(model, prompt, STEPS))
        equal = [token == other for token, other in zip(row, alone, strict=True)]
        if not all(equal):
            place = equal.index(False) + 1
            raise Wrong(
                f"with {len(PROMPTS)} prompts in a batch, token {place} after “{text}” is not the one it gets alone"
            )
