"""The checks of Lesson 4, quantization."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checking import Function, compare_function, compare_number, exercise, normal


@exercise("the scale spreads the range over 255 steps, and the zero point makes 0.0 one of the levels")
def check_scale_and_zero_point(
    scale_by_hand: float | None, zero_point_by_hand: int | None, code_by_hand: int | None
) -> None:
    """Exercise 4.1: zero-point quantization by hand."""
    low, high, value = -2.0, 3.1, 0.777
    step = (high - low) / 255
    mistakes = {
        "256 levels have one step less between them": (high - low) / 256,
        "that is symmetric quantization; here the codes start at the smallest value": high / 127,
        "that is upside down: the scale is the size of a step": 1 / step,
    }
    compare_number("scale_by_hand", scale_by_hand, step, mistakes)
    zero = round(-low / step)
    mistakes = {
        "that is the smallest value; the zero point is a code, and 0.0 gets it": low,
        "a code is not negative": -zero,
        "count from the smallest value, not from the largest": 255 - zero,
    }
    compare_number("zero_point_by_hand", zero_point_by_hand, zero, mistakes)
    exact = value / step + zero
    mistakes = {
        "that was cut off; round to the nearest code": math.floor(exact),
        "the zero point is missing": round(value / step),
        "the zero point is added, not subtracted": round(value / step) - zero,
    }
    compare_number("code_by_hand", code_by_hand, round(exact), mistakes)


@exercise("the scales and zero points of small groups are part of the size, and few bits make them count")
def check_grouped_bytes(int4_layer_bytes: int | None, int4_bits_per_weight: float | None) -> None:
    """Exercise 4.2: a 4-bit layer with a scale and a zero point per group."""
    rows, columns, group = 14336, 4096, 128
    weights = rows * columns
    expected = weights // 2 + weights // group * (2 + 1)
    mistakes = {
        "the groups' scales and zero points take room too": weights // 2,
        "two 4-bit codes share a byte": weights + weights // group * 3,
        "every group has a zero point too": weights // 2 + weights // group * 2,
        "every group has a scale too": weights // 2 + weights // group,
        "a float16 scale takes 2 bytes": weights // 2 + weights // group * 5,
        "every group has its own scale, and a row has many groups": weights // 2 + rows * 3,
        "that is in bits; a byte has 8 bits": 8 * expected,
    }
    compare_number("int4_layer_bytes", int4_layer_bytes, expected, mistakes)
    mistakes = {
        "scales and zero points count too": 4,
        "that is in bytes": expected / weights,
        "a byte has 8 bits": 4 + 3 / group,
    }
    compare_number("int4_bits_per_weight", int4_bits_per_weight, 8 * expected / weights, mistakes)


def _mean_error(values: Tensor, scale: float, zero_point: int, truncate: bool) -> float:
    errors = []
    for value in values.tolist():
        level = value / scale + zero_point
        code = math.floor(level) if truncate else round(level)
        errors.append((code - zero_point) - value / scale)
    return sum(errors) / len(errors)


def _upwards(values: Tensor, scale: float, zero_point: int, truncate: bool) -> float:
    steps = values.double() / scale
    return ((steps.ceil() if truncate else steps.round()) - steps).mean().item()


def _towards_zero(values: Tensor, scale: float, zero_point: int, truncate: bool) -> float:
    steps = values.double() / scale
    return ((steps.trunc() if truncate else steps.round()) - steps).mean().item()


@exercise("rounding errs in both directions and cancels, truncation shifts all weights by half a step")
def check_mean_error(function: Function | None) -> None:
    """Exercise 4.3: the bias of truncating and of rounding."""
    fractions = torch.tensor([0.1, 0.2, 0.4, 0.6, 0.7, 0.9])
    values = 0.25 * (torch.arange(-40, 80)[:, None] + fractions).flatten()
    example = torch.tensor([0.0, 0.1, 0.3, 0.7])
    cases = {
        "the example truncated": (example, 0.5, 10, True),
        "the example rounded": (example, 0.5, 10, False),
        "many values truncated": (values, 0.25, 60, True),
        "many values rounded": (values, 0.25, 60, False),
        "a zero point of 0": (0.25 * (torch.arange(9) + 0.3), 0.25, 0, True),
        "skewed values rounded": (0.25 * (torch.arange(-9, 50) + 0.3), 0.25, 60, False),
    }
    mistakes = {
        "the sign is wrong: subtract the value from what its code stands for": lambda *given: -_mean_error(*given),
        "give the error in steps: divide by the scale": lambda *given: _mean_error(*given) * given[1],
        "the zero point has to come off again": lambda values, scale, zero_point, truncate: (
            _mean_error(values, scale, zero_point, truncate) + zero_point
        ),
        "this rounds where `truncate` is true": lambda values, scale, zero_point, truncate: _mean_error(
            values, scale, zero_point, not truncate
        ),
        "truncating goes down for negative values too, not towards zero": _towards_zero,
        "truncating never goes up": _upwards,
        "this truncates even where `truncate` is false": lambda values, scale, zero_point, truncate: _mean_error(
            values, scale, zero_point, True
        ),
    }
    compare_function(function, _mean_error, cases, mistakes)


def _grouped_int4(
    weight: Tensor, group_size: int, *, levels: int = 7, rounding: Function = torch.round
) -> tuple[Tensor, Tensor]:
    codes, scales = torch.zeros_like(weight, dtype=torch.int8), []
    for first in range(0, weight.shape[1], group_size):
        group = weight[:, first : first + group_size]
        largest = group.abs().amax(dim=1, keepdim=True)
        scale = torch.where(largest == 0, torch.ones_like(largest), largest / levels)
        codes[:, first : first + group_size] = rounding(group / scale).to(torch.int8)
        scales.append(scale)
    return codes, torch.cat(scales, dim=1)  # (out, in), (out, in / group_size)


@exercise("an outlier coarsens only its own group, and the smaller the group the fewer weights pay for it")
def check_grouped_int4(function: Function | None) -> None:
    """Exercise 4.4: symmetric 4-bit codes with a scale per group."""
    weight = normal(6, 32)
    with_outlier, with_zeros = weight.clone(), weight.clone()
    with_outlier[2, 5], with_zeros[1, 8:16] = 40.0, 0.0
    cases = {
        "the example": (torch.tensor([[0.7, -0.32, 14.0, 4.4]]), 2),
        "one group per row": (weight, 32),
        "four groups per row": (weight, 8),
        "groups of one weight": (weight, 1),
        "an outlier": (with_outlier, 8),
        "a group of zeros": (with_zeros, 8),
    }
    mistakes = {
        "that is one scale per row; every group has its own": lambda weight, size: _grouped_int4(
            weight, weight.shape[1]
        ),
        "the largest weight of a group must get the code 7 or -7": lambda weight, size: _grouped_int4(
            weight, size, levels=8
        ),
        "this cuts off towards zero; round to the nearest code": lambda weight, size: _grouped_int4(
            weight, size, rounding=torch.trunc
        ),
        "this rounds down; round to the nearest code": lambda weight, size: _grouped_int4(
            weight, size, rounding=torch.floor
        ),
    }
    compare_function(function, _grouped_int4, cases, mistakes)


def _integer_linear(x_codes: Tensor, x_scale: float, x_zero_point: int, w_codes: Tensor, w_scale: Tensor) -> Tensor:
    x, weight = (x_codes.double() - x_zero_point) * x_scale, w_codes.double() * w_scale.double()[:, None]
    return (x @ weight.T).float()  # (B, out)


def _with_overflow(x_codes: Tensor, x_scale: float, x_zero_point: int, w_codes: Tensor, w_scale: Tensor) -> Tensor:
    sums = (x_codes.int() - x_zero_point) @ w_codes.int().T
    return sums.to(torch.int8).float() * x_scale * w_scale


def _with_wrapped_codes(x_codes: Tensor, x_scale: float, x_zero_point: int, w_codes: Tensor, w_scale: Tensor) -> Tensor:
    shifted = (x_codes - torch.tensor(x_zero_point, dtype=torch.uint8)).int()
    return (shifted @ w_codes.int().T).float() * x_scale * w_scale


def _linear_case(rows: int, width: int, outputs: int, zero_point: int) -> tuple:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (rows, width), generator=generator).to(torch.uint8)
    weight = torch.randint(-127, 128, (outputs, width), generator=generator).to(torch.int8)
    return x, 0.02, zero_point, weight, normal(outputs).abs() * 0.01 + 0.001


@exercise("the sums are exact in integers, the floats come in once per output: a fused int8 kernel does this")
def check_integer_linear(function: Function | None) -> None:
    """Exercise 4.5: a linear layer on integer codes."""
    x, weight = torch.tensor([[4, 1]], dtype=torch.uint8), torch.tensor([[3, 1]], dtype=torch.int8)
    cases = {
        "the example": (x, 0.5, 2, weight, torch.tensor([0.1])),
        "a zero point of 0": _linear_case(3, 64, 5, 0),
        "a zero point of 117": _linear_case(3, 64, 5, 117),
        "as many rows as outputs": _linear_case(4, 8, 4, 100),
        "a wide layer": _linear_case(2, 4096, 3, 128),
    }
    mistakes = {
        "the zero point of x was left out": lambda x, scale, _, *of_weight: _integer_linear(x, scale, 0, *of_weight),
        "the sums overflow 8 bits; convert to int32 before the multiplication": _with_overflow,
        "uint8 has no negative numbers; convert to int32 before the zero point is subtracted": _with_wrapped_codes,
        "the scale of x was left out": lambda x, _, *others: _integer_linear(x, 1.0, *others),
        "the scales of the weight were left out": lambda *given: _integer_linear(*given[:4], torch.ones_like(given[4])),
    }
    compare_function(function, _integer_linear, cases, mistakes)
