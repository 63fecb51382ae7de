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
        "that is for codes from -128 to 127; here they begin at 0": zero - 128,
    }
    compare_number("zero_point_by_hand", zero_point_by_hand, zero, mistakes)
    exact = value / step + zero
    mistakes = {
        "that was cut off; round to the nearest code": math.floor(exact),
        "the zero point is missing": round(value / step),
        "the zero point is added, not subtracted": round(value / step) - zero,
    }
    compare_number("code_by_hand", code_by_hand, round(exact), mistakes)


@exercise("scales and zero points are a part of the size, and the fewer bits a code has, the more they weigh")
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


@exercise(
    "the errors of rounding go both ways and cancel; truncation moves all weights down, by half a step on average"
)
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


@exercise("an outlier makes the steps larger in its own group only, so small groups protect the other weights")
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


def _best_clip(weights: Tensor, bits: int, clips: list[float]) -> tuple[float, float]:
    largest_code = 2 ** (bits - 1) - 1
    best = (math.nan, math.inf)
    for clip in clips:
        scale = clip / largest_code
        squares = 0.0
        for weight in weights.tolist():
            code = max(-largest_code, min(largest_code, round(weight / scale)))
            squares += (code * scale - weight) ** 2
        error = math.sqrt(squares / len(weights))
        if error < best[1]:
            best = (clip, error)
    return best


def _clip_by(
    weights: Tensor,
    bits: int,
    clips: list[float],
    *,
    levels: Function = lambda bits: 2 ** (bits - 1) - 1,
    rounding: Function = torch.round,
    clamp: bool = True,
    judge: Function = lambda error: error.square().mean().sqrt().item(),
) -> tuple[float, float]:
    """The same with a mistake in one of its parts."""
    largest_code, errors = levels(bits), []
    for clip in clips:
        scale = clip / largest_code
        codes = rounding(weights.double() / scale)
        codes = codes.clamp(-largest_code, largest_code) if clamp else codes
        errors.append(judge(codes * scale - weights.double()))
    return clips[errors.index(min(errors))], min(errors)


def _last_of_equals(weights: Tensor, bits: int, clips: list[float]) -> tuple[float, float]:
    return _best_clip(weights, bits, clips[::-1])


def _smallest_of_equals(weights: Tensor, bits: int, clips: list[float]) -> tuple[float, float]:
    return _best_clip(weights, bits, sorted(clips))


@exercise("clipping moves a few outliers a lot and all other weights less; the fewer the bits, the more it pays")
def check_best_clip(function: Function | None) -> None:
    """Exercise 4.5: where to cut the outliers off."""
    weights = normal(400)
    with_outliers = torch.cat([weights, torch.tensor([9.0, -14.0])])
    negative = -weights.abs() - 0.01
    cases = {
        "the example": (torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 3.0]), 2, [3.0, 1.0]),
        "4 bits": (with_outliers, 4, [14.0, 10.0, 6.0, 4.0, 3.0, 2.0, 1.0]),
        "8 bits": (with_outliers, 8, [4.0, 9.0, 14.0]),
        "the best clip in between": (weights, 3, [1.0, 2.0, 3.5]),
        "negative weights": (negative, 4, [0.5, 4.0, 2.5]),
        "one clip": (weights, 5, [1.5]),
        "weights of zero": (torch.zeros(5), 4, [2.0, 1.0, 3.0]),
    }
    mistakes = {
        "a code beyond the largest or the smallest one has to be cut off there": lambda *given: _clip_by(
            *given, clamp=False
        ),
        "the largest code is one less than half of all codes": lambda *given: _clip_by(
            *given, levels=lambda bits: 2 ** (bits - 1)
        ),
        "these are the levels of codes without a sign": lambda *given: _clip_by(
            *given, levels=lambda bits: 2**bits - 1
        ),
        "this cuts the fraction off; round to the nearest code": lambda *given: _clip_by(*given, rounding=torch.trunc),
        "this rounds down; round to the nearest code": lambda *given: _clip_by(*given, rounding=torch.floor),
        "the root is missing from the RMS error": lambda *given: _clip_by(
            *given, judge=lambda error: error.square().mean().item()
        ),
        "square the errors before you take their mean": lambda *given: _clip_by(
            *given, judge=lambda error: error.abs().mean().item()
        ),
        "that is the largest error of a weight, not the RMS of all": lambda *given: _clip_by(
            *given, judge=lambda error: error.abs().max().item()
        ),
        "of several equally good clips the first is wanted": _last_of_equals,
        "of several equally good clips the first is wanted, not the smallest": _smallest_of_equals,
    }
    compare_function(function, _best_clip, cases, mistakes)
