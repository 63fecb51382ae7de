"""What the tests of the exercises share: the checks, what is inside them, and the solutions' answers."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import build_it
import exercises
import lessons
from exercises import Result

SOLUTIONS = lessons.NOTEBOOKS / "solutions"
NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8]
CHECKS: dict[str, Callable[..., Result]] = {
    name: check for name, check in vars(exercises).items() if name.startswith("check_")
}
BUILDS: dict[str, Callable[..., Result]] = {  # of each lesson's last exercise
    name: check for name, check in vars(build_it).items() if name.startswith("check_")
}
PARAMETERS = {name: list(inspect.signature(check).parameters) for name, check in CHECKS.items()}
CALCULATIONS = [name for name, parameters in PARAMETERS.items() if parameters != ["function"]]
FUNCTIONS = [name for name, parameters in PARAMETERS.items() if parameters == ["function"]]
COMPARED = [name for name in FUNCTIONS if name != "check_admission_order"]  # an order is judged by what it brings


def solutions_path(number: int) -> Path:
    return SOLUTIONS / f"Lesson_{number}-Solutions.ipynb"


def lesson_path(number: int) -> Path:
    return lessons.find_lessons([str(number)])[0]


def check_calls(source: str) -> list[ast.Call]:
    """The calls of checks that are statements of their own in a code cell."""
    values = [node.value for node in ast.parse(source).body if isinstance(node, ast.Expr)]
    checks = {**CHECKS, **BUILDS}
    return [value for value in values if isinstance(value, ast.Call) and getattr(value.func, "id", "") in checks]


@cache
def solution_cells() -> list[str]:
    """The sources of the code cells of all solutions, in order."""
    notebooks = [lessons.read_notebook(solutions_path(number)) for number in NUMBERS]
    return [cell.source for nb in notebooks for cell in lessons.code_cells(nb)]


@cache
def solved() -> dict[str, Any]:
    """Every name that the solutions define; the checks are not run."""
    names: dict[str, Any] = {}
    for source in solution_cells():
        exec(compile(without_checks(source).replace("print(", "str("), "the solutions", "exec"), names)
    return names


def without_checks(source: str) -> str:
    """The cell up to the call of its check."""
    calls = check_calls(source)
    return "\n".join(source.splitlines()[: calls[0].lineno - 1]) if calls else source


@cache
def right_answers(name: str) -> tuple:
    """The arguments with which the solutions call a check."""
    (call,) = [call for source in solution_cells() for call in check_calls(source) if call.func.id == name]
    return tuple(solved()[argument.id] for argument in call.args)


def solution_source(name: str) -> tuple[str, str]:
    """The name and the source of the function that the solutions hand in to a check."""
    (function,) = right_answers(name)
    definitions = [
        ast.get_source_segment(source, node)
        for source in solution_cells()
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__
    ]
    return function.__name__, definitions[-1]


def hand_in(name: str, answer: Any) -> Result:
    """The check's result for one answer: a tuple of numbers for a calculation, a function for the others."""
    return CHECKS[name](*answer) if name in CALCULATIONS else CHECKS[name](answer)


@dataclass(frozen=True)
class Anatomy:
    """What a check of a function compares with: the reference, the arguments of each case, the mistakes it knows."""

    reference: Callable[..., Any]
    cases: Mapping[str, tuple]
    mistakes: Mapping[str, Callable[..., Any]]


def module_of(name: str) -> ModuleType:
    return importlib.import_module(CHECKS[name].__module__)


@cache
def anatomy(name: str) -> Anatomy:
    """The anatomy of a check that compares a function with a reference."""
    with mock.patch.object(module_of(name), "compare_function") as compare:
        CHECKS[name](right_answers(name)[0])
    _, reference, cases, mistakes = compare.call_args.args
    return Anatomy(reference, cases, mistakes)


@cache
def numbers_of(name: str) -> list[tuple[str, float, dict[str, float]]]:
    """For each blank of a calculation: its name, the right number, and the number of each known mistake."""
    with mock.patch.object(module_of(name), "compare_number") as compare:
        CHECKS[name](*right_answers(name))
    return [(blank, expected, mistakes) for blank, _, expected, mistakes in (call.args for call in compare.mock_calls)]


def changed(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
    """The solution's function with `change(result, *arguments)` made to what it returns."""
    return lambda *arguments: change(solved()[name](*arguments), *arguments)


def with_arguments(name: str, change: Callable[..., tuple]) -> Callable[..., Any]:
    """The solution's function on other arguments."""
    return lambda *arguments: solved()[name](*change(*arguments))
