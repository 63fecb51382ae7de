"""Checks of the input: one for each thing that can be wrong, with a message that says what was given, what is
allowed, and what to do.

Only the public functions call them, and they do so before anything else. A check changes nothing. Requests, batches
and layers are looked at through their attributes, so this module imports hardly anything of the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from models import vocabulary_size

if TYPE_CHECKING:
    from helpers import Batch, Request

# --- Requests and tokenizers (Lessons 1 to 3) --------------------------------------------------------


def check_max_tokens(index: int, max_tokens: Any) -> None:
    """Raises TypeError or ValueError unless the budget of request `index` is an int, 0 or more."""
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int):
        raise TypeError(f"request {index}: max_tokens is {max_tokens!r}; it must be an int, 0 or more")
    if max_tokens < 0:
        raise ValueError(f"request {index}: max_tokens is {max_tokens}; it must be 0 or more")


def check_prompt(index: int, prompt: Any) -> None:
    """Raises TypeError unless the prompt of request `index` is text or a sequence of ints."""
    is_ids = isinstance(prompt, Sequence) and all(type(token) is int for token in prompt)
    if not isinstance(prompt, str) and not is_ids:
        raise TypeError(f"request {index}: the prompt is {prompt!r}; it must be text or a list of token ids")


def check_not_empty(index: int, prompt_ids: Sequence[int]) -> None:
    """Raises ValueError if the prompt of request `index` has no token."""
    if not prompt_ids:
        raise ValueError(f"request {index}: the prompt is empty; it must have at least one token")


def check_not_started(requests: Iterable[Request]) -> None:
    """Raises ValueError if a request has output already."""
    for index, request in enumerate(requests):
        if request.output_ids:
            raise ValueError(
                f"request {index} already has {len(request.output_ids)} output tokens; a prefill takes fresh requests"
            )


def check_one_row(input_ids: Any) -> None:
    """Raises ValueError if the ids are a tensor of several rows."""
    if isinstance(input_ids, Tensor) and input_ids.ndim == 2 and input_ids.shape[0] != 1:
        raise ValueError(f"input_ids has {input_ids.shape[0]} rows; generate_tokens takes one (use init_batch)")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError unless the tokenizer pads on the left and has a pad token."""
    if tokenizer.padding_side != "left":
        raise ValueError(
            f'the tokenizer pads on the {tokenizer.padding_side}; set tokenizer.padding_side = "left", so that '
            "the last position of every row is a real token"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad token; set tokenizer.pad_token = tokenizer.eos_token")


def check_course_tokenizer_fits(tokens: int, model: PreTrainedModel, course_model: PreTrainedModel) -> None:
    """Raises ValueError if the course tokenizer, of so many tokens, cannot be the tokenizer of `model`."""
    vocabulary = vocabulary_size(model)
    if vocabulary not in (tokens, vocabulary_size(course_model)):
        raise ValueError(
            f"prompts are text and tokenizer is None, but the course tokenizer has {tokens} tokens and this "
            f"model {vocabulary}; pass tokenizer= (the one that belongs to the model), or prompts as token ids"
        )


def check_batch_size(batch_size: Any) -> None:
    """Raises TypeError or ValueError unless the number of slots is an int, 1 or more."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(f"batch_size is {batch_size!r}; it must be an int, 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")


def check_fits(model: PreTrainedModel, requests: Iterable[Request]) -> None:
    """Raises ValueError unless every prompt is in the model's vocabulary, and prompt plus budget in its context."""
    vocabulary = vocabulary_size(model)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for index, request in enumerate(requests):
        outside = next((token for token in request.prompt_ids if not 0 <= token < vocabulary), None)
        if outside is not None:
            raise ValueError(
                f"request {index}: token id {outside} is outside the model's vocabulary; ids are 0 to {vocabulary - 1}"
            )
        length = len(request.prompt_ids)
        if context is not None and length + request.max_tokens > context:
            raise ValueError(
                f"request {index}: {length} prompt tokens and max_tokens={request.max_tokens} make "
                f"{length + request.max_tokens}; the model's context is {context} tokens"
            )


# --- Masks and caches (Lessons 1 to 3) ---------------------------------------------------------------


def check_mask(mask: Tensor, cached: int, new: int) -> None:
    """Raises ValueError unless the mask (B, S+T) covers S cached and T new tokens, padded on the left."""
    if mask.shape[1] != cached + new:
        raise ValueError(
            f"attention_mask is {mask.shape[1]} wide, but {cached} cached and {new} new tokens make "
            f"{cached + new}. A batch is consumed by its step: go on with the one the step returned"
        )
    if new > 1 and not bool(mask[:, -1].all()):
        raise ValueError("the last column of attention_mask is 0: rows must be padded on the left, not the right")


def check_mergeable(batch1: Batch, batch2: Batch) -> None:
    """Raises ValueError unless both batches were prefilled, by models of the same shape and dtype."""
    for name, batch in (("first", batch1), ("second", batch2)):
        if batch.past_key_values is None:
            raise ValueError(
                f"the {name} batch has no KV cache; call generate_next_token on it (prefill) before merging"
            )
    shape1, shape2 = (_cache_shape(batch.past_key_values) for batch in (batch1, batch2))
    if shape1 != shape2:
        raise ValueError(f"the batches are of different models: caches of {shape1} and {shape2}")


def _cache_shape(cache: Cache) -> str:
    _, heads, _, head_dim = cache.layers[0].keys.shape
    return f"{len(cache.layers)} layers x {heads} heads x {head_dim} ({cache.layers[0].keys.dtype})"


# --- Tensors and layers (Lessons 4 and 5) ------------------------------------------------------------


def check_quantizable(t: Tensor, bits: int) -> None:
    """Raises TypeError or ValueError unless `t` holds finite floats and `bits` is 2 to 8."""
    if not t.is_floating_point():
        raise TypeError(f"quantize takes a floating-point tensor; this one is {t.dtype}")
    if t.numel() == 0:
        raise ValueError(f"quantize takes at least one value; this tensor has shape {tuple(t.shape)}")
    if not torch.isfinite(t).all():
        raise ValueError("the tensor holds NaN or infinity; quantize takes finite values only")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; it must be 2 to 8")


def check_dim(t: Tensor, dim: int) -> None:
    """Raises ValueError if the tensor has no such dimension."""
    if not -t.ndim <= dim < t.ndim:
        raise ValueError(f"dim is {dim}; a tensor of shape {tuple(t.shape)} has dimensions 0 to {t.ndim - 1}")


def check_group_size(group_size: int, values: int) -> None:
    """Raises ValueError unless the values of a channel can be cut into groups of this size."""
    if group_size < 1 or values % group_size:
        raise ValueError(f"group_size is {group_size}; it must divide the {values} values of a channel")


def check_rank(r: Any, out_features: int, in_features: int) -> None:
    """Raises TypeError or ValueError unless `r` is an int, 1 to min(in, out)."""
    largest = min(in_features, out_features)
    if isinstance(r, bool) or not isinstance(r, int):
        raise TypeError(f"r is {r!r}; the rank must be an int, 1 to {largest}")
    if not 1 <= r <= largest:
        raise ValueError(f"r is {r}; the rank of a {in_features} x {out_features} layer must be 1 to {largest}")


def check_targets(chosen: Sequence[str], targets: Iterable[str], layers: Iterable[str]) -> None:
    """Raises ValueError if no linear layer has one of the target names."""
    if not chosen:
        raise ValueError(
            f"no linear layer is named {', '.join(map(repr, targets))}; "
            f"the model has {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}"
        )


def check_adapter(state: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    """Raises KeyError or ValueError unless the adapter has the names and shapes of the model's weights."""
    if weights.keys() != state.keys():
        raise KeyError(
            f"the adapter and the model differ: unknown to the model {sorted(state.keys() - weights.keys())}, "
            f"missing from the adapter {sorted(weights.keys() - state.keys())}"
        )
    wrong = [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(weight.shape)}"
        for name, weight in weights.items()
        if state[name].shape != weight.shape
    ]
    if wrong:
        raise ValueError(f"the adapter does not fit the model: {'; '.join(wrong)}")
