"""How a learner's parts are plugged together: a cache into a model, a batch step and a cache into an engine.

    part 1, a cache          one object per decoder layer: append(keys, values) -> all keys, all values
    part 2, a batch step     batch_step(model, new_tokens, attention_mask, cache) -> next_ids, attention_mask
    part 3, a scheduler      serve(requests, slots, room, engine)
    part 4, a linear layer   linear_class(weight, bias), an nn.Module
    part 5, a LoRA layer     adapter_class(base, rank, alpha), an nn.Module with merge()

An engine runs forwards, a scheduler decides which. Both engines here offer the same five operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from helpers import (
    Batch,
    Request,
    empty_batch,
    eos_token_ids,
    filter_batch,
    generate_next_token,
    init_batch,
    merge_batches,
    stack_rows,
)
from linear import linear_layers, weight_of

# batch_step(model, new_tokens, attention_mask (B, S), cache) -> (next ids (B,), attention mask (B, S+T))
BatchStep = Callable[[PreTrainedModel, list[list[int]], Tensor, Cache], tuple[Tensor, Tensor]]


class LayerCache(Protocol):
    """Part 1: the keys and values of one decoder layer."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take those of the new tokens, (B, H, T, D) each; return those of all tokens so far, (B, H, S+T, D)."""


class PluggedLayer(DynamicLayer):
    """A cache layer of transformers that leaves keys and values to a learner's cache."""

    def __init__(self, part: LayerCache) -> None:
        super().__init__()
        self.part = part

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new tokens' keys and values (B, H, T, D); all of them, (B, H, S+T, D)."""
        self.keys, self.values = self.part.append(key_states, value_states)
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True
        return self.keys, self.values


def plugged_cache(cache_class: Callable[[], LayerCache], layers: int) -> DynamicCache:
    """A cache for a model with so many decoder layers, each layer of it an object of the learner's class."""
    cache = DynamicCache()
    cache.layers = [PluggedLayer(cache_class()) for _ in range(layers)]
    return cache


class RunningBatch(Protocol):
    """What an engine's operations take and return: some requests, a row each."""

    requests: list[Request]

    def __len__(self) -> int:
        """The number of rows."""


class Engine(Protocol):
    """The operations from which a scheduler builds its loop (Lesson 3). Prefill and decode are one forward each."""

    def empty(self) -> RunningBatch:
        """A batch without rows."""

    def prefill(self, newcomers: Sequence[Request]) -> RunningBatch:
        """Read the prompts of these requests; each of them gains its first token."""

    def decode(self, batch: RunningBatch) -> RunningBatch:
        """Every row gains one token."""

    def merge(self, first: RunningBatch, second: RunningBatch) -> RunningBatch:
        """The rows of both."""

    def filter(self, batch: RunningBatch) -> RunningBatch:
        """The rows that are not finished."""


@dataclass
class CourseEngine:
    """The engine that is made of the course's own operations.

    Attributes:
        forwards: (phase, requests) of every forward so far.
    """

    model: PreTrainedModel
    forwards: list[tuple[str, list[Request]]] = field(default_factory=list)

    def empty(self) -> Batch:
        """A batch without rows."""
        return empty_batch()

    def prefill(self, newcomers: Sequence[Request]) -> Batch:
        """Read the prompts of these requests in one forward."""
        return self._step("prefill", init_batch(newcomers))

    def decode(self, batch: Batch) -> Batch:
        """One forward; every row gains one token."""
        return self._step("decode", batch)

    def merge(self, first: Batch, second: Batch) -> Batch:
        """The rows of both."""
        return merge_batches(first, second)

    def filter(self, batch: Batch) -> Batch:
        """The rows that are not finished."""
        return filter_batch(batch)[0]

    def _step(self, phase: str, batch: Batch) -> Batch:
        if len(batch):
            self.forwards.append((phase, list(batch.requests)))
        return generate_next_token(batch, self.model)


@dataclass
class OwnBatch:
    """Requests, and what their rows have in the cache: attention mask (B, S), and (B, H, S, D) per layer."""

    requests: list[Request]
    attention_mask: Tensor
    cache: Cache

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.requests)


@dataclass
class OwnEngine:
    """The engine that is made of a learner's batch step and cache. It merges and filters as Lesson 3 does.

    Attributes:
        forwards: (phase, requests) of every forward so far.
    """

    model: PreTrainedModel
    batch_step: BatchStep
    cache_class: Callable[[], LayerCache]
    forwards: list[tuple[str, list[Request]]] = field(default_factory=list)

    def empty(self) -> OwnBatch:
        """A batch without rows."""
        return OwnBatch([], torch.zeros(0, 0, dtype=torch.long), self._new_cache())

    def prefill(self, newcomers: Sequence[Request]) -> OwnBatch:
        """Read the prompts of these requests in one forward."""
        nothing_cached = torch.zeros(len(newcomers), 0, dtype=torch.long)
        batch = OwnBatch(list(newcomers), nothing_cached, self._new_cache())
        return self._step("prefill", batch, [list(request.prompt_ids) for request in newcomers])

    def decode(self, batch: OwnBatch) -> OwnBatch:
        """One forward; every row gains one token."""
        return self._step("decode", batch, [request.output_ids[-1:] for request in batch.requests])

    def merge(self, first: OwnBatch, second: OwnBatch) -> OwnBatch:
        """The rows of both, the narrower cache padded on the left."""
        if not len(first) or not len(second):
            return first if len(first) else second
        pairs = zip(first.cache.layers, second.cache.layers, strict=True)
        layers = [
            (stack_rows(one.keys, two.keys, dim=2), stack_rows(one.values, two.values, dim=2)) for one, two in pairs
        ]
        mask = stack_rows(first.attention_mask, second.attention_mask, dim=1)
        return OwnBatch(first.requests + second.requests, mask, self._new_cache(layers))

    def filter(self, batch: OwnBatch) -> OwnBatch:
        """The rows that are not finished, without the columns that are padding in all of them."""
        kept = [row for row, request in enumerate(batch.requests) if not request.finished]
        if len(kept) == len(batch):
            return batch
        if not kept:
            return self.empty()
        mask = batch.attention_mask[kept]
        start = mask.shape[1] - int(mask.sum(dim=1).max())
        layers = [(layer.keys[kept, :, start:], layer.values[kept, :, start:]) for layer in batch.cache.layers]
        return OwnBatch([batch.requests[row] for row in kept], mask[:, start:], self._new_cache(layers))

    def _step(self, phase: str, batch: OwnBatch, new_tokens: list[list[int]]) -> OwnBatch:
        if not len(batch):
            return batch
        self.forwards.append((phase, list(batch.requests)))
        with torch.inference_mode():
            next_ids, mask = self.batch_step(self.model, new_tokens, batch.attention_mask, batch.cache)
        eos = eos_token_ids(self.model)
        for request, token in zip(batch.requests, next_ids.tolist(), strict=True):
            request.append(token, eos)
        return OwnBatch(batch.requests, mask, batch.cache)

    def _new_cache(self, layers: Sequence[tuple[Tensor, Tensor]] = ()) -> DynamicCache:
        """A cache of the learner's class, with these keys and values (B, H, S, D) appended to it layer by layer."""
        cache = plugged_cache(self.cache_class, self.model.config.num_hidden_layers)
        for layer, (keys, values) in zip(cache.layers, layers, strict=False):
            layer.update(keys, values)
        return cache


def as_linear(layer: nn.Module) -> nn.Linear:
    """An `nn.Linear` with copies of the weight (out, in) and the bias of a layer of either kind."""
    weight = weight_of(layer).detach()
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
    state = {"weight": weight} if layer.bias is None else {"weight": weight, "bias": layer.bias.detach()}
    linear.load_state_dict(state)
    return linear


def block_layers(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """(name, layer) of every linear layer but the output head."""
    head = model.get_output_embeddings()
    return [(name, layer) for name, layer in linear_layers(model) if layer is not head]
