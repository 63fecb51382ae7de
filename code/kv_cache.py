"""The KV cache: what a decoder layer keeps of the tokens it has read (Lesson 1), and how rows of it are
merged and selected (Lesson 3).

A cache holds keys and values per decoder layer, each (B, H, S, D): B rows, H key/value heads, S cached
tokens, D numbers per head. It is the object that transformers passes to a model as `past_key_values`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

SPARE_COLUMNS = 64  # room for this many tokens is taken at a time


@dataclass
class _Buffers:
    """Memory for keys and values, (B, H, C, D) each, of which the first `used` columns are taken."""

    keys: Tensor
    values: Tensor
    used: int


class GrowingLayer(DynamicLayer):
    """Keys and values of one decoder layer, (B, H, S, D), with spare columns behind them for the tokens to come.

    A `DynamicLayer` copies all it holds at every step to append one token. This one writes the token into
    a spare column, and copies only when there is none left.

        the buffer   k k k k . . .      keys   k k k k      after a step   k k k k k . .
    """

    _buffers: _Buffers | None = None
    _views: tuple[Tensor, Tensor] | None = None  # the very tensors that `hold` made keys and values

    def hold(self, keys: Tensor, values: Tensor, size: int) -> None:
        """Take these buffers (B, H, C, D) as they are: `size` columns are in use, the others are spare."""
        self._use(_Buffers(keys, values, size), size)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of the new tokens, (B, H, T, D); return those of all tokens, (B, H, S+T, D)."""
        keys, values = (
            (self.keys, self.values) if self.is_initialized else (key_states[:, :, :0], value_states[:, :, :0])
        )
        cached, size = keys.shape[2], keys.shape[2] + key_states.shape[2]
        if not self._can_append(cached, size):
            columns = size + SPARE_COLUMNS
            self._buffers = _Buffers(with_columns(keys, columns), with_columns(values, columns), cached)
        self._buffers.keys[:, :, cached:size] = key_states
        self._buffers.values[:, :, cached:size] = value_states
        self._use(self._buffers, size)
        return self.keys, self.values

    def _use(self, buffers: _Buffers, size: int) -> None:
        """The first `size` columns are the keys and values from now on."""
        buffers.used = size
        self.dtype, self.device, self.is_initialized = buffers.keys.dtype, buffers.keys.device, True
        self._buffers = buffers
        self._views = self.keys, self.values = buffers.keys[:, :, :size], buffers.values[:, :, :size]

    def _can_append(self, cached: int, size: int) -> bool:
        """Whether the new columns fit behind the keys and values, and would overwrite nobody's tokens.

        They do not after the keys or values have been replaced, by `crop`, a selection of rows or an assignment.
        Nor do they in the second of two copies of a layer when the first has gone on. Both get new buffers.
        """
        if self._buffers is None or self.keys is not self._views[0] or self.values is not self._views[1]:
            return False
        return cached == self._buffers.used and size <= self._buffers.keys.shape[2]


def with_columns(tensor: Tensor, size: int) -> Tensor:
    """A copy of (B, H, S, D) with `size` columns, those behind the S-th still to be written."""
    buffer = _new_buffer(tensor, tensor.shape[0], size)
    buffer[:, :, : tensor.shape[2]] = tensor
    return buffer


def _new_buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    """(rows, H, columns, D) of unwritten memory for keys or values like these (B, H, S, D)."""
    with torch.inference_mode(False):  # so that it can be written to inside and outside of inference mode
        return like.new_empty(rows, like.shape[1], columns, like.shape[3])


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty KV cache for `model`, one growing layer (keys and values (B, H, S, D)) per decoder layer.

    Raises:
        ValueError: rows of this model cannot be padded, merged and filtered.
    """
    cache = DynamicCache(config=model.config)
    reasons = _why_not_batched(model, cache)
    if reasons:
        raise ValueError(
            f"{type(model).__name__} cannot be batched here: {'; '.join(reasons)}. Use a decoder-only model whose "
            "KV cache grows by one position per token (GPT-2, Llama, Qwen3, GPT-NeoX, ...)"
        )
    cache.layers = [GrowingLayer() for _ in cache.layers]
    cache.layer_class_to_replicate = GrowingLayer  # for a config that does not say how many layers there are
    return cache


def _why_not_batched(model: PreTrainedModel, cache: DynamicCache) -> list[str]:
    """The reasons why rows of this model cannot be padded, merged and filtered; for most models there are none."""
    reasons = [
        f"its cache has {name} layers"
        for name in sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer})
    ]
    if model.config.is_encoder_decoder:
        reasons.append("it has an encoder")
    accepted = _forward_parameters(type(model))
    spelled_out = "input_ids" in accepted  # a wrapper around a model (PEFT, torch.compile) takes *args, **kwargs
    if spelled_out and "past_key_values" not in accepted:
        reasons.append("it keeps a recurrent state instead of keys and values")
    if spelled_out and "position_ids" not in accepted:
        reasons.append("it takes no position_ids, so left padding would change its answers")
    return reasons


@lru_cache(maxsize=16)
def _forward_parameters(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def cache_of(layers: Iterable[tuple[Tensor, Tensor]], spare_columns: int = 0) -> DynamicCache:
    """A cache that holds these keys and values (B, H, S, D) as they are, without copying them.

    Args:
        spare_columns: how many columns at the end of each tensor are room for the tokens to come.
    """
    cache = DynamicCache()
    for keys, values in layers:
        layer = GrowingLayer()
        layer.hold(keys, values, keys.shape[2] - spare_columns)
        cache.layers.append(layer)
    return cache


# --- Rows that come and go (Lesson 3) ----------------------------------------------------------------


def pad_left(tensor: Tensor, size: int, dim: int) -> Tensor:
    """Zeros in front along `dim` until it is `size` long; the tensor itself when it already is."""
    missing = size - tensor.shape[dim]
    if not missing:
        return tensor
    return F.pad(tensor, [0, 0] * (tensor.ndim - 1 - dim) + [missing, 0])


def stack_rows(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """The rows of both tensors, one below the other; the shorter tensor gets zeros in front along `dim`."""
    size = max(first.shape[dim], second.shape[dim])
    return torch.cat([pad_left(first, size, dim), pad_left(second, size, dim)])


def merge_caches(first: Cache, second: Cache) -> DynamicCache:
    """The rows of both caches in one, with spare columns: what `stack_rows` does with dim=2, in one copy."""
    layers = zip(first.layers, second.layers, strict=True)
    return cache_of(
        ((_stacked(one.keys, two.keys), _stacked(one.values, two.values)) for one, two in layers), SPARE_COLUMNS
    )


def _stacked(first: Tensor, second: Tensor) -> Tensor:
    """(B1, H, S1, D) and (B2, H, S2, D) -> (B1+B2, H, max(S1, S2) + spare columns, D)."""
    size = max(first.shape[2], second.shape[2])
    buffer = _new_buffer(first, len(first) + len(second), size + SPARE_COLUMNS)
    for rows, tensor in ((buffer[: len(first)], first), (buffer[len(first) :], second)):
        missing = size - tensor.shape[2]
        rows[:, :, :missing] = 0  # masked, but it must be a number: 0 times NaN is NaN
        rows[:, :, missing:size] = tensor
    return buffer


def select_cache(cache: Cache | None, rows: list[int], first_column: int) -> Cache | None:
    """Copies of these rows of every layer without the columns before `first_column`, and with spare columns."""
    if cache is None:
        return None
    chosen = torch.tensor(rows)

    def selected(tensor: Tensor) -> Tensor:  # (B, H, S, D) -> (rows, H, S - first_column + spare columns, D)
        kept = tensor[:, :, first_column:]
        buffer = _new_buffer(kept, len(rows), kept.shape[2] + SPARE_COLUMNS)
        with torch.no_grad():
            torch.index_select(kept, 0, chosen.to(kept.device), out=buffer[:, :, : kept.shape[2]])
        return buffer

    return cache_of(((selected(layer.keys), selected(layer.values)) for layer in cache.layers), SPARE_COLUMNS)
