"""The exercises: every check takes the solution, refuses what is plausible and wrong, and never raises."""

from __future__ import annotations

import ast
import copy
import inspect
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from nbformat import NotebookNode
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

import exercises
import lessons
import test_repository
from conftest import refused, tiny_model
from exercises import Result
from helpers import (
    Request,
    filter_batch,
    generate_next_token,
    init_batch,
    positions_from_mask,
    run_continuous,
    run_static,
)
from measure import Trace
from utils import LoraLayer, add_lora

SOLUTIONS = lessons.NOTEBOOKS / "solutions"
NUMBERS = [1, 2, 3, 4, 5]
CHECKS = {name: check for name, check in vars(exercises).items() if name.startswith("check_")}
PARAMETERS = {name: list(inspect.signature(check).parameters) for name, check in CHECKS.items()}
CALCULATIONS = [name for name, parameters in PARAMETERS.items() if parameters != ["function"]]
FUNCTIONS = [name for name, parameters in PARAMETERS.items() if parameters == ["function"]]


# ---------------------------------------------------------------------------------------------------
# The solutions


def solutions_path(number: int) -> Path:
    return SOLUTIONS / f"Lesson_{number}-Solutions.ipynb"


def lesson_path(number: int) -> Path:
    return next(lessons.NOTEBOOKS.glob(f"Lesson_{number}-*.ipynb"))


def check_calls(source: str) -> list[ast.Call]:
    """The calls of checks that are statements of their own in a code cell."""
    values = [node.value for node in ast.parse(source).body if isinstance(node, ast.Expr)]
    return [value for value in values if isinstance(value, ast.Call) and getattr(value.func, "id", "") in CHECKS]


def results(nb: NotebookNode) -> list[str]:
    """What the results of the notebook's cells say."""
    outputs = [output for cell in lessons.code_cells(nb) for output in cell.outputs]
    return [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]


@cache
def solved() -> dict[str, Any]:
    """Every name that the solutions define."""
    names: dict[str, Any] = {}
    for number in NUMBERS:
        for cell in lessons.code_cells(lessons.read_notebook(solutions_path(number))):
            exec(compile(cell.source.replace("print(", "str("), f"solutions of lesson {number}", "exec"), names)
    return names


@cache
def right_answers(name: str) -> tuple:
    """The arguments with which the solutions call a check."""
    sources = [cell.source for n in NUMBERS for cell in lessons.code_cells(lessons.read_notebook(solutions_path(n)))]
    (call,) = [call for source in sources for call in check_calls(source) if call.func.id == name]
    return tuple(solved()[argument.id] for argument in call.args)


@pytest.mark.notebooks
@pytest.mark.parametrize("number", NUMBERS)
def test_solutions_run_and_are_what_is_committed(
    number: int, no_network: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    outcome = lessons.run_notebook(solutions_path(number), environment=no_network)
    assert outcome.failure is None
    assert not refused(no_network)
    assert all(result.startswith("correct: ") for result in results(outcome.notebook))
    assert outcome.notebook == lessons.read_notebook(solutions_path(number))


@pytest.mark.parametrize("number", NUMBERS)
def test_committed_solutions_are_clean(number: int) -> None:
    nb = lessons.read_notebook(solutions_path(number))
    assert nb.metadata.companion["source_hash"] == lessons.source_hash(nb)
    assert lessons.code_cells(nb)[0].source.startswith('import sys\n\nsys.path.insert(0, "../../code")')
    assert [*lessons.count_problems(nb), *lessons.private_path_problems(nb)] == []
    assert [problem for cell in lessons.code_cells(nb) for problem in lessons.output_problems(cell)] == []


@pytest.mark.parametrize("number", NUMBERS)
def test_lesson_and_solutions_link_to_each_other(number: int) -> None:
    lesson, solutions = lesson_path(number), solutions_path(number)
    assert f"](solutions/{solutions.name})" in test_repository.markdown(lesson)
    assert f"](../{lesson.name})" in test_repository.markdown(solutions)


@pytest.mark.parametrize("name", CHECKS)
def test_check_takes_the_solution(name: str) -> None:
    before = torch.random.get_rng_state()
    result = CHECKS[name](*right_answers(name))
    assert result, result
    assert repr(result) == result.message and result.message.startswith("correct: ")
    assert torch.equal(torch.random.get_rng_state(), before), "the learner's random numbers are the learner's"


@pytest.mark.parametrize("name", CHECKS)
def test_check_says_what_it_is_for(name: str) -> None:
    assert re.match(r"Exercise [1-5]\.[1-5]: ", CHECKS[name].__doc__)


# ---------------------------------------------------------------------------------------------------
# The lessons


def headings(nb: NotebookNode) -> list[str]:
    return [heading for cell in exercise_texts(nb) for heading in re.findall(r"^### (.+)$", cell.source, re.MULTILINE)]


def exercise_texts(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "markdown" and cell.source.startswith("### Exercise ")]


def exercise_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in lessons.code_cells(nb) if check_calls(cell.source)]


def assigned(source: str) -> set[str]:
    """The names that a cell gives a value, imports left out."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


@pytest.fixture(params=NUMBERS)
def number(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def lesson(number: int) -> NotebookNode:
    return lessons.read_notebook(lesson_path(number))


def test_every_exercise_of_a_lesson_is_solved(number: int, lesson: NotebookNode) -> None:
    solutions = lessons.read_notebook(solutions_path(number))
    assert headings(lesson) == headings(solutions)
    assert [heading.partition(":")[0] for heading in headings(lesson)] == [
        f"Exercise {number}.{k}" for k in range(1, 6)
    ]
    asked, answered = (
        [ast.unparse(call) for cell in exercise_cells(nb) for call in check_calls(cell.source)]
        for nb in (lesson, solutions)
    )
    assert asked == answered
    documented = [CHECKS[call.partition("(")[0]].__doc__.partition(":")[0] for call in asked]
    assert documented == [heading.partition(":")[0] for heading in headings(lesson)]


def test_an_exercise_is_a_specification_and_one_blank_cell(lesson: NotebookNode) -> None:
    for text in exercise_texts(lesson):
        cell = lesson.cells[lesson.cells.index(text) + 1]
        assert len(text.source.split()) <= 120, text.source.splitlines()[0]
        assert isinstance(ast.parse(cell.source).body[-1], ast.Expr) and len(check_calls(cell.source)) == 1
        assert len(cell.outputs) == 1, "the lesson was not executed, or the cell shows more than its check"
        assert cell.outputs[0].data["text/plain"].startswith("not attempted yet")


def test_exercises_overwrite_nothing_of_their_lesson(lesson: NotebookNode) -> None:
    own = exercise_cells(lesson)
    theirs = set().union(*(assigned(cell.source) for cell in lessons.code_cells(lesson) if cell not in own))
    assert not set().union(*(assigned(cell.source) for cell in own)) & theirs


def test_every_check_has_one_exercise() -> None:
    names = [
        call.func.id
        for n in NUMBERS
        for cell in exercise_cells(lessons.read_notebook(solutions_path(n)))
        for call in check_calls(cell.source)
    ]
    assert sorted(names) == sorted(CHECKS)


def test_exercises_import_downwards_only() -> None:
    tree = ast.parse(Path(exercises.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not imported & {"figures", "measure", "lessons"}


# ---------------------------------------------------------------------------------------------------
# Blanks


def blank(*arguments: Any) -> None: ...


def unfinished(*arguments: Any) -> None:
    raise NotImplementedError("to do")


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("value", [None, ...])
def test_blank_is_not_attempted(name: str, value: Any) -> None:
    result = CHECKS[name](*[value] * len(PARAMETERS[name]))
    assert (result.outcome, repr(result), bool(result)) == ("not attempted", "not attempted yet", False)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("function", [blank, unfinished, lambda *arguments: ...])
def test_function_that_does_nothing_is_not_attempted(name: str, function: Callable) -> None:
    result = CHECKS[name](function)
    assert result.outcome == "not attempted"
    assert repr(result).startswith("not attempted yet")


@pytest.mark.parametrize("name", CALCULATIONS)
def test_half_an_answer_is_not_attempted(name: str) -> None:
    first, *others = right_answers(name)
    result = CHECKS[name](first, *[None] * len(others))
    assert repr(result) == f"not attempted yet: {PARAMETERS[name][1]} is still blank"


# ---------------------------------------------------------------------------------------------------
# Wrong answers


def changed(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
    """The solution's function with `change(result, *arguments)` made to what it returns."""
    return lambda *arguments: change(solved()[name](*arguments), *arguments)


def with_arguments(name: str, change: Callable[..., tuple]) -> Callable[..., Any]:
    """The solution's function on other arguments."""
    return lambda *arguments: solved()[name](*change(*arguments))


def padded_on_the_right(rows: list[list[int]], pad_id: int) -> tuple:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def nucleus_without_the_crossing_token(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, columns = logits.sort(dim=-1, descending=True)
    outside = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
    outside[:, 0] = False
    return logits.masked_fill(outside.scatter(1, columns, outside), -math.inf)


def nucleus_in_sorted_order(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    return solved()["keep_top_p"](logits, top_p).sort(dim=-1, descending=True).values


def admitting_whoever_fits(waiting: list[tuple[int, int]], free_slots: int, free_tokens: int) -> int:
    admitted = 0
    for request in waiting:
        if admitted < free_slots and sum(request) <= free_tokens:
            admitted, free_tokens = admitted + 1, free_tokens - sum(request)
    return admitted


def interpolated_percentile(sent: list[float], times: list[list[float]], percent: float) -> float:
    return float(np.percentile([row[0] - at for row, at in zip(times, sent, strict=True)], percent))


def changes_the_layer(layer: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    update = scaling * b @ a
    layer.weight.data += update if isinstance(layer, nn.Linear) else update.T
    return layer.weight


def merged_by_shape(layer: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    update = scaling * b @ a
    return layer.weight.detach() + (update if update.shape == layer.weight.shape else update.T)


def rank_by_the_sum(update: torch.Tensor, tolerance: float) -> int:
    values = torch.linalg.svdvals(update.double())
    return int((values.flip(0).cumsum(0).flip(0) > tolerance * values.sum()).sum())


def numbered_columns(mask: torch.Tensor) -> torch.Tensor:
    return torch.arange(mask.shape[1]).repeat(len(mask), 1)


# For each check: wrong answers, and a word or more that the message about it must hold.
WRONG: dict[str, list[tuple[Any, str]]] = {
    "check_kv_cache": [
        ((524288, 27), "fewer heads"),
        ((65536, 27), "keys and values"),
        ((4096, 27), "one layer"),
        ((131072, 28), "no room"),
        ((131072, 27.94), "whole number"),
        ((131072, 30), "10**9"),
        ((131073, 27), "too large"),
    ],
    "check_positions_processed": [
        (lambda p, n, cached: p + n if cached else n * p + n * (n - 1) // 2, "last token is never sent"),
        (lambda p, n, cached: p * n, "the prompt is sent again"),
        (lambda p, n, cached: max(0, p + n - 1) if n else 0, "without a cache"),
        (lambda p, n, cached: n if cached else n * p + n * (n - 1) // 2, "too small"),
        (lambda p, n, cached: p + n - 1 if cached else n * p + n * (n - 1) // 2, "no new token"),
    ],
    "check_decode_floor": [
        (changed("decode_floor_ms", lambda ms, *_: ms / 1000), "seconds"),
        (lambda weights, kv, lengths, speed: 1000 * weights / speed, "cache"),
        (lambda weights, kv, lengths, speed: 1000 * len(lengths) * weights / speed, "too"),
        (with_arguments("decode_floor_ms", lambda w, kv, n, speed: (w * len(n), kv, n, speed)), "once for the whole"),
        (with_arguments("decode_floor_ms", lambda w, kv, n, speed: (w, kv, [max(n)], speed)), "too small"),
    ],
    "check_tempered": [
        (lambda logits, t: (logits * t[:, None]).softmax(dim=-1), "divide"),
        (lambda logits, t: (logits / t[:, None]).softmax(dim=-1), "temperature of 0"),
        (lambda logits, t: (logits / t[:, None]).softmax(dim=0), "not each column"),
        (lambda logits, t: logits.softmax(dim=-1), "rows of different temperature"),
        (lambda logits, t: (logits / t[0]).softmax(dim=-1), "rows of different temperature"),
        (changed("tempered", lambda p, *_: p.double()), "dtype torch.float32, got torch.float64"),
    ],
    "check_keep_top_p": [
        (nucleus_without_the_crossing_token, "reaches top_p"),
        (nucleus_in_sorted_order, "own column"),
        (changed("keep_top_p", lambda kept, *_: kept.softmax(dim=-1)), "return logits"),
        (lambda logits, p: logits.masked_fill(logits.softmax(dim=-1) < 1 - p, -math.inf), "rows from unsure to sure"),
        (lambda logits, p: solved()["keep_top_p"](logits.flatten()[None], p).view_as(logits), "unsure to sure"),
    ],
    "check_padding_cells": [
        ((100, 29), "real tokens"),
        ((186, 29), "all cells"),
        ((86, 77), "sort the prompts"),
        ((86, 13), "short ones alone"),
        ((86, 30), "too large"),
    ],
    "check_left_padded": [
        (padded_on_the_right, "padded on the right"),
        (changed("left_padded", lambda pair, rows, pad: (pair[0], (pair[0] != pad).long())), "from the lengths"),
        (changed("left_padded", lambda pair, *_: (pair[0], pair[1].float())), "dtype torch.int64, got torch.float32"),
        (changed("left_padded", lambda pair, *_: pair[0]), "expected a tuple"),
        (changed("left_padded", lambda pair, *_: pair[::-1]), "item 0"),
        (changed("left_padded", lambda pair, *_: [part.tolist() for part in pair]), "expected a tensor"),
    ],
    "check_positions_of": [
        (numbered_columns, "columns are numbered"),
        (lambda mask: mask.cumsum(dim=1), "position 0"),
        (lambda mask: mask.cumsum(dim=1) - 1, "outside the embedding"),
        (positions_from_mask, "a pad must get 0"),
        (lambda mask: solved()["positions_of"](mask)[:1], "expected the shape"),
    ],
    "check_crossover_batch": [
        (changed("crossover_batch", lambda rows, *_: 2 * rows), "two operations"),
        (changed("crossover_batch", lambda rows, *_: 1 / rows), "upside down"),
        (lambda flops, speed, size: flops / speed / 2, "more bytes it has"),
        (lambda flops, speed, size: flops / speed / 2 / size, "not less"),
        (changed("crossover_batch", lambda rows, *_: int(rows)), "too small"),
    ],
    "check_batch_latencies": [
        (lambda arrivals, size, batch_s: [batch_s] * len(arrivals), "waiting counts"),
        (
            lambda a, size, s: [max(a[i // size * size :][:size]) + s - at for i, at in enumerate(a)],
            "before it is done",
        ),
        (changed("batch_latencies_s", lambda late, a, *_: [x + y for x, y in zip(late, a, strict=True)]), "arrival"),
        (changed("batch_latencies_s", lambda late, *_: sum(late) / len(late)), "expected a list"),
        (changed("batch_latencies_s", lambda late, a, size, s: late[: len(a) // size * size]), "last batch"),
    ],
    "check_forward_counts": [
        ((13, 6, 13 / 18), "those are the tokens"),
        ((11, 6, 13 / 18), "first token"),
        ((7, 6, 13 / 18), "prefill is a forward"),
        ((9, 5, 13 / 18), "of its own"),
        ((9, 9, 13 / 18), "static count"),
        ((9, 7, 13 / 18), "one too many"),
        ((9, 6, 13 / 27), "static run"),
        ((9, 6, 5 / 18), "idle"),
        ((9, 6, 1300 / 18), "between 0 and 1"),
        ((9, 6, 13 / 6), "by the slots too"),
    ],
    "check_ttft_percentile": [
        (lambda sent, times, percent: sorted(row[0] for row in times)[-1], "too large"),
        (with_arguments("ttft_percentile_s", lambda sent, *others: ([0.0] * len(sent), *others)), "not from 0"),
        (with_arguments("ttft_percentile_s", lambda sent, times, p: (sent, [t[-1:] for t in times], p)), "last token"),
        (interpolated_percentile, "interpolated"),
        (lambda sent, times, percent: times[0][0] - sent[0], "too large"),
    ],
    "check_filtered_mask": [
        (lambda mask, done: mask[[not flag for flag in done]], "still there"),
        (with_arguments("filtered_mask", lambda mask, done: (mask, [not flag for flag in done])), "the others stay"),
        (lambda mask, done: mask[[not flag for flag in done]][:, mask.any(dim=0)], "still there"),
        (changed("filtered_mask", lambda mask, *_: mask.bool()), "dtype torch.int64, got torch.bool"),
        (lambda mask, done: mask[:, mask[~torch.tensor(done)].any(dim=0)], "expected the shape"),
    ],
    "check_admitted_count": [
        (admitting_whoever_fits, "overtook"),
        (with_arguments("admitted_count", lambda w, slots, tokens: (w, len(w), tokens)), "free slots"),
        (with_arguments("admitted_count", lambda w, *free: ([(p, 0) for p, _ in w], *free)), "the answer too"),
        (with_arguments("admitted_count", lambda w, slots, tokens: (w, slots, tokens - 1)), "exactly"),
        (lambda waiting, slots, tokens: min(slots, len(waiting)), "the answer too"),
    ],
    "check_admission_order": [
        (lambda budgets, slots: list(range(len(budgets))), "not a tenth lower"),
        (lambda budgets, slots: sorted(range(len(budgets)), key=lambda index: -budgets[index]), "not a tenth lower"),
        (lambda budgets, slots: sorted(budgets), "every index from 0"),
        (lambda budgets, slots: [budgets.index(budget) for budget in sorted(budgets)], "every index from 0"),
        (lambda budgets, slots: list(range(1, len(budgets) + 1)), "every index from 0"),
        (lambda budgets, slots: [index for index, budget in enumerate(budgets) if budget == 10], "every index from 0"),
    ],
    "check_scale_and_zero_point": [
        ((5.1 / 256, 100, 139), "256 levels"),
        ((3.1 / 127, 100, 139), "symmetric"),
        ((50.0, 100, 139), "upside down"),
        ((0.02, -2.0, 139), "is a code"),
        ((0.02, 155, 139), "not from the largest"),
        ((0.02, -100, 139), "not negative"),
        ((0.02, 100, 138), "cut off"),
        ((0.02, 100, 39), "missing"),
        ((0.02, 100, -61), "added"),
    ],
    "check_grouped_bytes": [
        ((29360128, 4.1875), "scales and zero points"),
        ((60096512, 4.1875), "share a byte"),
        ((30277632, 4.1875), "zero point too"),
        ((31653888, 4.1875), "2 bytes"),
        ((29403136, 4.1875), "many groups"),
        ((30736384, 4.0), "count too"),
        ((30736384, 4.1875 / 8), "in bytes"),
        ((30736384, 4.0234375), "a byte has 8 bits"),
    ],
    "check_mean_error": [
        (changed("mean_error_steps", lambda error, *_: -error), "the sign"),
        (changed("mean_error_steps", lambda error, values, scale, *_: error * scale), "in steps"),
        (with_arguments("mean_error_steps", lambda v, scale, zero, truncate: (v, scale, zero, False)), "wrong way"),
        (with_arguments("mean_error_steps", lambda v, scale, zero, truncate: (v, scale, zero, True)), "wrong way"),
        (changed("mean_error_steps", lambda error, values, scale, zero, _: error + zero), "come off again"),
        (changed("mean_error_steps", lambda error, *_: abs(error)), "the sign"),
        (changed("mean_error_steps", lambda error, *_: torch.tensor(error)), ".item()"),
    ],
    "check_grouped_int4": [
        (lambda weight, size: exercises._grouped_int4(weight, size, levels=8), "7 or -7"),
        (lambda weight, size: exercises._grouped_int4(weight, size, rounding=torch.trunc), "cut off towards zero"),
        (lambda weight, size: exercises._grouped_int4(weight, size, rounding=torch.floor), "cut off downwards"),
        (lambda weight, size: solved()["grouped_int4"](weight, weight.shape[1]), "one scale per row"),
        (changed("grouped_int4", lambda pair, *_: (pair[0].to(torch.uint8), pair[1])), "torch.int8, got torch.uint8"),
        (changed("grouped_int4", lambda pair, w, n: (pair[0], w.view(len(w), -1, n).abs().amax(2) / 7)), "zeros"),
    ],
    "check_integer_linear": [
        (with_arguments("integer_linear", lambda x, s, zero, *w: (x, s, 0, *w)), "zero point of x was left out"),
        (with_arguments("integer_linear", lambda x, s, *others: (x, 1.0, *others)), "scale of x"),
        (
            with_arguments("integer_linear", lambda *given: (*given[:4], torch.ones_like(given[4]))),
            "scales of the weight",
        ),
        (lambda x, s, zero, w, ws: ((x - zero).int() @ w.int().T) * s * ws, "no negative numbers"),
        (lambda x, s, zero, w, ws: ((x.int() - zero) @ w.int().T).to(torch.int8) * s * ws, "overflow"),
        (changed("integer_linear", lambda y, *_: y.T), "wrong for"),
    ],
    "check_trainable_parameters": [
        ((24576, 2359296), "one layer"),
        ((147456, 2359296), "wider on the way out"),
        ((442368, 2359296), "together"),
        ((73728, 2359296), "A alone"),
        ((21233664, 2359296), "frozen"),
        ((294912, 1179648), "two numbers"),
        ((294912, 3538944), "not the parameters themselves"),
    ],
    "check_smallest_rank": [
        (lambda update, tolerance: int(torch.linalg.matrix_rank(update)), "the rank itself"),
        (rank_by_the_sum, "sum of squares, not the sum"),
        (lambda update, tolerance: int((torch.linalg.svdvals(update) > tolerance).sum()), "relative"),
        (with_arguments("smallest_rank", lambda update, tolerance: (update, tolerance**0.5)), "square root"),
        (changed("smallest_rank", lambda rank, *_: rank + 1), "too large"),
        (changed("smallest_rank", lambda rank, *_: max(rank, 1)), "zero matrix"),
        (lambda update, tolerance: min(update.shape), "too large"),
    ],
    "check_merged_weight": [
        (merged_by_shape, "square or not"),
        (lambda layer, a, b, scaling: layer.weight + scaling * b @ a, "raised RuntimeError for a Conv1D"),
        (with_arguments("merged_weight", lambda layer, a, b, scaling: (layer, a, b, 1.0)), "scaling is missing"),
        (lambda layer, a, b, scaling: scaling * b @ a, "add the layer's weight"),
        (changed("merged_weight", lambda weight, *_: weight.T), "as the layer keeps it"),
        (changes_the_layer, "the layer was changed"),
    ],
    "check_dora_weight": [
        (lambda w, a, b, m, alpha: w + alpha / len(a) ** 0.5 * b @ a, "wrong for the example"),
        (with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m, alpha / len(a) ** 0.5)), "alpha / r"),
        (with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m, len(a) ** 0.5)), "scaling is missing"),
        (with_arguments("dora_weight", lambda w, a, b, m, alpha: (w, a, b, m / m, alpha)), "by the magnitude"),
        (
            lambda w, a, b, m, alpha: m[:, None] * F.normalize(w + alpha / len(a) ** 0.5 * b @ a, dim=0),
            "norm of each row",
        ),
        (lambda w, a, b, m, alpha: (w + alpha * b @ a) * (m / w.norm(dim=1))[:, None], "not by the old one"),
    ],
    "check_adapter_updates": [
        (with_arguments("adapter_updates", lambda *g: (*g[:4], g[4] % 3)), "-1 picked the last"),
        (with_arguments("adapter_updates", lambda *g: (*g[:3], torch.ones(3), g[4])), "its own scaling"),
        (with_arguments("adapter_updates", lambda *g: (*g[:4], g[4][:1].expand_as(g[4]))), "first row's"),
        (changed("adapter_updates", lambda y, *_: y[:, 0]), "expected the shape"),
    ],
}
REJECTED = [(name, answer, reason) for name, answers in WRONG.items() for answer, reason in answers]


def shown_numbers(message: str) -> set[float]:
    return {float(text.replace(",", "")) for text in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", message)}


@pytest.mark.parametrize(("name", "answer", "reason"), REJECTED, ids=[f"{n[6:]}-{r}" for n, _, r in REJECTED])
def test_check_refuses_and_says_why(name: str, answer: Any, reason: str) -> None:
    result = CHECKS[name](*answer) if name in CALCULATIONS else CHECKS[name](answer)
    assert result.outcome == "wrong" and not result
    assert repr(result).startswith("not yet right: ") and "\n" not in repr(result)
    assert reason in repr(result)
    if name in CALCULATIONS:
        assert not shown_numbers(repr(result)) & set(map(float, right_answers(name)))


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_refuses_at_least_two_answers(name: str) -> None:
    assert len(WRONG[name]) >= 2


def explain_themselves() -> Iterator[str]:
    """The explanations in exercises.py: every text beside a mistake."""
    for node in ast.walk(ast.parse(Path(exercises.__file__).read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "mistakes":
            parts = [*node.value.keys, *node.value.values]
            yield from (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_every_explanation_is_reached() -> None:
    """An explanation that nothing triggers may be wrong without anybody noticing."""
    said = [repr(CHECKS[n](*a) if n in CALCULATIONS else CHECKS[n](a)) for n, a, _ in REJECTED]
    silent = [text for text in explain_themselves() if not any(text in message for message in said)]
    assert silent == []


# ---------------------------------------------------------------------------------------------------
# Nonsense


def endless(*arguments: Any) -> Any:
    return endless(*arguments)


def fails(*arguments: Any) -> Any:
    raise ValueError("first line\nsecond line")


class Odd:
    """An answer that cannot even be printed."""

    def __repr__(self) -> str:
        raise ValueError

    def __eq__(self, other: object) -> bool:
        raise ValueError


VALUES = [
    "text",
    b"text",
    True,
    math.nan,
    math.inf,
    10**400,
    2j,
    [],
    ["a", None],
    {},
    (None, None),
    np.zeros(3),
    torch.tensor(math.nan),
    torch.zeros(0),
    torch.zeros(2, 2, dtype=torch.float16),
    torch.zeros(1, 2, dtype=torch.complex64),
    torch.zeros(1, 2, device="meta"),
    torch.zeros(1, 2).to_sparse(),
    (torch.zeros(1, 3), "text"),
    nn.Linear(2, 2),
    Odd(),
    print,
]


@pytest.mark.parametrize("name", CHECKS)
def test_nonsense_is_wrong_and_does_not_raise(name: str) -> None:
    for value in VALUES:
        if name in CALCULATIONS:
            for place, right in enumerate(right_answers(name)):
                answers = [*right_answers(name)[:place], value, *[right] * (len(PARAMETERS[name]) - place - 1)]
                assert CHECKS[name](*answers).outcome == "wrong", value
        else:
            assert CHECKS[name](lambda *arguments, value=value: value).outcome == "wrong", type(value)
            if not callable(value):
                assert "expected a function" in repr(CHECKS[name](value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_of_the_learner_is_reported(name: str) -> None:
    assert "your function raised ValueError for " in repr(CHECKS[name](fails))
    assert "second line" not in repr(CHECKS[name](fails))
    assert "raised TypeError" in repr(CHECKS[name](lambda: 1))
    assert "raised RecursionError" in repr(CHECKS[name](endless))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forgotten_branch_is_wrong(name: str) -> None:
    """Right once, and nothing afterwards: that was an attempt."""
    calls = iter([right_answers(name)[0]])
    result = CHECKS[name](lambda *arguments: next(calls, blank)(*arguments))
    assert result.outcome == "wrong"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_that_scribbles_on_its_arguments_fools_nobody(name: str) -> None:
    def scribbling(*arguments: Any) -> Any:
        result = copy.deepcopy(right_answers(name)[0](*arguments))
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                argument.zero_()
            elif isinstance(argument, list):
                argument.clear()
        return result

    assert CHECKS[name](scribbling)


@pytest.mark.parametrize("value", [np.int64(27), np.float64(27.0), 27.0])
def test_whole_number_of_any_type_is_taken(value: Any) -> None:
    assert exercises.check_kv_cache(131072, value)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda order: list(np.array(order))])
def test_order_of_any_type_is_taken(kind: Callable) -> None:
    assert exercises.check_admission_order(lambda *given: kind(solved()["admission_order"](*given)))


def test_result_is_true_only_when_correct() -> None:
    assert [bool(Result(outcome, "")) for outcome in ("correct", "wrong", "not attempted")] == [True, False, False]


# ---------------------------------------------------------------------------------------------------
# The solutions say what the project's own code does


def serve(budgets: list[int], slots: int, run: Callable) -> Trace:
    trace = Trace()
    run([Request([1, 2], budget, ignore_eos=True) for budget in budgets], slots, model=tiny_model("gpt2"), trace=trace)
    return trace


def test_forwards_by_hand_are_those_of_a_run() -> None:
    static, continuous = (serve([5, 1, 2, 4, 1], 3, run) for run in (run_static, run_continuous))
    assert right_answers("check_forward_counts") == (
        static.forwards,
        continuous.forwards,
        pytest.approx(continuous.slot_utilization),
    )


@pytest.mark.parametrize("budgets", [[5, 1, 2, 4, 1], [3] * 7, [12 if i % 4 == 0 else 2 for i in range(16)]])
def test_simulated_admission_is_that_of_a_run(budgets: list[int]) -> None:
    trace = serve(budgets, 4, run_continuous)
    first, last = exercises._serve(budgets, range(len(budgets)), 4)
    steps = [[step for step, row in enumerate(trace.rows, 1) if i in row.gained] for i in range(len(budgets))]
    assert (first, last) == ([row[0] for row in steps], [row[-1] for row in steps])


def test_positions_are_those_of_the_library() -> None:
    mask = torch.tensor([[0] * (9 - n) + [1] * n for n in range(1, 10)])
    ours, library = solved()["positions_of"](mask), positions_from_mask(mask)
    assert torch.equal(ours * mask, library * mask)


def test_left_padding_is_that_of_the_library() -> None:
    rows = [[3, 0, 5], [7], [1, 2, 3, 4]]
    batch = init_batch([Request(row, 2) for row in rows])
    ids, mask = solved()["left_padded"](rows, 0)
    assert torch.equal(mask, batch.attention_mask)
    assert torch.equal(ids * mask, batch.input_ids * mask)


def test_filtered_mask_is_that_of_the_library() -> None:
    requests = [Request([1] * length, budget) for length, budget in [(6, 1), (3, 2), (1, 1), (4, 2)]]
    batch = generate_next_token(init_batch(requests), tiny_model("gpt2"))
    finished = [request.finished for request in batch.requests]
    assert finished == [True, False, True, False]
    ours = solved()["filtered_mask"](batch.attention_mask, finished)
    assert torch.equal(ours, filter_batch(batch)[0].attention_mask)


def test_trained_parameters_are_those_of_the_library() -> None:
    with torch.device("meta"):
        model = add_lora(GPT2LMHeadModel(GPT2Config()), r=8)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert right_answers("check_trainable_parameters") == (trained, 8 * trained)


@pytest.mark.parametrize("base", [nn.Linear(6, 4), Conv1D(4, 6), Conv1D(5, 5)], ids=["linear", "conv1d", "square"])
def test_merging_is_that_of_the_library(base: nn.Module) -> None:
    layer = LoraLayer(base, r=2, alpha=3.0)
    nn.init.normal_(layer.lora_b)
    ours = solved()["merged_weight"](base, layer.lora_a.detach(), layer.lora_b.detach(), layer.scaling)
    layer.merge()
    torch.testing.assert_close(ours, base.weight.detach())


def test_dora_is_that_of_peft() -> None:
    config = peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["0"])
    torch.manual_seed(0)
    weight = nn.Linear(7, 4, bias=False)
    original = weight.weight.detach().clone()
    model = peft.get_peft_model(nn.Sequential(weight), config)
    layer = model.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude.detach(), original.norm(dim=1))
    with torch.no_grad():
        b.normal_()
        magnitude.mul_(1.5)
        x = torch.randn(2, 7)
        ours = solved()["dora_weight"](original, a, b, magnitude, 5.0)
        torch.testing.assert_close(model(x), x @ ours.T)


def test_adapter_updates_are_those_of_one_layer_each() -> None:
    layers = [LoraLayer(nn.Linear(6, 4), r=2, alpha=alpha) for alpha in (2.0, 4.0, 1.0)]
    for layer in layers:
        nn.init.normal_(layer.lora_b)
    x, adapter = torch.randn(4, 3, 6), torch.tensor([2, -1, 0, 1])
    a, b = (torch.stack([getattr(layer, part).detach() for layer in layers]) for part in ("lora_a", "lora_b"))
    ours = solved()["adapter_updates"](x, a, b, torch.tensor([layer.scaling for layer in layers]), adapter)
    for row, index in enumerate(adapter.tolist()):
        expected = layers[index](x[row]) - layers[index].base_layer(x[row]) if index >= 0 else torch.zeros(3, 4)
        torch.testing.assert_close(ours[row], expected.detach())


def test_rounding_error_of_groups_is_half_a_step_at_most() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    codes, scale = solved()["grouped_int4"](weight, 16)
    steps = scale.repeat_interleave(16, dim=1)
    assert ((codes * steps - weight).abs() <= steps / 2 * 1.0001).all()
    assert codes.min() >= -7 and codes.max() <= 7
