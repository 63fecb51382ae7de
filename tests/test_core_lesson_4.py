"""What Lesson 4 writes out in full does what `utils` and the fused kernel do."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lessons
from groups import pack_int4
from scoreboard import Scoreboard
from utils import PackedInt8Linear, QuantizedLinear, dequantize, packed_layer, quantize

LESSON = lessons.find_lessons(["4"])[0]
DEFINED = ("quantize_tensor", "dequantize_codes", "quantize_rows", "share_scales", "SHARING", "integer_product")

SHAPES = [(6, 64), (1, 32), (33, 96)]


@pytest.fixture(scope="module")
def core() -> dict[str, Any]:
    """The functions and the table of the lesson, taken out of its cells."""
    names: dict[str, Any] = {"torch": torch}
    for cell in lessons.code_cells(lessons.read_notebook(LESSON)):
        for node in ast.parse(cell.source).body:
            targets = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            if getattr(node, "name", None) in DEFINED or set(targets) & set(DEFINED):
                exec(compile(ast.Module([node], []), LESSON.name, "exec"), names)
    assert set(DEFINED) <= set(names)
    return names


def weights(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """(out, in), with an outlier, a row without positive weights, and a row of zeros where there is room for them."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight[0, 1] = 9.0
    if len(weight) > 2:
        weight[1], weight[2] = -weight[1].abs() - 0.1, 0.0
    return weight


def test_the_ten_lines_are_ten_lines() -> None:
    source = "\n".join(cell.source for cell in lessons.code_cells(lessons.read_notebook(LESSON)))
    for node in ast.parse(source).body:
        if getattr(node, "name", None) in ("quantize_tensor", "quantize_rows", "integer_product"):
            assert node.end_lineno - node.lineno + 1 <= 10


@pytest.mark.parametrize("bits", [8, 5, 4, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_quantize_rows_is_quantize(core: dict[str, Any], shape: tuple[int, int], bits: int) -> None:
    weight = weights(shape)
    for sharing, options in core["SHARING"].items():
        rows = core["share_scales"](weight, sharing)
        codes, scale, zero_point = core["quantize_rows"](rows, bits)
        expected, state = quantize(weight, bits=bits, **options)
        assert torch.equal(codes.reshape(weight.shape), expected), sharing
        assert torch.equal(scale.flatten(), state.scale.flatten()), sharing
        assert torch.equal(zero_point.flatten(), state.zero_point.float().flatten()), sharing
        restored = core["dequantize_codes"](codes, scale, zero_point).reshape(weight.shape)
        assert torch.equal(restored, dequantize(expected, state)), sharing


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("shape", [(5,), (6, 64), (2, 3, 4)])
def test_quantize_tensor_moves_nothing_by_more_than_half_a_step(
    core: dict[str, Any], shape: tuple[int, ...], bits: int
) -> None:
    for sign in (1, -1):
        x = sign * torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 0.5
        codes, scale, zero_point = core["quantize_tensor"](x, bits)
        restored = core["dequantize_codes"](codes, scale, zero_point)
        assert codes.dtype == torch.uint8 and codes.shape == x.shape and codes.max() == 2**bits - 1
        assert (restored - x).abs().max() <= scale / 2 * 1.001
        assert torch.allclose(restored, dequantize(*quantize(x, bits=bits)), atol=1e-6)
        assert core["dequantize_codes"](zero_point, scale, zero_point) == 0


def fused_layer(shape: tuple[int, int], bias: bool = True) -> tuple[QuantizedLinear, PackedInt8Linear]:
    layer = nn.Linear(shape[1], shape[0], bias=bias)
    layer.weight.data = weights(shape)
    small = QuantizedLinear(layer)
    if packed_layer(small) is None:
        pytest.skip("this PyTorch or CPU lacks the kernel")
    return small, PackedInt8Linear(small)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("shape", [(6, 64), (32, 768), (256, 1024)])
def test_the_integer_product_is_the_fused_kernel(core: dict[str, Any], shape: tuple[int, int], rows: int) -> None:
    small, fused = fused_layer(shape)
    codes, scale, zero_point = core["quantize_rows"](weights(shape))
    x = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(rows))
    x *= 10.0 ** torch.arange(-2, rows - 2).remainder(5)[:, None]  # rows of very different size
    if rows > 1:
        x[1] = 0.0
    y = core["integer_product"](x, codes, scale, zero_point, largest=fused.steps) + small.bias
    torch.testing.assert_close(y, fused(x), rtol=1e-4, atol=1e-4 * scale.max().item())


def test_the_integer_product_needs_each_of_its_scales_and_zero_points(core: dict[str, Any]) -> None:
    small, fused = fused_layer((6, 64), bias=False)
    codes, scale, zero_point = core["quantize_rows"](weights((6, 64)))
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
    right = fused(x)
    product = core["integer_product"]
    assert torch.allclose(product(x, codes, scale, zero_point, fused.steps), right, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(product(x, codes, scale * 0 + 1, zero_point, fused.steps), right, rtol=0.1)
    assert not torch.allclose(product(x, codes, scale, zero_point * 0, fused.steps), right, rtol=0.1)


def test_two_codes_in_a_byte_are_packed_as_in_the_library() -> None:
    codes = torch.randint(0, 16, (5, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    names = {"torch": torch, "codes": codes, "weight": torch.zeros(5, 8)}
    (cell,) = [cell for cell in lessons.code_cells(lessons.read_notebook(LESSON)) if cell.id == "int4"]
    exec(cell.source.replace("print(", "str("), names)
    assert torch.equal(names["packed_codes"], pack_int4(codes)) and torch.equal(names["unpacked"], codes)


@pytest.mark.parametrize(
    ("better", "reason"), [(19.0, "tested"), (15.0, "a guess"), (5.0, "a guess"), (30.0, "a guess")]
)
def test_an_explanation_is_called_tested_only_if_it_removes_most_of_the_miss(better: float, reason: str) -> None:
    scores = Scoreboard("Lesson 4")
    (cell,) = [cell for cell in lessons.code_cells(lessons.read_notebook(LESSON)) if cell.id == "jit-score"]
    names: dict[str, Any] = {"scores": scores}
    exec(cell.source[: cell.source.index("fp32_s =")], names)
    names["add_score"]("a step", 10.0, better, 20.0, "ms", "with the other speed")
    assert scores.misses[0].verdict.startswith(
        f"missed by 2.0 times; {reason}: with the other speed, it is {better:.3g}"
    )
