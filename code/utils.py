"""Whole-model techniques: text-level generation, quantization and low-rank adaptation (Lessons 4 and 5).

Quantization and LoRA are the two that do change numbers. Each states by how much: a dequantized value
is within half a step of the original, and a fresh adapter changes nothing at all, bit for bit.

Both wrap `nn.Linear` (weight (out, in)) and GPT-2's `Conv1D` (weight (in, out)), and they compose: a
LoRA adapter over a quantized layer is the shape of QLoRA.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from helpers import RequestLike, run_continuous

Model = TypeVar("Model", bound=nn.Module)

# --- Text in, text out (Lesson 4) --------------------------------------------------------------------


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[RequestLike],
    batch_size: int = 8,
) -> list[str]:
    """Serve requests by continuous batching; prompt + response of each, in the order of the requests.

    Args:
        requests: `Request`s or `(prompt, max_tokens)` tuples.
        batch_size: the number of slots.

    Raises:
        ValueError, TypeError: bad input, as `helpers.run_continuous` says.
    """
    served = run_continuous(requests, batch_size, model=model, tokenizer=tokenizer)
    # Decoded once, prompt and response together: a character's bytes may be spread over several tokens.
    return [
        tokenizer.decode(
            request.prompt_ids + request.output_ids,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        for request in served
    ]


# --- Zero-point quantization (Lesson 4) --------------------------------------------------------------


@dataclass(frozen=True)
class QuantState:
    """What turns codes back into values: value = (code - zero_point) * scale.

    Attributes:
        scale: the size of one step, float, (C, G, 1): C channels of G groups each.
        zero_point: the code of 0.0, uint8, (C, G, 1).
        bits: per code; codes are 0 to 2**bits - 1.
        dtype: of the tensor that was quantized.
        dim: the dimension whose every index has its own scale, or `None`.
    """

    scale: Tensor
    zero_point: Tensor
    bits: int
    dtype: torch.dtype
    dim: int | None = None


def quantize(
    t: Tensor, *, bits: int = 8, dim: int | None = None, group_size: int | None = None
) -> tuple[Tensor, QuantState]:
    """Zero-point quantization: every value becomes the nearest of 2**bits evenly spaced levels.

        value      -1.0   -0.5    0.0           1.0    3.0
        code          0     32     64           128    255      scale = 4.0 / 255, zero point = 64

    The levels span the values and zero, so 0.0 is a level and stays exactly 0.0. Rounding to the
    nearest level makes the error at most half a step: `abs(value - dequantized) <= scale / 2`.

    Args:
        t: a floating-point tensor of any shape.
        bits: 2 to 8 per value. Codes take one byte each here; `QuantizedLinear` packs 4-bit codes in pairs.
        dim: give every index along this dimension a scale of its own (per channel); `None`: one for all.
        group_size: give every run of this many consecutive values within a channel its own scale.

    Returns:
        The codes, uint8, in the shape of `t`, and the state `dequantize` needs.

    Raises:
        TypeError: `t` is not floating point.
        ValueError: `t` is empty or holds NaN or infinity; `bits`, `dim` or `group_size` does not fit.
    """
    _check_quantizable(t, bits)
    grouped = split_groups(t if t.dtype == torch.float64 else t.float(), dim, group_size)  # (C, G, n)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    levels = 2**bits - 1
    step = high.clamp(min=0) / levels - low.clamp(max=0) / levels  # not (high - low): that can overflow
    step = torch.where(low == high, low.abs(), step)  # a constant is one step away from zero, exactly
    scale = torch.where(step == 0, torch.ones_like(step), step)
    zero_point = (-low.clamp(max=0) / scale + 0.5).floor()
    codes = (grouped / scale + zero_point).round().clamp(0, levels).to(torch.uint8)
    state = QuantState(scale, zero_point.to(torch.uint8), bits, t.dtype, dim)
    return join_groups(codes, t.shape, dim), state


def dequantize(values: Tensor, state: QuantState) -> Tensor:
    """The values that codes stand for, in the original dtype; inverse of `quantize` up to rounding."""
    channels, groups, _ = state.scale.shape
    codes = by_channel(values, state.dim).view(channels, groups, -1)
    restored = (codes.to(state.scale.dtype) - state.zero_point) * state.scale
    return join_groups(restored, values.shape, state.dim).to(state.dtype)


def _check_quantizable(t: Tensor, bits: int) -> None:
    if not t.is_floating_point():
        raise TypeError(f"quantize takes a floating-point tensor; this one is {t.dtype}")
    if t.numel() == 0:
        raise ValueError(f"quantize takes at least one value; this tensor has shape {tuple(t.shape)}")
    if not torch.isfinite(t).all():
        raise ValueError("the tensor holds NaN or infinity; quantize takes finite values only")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; it must be 2 to 8")


def by_channel(t: Tensor, dim: int | None) -> Tensor:
    """(C, N): one row per index along `dim`, or a single row."""
    if dim is None:
        return t.reshape(1, -1)
    if not -t.ndim <= dim < t.ndim:
        raise ValueError(f"dim is {dim}; a tensor of shape {tuple(t.shape)} has dimensions 0 to {t.ndim - 1}")
    return t.movedim(dim, 0).reshape(t.shape[dim], -1)


def split_groups(t: Tensor, dim: int | None, group_size: int | None) -> Tensor:
    """(C, G, n): channels, groups in a channel, values in a group."""
    rows = by_channel(t, dim)
    size = rows.shape[1] if group_size is None else group_size
    if size < 1 or rows.shape[1] % size:
        raise ValueError(f"group_size is {size}; it must divide the {rows.shape[1]} values of a channel")
    return rows.view(rows.shape[0], -1, size)


def join_groups(grouped: Tensor, shape: torch.Size, dim: int | None) -> Tensor:
    """(C, G, n) back to `shape`."""
    if dim is None:
        return grouped.reshape(shape)
    channels_first = [shape[dim], *(size for index, size in enumerate(shape) if index != dim % len(shape))]
    return grouped.reshape(channels_first).movedim(0, dim).contiguous()


def pack_int4(codes: Tensor) -> Tensor:
    """Two 4-bit codes per byte along the last dimension, (..., N) -> (..., ceil(N / 2)) uint8."""
    padded = F.pad(codes, [0, codes.shape[-1] % 2])
    return padded[..., ::2] | (padded[..., 1::2] << 4)


def unpack_int4(packed: Tensor, size: int) -> Tensor:
    """The `size` codes per row that `pack_int4` put in, (..., ceil(N / 2)) -> (..., N) uint8."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)[..., :size]


class QuantizedLinear(nn.Module):
    """A linear layer that keeps integer codes and dequantizes them just in time, at every call.

    Small in memory, not fast: each forward rebuilds the whole float weight before it multiplies.

    Args:
        layer: an `nn.Linear` or a `Conv1D`; it is read, not changed.
        bits: 2 to 8; 4-bit codes are packed two to a byte.
        group_size: input columns that share a scale; `None`: one scale per output channel.

    Buffers:
        codes (out, in) uint8, or (out, in / 2) for 4 bits; scale and zero_point (out, groups, 1).
    """

    def __init__(self, layer: nn.Linear | Conv1D, *, bits: int = 8, group_size: int | None = None) -> None:
        super().__init__()
        weight = _weight(layer).detach()  # (out, in)
        self.out_features, self.in_features = weight.shape
        self.bits, self.dtype = bits, weight.dtype
        codes, state = quantize(weight, bits=bits, dim=0, group_size=group_size)
        self.register_buffer("codes", pack_int4(codes) if bits == 4 else codes)
        self.register_buffer("scale", state.scale)
        self.register_buffer("zero_point", state.zero_point)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The dequantized weight (out, in), made anew at every access."""
        codes = unpack_int4(self.codes, self.in_features) if self.bits == 4 else self.codes
        return dequantize(codes, QuantState(self.scale, self.zero_point, self.bits, self.dtype, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), in x's dtype."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, groups={self.scale.shape[1]}"


class QuantizedEmbedding(nn.Module):
    """The lookup of an embedding that is also the output head: one set of codes for both.

    Args:
        head: the quantized head (vocabulary, width); its buffers are shared, not copied.
    """

    def __init__(self, head: QuantizedLinear) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = head.out_features, head.in_features
        self.bits, self.dtype = head.bits, head.dtype
        for name in ("codes", "scale", "zero_point"):
            self.register_buffer(name, getattr(head, name))

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids (...) -> (..., width): only the rows asked for are dequantized."""
        rows = input_ids.flatten()
        codes = unpack_int4(self.codes[rows], self.embedding_dim) if self.bits == 4 else self.codes[rows]
        state = QuantState(self.scale[rows], self.zero_point[rows], self.bits, self.dtype, dim=0)
        return dequantize(codes, state).view(*input_ids.shape, self.embedding_dim)


def quantize_model(
    model: Model,
    *,
    bits: int = 8,
    group_size: int | None = None,
    skip: Collection[str] = (),
    quantize_head: bool = False,
) -> Model:
    """A copy of the model with every linear layer quantized; the original is left as it is.

    Norms, biases and embeddings stay in floating point, and so does the output head: it decides the
    tokens, and in GPT-2 it is the embedding matrix itself (tied).

    Args:
        bits, group_size: as for `QuantizedLinear`.
        skip: names of further layers to leave alone, as in `model.named_modules()`, or their last part.
        quantize_head: the output head too, and with it the embedding where the two are one matrix.

    Raises:
        ValueError: the model is quantized or packed already, or a group size does not divide a layer's width.
    """
    _check_not_packed(model, "quantize the original, then pack the copy")
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("the model is quantized already; quantize the original once, with the bits you want")
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    # deepcopy takes what `replaced` holds instead of copying: no layer exists twice in full precision.
    replaced = {
        id(layer): QuantizedLinear(layer, bits=bits, group_size=group_size)
        for name, layer in _linear_layers(model)
        if layer is not head and not _matches(name, skip)
    }
    if quantize_head and head is not None:
        replaced |= _quantized_head(model, head, bits, group_size)
    return copy.deepcopy(model, replaced)


def _quantized_head(model: nn.Module, head: nn.Module, bits: int, group_size: int | None) -> dict[int, nn.Module]:
    quantized = QuantizedLinear(head, bits=bits, group_size=group_size)
    embedding = model.get_input_embeddings()
    tied = type(embedding) is nn.Embedding and embedding.weight is head.weight
    return {id(head): quantized} | ({id(embedding): QuantizedEmbedding(quantized)} if tied else {})


def size_in_bytes(obj: Any) -> int:
    """Bytes of all tensors in a tensor, module, KV cache, `QuantState`, or a collection of these.

    A tensor met twice, such as GPT-2's tied embedding, counts once.
    """
    return sum({id(t): _bytes(t) for t in _tensors(obj)}.values())


def _bytes(t: Tensor | PackedWeight) -> int:
    return t.size_bytes if isinstance(t, PackedWeight) else t.numel() * t.element_size()


def _tensors(obj: Any) -> Iterator[Tensor | PackedWeight]:
    if isinstance(obj, Tensor):
        yield obj
    elif isinstance(obj, nn.Module):
        yield from obj.parameters()
        yield from obj.buffers()
        yield from (module.packed for module in obj.modules() if isinstance(module, PackedLayer))
    elif isinstance(obj, QuantState):
        yield from (obj.scale, obj.zero_point)
    elif isinstance(obj, Cache):
        yield from (tensor for layer in obj.layers for tensor in (layer.keys, layer.values))
    elif isinstance(obj, Mapping):
        yield from (tensor for value in obj.values() for tensor in _tensors(value))
    elif isinstance(obj, (list, tuple)):
        yield from (tensor for value in obj for tensor in _tensors(value))
    else:
        raise TypeError(f"size_in_bytes takes tensors, modules, caches and collections of them, not {type(obj)}")


# --- Low-rank adaptation (Lesson 5) ------------------------------------------------------------------

ATTENTION_LAYERS = ("c_attn", "q_proj", "v_proj", "query_key_value")  # in GPT-2, Llama and Qwen, GPT-NeoX


class LoraLayer(nn.Module):
    """A frozen linear layer plus a trainable low-rank update (Hu et al. 2021).

        y = base(x) + scaling * (x A^T) B^T        A (r, in), B (out, r), scaling = alpha / r

    A is random and B is zero, so a new adapter changes nothing. Only A and B are trainable.

    Args:
        base_layer: an `nn.Linear`, a `Conv1D` or a `QuantizedLinear`; kept as it is, not copied.
        r: the rank, 1 to min(in, out).
        alpha: the strength of the update; `None` is r, so that scaling is 1.

    Raises:
        TypeError: the base is no linear layer, or `r` is not an int.
        ValueError: the rank is out of range.
    """

    def __init__(self, base_layer: nn.Module, r: int, alpha: float | None = None) -> None:
        super().__init__()
        out_features, in_features = _check_rank(base_layer, r)
        self.base_layer = base_layer.requires_grad_(False)
        self.r, self.scaling, self.merged = r, (r if alpha is None else alpha) / r, False
        like = base_layer.scale if isinstance(base_layer, QuantizedLinear) else base_layer.weight
        self.lora_a = nn.Parameter(torch.empty(r, in_features, dtype=like.dtype, device=like.device))
        self.lora_b = nn.Parameter(torch.zeros(out_features, r, dtype=like.dtype, device=like.device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y = self.base_layer(x)
        return y if self.merged else y + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scaling

    def delta(self) -> Tensor:
        """The update as one matrix (out, in)."""
        return self.lora_b @ self.lora_a * self.scaling

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update into the base weight: no extra work per token. No-op when merged already."""
        if not self.merged:
            self._add_to_base(self.delta())
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the base weight again, up to rounding. No-op when not merged."""
        if self.merged:
            self._add_to_base(-self.delta())
            self.merged = False

    def _add_to_base(self, delta: Tensor) -> None:
        _check_mergeable(self)
        self.base_layer.weight += delta.T if isinstance(self.base_layer, Conv1D) else delta

    def extra_repr(self) -> str:
        return f"r={self.r}, scaling={self.scaling:g}, merged={self.merged}"


def add_lora(model: Model, r: int, *, alpha: float | None = None, targets: Collection[str] = ATTENTION_LAYERS) -> Model:
    """Put an adapter on every target layer and freeze everything else. Changes the model, and returns it.

    Args:
        r, alpha: as for `LoraLayer`.
        targets: names of linear layers as in `model.named_modules()`, or their last part. The default
            is the attention projections of GPT-2, Llama, Qwen and GPT-NeoX.

    Raises:
        ValueError: no layer has such a name, the rank is out of range, or the model has adapters already
            or is packed.
    """
    _check_not_packed(model, "add the adapters to the original, then pack it")
    if any(True for _ in _lora_layers(model)):
        raise ValueError("the model has LoRA layers already; load_lora puts other weights into them")
    layers = dict(_linear_layers(model))
    chosen = [name for name in layers if _matches(name, targets)]
    if not chosen:
        raise ValueError(
            f"no linear layer is named {', '.join(map(repr, targets))}; "
            f"the model has {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}"
        )
    for name in chosen:
        _check_rank(layers[name], r)  # before anything is changed
    model.requires_grad_(False)
    for name in chosen:
        model.set_submodule(name, LoraLayer(layers[name], r, alpha))
    return model


def merge_lora(model: Model) -> Model:
    """Fold every adapter into its base weight, in place. Merging twice is the same as once.

    Raises:
        ValueError: a base layer is quantized or packed. Nothing is changed then.
    """
    for _, layer in _lora_layers(model):
        _check_mergeable(layer)
    for _, layer in _lora_layers(model):
        layer.merge()
    return model


def unmerge_lora(model: Model) -> Model:
    """Undo `merge_lora`, in place, up to rounding."""
    for _, layer in _lora_layers(model):
        layer.unmerge()
    return model


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the adapter weights alone, `"<layer>.lora_a"` (r, in) and `"<layer>.lora_b"` (out, r)."""
    return {name: weight.detach().clone() for name, weight in _lora_weights(model).items()}


def load_lora(model: Model, state: Mapping[str, Tensor]) -> Model:
    """Hot swap: put other adapter weights into the model, in place. Base weights are not touched.

    Raises:
        KeyError: `state` names a weight the model lacks, or lacks one it has.
        ValueError: a shape differs, or an adapter is merged. Nothing is changed then.
    """
    weights = _lora_weights(model)
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
    if any(layer.merged for _, layer in _lora_layers(model)):
        raise ValueError(
            "an adapter is merged into the base weights; call unmerge_lora(model) before another is loaded"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state[name])
    return model


def _check_rank(base_layer: nn.Module, r: int) -> tuple[int, int]:
    """(out, in) of the layer, if it can take an adapter of this rank."""
    out_features, in_features = _shape(base_layer)
    largest = min(in_features, out_features)
    if isinstance(r, bool) or not isinstance(r, int):
        raise TypeError(f"r is {r!r}; the rank must be an int, 1 to {largest}")
    if not 1 <= r <= largest:
        raise ValueError(f"r is {r}; the rank of a {in_features} x {out_features} layer must be 1 to {largest}")
    return out_features, in_features


def _check_mergeable(layer: LoraLayer) -> None:
    if isinstance(layer.base_layer, PackedLayer):
        raise ValueError("a packed base cannot change; merge or unmerge in the original model, then pack it")
    if isinstance(layer.base_layer, QuantizedLinear):
        raise ValueError("a quantized base has no float weight to merge into; leave the adapter unmerged")


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _lora_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{part}": getattr(layer, part) for name, layer in _lora_layers(model) for part in ("lora_a", "lora_b")
    }


# --- Packed linear layers (Lessons 4 and 5) ----------------------------------------------------------


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the private layout of a CPU kernel. Nothing changes it, so copies share it.

    Attributes:
        data: what the kernel reads: an opaque oneDNN tensor, or fbgemm's packed parameters.
        size_bytes: what it holds. Padding to the kernel's blocks comes on top, and PyTorch does not tell it:
            about an eighth of an int8 weight with 768 inputs, nothing with 3,072.
    """

    data: Any
    size_bytes: int


class PackedLayer(nn.Module):
    """What packed layers have in common: a weight for one kernel of this CPU, only good for computing.

    Such a layer cannot be trained, saved, converted or moved; all of that is for the original model.

    Attributes:
        packed: the weight. bias: (out,), or `None`.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, packed: PackedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.dtype, self.packed = dtype, packed
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, dtype={self.dtype}"

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLayer:
        twin = type(self).__new__(type(self))
        twin.__dict__ = {name: value.copy() if isinstance(value, dict) else value for name, value in vars(self).items()}
        memo[id(self)] = twin
        return twin

    def __getstate__(self) -> dict[str, Any]:
        raise ValueError(f"a {type(self).__name__} cannot be saved; save the model it was packed from")

    def _save_to_state_dict(self, *_: Any) -> None:
        raise ValueError("a packed model has no state_dict and cannot be saved; save the model it was packed from")

    def _load_from_state_dict(self, *_: Any) -> None:
        raise ValueError("a packed model cannot load weights; load them into the original and pack that")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLayer:
        """What `model.to(...)` calls: fine as long as nothing would change."""
        before = torch.empty(0, dtype=self.dtype)
        after = fn(before)
        if (after.dtype, after.device) != (before.dtype, before.device):
            raise ValueError(
                f"packed layers stay {before.dtype} on the {before.device}; pack_model(model.to(...)) packs "
                "another model (this one may now be converted in part)"
            )
        return self


class PackedLinear(PackedLayer):
    """`nn.Linear` with its weight in the blocks that oneDNN's kernels read in one sweep.

    The same products and sums as `F.linear`, in another order: equal up to rounding.

    Args:
        layer: an `nn.Linear` or a `Conv1D`, float32 or bfloat16, on the CPU; it is read, not changed.

    Raises:
        NotImplementedError: this PyTorch or CPU lacks the kernel, or the layer's dtype or device does not fit.
    """

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        weight = _weight(layer).detach()  # (out, in)
        if weight.dtype not in (torch.float32, torch.bfloat16) or weight.device.type != "cpu":
            raise NotImplementedError(f"oneDNN packs float32 and bfloat16 on the CPU, not {weight.dtype} there")
        with _not_implemented("oneDNN's packed linear layer"):
            # torch.compile emits these two operators. They are not public, so they may change or be absent.
            data = torch.ops.mkldnn._reorder_linear_weight(weight)
            packed = PackedWeight(data, weight.numel() * weight.element_size())
            super().__init__(tuple(weight.shape), weight.dtype, packed, layer.bias)
            self(weight.new_zeros(1, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), both in the layer's dtype."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed.data, self.bias, "none", [], "")


class PackedInt8Linear(PackedLayer):
    """A `QuantizedLinear` whose multiplication works on the integers: no float weight is ever written.

        x[i] ~ size[i] * a[i]     a: x's row i over its largest value, in 8 bits, rounded at every call
        y[i] = size[i] * scale * (a[i] @ (codes - zero_point)^T) + bias

    The weights are exactly those that the `QuantizedLinear` dequantizes. The inputs are rounded too, each
    row on its own: an answer does not depend on its neighbours in the batch. fbgemm multiplies (Khudia et
    al. 2021). A processor without VNNI instructions would overflow on 8-bit inputs; there they get 7 bits.

    Args:
        layer: its codes are read, not changed. One scale per channel; codes of fewer than 8 bits take 8 here.

    Raises:
        NotImplementedError: this PyTorch or CPU lacks the kernel, or the scales are per group.
    """

    def __init__(self, layer: QuantizedLinear) -> None:
        if layer.scale.shape[1] > 1 or layer.scale.dtype != torch.float32 or layer.scale.device.type != "cpu":
            raise NotImplementedError("fbgemm takes one float32 scale per channel, on the CPU")
        shape = layer.out_features, layer.in_features
        with _not_implemented("fbgemm's packed linear layer"):
            data = torch.ops.quantized.linear_prepack(_signed_weight(layer), None)
            # int8 codes, and per channel a scale, a zero point and a sum of codes, 4 bytes each.
            super().__init__(shape, layer.dtype, PackedWeight(data, shape[0] * (shape[1] + 12)), layer.bias)
            self.steps = 127 if _has_vnni() else 63  # each side of zero
            self(torch.zeros(1, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), in x's dtype."""
        rows = x.float()
        size = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)  # (..., 1)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / size, 1 / self.steps, self.steps + 1, self.packed.data
        )
        y = y.mul_(size) if self.bias is None else torch.addcmul(self.bias.float(), y, size)
        return y.to(x.dtype)


def pack_model(model: Model, *, skip: Collection[str] = ()) -> Model:
    """A copy of the model whose linear layers are the fastest this CPU has for the same weights.

    `nn.Linear` and `Conv1D` in float32 or bfloat16 become `PackedLinear`, a `QuantizedLinear` with one scale
    per channel becomes `PackedInt8Linear`, also inside a `LoraLayer`. Layers without a packed kind stay as
    they are: float64, scales per group, another device, a PyTorch without the kernels. So this is always
    safe to call. GPT-2's activation, which transformers computes in eight small operations, becomes one.

    The output head is packed as well. GPT-2's is the embedding matrix too, which the lookup still needs:
    the packed copy of it takes memory of its own, 154 MB of fp32 at GPT-2's size, or 39 MB after
    `quantize_model(model, quantize_head=True)`. `skip=["lm_head"]` saves that and costs speed.

    The result computes and nothing else: train, save, quantize, merge and move the original.

    Args:
        skip: names of layers to leave alone, as in `model.named_modules()`, or their last part.

    Raises:
        ValueError: the model is packed already.
    """
    _check_not_packed(model, "it is as fast as it gets")
    replaced = {id(layer): packed_layer(layer) for name, layer in _linear_layers(model) if not _matches(name, skip)}
    replaced |= {id(act): nn.GELU("tanh") for act in model.modules() if type(act) is NewGELUActivation}
    return copy.deepcopy(model, {key: module for key, module in replaced.items() if module is not None})


def packed_layer(layer: nn.Module) -> PackedLayer | None:
    """The packed layer with the same weights; `None` where there is none."""
    kinds = {nn.Linear: PackedLinear, Conv1D: PackedLinear, QuantizedLinear: PackedInt8Linear}
    packed_kind = kinds.get(type(layer))  # not isinstance: a subclass may compute something else
    try:
        return None if packed_kind is None else packed_kind(layer)
    except NotImplementedError:
        return None


@contextmanager
def _not_implemented(what: str) -> Iterator[None]:
    """An operator that is missing, or that refuses, is something this machine does not have."""
    try:
        with torch.no_grad():
            yield
    except (AttributeError, RuntimeError) as error:
        raise NotImplementedError(f"{what} does not work here: {str(error).splitlines()[0]}") from error


def _signed_weight(layer: QuantizedLinear) -> Tensor:
    """The layer's weight as PyTorch's quantized tensor, qint8: codes and zero points moved down by 128."""
    codes = unpack_int4(layer.codes, layer.in_features) if layer.bits == 4 else layer.codes
    signed = (codes ^ 128).view(torch.int8)  # (out, in), codes - 128
    zero_points = layer.zero_point.flatten().long() - 128  # (out,)
    with warnings.catch_warnings():  # PyTorch announces the end of these tensors, but has no other way to fbgemm yet
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        return torch._make_per_channel_quantized_tensor(signed, layer.scale.flatten().double(), zero_points, 0)


def _has_vnni() -> bool:
    """Whether 8-bit products are summed in 32 bits. Without, sums of two must fit 16: 2 * 127 * 127 < 2**15."""
    return getattr(torch.cpu, "_is_vnni_supported", bool)()


def _check_not_packed(model: nn.Module, instead: str) -> None:
    if any(isinstance(module, PackedLayer) for module in model.modules()):
        raise ValueError(f"the model is packed; {instead}")


# --- Linear layers of either kind --------------------------------------------------------------------


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    kinds = (nn.Linear, Conv1D, QuantizedLinear)
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def _matches(name: str, wanted: Collection[str]) -> bool:
    """Whether a layer's full name or its last part is wanted."""
    return name in wanted or name.rpartition(".")[2] in wanted


def _weight(layer: nn.Module) -> Tensor:
    """The weight as (out, in), whichever way the layer stores it."""
    if isinstance(layer, Conv1D):
        return layer.weight.T
    if isinstance(layer, nn.Linear):
        return layer.weight
    raise TypeError(f"{type(layer).__name__} is not a linear layer; give an nn.Linear or a Conv1D")


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer of any of the three kinds."""
    if isinstance(layer, QuantizedLinear):
        return layer.out_features, layer.in_features
    return tuple(_weight(layer).shape)
