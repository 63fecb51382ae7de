"""Linear layers of either kind: `nn.Linear` keeps its weight as (out, in), GPT-2's `Conv1D` as (in, out).

What quantization, packing and adapters need to know about the layers that they replace.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

Model = TypeVar("Model", bound=nn.Module)


class CodedLinear(nn.Module):
    """A linear layer that keeps its weight in another form than a float matrix; `utils.QuantizedLinear` is one.

    Attributes:
        out_features, in_features: as of an `nn.Linear`.
        dtype: of the values that the weight stands for, and of what an adapter beside it computes in.
    """

    out_features: int
    in_features: int


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, layer) of every linear layer, as in `model.named_modules()`."""
    kinds = (nn.Linear, Conv1D, CodedLinear)
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def is_named(name: str, wanted: Collection[str]) -> bool:
    """Whether a layer's full name or its last part is wanted."""
    return name in wanted or name.rpartition(".")[2] in wanted


def weight_of(layer: nn.Module) -> Tensor:
    """The weight as (out, in), whichever way the layer stores it.

    Raises:
        TypeError: the layer is neither an `nn.Linear` nor a `Conv1D`.
    """
    if isinstance(layer, Conv1D):
        return layer.weight.T
    if isinstance(layer, nn.Linear):
        return layer.weight
    raise TypeError(f"{type(layer).__name__} is not a linear layer; give an nn.Linear or a Conv1D")


def shape_of(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer of any kind."""
    if isinstance(layer, CodedLinear):
        return layer.out_features, layer.in_features
    return tuple(weight_of(layer).shape)


def dtype_and_device(layer: nn.Module) -> dict[str, Any]:
    """The dtype and device of a layer's weight, as keyword arguments for making a tensor beside it."""
    if isinstance(layer, CodedLinear):
        return {"dtype": layer.dtype, "device": layer.scale.device}
    return {"dtype": layer.weight.dtype, "device": layer.weight.device}


def copy_with(model: Model, replaced: Mapping[nn.Module, nn.Module]) -> Model:
    """A deep copy of the model in which some modules are replaced by others, wherever they are used.

    `copy.deepcopy` takes from its memo what it has copied before. The replacements are put there beforehand, so
    the modules they stand for are never copied, and none exists twice in full precision.
    """
    return copy.deepcopy(model, {id(old): new for old, new in replaced.items()})


def saved_buffers(module: nn.Module) -> Iterator[Tensor]:
    """The buffers of this module alone that belong to its state, as they do in its `state_dict`."""
    unsaved = getattr(module, "_non_persistent_buffers_set", ())  # PyTorch's own name for them, which may change
    return (buffer for name, buffer in module.named_buffers(recurse=False) if name not in unsaved)


def linear_lora(x: Tensor, loras_a: Tensor, loras_b: Tensor, lora_indices: Tensor) -> Tensor:
    """What the adapters add to a layer's output, each row of the batch with an adapter of its own (Lesson 6).

        y = layer(x) + linear_lora(x, loras_a, loras_b, lora_indices)

    One gather picks the factors of every row, and two batched products use them. The scaling alpha / r is part of
    `loras_b`. The factors lie as in the course's notebook, so that x is multiplied by them as they are; `LoraLayer`
    keeps their transposes.

    Args:
        x: (B, T, in), B rows of T tokens.
        loras_a, loras_b: (n, in, r) and (n, r, out), the factors of n adapters of one rank.
        lora_indices: (B,) int64 or int32, which of the n adapters each row has: 0 to n - 1.

    Returns:
        (B, T, out).

    Raises:
        TypeError: `lora_indices` is no tensor of whole numbers.
        ValueError: shapes do not fit, or an index is out of range. A negative one is refused too: counted from the
            end, it would give a row somebody else's adapter.
    """
    _check_loras(x, loras_a, loras_b, lora_indices)
    own_a = torch.index_select(loras_a, 0, lora_indices)  # (B, in, r), copies
    own_b = torch.index_select(loras_b, 0, lora_indices)  # (B, r, out), copies
    return x @ own_a @ own_b  # (B, T, in) -> (B, T, r) -> (B, T, out)


def _check_loras(x: Tensor, loras_a: Tensor, loras_b: Tensor, lora_indices: Tensor) -> None:
    if not isinstance(lora_indices, Tensor) or lora_indices.dtype not in (torch.int64, torch.int32):
        given = lora_indices.dtype if isinstance(lora_indices, Tensor) else type(lora_indices).__name__
        raise TypeError(f"lora_indices is of {given}; it must be a tensor of int64 or int32, one number for each row")
    shapes = [tuple(t.shape) for t in (x, loras_a, loras_b, lora_indices)]
    if [len(shape) for shape in shapes] != [3, 3, 3, 1] or not (
        x.shape[2] == loras_a.shape[1]
        and loras_a.shape[::2] == loras_b.shape[:2]
        and lora_indices.shape[0] == x.shape[0]
    ):
        raise ValueError(
            f"x, loras_a, loras_b and lora_indices are {shapes}; linear_lora takes "
            "(B, T, in), (n, in, r), (n, r, out) and (B,)"
        )
    wrong = lora_indices[(lora_indices < 0) | (lora_indices >= len(loras_a))]
    if wrong.numel():
        raise ValueError(f"lora_indices has {wrong[0].item()}; the adapters are 0 to {len(loras_a) - 1}")
