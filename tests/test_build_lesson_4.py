"""The last exercise of Lesson 4: its check takes quantized layers of any style and says what is wrong with others."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lessons
from build_it import check_quantized_linear
from build_it.lesson_4 import HELD_OUT
from utils import QuantizedLinear

sys.path.insert(0, str(lessons.ROOT / "models" / "training"))


class Right(nn.Module):
    """Rebuilds the weight and multiplies; the wrong answers differ from it in one method each."""

    levels = 127

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = self.scale_of(weight)  # (out, 1)
        self.keep(self.rounded(weight / scale), scale, bias)

    def scale_of(self, weight: Tensor) -> Tensor:
        largest = weight.abs().amax(dim=1, keepdim=True)
        return torch.where(largest == 0, torch.ones_like(largest), largest / self.levels)

    def rounded(self, steps: Tensor) -> Tensor:
        return steps.round().to(torch.int8)

    def keep(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.codes * self.scale, self.bias)


class ScalesAtTheEnd(nn.Module):
    """Multiplies by the codes first."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = weight.abs().max(dim=1).values.div(127)  # (out,)
        self.register_buffer("scale", scale)
        self.register_buffer("codes", (weight / scale.clamp(min=1e-12)[:, None]).round().char())
        self.register_buffer("bias", bias if bias is not None else None)

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.codes.float().T * self.scale
        return y if self.bias is None else y + self.bias


@pytest.mark.parametrize("answer", [Right, ScalesAtTheEnd])
def test_right_answers_of_different_style_are_taken(answer: type[nn.Module]) -> None:
    result = check_quantized_linear(answer)
    assert result, result
    assert "instead of 23.67" in repr(result)


class Blank(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Any: ...


class Unfinished(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        raise NotImplementedError


@pytest.mark.parametrize("answer", [None, ..., Blank, Unfinished])
def test_a_blank_is_not_attempted(answer: Any) -> None:
    assert check_quantized_linear(answer).outcome == "not attempted"


class Truncates(Right):
    def rounded(self, steps: Tensor) -> Tensor:
        return steps.to(torch.int8)


class OneScale(Right):
    def scale_of(self, weight: Tensor) -> Tensor:
        return (weight.abs().max() / 127).expand(len(weight), 1).clone()


class ScalePerColumn(Right):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        nn.Module.__init__(self)
        scale = weight.abs().amax(dim=0, keepdim=True) / 127  # (1, in)
        self.keep((weight / scale).round().to(torch.int8), scale, bias)


class Overflows(Right):
    levels = 128


class DividesByZero(Right):
    def scale_of(self, weight: Tensor) -> Tensor:
        return weight.abs().amax(dim=1, keepdim=True) / 127

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.codes / (1 / self.scale) + 0 / self.scale, self.bias)


class KeepsTheFloats(Right):
    def keep(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().keep(codes, scale, bias)
        self.register_buffer("weight", codes * scale)


class FloatCodes(Right):
    def rounded(self, steps: Tensor) -> Tensor:
        return steps.round()


class WideCodes(Right):
    def rounded(self, steps: Tensor) -> Tensor:
        return steps.round().to(torch.int32)


class PlainAttributes(Right):
    def keep(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.codes, self.scale, self.bias = codes, scale, bias


class Trainable(Right):
    def keep(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().keep(codes, scale, None)
        del self.bias
        self.bias = None if bias is None else nn.Parameter(bias)


class NoBias(Right):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.codes * self.scale)


class BiasTwice(Right):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.bias is None else y + self.bias


class NeedsABias(Right):
    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.codes * self.scale).T + self.bias


class TwoDimensions(Right):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1]))


class RoundsTheInputs(Right):
    def forward(self, x: Tensor) -> Tensor:
        size = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
        return super().forward((x / size * 127).round() * size / 127)


class NotQuantized(Right):
    def keep(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().keep(codes, scale, bias)

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        nn.Module.__init__(self)
        self.keep(weight, torch.ones(len(weight), 1), bias)


class Transposed(Right):
    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.codes * self.scale)


class NoModule:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        pass


class ChangesTheWeight(Right):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        nn.Module.__init__(self)
        scale = self.scale_of(weight)
        weight /= scale
        self.keep(weight.round().to(torch.int8), scale, bias)


class HalfPrecisionOutputs(Right):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).half()


def ours(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The project's layer, which has a zero point in each row."""
    layer = nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = bias
    return QuantizedLinear(layer)


WRONG = [
    (Truncates, "rounding to the nearest code moves it by half a step at most"),
    (OneScale, "every row has a scale of its own"),
    (ScalePerColumn, "every row has a scale of its own"),
    (Overflows, "steps of its row"),
    (DividesByZero, "the scale of a row of zeros must not be zero"),
    (KeepsTheFloats, "the buffers should take"),
    (FloatCodes, "one int8 code is expected for each weight"),
    (WideCodes, "one int8 code is expected for each weight"),
    (PlainAttributes, "self.codes is a tensor but not a buffer"),
    (Trainable, "register them as buffers"),
    (NoBias, "the bias is missing"),
    (BiasTwice, "the outputs have to be the bias"),
    (NeedsABias, "raised TypeError for a layer without a bias, in line"),
    (TwoDimensions, "x of shape (16,)"),
    (RoundsTheInputs, "does not multiply by the weight that the codes stand for"),
    (NotQuantized, "nothing was quantized"),
    (Transposed, "raised RuntimeError for a layer with a bias"),
    (NoModule, "nn.Module"),
    (ChangesTheWeight, "it belongs to somebody else"),
    (HalfPrecisionOutputs, "float32"),
    (ours, "one int8 code is expected for each weight"),
    (3, "expected a class"),
]


@pytest.mark.parametrize(("answer", "reason"), WRONG, ids=[getattr(a, "__name__", str(a)) for a, _ in WRONG])
def test_wrong_answers_are_refused_with_a_reason(answer: Any, reason: str) -> None:
    result = check_quantized_linear(answer)
    assert result.outcome == "wrong", result
    assert repr(result).startswith("not yet right: ") and "\n" not in repr(result)
    assert reason in repr(result)


def test_a_layer_that_is_right_on_small_weights_only_is_refused() -> None:
    class WrongWhenWide(Right):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if x.shape[-1] < 100 else y.flip(-1)

    assert "perplexity" in repr(check_quantized_linear(WrongWhenWide))


def test_the_texts_are_held_out_from_training() -> None:
    from corpus import documents

    originals = list(documents(seed=4, count=18, held_out=True))
    assert all(any(original.startswith(text) for original in originals) for text in HELD_OUT)
