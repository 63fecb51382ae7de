"""The core that stands in Lesson 3 is what `code/` does: the step, the stacking of rows, the loop."""

from __future__ import annotations

import ast
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

import helpers
import kv_cache
import lessons
from helpers import Batch, Request, generate_next_token, init_batch, run_continuous
from measure import Trace
from request import fresh_copy

CORE = ("step", "pad_left", "stack_rows", "merge_batches", "filter_batch", "serve_continuously")
BUDGETS = [(1,), (3, 1, 5), (2, 9, 1, 1, 4, 6, 2)]


@cache
def written_out() -> str:
    """The definitions of the lesson's core, in the order in which they stand there."""
    (path,) = (path for path in lessons.find_lessons() if path.stem.startswith("Lesson_3-"))
    found = []
    for cell in lessons.code_cells(lessons.read_notebook(path)):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef) and node.name in CORE:
                found.append(ast.unparse(node))
    return "\n\n".join(found)


def core(model: PreTrainedModel, source: str | None = None) -> dict[str, Any]:
    """The lesson's names, with a model of ours."""
    names: dict[str, Any] = {"torch": torch, "F": F, "model": model, "Batch": Batch}
    for name in ("empty_batch", "init_batch", "merge_caches", "select_cache"):
        names[name] = getattr(helpers, name)
    exec(compile(written_out() if source is None else source, "Lesson 3", "exec"), names)
    return names


def requests_of(budgets: tuple[int, ...]) -> list[Request]:
    """Requests with prompts of different lengths."""
    return [Request(list(range(3, 4 + 2 * (i % 4))), budget, ignore_eos=True) for i, budget in enumerate(budgets)]


def agree(one: Batch, other: Batch) -> None:
    assert [request.output_ids for request in one.requests] == [request.output_ids for request in other.requests]
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert torch.equal(one[name], other[name]), name
    for ours, theirs in zip(one.past_key_values.layers, other.past_key_values.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)


def steps_agree(names: dict[str, Any], model: PreTrainedModel, rows: int) -> None:
    """Prefill and four decode steps of the lesson's step, beside those of `generate_next_token`."""
    budgets = (9,) * rows
    ours, theirs = init_batch(requests_of(budgets)), init_batch(requests_of(budgets))
    for _ in range(5):
        ours, theirs = names["step"](ours), generate_next_token(theirs, model)
        agree(ours, theirs)


def loops_agree(names: dict[str, Any], model: PreTrainedModel, budgets: tuple[int, ...], slots: int) -> None:
    """The lesson's loop gives the answers of `run_continuous`, with forwards of as many rows."""
    requests, rows, trace = requests_of(budgets), [], Trace()
    own_step = names["step"]
    names["step"] = lambda batch: rows.append(len(batch)) or own_step(batch)
    names["serve_continuously"](requests, slots)
    names["step"] = own_step
    served = run_continuous([fresh_copy(request) for request in requests], slots, model=model, trace=trace)
    assert [request.output_ids for request in requests] == [request.output_ids for request in served]
    assert all(request.finished for request in requests)
    assert rows == [len(row.requests) for row in trace.rows]


def test_the_whole_core_stands_in_the_lesson(gpt2):
    assert [node.name for node in ast.parse(written_out()).body] == list(CORE)
    assert set(CORE) <= set(core(gpt2))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_step_is_that_of_the_library(model, rows):
    steps_agree(core(model), model, rows)


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("budgets", BUDGETS)
def test_the_loop_answers_as_run_continuous_does(model, budgets, slots):
    loops_agree(core(model), model, budgets, slots)


@pytest.mark.parametrize(
    ("first", "second", "dim"),
    [((2, 5), (3, 2), 1), ((1, 2), (1, 2), 1), ((2, 4, 3, 8), (1, 4, 7, 8), 2), ((2, 4, 7, 8), (1, 4, 7, 8), 2)],
)
def test_rows_are_stacked_as_in_the_library(gpt2, first, second, dim):
    one, two = torch.randn(first), torch.randn(second)
    stacked = core(gpt2)["stack_rows"](one, two, dim)
    assert torch.equal(stacked, kv_cache.stack_rows(one, two, dim))
    width = max(first[dim], second[dim])
    assert stacked.shape[0] == first[0] + second[0] and stacked.shape[dim] == width
    assert torch.equal(stacked[: first[0]].narrow(dim, width - first[dim], first[dim]), one)


BROKEN = {
    "the newest token is not marked": ("mask.new_ones(", "mask.new_zeros("),
    "positions stand still": ("positions[:, -1:] + 1", "positions[:, -1:]"),
    "the first position is read": (".logits[:, -1]", ".logits[:, 0]"),
    "the least likely token": ("argmax", "argmin"),
    "the cache is forgotten": ("past_key_values=outputs.past_key_values", "past_key_values=None"),
    "padding on the right": ("[missing, 0]", "[0, missing]"),
    "nobody leaves after the prefill": (
        "newcomers, _ = filter_batch(step(init_batch(admitted)))",
        "newcomers = step(init_batch(admitted))",
    ),
    "newcomers are lost": ("running = merge_batches(running, newcomers)", "pass"),
    "newcomers replace the others": ("merge_batches(running, newcomers)", "newcomers"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_core_that_is_broken_would_be_seen(gpt2, mistake):
    old, new = BROKEN[mistake]
    assert written_out().count(old) == 1
    names = core(gpt2, written_out().replace(old, new))
    with pytest.raises(
        (AssertionError, ValueError, RuntimeError, AttributeError)
    ):  # wrong tokens, or tensors that do not fit
        steps_agree(names, gpt2, 5)
        for budgets in BUDGETS:
            loops_agree(names, gpt2, budgets, 2)
