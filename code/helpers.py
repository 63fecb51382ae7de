"""Generation, batching and continuous batching, written to be read (Lessons 1 to 3).

    text --tokenizer--> Request --init_batch--> Batch --model--> next ids --> Request.output_ids --> text
                                     ^    merge / filter    |
                                     +----------------------+

Token ids inside the loop, text only at the two edges. All of it may change how long an answer takes, and not
the answer: greedy decoding gives the same tokens with and without the cache, alone, in a static batch and in a
continuous one. In float32 on a CPU the tests hold it to that. In 16 bits, or on a GPU, a kernel may add in
another order when the batch has another size, and of two tokens that are almost equally likely the other wins.

Shapes: B rows in a batch, T new tokens per row, S tokens already cached, H key/value heads, D head
dimension, V vocabulary.

Loading is in `models`, the cache in `kv_cache`, requests in `request`, what refuses bad input in `checks`;
their names can be imported from here too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from checks import check_batch_size, check_fits, check_mask, check_mergeable, check_not_started, check_one_row
from kv_cache import GrowingLayer, cache_of, merge_caches, new_cache, pad_left, select_cache, stack_rows  # noqa: F401
from models import (  # noqa: F401
    STORYTELLER,
    course_model,
    eos_token_ids,
    gpt2_sized,
    load_model,
    shared_course_model,
    token_id_set,
)
from request import Request, RequestLike, as_request, course_tokenizer_for, fresh_copy, prepared

# --- One forward pass (Lesson 1) ---------------------------------------------------------------------

Inputs = Mapping[str, Any]


def generate_token(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    """The most likely next token of every row, recomputing the whole sequence (no cache).

    Args:
        inputs: `input_ids` (B, T) int64 and, when rows are padded on the left, `attention_mask` (B, T).

    Returns:
        Token ids (B,) int64.
    """
    return forward(model, inputs, use_cache=False).logits[:, -1].argmax(dim=-1)


def generate_token_with_past(model: PreTrainedModel, inputs: Inputs) -> tuple[Tensor, Cache]:
    """The most likely next token of every row, and the KV cache for the step after it.

    Args:
        inputs: `input_ids` (B, T) int64: the whole prompt (prefill), or only the newest token when
            `past_key_values` holds what came before (decode). `attention_mask` (B, S+T) covers the
            cached and the new tokens; without it every token counts.

    Returns:
        Token ids (B,) int64, and the cache, now S+T long. The cache given is the one returned: the
        forward grows it in place.
    """
    outputs = forward(model, inputs, use_cache=True)
    return outputs.logits[:, -1].argmax(dim=-1), outputs.past_key_values


@torch.inference_mode()
def forward(model: PreTrainedModel, inputs: Inputs, *, use_cache: bool) -> Any:
    """One forward pass with mask and positions always explicit; logits (B, 1, V) of the last position.

    Args:
        inputs: as for `generate_token_with_past`; `position_ids` (B, T) follow from the mask when left out.

    Raises:
        ValueError: the mask is not as wide as cached and new tokens together, or rows are padded on the right.
    """
    input_ids, cache = inputs["input_ids"], inputs.get("past_key_values")
    new, cached = input_ids.shape[1], cache.get_seq_length() if cache is not None else 0
    mask = inputs.get("attention_mask")
    if mask is None:
        mask = input_ids.new_ones(input_ids.shape[0], cached + new)
    check_mask(mask, cached, new)
    if use_cache and cache is None:
        cache = new_cache(model)
    positions = inputs.get("position_ids")
    if positions is None:
        positions = positions_from_mask(mask)[:, -new:]
    return model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=use_cache,
        logits_to_keep=1,  # nobody samples from the other positions
    )


def positions_from_mask(attention_mask: Tensor) -> Tensor:
    """Position of every token in its own row, (B, S) int64. A pad gets 1; it is masked, so any number does.

    >>> positions_from_mask(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])).tolist()
    [[1, 1, 0, 1], [0, 1, 2, 3]]
    """
    positions = attention_mask.cumsum(dim=-1) - 1
    return positions.masked_fill(attention_mask == 0, 1)


def generate_tokens(
    model: PreTrainedModel,
    input_ids: Tensor | Sequence[int],
    max_tokens: int,
    *,
    use_cache: bool = True,
    eos_token_id: int | Collection[int] | None = None,
) -> Iterator[int]:
    """Greedy decoding of one sequence, one token id at a time as it is found (Lesson 1).

    Args:
        input_ids: the prompt, a list of ids or a tensor (S,) or (1, S).
        max_tokens: at most this many are yielded.
        use_cache: keep keys and values (one new token per forward), or recompute everything.
        eos_token_id: stop after yielding this token (or any of these); `None` never stops early.

    Raises:
        ValueError, TypeError: as for a `Request` with this prompt and budget.
    """
    prompt_ids = input_ids.flatten().tolist() if isinstance(input_ids, Tensor) else list(input_ids)
    check_one_row(input_ids)
    check_fits(model, prepared([Request(prompt_ids, max_tokens)], None))
    return _generate_tokens(model, prompt_ids, max_tokens, use_cache, token_id_set(eos_token_id))


def _generate_tokens(
    model: PreTrainedModel, prompt_ids: list[int], max_tokens: int, use_cache: bool, eos: frozenset[int]
) -> Iterator[int]:
    sequence = torch.tensor([prompt_ids], device=model.device)  # (1, S)
    inputs: dict[str, Any] = {"input_ids": sequence}
    for _ in range(max_tokens):
        if use_cache:
            next_ids, cache = generate_token_with_past(model, inputs)
            inputs = {"input_ids": next_ids[:, None], "past_key_values": cache}  # (1, 1)
        else:
            next_ids = generate_token(model, inputs)
            inputs = {"input_ids": torch.cat([inputs["input_ids"], next_ids[:, None]], dim=1)}  # (1, S+1)
        token = int(next_ids)
        yield token
        if token in eos:
            return


# --- Requests and batches (Lessons 2 and 3) ----------------------------------------------------------


@dataclass
class Batch:
    """Rows that go through the model together, padded on the left to one width.

    Two prompts, before prefill (S = 0, T = 3) and after it (S = 3, T = 1):

        input_ids   attention_mask          input_ids   attention_mask
        . . a       0 0 1                   b           0 0 1 1
        x y z       1 1 1                   w           1 1 1 1

    Attributes:
        requests: one per row.
        input_ids: (B, T) int64, the tokens the next forward reads.
        attention_mask: (B, S+T) int64, 0 under padding.
        position_ids: (B, T) int64, each token's place in its own row.
        past_key_values: keys and values per layer, each (B, H, S, D); `None` before prefill.
    """

    requests: list[Request]
    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    past_key_values: Cache | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.requests)

    def __getitem__(self, name: str) -> Any:
        """`batch["input_ids"]`: attributes by name, as in the course's notebooks."""
        if name not in self.__dataclass_fields__:
            raise KeyError(f"a Batch has {', '.join(self.__dataclass_fields__)}; not {name!r}")
        return getattr(self, name)

    def inputs(self) -> dict[str, Any]:
        """What the model reads of a batch: everything but the requests."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "past_key_values": self.past_key_values,
        }


def empty_batch() -> Batch:
    """A batch without rows, as it is before anybody is admitted and after everybody is done."""
    nothing = torch.zeros(0, 0, dtype=torch.long)
    return Batch([], nothing, nothing, nothing)


def init_batch(requests: Iterable[RequestLike], tokenizer: PreTrainedTokenizerBase | None = None) -> Batch:
    """Tokenize requests and pad them on the left into one batch, ready for prefill.

    Args:
        requests: `Request`s, or `(prompt, max_tokens)` tuples.
        tokenizer: for prompts given as text, and for its pad token; `None` is the course model's.

    Raises:
        ValueError: an empty prompt, a negative budget, a request that was already started, a tokenizer
            that pads on the right or has no pad token. The message names the request.
        TypeError: a budget that is not an int, or something that is not a request.
    """
    return _padded(prepared(requests, tokenizer), tokenizer)


def _padded(requests: list[Request], tokenizer: PreTrainedTokenizerBase | None) -> Batch:
    """Requests that have prompt ids as the rows of one rectangle, padded on the left."""
    pad_id = 0 if tokenizer is None else tokenizer.pad_token_id  # masked, so its value is never seen
    width = max((len(request.prompt_ids) for request in requests), default=0)
    input_ids = torch.full((len(requests), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, request in enumerate(requests):
        start = width - len(request.prompt_ids)
        input_ids[row, start:] = torch.tensor(request.prompt_ids)
        attention_mask[row, start:] = 1
    return Batch(requests, input_ids, attention_mask, positions_from_mask(attention_mask))


def generate_next_token(batch: Batch, model: PreTrainedModel | None = None) -> Batch:
    """One forward for the whole batch: prefill when nothing is cached yet, decode afterwards.

    Every unfinished request gets one token, and a finished one none. The batch given cannot be used again.

    Raises:
        ValueError: at prefill, a request that does not fit the model's context or vocabulary; a batch
            that was used up by an earlier step.
    """
    if not len(batch):
        return batch
    model = shared_course_model()[0] if model is None else model
    if batch.past_key_values is None:
        check_not_started(batch.requests)
        check_fits(model, batch.requests)
        batch = _on_device(batch, model.device)
    next_ids, cache = generate_token_with_past(model, batch.inputs())
    eos = eos_token_ids(model)
    for request, token in zip(batch.requests, next_ids.tolist(), strict=True):
        request.append(token, eos)
    return _next_batch(batch, next_ids, cache)


def _on_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch, its tensors where the model is."""
    moved = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "position_ids")}
    return replace(batch, **moved)


def _next_batch(batch: Batch, next_ids: Tensor, cache: Cache) -> Batch:
    """The batch for the next step: the new tokens, a mask with one column more, and positions one further."""
    mask = batch.attention_mask
    # A finished row that stays in the batch repeats its last position. Prompt and budget were checked to fit the
    # context; positions beyond the budget need not fit.
    advance = torch.tensor([[not request.finished] for request in batch.requests], device=mask.device)
    return Batch(
        batch.requests,
        input_ids=next_ids[:, None],  # (B, 1)
        attention_mask=torch.cat([mask, mask.new_ones(len(batch), 1)], dim=1),  # (B, S+1)
        position_ids=batch.position_ids[:, -1:] + advance,  # (B, 1)
        past_key_values=cache,
    )


def merge_batches(batch1: Batch, batch2: Batch) -> Batch:
    """The rows of both batches in one, each padded on the left to the wider cache.

        first        second    merged
        a a a a      x x       a a a a
        . b b b                . b b b
                               . . x x

    An empty batch adds nothing. Neither input is changed.

    Raises:
        ValueError: a batch was not prefilled yet, or the caches are of different models.
    """
    if not len(batch1) or not len(batch2):
        return batch2 if not len(batch1) else batch1
    check_mergeable(batch1, batch2)
    return Batch(
        batch1.requests + batch2.requests,
        input_ids=torch.cat([batch1.input_ids, batch2.input_ids]),  # (B1+B2, 1)
        attention_mask=stack_rows(batch1.attention_mask, batch2.attention_mask, dim=1),  # (B1+B2, S+1)
        position_ids=torch.cat([batch1.position_ids, batch2.position_ids]),  # (B1+B2, 1)
        past_key_values=merge_caches(batch1.past_key_values, batch2.past_key_values),  # (B1+B2, H, S, D)
    )


def filter_batch(batch: Batch) -> tuple[Batch, list[int]]:
    """Drop the finished rows, and the padding columns that only they needed.

    Returns:
        The batch of the rows that go on, and the indices of the rows removed. When nothing is
        finished it is the same batch, not a copy. The batch given is not changed.
    """
    kept = [row for row, request in enumerate(batch.requests) if not request.finished]
    removed = [row for row, request in enumerate(batch.requests) if request.finished]
    if not removed:
        return batch, []
    if not kept:
        return empty_batch(), removed
    mask = batch.attention_mask[kept]
    width = int(mask.sum(dim=1).max())  # tokens of the longest row that stays
    return (
        Batch(
            [batch.requests[row] for row in kept],
            input_ids=batch.input_ids[kept, -width:],  # before the prefill whole prompts, afterwards (B, 1)
            attention_mask=mask[:, -width:],
            position_ids=batch.position_ids[kept, -width:],
            past_key_values=select_cache(batch.past_key_values, kept, first_column=mask.shape[1] - width),
        ),
        removed,
    )


# --- Serving a queue (Lessons 2 and 3) ---------------------------------------------------------------


class ForwardTrace(Protocol):
    """An observer of a run, which is told of every forward; `measure.Trace` is one."""

    def begin(self, requests: Sequence[Request], slots: int) -> None:
        """All requests have been sent; the run starts now."""

    def forward(self, batch: Batch) -> AbstractContextManager[None]:
        """Wraps the one forward that is about to run on `batch`."""


def run_static(
    requests: Iterable[RequestLike],
    batch_size: int = 8,
    *,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    trace: ForwardTrace | None = None,
    progress: bool = False,
) -> list[Request]:
    """Serve requests in batches that stay together until their slowest row is done (Lesson 2).

    Args:
        requests: `Request`s or `(prompt, max_tokens)` tuples. They are copied, never changed.
        batch_size: the number of slots.
        model, tokenizer: `None` is the course model. Prompts given as token ids need no tokenizer.
        trace: sees every forward; see `measure.Trace`.
        progress: show a progress bar over the requests.

    Returns:
        The finished requests, in the order given. `[]` for no requests.

    Raises:
        ValueError, TypeError: bad input, all of it checked before the first forward; the message names
            the request.
    """
    return _run(requests, batch_size, _release_together, model, tokenizer, trace, progress)


def run_continuous(
    requests: Iterable[RequestLike],
    batch_size: int = 8,
    *,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    trace: ForwardTrace | None = None,
    progress: bool = False,
) -> list[Request]:
    """Serve requests with slots that are refilled as soon as a row is done (Lesson 3; Orca, OSDI 2022).

    Arguments, result and errors as for `run_static`. They differ in when a finished row gives its slot back.
    """
    return _run(requests, batch_size, _release_finished, model, tokenizer, trace, progress)


def _release_finished(batch: Batch) -> Batch:
    """Continuous: a finished row leaves at once."""
    return filter_batch(batch)[0]


def _release_together(batch: Batch) -> Batch:
    """Static: finished rows keep their slots until every row is finished."""
    return empty_batch() if all(request.finished for request in batch.requests) else batch


def _run(
    requests: Iterable[RequestLike],
    batch_size: int,
    release: Callable[[Batch], Batch],
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    trace: ForwardTrace | None,
    progress: bool,
) -> list[Request]:
    """Serve requests in their order: admit into free slots, prefill, merge, decode, release, until all are done."""
    check_batch_size(batch_size)
    copies = [fresh_copy(as_request(index, request)) for index, request in enumerate(requests)]
    if model is None:
        model = shared_course_model()[0]
    if tokenizer is None and any(isinstance(request.prompt, str) for request in copies):
        tokenizer = course_tokenizer_for(model)
    served = prepared(copies, tokenizer)
    check_fits(model, served)
    if trace is not None:
        trace.begin(served, batch_size)
    waiting = deque(request for request in served if not request.finished)
    running = empty_batch()
    with tqdm(total=len(waiting), desc="requests", leave=False, disable=not progress) as bar:
        while waiting or len(running):
            free = min(batch_size - len(running), len(waiting))
            if free:
                newcomers = _padded([waiting.popleft() for _ in range(free)], tokenizer)
                running = merge_batches(running, release(_step(newcomers, model, trace)))
            running = release(_step(running, model, trace))
            bar.update(bar.total - bar.n - len(waiting) - len(running))
    return served


def _step(batch: Batch, model: PreTrainedModel, trace: ForwardTrace | None) -> Batch:
    with trace.forward(batch) if trace is not None and len(batch) else nullcontext():
        return generate_next_token(batch, model)


def generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_tokens: int
) -> list[str]:
    """Answer all prompts in one static batch (Lesson 2): the generated text of each, without its prompt."""
    requests = [Request(prompt, max_tokens) for prompt in prompts]
    served = run_static(requests, max(1, len(prompts)), model=model, tokenizer=tokenizer)
    return [tokenizer.decode(request.output_ids, skip_special_tokens=True) for request in served]
