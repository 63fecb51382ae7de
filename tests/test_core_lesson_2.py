"""The padding and the step that Lesson 2 writes out do what `init_batch` and `generate_next_token` do."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest
import torch

import lessons
from conftest import tiny_model
from exercise_answers import lesson_path
from helpers import Batch, Request, eos_token_ids, generate_next_token, init_batch

CORE = ("positions_from_mask", "padded_batch", "one_step")
PROMPTS = {
    "three lengths": [[3, 4, 5], [7], [1, 2, 3, 4, 5]],
    "one length": [[3, 4], [5, 6]],
    "one row": [[9, 8, 7]],
    "single tokens": [[5], [6], [7]],
}


def core_source() -> str:
    """The definitions of the lesson's core, cut out of its cells."""
    found = {}
    for cell in lessons.code_cells(lessons.read_notebook(lesson_path(2))):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef) and node.name in CORE:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found[node.name] = "\n".join(cell.source.splitlines()[first - 1 : node.end_lineno])
    assert set(found) == set(CORE)
    return "\n\n\n".join(found[name] for name in CORE)


def core(model: Any, source: str | None = None) -> dict[str, Callable]:
    """The lesson's functions, with nothing around them but what the lesson imports."""
    names: dict[str, Any] = {"torch": torch, "Batch": Batch, "Request": Request, "eos_token_ids": eos_token_ids}
    names["model"] = model
    exec(compile(source or core_source(), "the core of Lesson 2", "exec"), names)
    return {name: names[name] for name in CORE}


def compare(model: Any, functions: dict[str, Callable], prompts: list[list[int]], budgets: list[int]) -> None:
    """Run the lesson's functions and those of `code/` side by side until every request is finished."""
    theirs = init_batch([Request(list(prompt), budget) for prompt, budget in zip(prompts, budgets, strict=True)])
    ours = functions["padded_batch"](prompts, 99)
    for request, budget in zip(ours.requests, budgets, strict=True):
        request.max_tokens = budget
    assert torch.equal(ours.input_ids * ours.attention_mask, theirs.input_ids * theirs.attention_mask)
    for _ in range(max(budgets)):
        assert torch.equal(ours.attention_mask, theirs.attention_mask)
        going_on = [row for row, request in enumerate(theirs.requests) if not request.finished]
        assert torch.equal(ours.position_ids[going_on], theirs.position_ids[going_on])
        ours, theirs = functions["one_step"](ours, model), generate_next_token(theirs, model)
        for mine, other in zip(ours.requests, theirs.requests, strict=True):
            assert (mine.output_ids, mine.finish_reason) == (other.output_ids, other.finish_reason)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_the_core_of_the_lesson_does_what_code_does(name: str, prompts: list[list[int]]) -> None:
    model = tiny_model(name)
    compare(model, core(model), prompts, [6, 2, 4][: len(prompts)])


def test_requests_that_end_early_end_as_in_code() -> None:
    model = tiny_model("gpt2")
    model.generation_config.eos_token_id = int(model(torch.tensor([[3, 4, 5]])).logits[0, -1].argmax())
    compare(model, core(model), PROMPTS["three lengths"], [6, 6, 6])


BROKEN = {
    "pads on the right": ("input_ids[row, start:]", "input_ids[row, : len(prompt)]"),
    "nothing is hidden": ("torch.zeros_like(input_ids)", "torch.ones_like(input_ids)"),
    "columns are numbered": ("attention_mask.cumsum(dim=-1)", "torch.ones_like(attention_mask).cumsum(dim=-1)"),
    "positions stand still": ("batch.position_ids[:, -1:] + 1", "batch.position_ids[:, -1:]"),
    "the mask stands still": ("[batch.attention_mask, one_more]", "[batch.attention_mask, one_more * 0]"),
    "the first column is read": ("outputs.logits[:, -1]", "outputs.logits[:, 0]"),
    "the cache is forgotten": ("past_key_values=outputs.past_key_values", "past_key_values=None"),
    "answers end at no token": ("eos_token_ids(model)", "()"),
}


@pytest.mark.parametrize(("right", "wrong"), BROKEN.values(), ids=BROKEN)
def test_a_broken_core_is_noticed(right: str, wrong: str) -> None:
    source = core_source()
    assert source.count(right) == 1
    model = tiny_model("gpt2")
    functions = core(model, source.replace(right, wrong))
    model.generation_config.eos_token_id = int(model(torch.tensor([[3, 4, 5]])).logits[0, -1].argmax())
    with pytest.raises((AssertionError, ValueError, RuntimeError, IndexError)):
        compare(model, functions, PROMPTS["three lengths"], [6, 6, 6])
