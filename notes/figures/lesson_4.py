"""Drawings of Lesson 4: number formats, the grid, its error, and where the methods stand."""

from __future__ import annotations

import math

import numpy as np
import torch

from canvas import (
    HATCHED_ORANGE,
    INK,
    MID_GREY,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    PALE_PURPLE,
    SMALL,
    SOLID_BLUE,
    SOLID_ORANGE,
    SOLID_PURPLE,
    Sheet,
)
from figures import BLUE
from helpers import course_model
from roofline import GPT2_WEIGHT_BYTES
from utils import dequantize, quantize

LINEAR_WEIGHTS, LINEAR_CHANNELS, REST_BYTES = 84_934_656, 82_944, 158_020_608  # GPT-2 small
GPT2_TOKENS, HEAD_WEIGHTS = 50_257, 50_257 * 768  # its output head, which is the token embedding


def number_formats() -> Sheet:
    """The bits of pi in four formats."""
    sheet = Sheet(372, "A float spends its bits on range and on precision")
    formats = [
        ("fp32", torch.float32, torch.int32, 8, "3.4 · 10³⁸"),
        ("bf16", torch.bfloat16, torch.int16, 8, "3.4 · 10³⁸"),
        ("fp16", torch.float16, torch.int16, 5, "65,504"),
        ("fp8 (e4m3)", torch.float8_e4m3fn, torch.uint8, 4, "448"),
    ]
    size = 20
    for index, (name, dtype, integer, exponent, largest) in enumerate(formats):
        top = 76 + 66 * index
        value = torch.tensor(math.pi).to(dtype)
        count = torch.finfo(dtype).bits
        bits = f"{int(value.view(integer)) % 2**count:0{count}b}"
        fills = [SOLID_PURPLE] + [SOLID_ORANGE] * exponent + [PALE_BLUE] * (count - 1 - exponent)
        sheet.text(108, top + 13, name, ha="right", strong=True)
        sheet.table(120, top, [bits], size, 26, [fills])
        remark = f"π becomes {float(value):.7g}   largest value {largest}"
        sheet.note(120, top + 38, f"1 + {exponent} + {count - 1 - exponent} bits   {remark}")
    entries = [(SOLID_PURPLE, "sign", 80), (SOLID_ORANGE, "exponent: the range", 170)]
    sheet.key(120, 350, [*entries, (PALE_BLUE, "fraction: the precision", 200)])
    return sheet


def quantization_grid() -> Sheet:
    """Five values on the eight levels of three bits."""
    values = torch.tensor([-1.0, -0.5, 0.0, 1.0, 3.0])
    codes, state = quantize(values, bits=3)
    back = dequantize(codes, state)
    scale, zero = state.scale.item(), int(state.zero_point)
    sheet = Sheet(380, "Every value moves to the nearest level, at most half a step away")

    def at(value: float) -> float:
        return 300 + 150 * value

    levels = [(code - zero) * scale for code in range(2**state.bits)]
    upper, lower = 120, 216
    for code, level in enumerate(levels):
        left, right = at(level - scale / 2), at(level + scale / 2)
        sheet.box(left, lower - 22, right - left, 44, "", PALE_BLUE if code % 2 else PALE_GREY)
        sheet.line((at(level), lower - 22), (at(level), lower + 22), linewidth=2)
        sheet.text(at(level), lower + 38, f"{code}", ha="center", strong=True)
        sheet.note(at(level), lower + 56, f"{level:.3f}".replace("-", "−"), ha="center")
    for value, restored in zip(values.tolist(), back.tolist(), strict=True):
        sheet.paper.plot(at(value), upper, marker="o", color=BLUE, markersize=8)
        sheet.text(at(value), upper - 20, f"{value:g}".replace("-", "−"), ha="center")
        sheet.arrow((at(value), upper + 7), (at(restored), lower - 24))
    sheet.text(20, upper - 42, "values")
    sheet.text(20, lower + 38, "code", strong=True)
    sheet.note(20, lower + 56, "value back")
    error = (values - back).abs().max().item()
    words = f"3 bits: scale = (3 − (−1)) / 7 = {scale:.3f}; zero point = {zero}, the code of 0"
    sheet.text(20, 318, words)
    sheet.text(20, 340, f"The largest error here is {error:.3f}; it can be at most scale / 2 = {scale / 2:.3f}.")
    sheet.note(20, 364, "Real codes of the project's quantize(). A band holds all values that become its level.")
    return sheet


def _attention_weight() -> torch.Tensor:
    """(out, in) of the storyteller's first attention projection."""
    return course_model()[0].transformer.h[0].attn.c_attn.weight.detach().T.contiguous()


def rounding() -> Sheet:
    """The error of rounding and of truncating, in steps, over a real matrix."""
    weight = _attention_weight()
    codes, state = quantize(weight, bits=8, dim=0)
    scale = state.scale[:, 0]  # one for every row
    steps = (weight / scale).double()
    errors = {  # restored minus original
        "rounding": (dequantize(codes, state) - weight) / scale,
        "truncating": steps.floor() - steps,
    }
    sheet = Sheet(346, "Rounding errs half as much as truncating, and not always to one side")
    edges = np.linspace(-1.1, 0.6, 18)
    for left, (name, error), fill in zip((70, 450), errors.items(), (SOLID_BLUE, HATCHED_ORANGE), strict=True):
        axes = sheet.plot(left, 86, 310, 168)
        share = np.histogram(error.flatten().numpy(), edges)[0] / error.numel() * 100
        look = {"color": fill.color, "hatch": fill.hatch, "edgecolor": INK, "linewidth": 0.5}
        axes.bar(edges[:-1], share.round(1), width=np.diff(edges), align="edge", **look)
        axes.axvline(error.mean().item(), color=INK, linestyle="--", linewidth=1.5)
        axes.set(xlim=(-1.1, 0.6), ylim=(0, 13), xlabel="error (steps)", ylabel="share of weights (%)")
        axes.set_xticks([-1, -0.5, 0, 0.5])
        mean = f"{error.mean().item() + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")
        rms = error.square().mean().sqrt().item()
        sheet.text(left, 66, f"{name}: mean {mean}, RMS {rms:.3f} steps")
    sheet.note(20, 312, "Real weights: the storyteller's first attention projection, 8 bits, a scale per channel.")
    sheet.note(20, 330, "Error: restored minus original. In theory the RMS is 1/√12 = 0.289 and 1/√3 = 0.577 steps.")
    return sheet


def granularity() -> Sheet:
    """Which weights share a scale, and what that does to the error."""
    weight = _attention_weight()
    channels, width = weight.shape
    sheet = Sheet(380, "The fewer weights share a scale, the smaller the error is, and the more scales there are")
    size, across, down = 24, 8, 6
    shades = (PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PURPLE)
    plans = [  # name, options of quantize, number of scales, cells of the sketch that share one
        ("one per matrix", {}, 1, (across, down)),
        ("one per channel", {"dim": 0}, channels, (across, 1)),
        ("one per group of 32", {"dim": 0, "group_size": 32}, channels * width // 32, (across // 2, 1)),
    ]
    for index, (name, options, scales, framed) in enumerate(plans):
        left, top = 40 + 255 * index, 92
        fills = [
            [shades[(row // framed[1] + 2 * (column // framed[0])) % 4] for column in range(across)]
            for row in range(down)
        ]
        sheet.text(left, 68, name, strong=True)
        sheet.table(left, top, [[""] * across] * down, size, size, fills)
        for row in range(0, down, framed[1]):
            for column in range(0, across, framed[0]):
                sheet.frame(left + column * size, top + row * size, framed[0] * size, framed[1] * size)
        codes, state = quantize(weight, bits=4, **options)
        rms = (weight - dequantize(codes, state)).square().mean().sqrt().item() / weight.std().item()
        bits = 4 + 40 * scales / weight.numel()
        sheet.text(left, 262, f"{scales:,} scale{'s' * (scales > 1)}, {bits:.2f} bits a weight")
        sheet.text(left, 284, f"error {rms:.1%}", strong=True)
    sheet.text(20, 318, "A thick frame holds weights that share one scale: rows are output channels, columns inputs.")
    matrix = f"the storyteller's first attention projection, {channels} × {width}"
    sheet.note(20, 342, f"Real weights: {matrix}, in 4 bits. The grids are sketches.")
    sheet.note(20, 360, "Error: root mean square over the weights' standard deviation. Scale and zero point: 5 bytes.")
    return sheet


def model_bytes() -> Sheet:
    """Where the bytes of GPT-2 small are, in four formats."""
    sheet = Sheet(358, "Quantized, GPT-2 small shrinks to half, and with its output head to a quarter")
    head_scales = 5 * (LINEAR_CHANNELS + GPT2_TOKENS)
    formats = [  # name, bytes in fp32, bytes of codes (or weights), bytes of scales and zero points
        ("fp32", REST_BYTES, 4 * LINEAR_WEIGHTS, 0),
        ("8 bits, scale\nper channel", REST_BYTES, LINEAR_WEIGHTS, 5 * LINEAR_CHANNELS),
        ("the same,\nhead too", REST_BYTES - 4 * HEAD_WEIGHTS, LINEAR_WEIGHTS + HEAD_WEIGHTS, head_scales),
        ("4 bits, groups\nof 64", REST_BYTES, LINEAR_WEIGHTS // 2, 5 * LINEAR_WEIGHTS // 64),
    ]
    for index, (name, rest, weights, scales) in enumerate(formats):
        y, left = 66 + 58 * index, 130.0
        sheet.text(120, y + 19, name, ha="right")
        for count, fill, words in [
            (rest, MID_GREY, "embedding and rest" if rest > 1e8 else ""),
            (weights, SOLID_BLUE, "layers and head" if rest < 1e8 else "linear layers" if weights > 6e7 else ""),
            (scales, HATCHED_ORANGE, ""),
        ]:
            width = count / 1e6 * 1.08
            if count:
                sheet.box(left, y, width, 38, words, fill, SMALL)
            left += width
        sheet.text(left + 8, y + 19, f"{(rest + weights + scales) / 1e6:.1f} MB", size=SMALL)
    assert REST_BYTES + 4 * LINEAR_WEIGHTS == GPT2_WEIGHT_BYTES
    entries = [(MID_GREY, "embeddings, norms, biases: fp32", 245), (SOLID_BLUE, "weights of the linear layers", 210)]
    sheet.key(130, 310, [*entries, (HATCHED_ORANGE, "scales and zero points", 150)])
    sheet.note(20, 340, "Counted. The output head is the token embedding; a scale and its zero point take 5 bytes.")
    return sheet


def bytes_moved() -> Sheet:
    """Why smaller is not faster by itself."""
    sheet = Sheet(262, "Smaller is faster only if nobody writes the floats back")
    plans = [
        ("fp32", [("read float", 4, SOLID_BLUE)]),
        (
            "int8, dequantized\njust in time",
            [("code", 1, SOLID_BLUE), ("write float", 4, HATCHED_ORANGE), ("read float", 4, HATCHED_ORANGE)],
        ),
        ("int8, fused\nkernel", [("code", 1, SOLID_BLUE)]),
    ]
    for index, (name, moves) in enumerate(plans):
        y, left = 60 + 56 * index, 160
        sheet.text(148, y + 19, name, ha="right")
        for words, count, fill in moves:
            sheet.box(left, y, 58 * count, 38, words, fill, SMALL)
            left += 58 * count
        total = sum(count for _, count, _ in moves)
        sheet.text(left + 10, y + 19, f"{total} byte{'s' * (total > 1)}")
    sheet.note(20, 244, "Counted, not timed: bytes moved to and from memory for each weight and forward.")
    return sheet


def method_map() -> Sheet:
    """Weights only, or activations too; and what is done about outliers."""
    sheet = Sheet(420, "Methods differ in what they quantize and in how they keep the error small")
    columns = ["weights only\nactivations stay in floating point", "weights and activations\ninteger multiplication"]
    rows = [
        "round to\nthe nearest",
        "rescale\nchannels first",
        "compensate errors\nwhile rounding",
        "keep outliers\nin 16 bits",
    ]
    left, top, width, height = 170, 98, 296, 66
    places = {
        (0, 0): ("this project's quantize_model", "2 to 8 bits", PALE_BLUE),
        (0, 1): ("dynamic int8", "scales found at run time", PALE_BLUE),
        (1, 0): ("AWQ", "low bits; scales from a look at activations", PALE_GREEN),
        (1, 1): ("SmoothQuant", "8 bits; outliers moved into the weights", PALE_GREEN),
        (2, 0): ("GPTQ", "3 or 4 bits; second-order information", PALE_ORANGE),
        (3, 1): ("LLM.int8()", "8 bits; outlier columns apart", PALE_PURPLE),
    }
    for column, words in enumerate(columns):
        sheet.text(left + (column + 0.5) * (width + 12), 70, words, ha="center", strong=True)
    for row, words in enumerate(rows):
        y = top + row * (height + 8)
        sheet.text(left - 14, y + height / 2, words, ha="right")
        for column in range(2):
            x = left + column * (width + 12)
            if (row, column) not in places:
                continue
            name, remark, fill = places[row, column]
            sheet.cells([(x, y)], width, height, fill)
            sheet.text(x + width / 2, y + 24, name, ha="center", strong=True)
            sheet.text(x + width / 2, y + 46, remark, ha="center", size=SMALL)
    sheet.note(20, 404, "AWQ, SmoothQuant and GPTQ look at sample text first; the other three need none.")
    return sheet
