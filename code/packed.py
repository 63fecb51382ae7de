"""Packed linear layers: the same weights, laid out once in the order in which one kernel of this CPU reads them.

The kernels are oneDNN's (float32, bfloat16) and fbgemm's (int8). PyTorch has both, and `torch.compile` emits the
first, but the operators that reach them are not public: they may change or be absent. All of them stand in this
file. Where one is missing, the layer is left as it is and a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers.activations
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from linear import CodedLinear, Model, copy_with, is_named, linear_layers, weight_of


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the private layout of a CPU kernel. Nothing changes it, so copies share it.

    Attributes:
        data: what the kernel reads: an opaque oneDNN tensor, or fbgemm's packed parameters.
        size_bytes: what it holds. A kernel may pad the weight to its own block size, which PyTorch does not
            report: about an eighth of an int8 weight with 768 inputs, nothing with 3,072.
    """

    data: Any
    size_bytes: int

    @property
    def nbytes(self) -> int:
        """`size_bytes`, under the name that tensors have for it."""
        return self.size_bytes


class PackedLayer(nn.Module):
    """What packed layers have in common: a weight that only one kernel of this CPU can read.

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
        weight = weight_of(layer).detach()  # (out, in)
        if weight.dtype not in (torch.float32, torch.bfloat16) or weight.device.type != "cpu":
            raise NotImplementedError(
                f"oneDNN packs float32 and bfloat16 on the CPU; this weight is {weight.dtype} on {weight.device}"
            )
        with _missing_kernels_reported("oneDNN's packed linear layer"):
            data = torch.ops.mkldnn._reorder_linear_weight(weight)
            packed = PackedWeight(data, weight.numel() * weight.element_size())
            super().__init__(tuple(weight.shape), weight.dtype, packed, layer.bias)
            self(weight.new_zeros(1, self.in_features))  # the kernel is tried once

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), both in the layer's dtype."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed.data, self.bias, "none", [], "")


class PackedInt8Linear(PackedLayer):
    """A `QuantizedLinear` whose multiplication works on the integers: no float weight is ever written (Lesson 4).

        x[i] ~ size[i] * a[i]     a: x's row i over its largest value, in 8 bits, rounded at every call
        y[i] = size[i] * scale * (a[i] @ (codes - zero_point)^T) + bias

    The weights are exactly those that the `QuantizedLinear` dequantizes. The inputs are rounded too, each row
    on its own: an answer does not depend on its neighbours in the batch. fbgemm multiplies (Khudia et al.
    2021). On a processor without VNNI instructions 8-bit inputs could overflow; there the inputs get 7 bits.

    Args:
        layer: a `utils.QuantizedLinear` with one scale per channel; it is read, not changed. Codes of fewer
            than 8 bits take 8 here.

    Raises:
        NotImplementedError: this PyTorch or CPU lacks the kernel, or the scales are per group.
    """

    def __init__(self, layer: CodedLinear) -> None:
        if layer.scale.shape[1] > 1:
            raise NotImplementedError(f"fbgemm takes one scale per channel; this layer has {layer.scale.shape[1]}")
        if layer.scale.dtype != torch.float32 or layer.scale.device.type != "cpu":
            raise NotImplementedError("fbgemm takes float32 scales on the CPU; this layer's are not")
        shape = layer.out_features, layer.in_features
        with _missing_kernels_reported("fbgemm's packed linear layer"):
            data = torch.ops.quantized.linear_prepack(_signed_weight(layer), None)
            # int8 codes, and per channel a scale, a zero point and a sum of codes, 4 bytes each.
            super().__init__(shape, layer.dtype, PackedWeight(data, shape[0] * (shape[1] + 12)), layer.bias)
            self.steps = 127 if has_vnni() else 63  # each side of zero
            self(torch.zeros(1, self.in_features))  # the kernel is tried once

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
    per channel becomes `PackedInt8Linear`, also inside a `LoraLayer`. A layer that no kernel here fits stays
    as it is (float64, scales per group, another device, a PyTorch without the kernels): the result always
    computes, and a warning says how many layers were left and why. `packed_layers` lists those that were not.
    GPT-2's activation, which transformers computes in eight small operations, becomes one.

    The output head is packed as well. GPT-2's is the embedding matrix too, which the lookup still needs:
    the packed copy of it takes memory of its own, 154 MB of fp32 at GPT-2's size, or 39 MB after
    `quantize_model(model, quantize_head=True)`. `skip=["lm_head"]` saves that and costs speed.

    The packed model can only be run. To train, save, quantize or move it, or to merge an adapter into it, take
    the original, which is unchanged.

    Args:
        skip: names of layers to leave alone, as in `model.named_modules()`, or their last part.

    Raises:
        ValueError: the model is packed already.
    """
    check_not_packed(model, "it is as fast as it gets")
    replaced: dict[nn.Module, nn.Module] = {act: nn.GELU("tanh") for act in model.modules() if _is_new_gelu(act)}
    left: dict[str, str] = {}
    for name, layer in linear_layers(model):
        if is_named(name, skip):
            continue
        try:
            replaced[layer] = _packed(layer)
        except NotImplementedError as reason:
            left[name] = str(reason)
    if left:
        first, why = next(iter(left.items()))
        warnings.warn(f"pack_model left {len(left)} linear layers as they are, first {first}: {why}", stacklevel=2)
    return copy_with(model, replaced)


def packed_layers(model: nn.Module) -> list[str]:
    """Names of the layers that are packed, as in `model.named_modules()`; none in a model that is not."""
    return [name for name, module in model.named_modules() if isinstance(module, PackedLayer)]


def packed_layer(layer: nn.Module) -> PackedLayer | None:
    """The packed layer with the same weights; `None` where there is none."""
    try:
        return _packed(layer)
    except NotImplementedError:
        return None


def _packed(layer: nn.Module) -> PackedLayer:
    """The packed layer with the same weights.

    Raises:
        NotImplementedError: there is none; the message says why.
    """
    # The exact type decides, not isinstance: a subclass may compute something else.
    if type(layer) in (nn.Linear, Conv1D):
        return PackedLinear(layer)
    packed_kind = vars(type(layer)).get("packed_kind")
    if packed_kind is None:
        raise NotImplementedError(f"there is no packed kind of {type(layer).__name__}")
    return packed_kind(layer)


def check_not_packed(model: nn.Module, instead: str) -> None:
    """Raises ValueError if the model is packed; the message says what to do instead."""
    if packed_layers(model):
        raise ValueError(f"the model is packed; {instead}")


# --- What this PyTorch and this CPU have -------------------------------------------------------------


@contextmanager
def _missing_kernels_reported(what: str) -> Iterator[None]:
    """Turn the errors that PyTorch raises when it lacks an operator, or cannot run it, into one kind."""
    try:
        with torch.no_grad():
            yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, RuntimeError) as error:
        raise NotImplementedError(f"{what} does not work here: {str(error).splitlines()[0]}") from error


def _signed_weight(layer: CodedLinear) -> Tensor:
    """The layer's weight as PyTorch's quantized tensor, qint8: codes and zero points moved down by 128."""
    signed = (layer.unpacked_codes() ^ 128).view(torch.int8)  # (out, in), codes - 128
    zero_points = layer.zero_point.flatten().long() - 128  # (out,)
    with warnings.catch_warnings():  # PyTorch announces the end of these tensors, but has no other way to fbgemm yet
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        return torch._make_per_channel_quantized_tensor(signed, layer.scale.flatten().double(), zero_points, 0)


def has_vnni() -> bool:
    """Whether the processor adds up products of 8-bit numbers in 32 bits; older ones add pairs of them in 16.

    Two products of 7-bit and 8-bit numbers still fit: 2 * 63 * 127 is less than 2**15. A PyTorch that cannot
    tell counts as one without.
    """
    ask = getattr(torch.cpu, "_is_vnni_supported", None)
    return False if ask is None else bool(ask())


def _is_new_gelu(module: nn.Module) -> bool:
    """Whether this is transformers' activation of GPT-2, the tanh form of GELU."""
    kind = getattr(transformers.activations, "NewGELUActivation", None)
    return kind is not None and type(module) is kind
