"""The LoRA layer that Lesson 5 writes out, how it is put in and merged: they do what `utils` does."""

from __future__ import annotations

import ast
import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

import lessons
from conftest import tiny_model
from exercise_answers import lesson_path
from linear import shape_of, weight_of
from utils import ATTENTION_LAYERS, LoraLayer, add_lora, load_lora, merge_lora


def core() -> dict[str, Any]:
    """The functions and classes that the lesson defines, without running anything else of it."""
    names: dict[str, Any] = {"torch": torch, "nn": nn, "copy": copy}
    names |= {"LoraLayer": LoraLayer, "shape_of": shape_of, "weight_of": weight_of}
    for cell in lessons.code_cells(lessons.read_notebook(lesson_path(5))):
        nodes = [node for node in ast.parse(cell.source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        exec(compile(ast.Module(nodes, type_ignores=[]), "Lesson 5", "exec"), names)
    return names


CORE = core()
LAYERS = {
    "linear": nn.Linear(6, 4),
    "without a bias": nn.Linear(5, 5, bias=False),
    "Conv1D": Conv1D(4, 6),
    "square Conv1D": Conv1D(5, 5),
}


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("base", LAYERS.values(), ids=list(LAYERS))
def test_the_layer_is_that_of_the_library(base: nn.Module, shape: tuple) -> None:
    theirs = LoraLayer(copy.deepcopy(base), r=2, alpha=3.0)
    n_out, n_in = theirs.lora_b.shape[0], theirs.lora_a.shape[1]
    ours = CORE["LowRank"](copy.deepcopy(base), n_in, n_out, r=2, alpha=3.0)
    x = torch.randn(*shape, n_in)
    assert torch.equal(ours(x), base(x)), "a new adapter changes nothing"
    nn.init.normal_(theirs.lora_b)
    ours.A.data, ours.B.data = theirs.lora_a.data, theirs.lora_b.data
    torch.testing.assert_close(ours(x), theirs(x))
    assert not torch.allclose(ours(x), base(x))
    assert {name for name, weight in ours.named_parameters() if weight.requires_grad} == {"A", "B"}


@pytest.fixture(params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    return copy.deepcopy(tiny_model(request.param)).float()


@pytest.fixture
def pair(base: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model with the lesson's adapters and one with the library's, with the same numbers in them."""
    torch.manual_seed(0)
    ours = CORE["add_low_rank"](copy.deepcopy(base), ATTENTION_LAYERS, r=3, alpha=6.0)
    theirs = add_lora(copy.deepcopy(base), r=3, alpha=6.0)
    state = {}
    for name, layer in ours.named_modules():
        if isinstance(layer, CORE["LowRank"]):
            nn.init.normal_(layer.B)
            state |= {f"{name}.lora_a": layer.A.detach(), f"{name}.lora_b": layer.B.detach()}
    return ours, load_lora(theirs, state)


def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids).logits


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 5)])
def test_adapters_are_put_in_and_merged_as_the_library_does(pair: tuple, base: PreTrainedModel, shape: tuple) -> None:
    ours, theirs = pair
    ids = torch.randint(0, 256, shape)
    adapted = logits(ours, ids)
    torch.testing.assert_close(adapted, logits(theirs, ids))
    assert not torch.allclose(adapted, logits(base, ids), atol=1e-2)

    merged = CORE["merge_low_rank"](ours)
    torch.testing.assert_close(logits(merged, ids), adapted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(merged, ids), logits(merge_lora(theirs), ids), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(layer, CORE["LowRank"]) for layer in merged.modules())


def test_the_same_parameters_are_trained_as_in_the_library(pair: tuple) -> None:
    counts = [sum(weight.numel() for weight in model.parameters() if weight.requires_grad) for model in pair]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("way", ["loop_over_adapters", "gather_adapters"])
def test_many_adapters_in_a_batch_are_one_layer_for_each_row(way: str) -> None:
    base, layers = nn.Linear(6, 4), []
    for _ in range(3):
        layers.append(LoraLayer(base, r=2))
        nn.init.normal_(layers[-1].lora_b)
    stacked_a, stacked_b = (
        torch.stack([getattr(layer, part).detach() for layer in layers]) for part in ("lora_a", "lora_b")
    )
    x, customer = torch.randn(5, 6), torch.tensor([2, 0, 0, 1, 2])
    with torch.inference_mode():
        expected = torch.stack([layers[k](row) for k, row in zip(customer.tolist(), x, strict=True)])
        torch.testing.assert_close(CORE[way](x, base, stacked_a, stacked_b, customer), expected)
