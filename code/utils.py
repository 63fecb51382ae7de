"""Whole-model techniques: text-level generation, quantization and low-rank adaptation (Lessons 4 and 5).

Quantization and LoRA do change numbers, and state by how much: a dequantized value is within half a step of
the original, and a fresh adapter changes nothing at all, bit for bit.

Both wrap `nn.Linear` (weight (out, in)) and GPT-2's `Conv1D` (weight (in, out)), and they compose: a
LoRA adapter over a quantized layer is the shape of QLoRA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

import linear
from checks import check_adapter, check_quantizable, check_rank, check_targets
from groups import by_channel, join_groups, pack_int4, split_groups, unpack_int4
from helpers import RequestLike, run_continuous
from linear import CodedLinear, Model, linear_lora  # noqa: F401
from packed import (  # noqa: F401
    PackedInt8Linear,
    PackedLayer,
    PackedLinear,
    PackedWeight,
    check_not_packed,
    pack_model,
    packed_layer,
    packed_layers,
)

# --- Text in, text out (Lesson 4) --------------------------------------------------------------------


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[RequestLike],
    batch_size: int = 8,
) -> list[str]:
    """Serve requests by continuous batching. Returns a text for each, its prompt and response, in their order.

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
    check_quantizable(t, bits)
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


class _Codes(nn.Module):
    """The buffers of a quantized weight (rows, columns), and the float values that they stand for.

    Converting a module to another dtype changes what the codes are turned into, never the scales: those stay
    float32, since a scale in 16 bits would move every weight of its channel.

    Buffers:
        codes (rows, columns) uint8, or (rows, columns / 2) for 4 bits; scale and zero_point (rows, groups, 1).
    """

    def hold(self, codes: Tensor, state: QuantState, columns: int) -> None:
        """Keep these codes; 4-bit codes are packed two to a byte."""
        self.bits, self.dtype, self.columns = state.bits, state.dtype, columns
        self.register_buffer("codes", pack_int4(codes) if state.bits == 4 else codes)
        self.register_buffer("scale", state.scale)
        self.register_buffer("zero_point", state.zero_point)

    def unpacked_codes(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """One code per element, (rows, columns) uint8."""
        codes = self.codes[rows]
        return unpack_int4(codes, self.columns) if self.bits == 4 else codes

    def values(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The dequantized rows, (rows, columns) in the module's dtype, made anew at every call."""
        state = QuantState(self.scale[rows], self.zero_point[rows], self.bits, self.dtype, dim=0)
        return dequantize(self.unpacked_codes(rows), state)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """What `model.to(...)` calls."""
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.scale.device)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


class QuantizedLinear(_Codes, CodedLinear):
    """A linear layer that keeps integer codes and dequantizes them just in time, at every call.

    Small in memory, not fast: each forward rebuilds the whole float weight before it multiplies.

    Args:
        layer: an `nn.Linear` or a `Conv1D`; it is read, not changed.
        bits, group_size: as for `quantize`, one scale per output channel or per group of input columns.

    Buffers:
        codes (out, in) uint8, or (out, in / 2) for 4 bits; scale and zero_point (out, groups, 1); bias (out,).
    """

    packed_kind = PackedInt8Linear

    def __init__(self, layer: nn.Linear | Conv1D, *, bits: int = 8, group_size: int | None = None) -> None:
        super().__init__()
        weight = linear.weight_of(layer).detach()  # (out, in)
        self.out_features, self.in_features = weight.shape
        self.hold(*quantize(weight, bits=bits, dim=0, group_size=group_size), self.in_features)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The dequantized weight (out, in), made anew at every access."""
        return self.values()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), in x's dtype."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, groups={self.scale.shape[1]}"


class QuantizedEmbedding(_Codes):
    """The lookup of an embedding that is also the output head: one set of codes for both.

    Args:
        head: the quantized head (vocabulary, width); its buffers are shared, not copied.
    """

    def __init__(self, head: QuantizedLinear) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = head.out_features, head.in_features
        self.bits, self.dtype, self.columns = head.bits, head.dtype, head.columns
        for name in ("codes", "scale", "zero_point"):
            self.register_buffer(name, getattr(head, name))

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids (...) -> (..., width): only the rows asked for are dequantized."""
        return self.values(input_ids.flatten()).view(*input_ids.shape, self.embedding_dim)


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
    check_not_packed(model, "quantize the original, then pack the copy")
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("the model is quantized already; quantize the original once, with the bits you want")
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    replaced: dict[nn.Module, nn.Module] = {
        layer: QuantizedLinear(layer, bits=bits, group_size=group_size)
        for name, layer in linear.linear_layers(model)
        if layer is not head and not linear.is_named(name, skip)
    }
    if quantize_head and head is not None:
        replaced |= _quantized_head(model, head, bits, group_size)
    return linear.copy_with(model, replaced)


def _quantized_head(model: nn.Module, head: nn.Module, bits: int, group_size: int | None) -> dict[nn.Module, nn.Module]:
    """The module that replaces the output head, and the one for the embedding where both are one matrix."""
    quantized = QuantizedLinear(head, bits=bits, group_size=group_size)
    embedding = model.get_input_embeddings()
    tied = type(embedding) is nn.Embedding and embedding.weight is head.weight
    return {head: quantized} | ({embedding: QuantizedEmbedding(quantized)} if tied else {})


def size_in_bytes(obj: Any) -> int:
    """Bytes of all tensors in a tensor, module, KV cache, `QuantState`, or a collection of these.

    A tensor met twice, such as GPT-2's tied embedding, counts once. Of a module its parameters and saved buffers
    count; a buffer that is made anew when the module is, such as the causal mask in transformers 5.0, does not.
    """
    return sum({id(t): t.nbytes for t in _tensors(obj)}.values())


def _tensors(obj: Any) -> Iterator[Tensor | PackedWeight]:
    if isinstance(obj, Tensor):
        yield obj
    elif isinstance(obj, nn.Module):
        yield from obj.parameters()
        yield from (buffer for module in obj.modules() for buffer in linear.saved_buffers(module))
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
        base_layer: an `nn.Linear`, a `Conv1D` or a `QuantizedLinear`. It is used, not copied, and frozen: its
            values stay as they are, and its parameters no longer require a gradient.
        r: the rank, 1 to min(in, out).
        alpha: the strength of the update; `None` is r, so that scaling is 1.

    Raises:
        TypeError: the base is no linear layer, or `r` is not an int.
        ValueError: the rank is out of range.
    """

    def __init__(self, base_layer: nn.Module, r: int, alpha: float | None = None) -> None:
        super().__init__()
        out_features, in_features = linear.shape_of(base_layer)
        check_rank(r, out_features, in_features)
        self.base_layer = base_layer.requires_grad_(False)
        self.r, self.scaling, self.merged = r, (r if alpha is None else alpha) / r, False
        like = linear.dtype_and_device(base_layer)
        self.lora_a = nn.Parameter(torch.empty(r, in_features, **like))
        self.lora_b = nn.Parameter(torch.zeros(out_features, r, **like))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), in the dtype that the base layer returns."""
        y = self.base_layer(x)
        if self.merged:
            return y
        update = F.linear(F.linear(x.to(self.lora_a.dtype), self.lora_a), self.lora_b) * self.scaling
        return y + update.to(y.dtype)

    def delta(self) -> Tensor:
        """The update as one matrix (out, in)."""
        return self.lora_b @ self.lora_a * self.scaling

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base weight, so that it costs no work per token. Does nothing if merged already."""
        if not self.merged:
            self._add_to_base(self.delta())
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the base weight again, up to rounding. Does nothing if not merged."""
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
    check_not_packed(model, "add the adapters to the original, then pack it")
    if any(True for _ in _lora_layers(model)):
        raise ValueError("the model has LoRA layers already; load_lora puts other weights into them")
    layers = dict(linear.linear_layers(model))
    chosen = [name for name in layers if linear.is_named(name, targets)]
    check_targets(chosen, targets, layers)
    for name in chosen:
        check_rank(r, *linear.shape_of(layers[name]))  # before anything is changed
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
    check_adapter(state, weights)
    if any(layer.merged for _, layer in _lora_layers(model)):
        raise ValueError(
            "an adapter is merged into the base weights; call unmerge_lora(model) before another is loaded"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state[name])
    return model


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
