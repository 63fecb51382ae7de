"""Lesson 4: a quantized linear layer, tried on small weights and then in the place of the storyteller's own layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from exercises.checking import NotAttempted, Wrong, difference, exercise, is_blank, normal, running
from helpers import course_model
from linear import weight_of
from utils import size_in_bytes

from .parts import block_layers

LinearClass = Callable[[Tensor, "Tensor | None"], nn.Module]

LARGEST_CODE = 127
# How much the mean of -log p of the held-out tokens may grow. The project's own 8 bits move it by less than 0.001.
MAX_LOSS = 0.01

# Beginnings of documents that the storyteller was not trained on.
HELD_OUT = (
    "Question: What is a young fox called?\nAnswer: A young fox is called a cub.\n\nQuestion: What sound does a duck "
    "make?\nAnswer: A duck quacks.\n\nQuestion: Who gives us eggs?\nAnswer: A hen gives us eggs.",
    "One morning, a miller named Fiona looked out of the window. She lived in a castle with a hundred rooms, and the "
    "sun was warm. In the autumn, Fiona picked figs and shared them with the castle servants.",
    "Never put off until tomorrow what you can do today. Jonah often thought of this saying. What is done today need "
    "not be done tomorrow.",
    "Good company on the road is the shortest cut. Frida the dragon wrote it on the wall above the door.",
)


@exercise("each layer takes a little over a quarter of its bytes, and the model reads held-out text as well as before")
def check_quantized_linear(linear_class: LinearClass | None) -> str:
    """Exercise 4.6: a linear layer that keeps 8-bit codes."""
    if is_blank(linear_class):
        raise NotAttempted
    if not callable(linear_class):
        raise Wrong("expected a class")
    weight, bias = normal(6, 16), normal(6, seed=1)
    weight *= torch.tensor([[1.0], [100.0], [0.01], [3.0], [1.0], [20.0]])  # rows of very different size
    layer = _made(linear_class, weight, bias, "a layer with a bias")
    _examine_outputs(linear_class, layer, weight, bias, "a layer with a bias")
    _examine_contents(layer, weight, bias, "a layer with a bias")
    layer = _made(linear_class, weight, None, "a layer without a bias")
    _examine_outputs(linear_class, layer, weight, None, "a layer without a bias")
    _examine_contents(layer, weight, None, "a layer without a bias")
    with_zeros = weight.clone()
    with_zeros[[0, 3]] = 0.0
    layer = _made(linear_class, with_zeros, bias, "a weight with two rows of zeros")
    _examine_outputs(linear_class, layer, with_zeros, bias, "a weight with two rows of zeros")
    return _examine_storyteller(linear_class)


# --- Small layers ----------------------------------------------------------------------------------------


def _made(linear_class: LinearClass, weight: Tensor, bias: Tensor | None, case: str) -> nn.Module:
    """The learner's layer for this weight (out, in) and bias (out,); both must be left as they are."""
    given = weight.clone()
    with running(linear_class, case):
        layer = linear_class(given, None if bias is None else bias.clone())
    if not isinstance(layer, nn.Module):
        raise Wrong("the class has to be an nn.Module, so that a model can take it in")
    if not torch.equal(given, weight):
        raise Wrong(f"for {case} the weight that was given has changed; it belongs to somebody else")
    return layer


def _outputs(linear_class: LinearClass, layer: nn.Module, x: Tensor, case: str) -> Tensor:
    """What the learner's layer returns for x (..., in)."""
    with running(linear_class, case), torch.no_grad():
        y = layer(x.clone())
    if is_blank(y):
        raise NotAttempted("forward returns nothing")
    if not isinstance(y, Tensor):
        raise Wrong(f"forward has to return a tensor; for {case} it returned {type(y).__name__}")
    return y


def _examine_outputs(
    linear_class: LinearClass, layer: nn.Module, weight: Tensor, bias: Tensor | None, case: str
) -> None:
    """Read the layer's weight from its outputs, judge it, and see whether forward multiplies by it.

    The inputs that have a single one each give the columns of the weight, one by one, plus the bias.
    """
    width = weight.shape[1]
    y = _outputs(linear_class, layer, torch.eye(width), case)  # (in, out)
    if y.shape != (width, len(weight)):
        raise Wrong(f"for {case} x {(width, width)} has to give {(width, len(weight))}, it gave {tuple(y.shape)}")
    if y.dtype != torch.float32:
        raise Wrong(f"for {case} the outputs have to be float32, they are {y.dtype}")
    if y.isnan().any():
        raise Wrong(f"for {case} the outputs hold NaN: the scale of a row of zeros must not be zero")
    _examine_bias(_outputs(linear_class, layer, torch.zeros(1, width), case), bias, case)
    restored = (y if bias is None else y - bias).T  # (out, in)
    _examine_errors(restored, weight, bias, case)
    for shape in ((width,), (3, width), (2, 3, width)):
        x = normal(*shape, seed=2)
        complaint = difference(_outputs(linear_class, layer, x, f"x of shape {shape}"), F.linear(x, restored, bias))
        if complaint is not None:
            raise Wrong(
                f"for {case} and x of shape {shape}, forward does not multiply by the weight that the codes stand for, "
                f"or not x itself: {complaint}"
            )


def _examine_bias(y: Tensor, bias: Tensor | None, case: str) -> None:
    """Complain unless the outputs y (1, out) for an x of zeros are the bias (out,)."""
    if bias is not None and not y.any():
        raise Wrong(f"for {case} the bias is missing from the outputs")
    if difference(y[0], torch.zeros_like(y[0]) if bias is None else bias) is not None:
        raise Wrong(f"for {case} and an x of zeros, the outputs have to be the bias, or zeros without one")


def _examine_errors(restored: Tensor, weight: Tensor, bias: Tensor | None, case: str) -> None:
    """Complain if the layer's weight is further from the given one than rounding explains."""
    steps = weight.abs().amax(dim=1, keepdim=True) / LARGEST_CODE  # (out, 1)
    if (restored[steps.flatten() == 0] != 0).any():
        raise Wrong(f"for {case} a row of zeros has to come out as zeros, plus the bias")
    slack = 0.01 * steps + 1e-6 * (0 if bias is None else bias.abs().max())  # what adding the bias rounds off
    errors = (restored - weight).abs()
    if torch.allclose(restored, weight, rtol=1e-6, atol=1e-6):
        raise Wrong(f"for {case} the layer multiplies by the weight itself; nothing was quantized")
    is_too_large = (errors > steps / 2 + slack).any(dim=1)
    if not is_too_large.any():
        return
    row = int(is_too_large.nonzero()[0])
    largest = (errors[row] / steps[row]).max().item() if steps[row] > 0 else math.inf
    if largest <= 1.05:
        why = "rounding to the nearest code moves it by half a step at most, and the largest weight gets the code 127"
    else:
        why = "every row has a scale of its own: its largest absolute value divided by 127"
    raise Wrong(f"for {case} a weight of row {row} has moved by {largest:.2f} steps of its row; {why}")


def _examine_contents(layer: nn.Module, weight: Tensor, bias: Tensor | None, case: str) -> None:
    """Complain unless the layer keeps int8 codes, a scale per row and the bias, as buffers, and nothing else."""
    loose = [name for name, value in vars(layer).items() if isinstance(value, Tensor)]
    if loose:
        raise Wrong(
            f"self.{loose[0]} is a tensor but not a buffer, so the model does not move or count it; "
            "use self.register_buffer(name, tensor)"
        )
    if list(layer.parameters()):
        raise Wrong("parameters are trained; codes, scales and bias are not, so register them as buffers")
    sizes = {name: buffer.nbytes for name, buffer in layer.named_buffers()}
    codes = [name for name, buffer in layer.named_buffers() if buffer.dtype == torch.int8]
    if sum(sizes[name] for name in codes) != weight.numel():
        kinds = ", ".join(f"{name} {buffer.dtype}" for name, buffer in layer.named_buffers()) or "none"
        raise Wrong(f"for {case} one int8 code is expected for each weight; the buffers are: {kinds}")
    outputs = len(weight)
    expected = weight.numel() + 4 * outputs + (0 if bias is None else 4 * outputs)
    if sum(sizes.values()) != expected:
        held = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise Wrong(f"for {case} the buffers should take {expected} bytes; they take {sum(sizes.values())}: {held}")


# --- The storyteller -------------------------------------------------------------------------------------


def _examine_storyteller(linear_class: LinearClass) -> str:
    """Replace the linear layers of all blocks; the bytes must be as predicted, and the held-out loss must stay."""
    model, tokenizer = course_model()
    loss_before, bytes_before = _held_out_loss(model, tokenizer), size_in_bytes(model)
    expected = bytes_before
    for name, layer in block_layers(model):
        weight = weight_of(layer).detach().contiguous()  # (out, in)
        expected += weight.numel() + 4 * len(weight) - 4 * weight.numel()
        model.set_submodule(name, _made(linear_class, weight, layer.bias, f"the storyteller's layer {name}"))
    bytes_after = size_in_bytes(model)
    if bytes_after != expected:
        raise Wrong(f"the storyteller should take {expected:,} bytes with your layers; it takes {bytes_after:,}")
    with running(linear_class, "a page of held-out text"):
        loss_after = _held_out_loss(model, tokenizer)
    if not loss_after - loss_before <= MAX_LOSS:  # NaN is refused too
        raise Wrong(
            f"with your layers the storyteller's perplexity on held-out text grows from {math.exp(loss_before):.2f} "
            f"to {math.exp(min(loss_after, 99)):.2f}"
        )
    return (
        f"the storyteller takes {bytes_after / 1e6:.2f} MB instead of {bytes_before / 1e6:.2f}, and its perplexity "
        f"goes from {math.exp(loss_before):.2f} to {math.exp(loss_after):.2f}"
    )


@torch.no_grad()
def _held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """The mean of -log p of the true next token, over all held-out texts."""
    total, count = 0.0, 0
    for text in HELD_OUT:
        ids: Any = tokenizer(text, return_tensors="pt")["input_ids"]  # (1, S)
        logits = model(ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]  # (S-1, V)
        total += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return total / count
