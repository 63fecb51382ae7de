"""Generation, batching and continuous batching, written to be read (Lessons 1 to 3).

    text --tokenizer--> Request --init_batch--> Batch --model--> next ids --> Request.output_ids --> text
                                     ^    merge / filter    |
                                     +----------------------+

Token ids inside the loop, text only at the two edges. Everything here may change how long an
answer takes, never the answer: greedy decoding gives the same tokens with and without the cache,
alone and in a batch, in a static batch and in a continuous one.

Shapes: B rows in a batch, T new tokens per row, S tokens already cached, H key/value heads, D head
dimension, V vocabulary.
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicLayer

STORYTELLER = Path(__file__).resolve().parent.parent / "models" / "storyteller"

# --- Models ------------------------------------------------------------------------------------------


def load_model(
    name: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready for batched generation.

    Args:
        name: a local folder, or a model id on the Hugging Face hub such as `"gpt2"` (its local cache
            is tried first). `None` takes the environment variable `COURSE_MODEL`, and without it the
            bundled storyteller, which needs no network.
        dtype: of the weights in memory.
        device: `None` takes the GPU when CUDA has one, else the CPU. `"mps"` only on request.

    Returns:
        The model in eval mode, and a tokenizer that pads on the left and has a pad token.

    Raises:
        OSError: the folder is incomplete or damaged, its weights are of another architecture than its
            config, or the model is neither cached nor reachable. Weights are read as safetensors only.
    """
    name = str(name or os.environ.get("COURSE_MODEL") or STORYTELLER)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = _from_pretrained(AutoTokenizer, name, padding_side="left", truncation_side="left")
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without one
        raise _cannot_load(name, "the tokenizer has no vocabulary; its files are missing")
    model = _read_model(name, dtype)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(device).eval(), tokenizer


def _read_model(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model with every weight read from its file; transformers would make up those that do not fit."""
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, info = _from_pretrained(AutoModelForCausalLM, name, dtype=dtype, use_safetensors=True, **report)
    unfit = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    if unfit:
        raise _cannot_load(
            name, f"the config asks for {_some(unfit)}, and the weights hold none of that name and shape"
        )
    return model


def _from_pretrained(auto_class: Any, name: str, **options: Any) -> Any:
    """Read from disk or the local hub cache; ask the network only when that fails."""
    attempts = [{"local_files_only": True}] if _is_path(name) else [{"local_files_only": True}, {}]
    for attempt in attempts:
        try:
            return auto_class.from_pretrained(name, **attempt, **options)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = error
    raise _cannot_load(name, str(reason).splitlines()[0]) from reason


def _is_path(name: str) -> bool:
    return Path(name).is_dir() or Path(name).is_absolute() or name.startswith(".")


def _cannot_load(name: str, cause: str) -> OSError:
    where = "its folder" if _is_path(name) else "the local hub cache or the Hugging Face hub"
    return OSError(
        f"cannot load {name!r} from {where}. Use a folder or a hub id that holds a config, a tokenizer and "
        "safetensors weights; or unset COURSE_MODEL and call load_model() for the bundled storyteller, "
        f"which needs no network. The cause was: {cause}"
    )


def _some(names: Iterable[str]) -> str:
    """The first of these names, and how many more there are."""
    first, *others = sorted(names)
    return f"{first} (and {len(others)} more)" if others else first


def gpt2_sized(seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """GPT-2 small's exact shape (124 M parameters) with seeded random weights, on the CPU, in eval mode.

    For timing: how long a forward takes depends on the shapes, not on the values. Nothing is
    downloaded, and the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config())
    model.generation_config.pad_token_id = model.config.eos_token_id
    return model.to(dtype).eval()


@lru_cache(maxsize=1)
def _cached_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_model(name)


def course_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`load_model()`, loaded on first use and kept. What `model=None` and `tokenizer=None` stand for."""
    return _cached_model(os.environ.get("COURSE_MODEL") or str(STORYTELLER))


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
    if mask.shape[1] != cached + new:
        raise ValueError(
            f"attention_mask is {mask.shape[1]} wide, but {cached} cached and {new} new tokens make "
            f"{cached + new}. A batch is consumed by its step: go on with the one the step returned"
        )
    if new > 1 and not bool(mask[:, -1].all()):
        raise ValueError("the last column of attention_mask is 0: rows must be padded on the left, not the right")
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


@lru_cache(maxsize=16)
def _forward_parameters(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


class GrowingLayer(DynamicLayer):
    """Keys and values of one decoder layer, (B, H, S, D), with room behind them for the tokens to come.

    A `DynamicLayer` copies all it holds at every step to append one token. This one writes the token into
    the room behind the others, and copies only when that is used up.

        the room   k k k k . . .      keys   k k k k      after a step   k k k k k . .
    """

    more = 64  # columns of room to take at a time
    _room: tuple[Tensor, Tensor] | None = None  # (B, H, C, D) each, C >= S; keys and values are their first S columns

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new tokens' keys and values (B, H, T, D); all of them (B, H, S+T, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        cached, size = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if not self._has_room(size):
            self._room = _with_room(self.keys, size + self.more), _with_room(self.values, size + self.more)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, cached:size] = new
        self.keys, self.values = (room[:, :, :size] for room in self._room)
        return self.keys, self.values

    def _has_room(self, size: int) -> bool:
        """Whether `size` columns fit, and the keys still lie in the room: other methods may have replaced them."""
        if self._room is None:
            return False
        return size <= self._room[0].shape[2] and self.keys.data_ptr() == self._room[0].data_ptr()


def _with_room(tensor: Tensor, size: int) -> Tensor:
    """A copy of (B, H, S, D) with `size` columns, those behind the S-th still to be written."""
    with torch.inference_mode(False):  # so that it can be written to inside and outside of inference mode
        room = tensor.new_empty(*tensor.shape[:2], size, tensor.shape[3])
    room[:, :, : tensor.shape[2]] = tensor
    return room


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty KV cache for `model`, one growing layer (keys and values (B, H, S, D)) per decoder layer.

    Raises:
        ValueError: rows of this model cannot be padded, merged and filtered.
    """
    cache = DynamicCache(config=model.config)
    other_layers = sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer})
    reasons = [f"its cache has {name} layers" for name in other_layers]
    if model.config.is_encoder_decoder:
        reasons.append("it has an encoder")
    accepted = _forward_parameters(type(model))
    spelled_out = "input_ids" in accepted  # a wrapper around a model (PEFT, torch.compile) takes *args, **kwargs
    if spelled_out and "past_key_values" not in accepted:
        reasons.append("it keeps a recurrent state instead of keys and values")
    if spelled_out and "position_ids" not in accepted:
        reasons.append("it takes no position_ids, so left padding would change its answers")
    if reasons:
        raise ValueError(
            f"{type(model).__name__} cannot be batched here: {'; '.join(reasons)}. Use a decoder-only model whose "
            "KV cache grows by one position per token (GPT-2, Llama, Qwen3, GPT-NeoX, ...)"
        )
    cache.layers = [GrowingLayer() for _ in cache.layers]
    cache.layer_class_to_replicate = GrowingLayer  # for a config that does not say how many layers there are
    return cache


def cache_of(layers: Iterable[tuple[Tensor, Tensor]]) -> DynamicCache:
    """A cache that holds these keys and values (B, H, S, D) as they are, without copying them."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = GrowingLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


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
    if isinstance(input_ids, Tensor) and input_ids.ndim == 2 and input_ids.shape[0] != 1:
        raise ValueError(f"input_ids has {input_ids.shape[0]} rows; generate_tokens takes one (use init_batch)")
    request = _checked([Request(prompt_ids, max_tokens)], None)[0]
    _check_fits(model, [request])
    return _generate_tokens(model, prompt_ids, max_tokens, use_cache, _as_ids(eos_token_id))


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
class Request:
    """One asker's prompt, budget and answer so far. The answer lives here and nowhere else.

    Attributes:
        prompt: text, or token ids.
        max_tokens: the budget: at most this many tokens are generated.
        ignore_eos: go on to the budget even when the model says it is done (for benchmarks).
        output_ids: generated token ids, the end-of-sequence token included.
        finish_reason: `None` while running, then `"length"` or `"eos"`.
        prompt_ids: the prompt as token ids, set by `init_batch`.
    """

    prompt: str | list[int]
    max_tokens: int
    ignore_eos: bool = False
    output_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_ids: list[int] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the request wants no more tokens."""
        return self.finish_reason is not None

    def append(self, token: int, eos: Collection[int] = ()) -> None:
        """Take the next token, and finish at the budget or at a token in `eos`. No-op once finished."""
        if self.finished:
            return
        self.output_ids.append(token)
        if token in eos and not self.ignore_eos:
            self.finish_reason = "eos"
        elif len(self.output_ids) >= self.max_tokens:
            self.finish_reason = "length"


RequestLike = Request | tuple[str | Sequence[int], int]


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


def empty_batch() -> Batch:
    """No rows and no width: what is left when everybody is done."""
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
    requests = _checked(requests, tokenizer)
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

    Every unfinished request gains one token. A finished one that is still in the batch rides along
    without gaining anything. The batch given is used up; go on with the one returned.

    Raises:
        ValueError: at prefill, a request that does not fit the model's context or vocabulary; a batch
            that was used up by an earlier step.
    """
    if not len(batch):
        return batch
    model = course_model()[0] if model is None else model
    if batch.past_key_values is None:
        _check_not_started(batch.requests)
        _check_fits(model, batch.requests)
    batch = _on_device(batch, model.device)
    next_ids, cache = generate_token_with_past(model, vars(batch))
    eos = eos_token_ids(model)
    for request, token in zip(batch.requests, next_ids.tolist(), strict=True):
        request.append(token, eos)
    return _next_batch(batch, next_ids, cache)


def _on_device(batch: Batch, device: torch.device) -> Batch:
    moved = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "position_ids")}
    return replace(batch, **moved)


def _next_batch(batch: Batch, next_ids: Tensor, cache: Cache) -> Batch:
    """What the step after this one reads: the new tokens, one mask column more, each row one place on."""
    mask = batch.attention_mask
    # A finished row stays at its place: its budget was checked against the context, further steps were not.
    moves = torch.tensor([[not request.finished] for request in batch.requests], device=mask.device)
    return Batch(
        batch.requests,
        input_ids=next_ids[:, None],  # (B, 1)
        attention_mask=torch.cat([mask, mask.new_ones(len(batch), 1)], dim=1),  # (B, S+1)
        position_ids=batch.position_ids[:, -1:] + moves,  # (B, 1)
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
    _check_mergeable(batch1, batch2)
    layers = zip(batch1.past_key_values.layers, batch2.past_key_values.layers, strict=True)
    return Batch(
        batch1.requests + batch2.requests,
        input_ids=torch.cat([batch1.input_ids, batch2.input_ids]),  # (B1+B2, 1)
        attention_mask=stack_rows(batch1.attention_mask, batch2.attention_mask, dim=1),  # (B1+B2, S+1)
        position_ids=torch.cat([batch1.position_ids, batch2.position_ids]),  # (B1+B2, 1)
        past_key_values=cache_of(  # (B1+B2, H, S, D)
            (stack_rows(one.keys, two.keys, dim=2), stack_rows(one.values, two.values, dim=2)) for one, two in layers
        ),
    )


def stack_rows(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Rows of both, one below the other; the shorter one gets zeros in front along `dim`."""
    size = max(first.shape[dim], second.shape[dim])
    return torch.cat([pad_left(first, size, dim), pad_left(second, size, dim)])


def pad_left(tensor: Tensor, size: int, dim: int) -> Tensor:
    """Zeros in front along `dim` until it is `size` long; the tensor itself when it already is."""
    missing = size - tensor.shape[dim]
    if not missing:
        return tensor
    return F.pad(tensor, [0, 0] * (tensor.ndim - 1 - dim) + [missing, 0])


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
    dead = int(mask.argmax(dim=1).min())  # columns that are padding in every row that stays
    cached = mask.shape[1] - batch.input_ids.shape[1]
    return Batch(
        [batch.requests[row] for row in kept],
        input_ids=batch.input_ids[kept, max(0, dead - cached) :],
        attention_mask=mask[:, dead:],
        position_ids=batch.position_ids[kept, max(0, dead - cached) :],
        past_key_values=select_cache(batch.past_key_values, kept, dead),
    ), removed


def select_cache(cache: Cache | None, rows: list[int], first_column: int) -> Cache | None:
    """Copies of these rows of every layer, without the columns before `first_column`."""
    if cache is None:
        return None
    return cache_of(
        (layer.keys[rows, :, first_column:], layer.values[rows, :, first_column:]) for layer in cache.layers
    )


# --- Serving a queue (Lessons 2 and 3) ---------------------------------------------------------------


class ForwardTrace(Protocol):
    """What a run tells its observer; `measure.Trace` is one."""

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

    Arguments, result and errors as for `run_static`. The two differ in one rule only: when a finished
    row gives its slot back.
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
    """First come, first served: admit into free slots, prefill, merge, decode, release; until all is done."""
    _check_batch_size(batch_size)
    copies = [_fresh_copy(_as_request(index, request)) for index, request in enumerate(requests)]
    if model is None:
        model = course_model()[0]
    if tokenizer is None and any(isinstance(request.prompt, str) for request in copies):
        tokenizer = _course_tokenizer_for(model)
    served = _checked(copies, tokenizer)
    _check_fits(model, served)
    if trace is not None:
        trace.begin(served, batch_size)
    waiting = deque(request for request in served if not request.finished)
    running = empty_batch()
    with tqdm(total=len(waiting), desc="requests", disable=not progress) as bar:
        while waiting or len(running):
            free = min(batch_size - len(running), len(waiting))
            if free:
                newcomers = init_batch([waiting.popleft() for _ in range(free)], tokenizer)
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


# --- Checks at the edge ------------------------------------------------------------------------------


def eos_token_ids(model: PreTrainedModel) -> frozenset[int]:
    """The ids at which `model.generate` would stop, so that we stop there too."""
    return _as_ids(model.generation_config.eos_token_id)


def _as_ids(ids: int | Collection[int] | None) -> frozenset[int]:
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def _course_tokenizer_for(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The course model's tokenizer, if it can be this model's too."""
    (own, tokenizer), vocabulary = course_model(), _vocabulary_size(model)
    if model is not own and len(tokenizer) != vocabulary:
        raise ValueError(
            f"prompts are text and tokenizer is None, but the course tokenizer has {len(tokenizer)} tokens and this "
            f"model {vocabulary}; pass tokenizer= (the one that belongs to the model), or prompts as token ids"
        )
    return tokenizer


def _vocabulary_size(model: PreTrainedModel) -> int:
    return model.get_input_embeddings().num_embeddings


def _fresh_copy(request: Request) -> Request:
    """A request that can run (again) without touching the caller's."""
    return replace(request, output_ids=[], finish_reason=None, prompt_ids=[])


def _checked(requests: Iterable[RequestLike], tokenizer: PreTrainedTokenizerBase | None) -> list[Request]:
    """Requests with prompt ids, every one of them valid; nothing is changed if one is not."""
    checked = [_as_request(index, request) for index, request in enumerate(requests)]
    _check_not_started(checked)
    if tokenizer is None and any(isinstance(request.prompt, str) for request in checked):
        tokenizer = course_model()[1]
    if tokenizer is not None:
        _check_tokenizer(tokenizer)
    all_ids = [_prompt_ids(index, request, tokenizer) for index, request in enumerate(checked)]
    for request, ids in zip(checked, all_ids, strict=True):
        request.prompt_ids = ids
        if request.max_tokens == 0:
            request.finish_reason = "length"
    return checked


def _as_request(index: int, request: RequestLike) -> Request:
    if isinstance(request, tuple) and len(request) == 2:
        request = Request(*request)
    if not isinstance(request, Request):
        raise TypeError(f"request {index} is {request!r}; it must be a Request or a (prompt, max_tokens) tuple")
    budget = request.max_tokens
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TypeError(f"request {index}: max_tokens is {budget!r}; it must be an int, 0 or more")
    if budget < 0:
        raise ValueError(f"request {index}: max_tokens is {budget}; it must be 0 or more")
    return request


def _prompt_ids(index: int, request: Request, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    prompt = request.prompt
    if isinstance(prompt, str):
        ids = request.prompt_ids or tokenizer(prompt)["input_ids"]
    elif isinstance(prompt, Sequence) and all(type(token) is int for token in prompt):
        ids = list(prompt)
    else:
        raise TypeError(f"request {index}: the prompt is {prompt!r}; it must be text or a list of token ids")
    if not ids:
        raise ValueError(f"request {index}: the prompt is empty; it must have at least one token")
    return ids


def _check_not_started(requests: Sequence[Request]) -> None:
    for index, request in enumerate(requests):
        if request.output_ids:
            raise ValueError(
                f"request {index} already has {len(request.output_ids)} output tokens; a prefill takes fresh requests"
            )


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.padding_side != "left":
        raise ValueError(
            f'the tokenizer pads on the {tokenizer.padding_side}; set tokenizer.padding_side = "left", so that '
            "the last position of every row is a real token"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad token; set tokenizer.pad_token = tokenizer.eos_token")


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(f"batch_size is {batch_size!r}; it must be an int, 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")


def _check_fits(model: PreTrainedModel, requests: Sequence[Request]) -> None:
    """Every prompt is in the model's vocabulary, and prompt plus budget in its context."""
    vocabulary = _vocabulary_size(model)
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


def _check_mergeable(batch1: Batch, batch2: Batch) -> None:
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
