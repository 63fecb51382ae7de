"""The exercises in the lessons and the solutions of all of them: they fit together and run on their own."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
from nbformat import NotebookNode

import lessons
import test_repository
from conftest import refused
from exercise_answers import (
    BUILDS,
    CHECKS,
    NUMBERS,
    check_calls,
    lesson_path,
    solutions_path,
)

# ---------------------------------------------------------------------------------------------------
# The solutions


def results(nb: NotebookNode) -> list[str]:
    """What the results of the notebook's cells say."""
    outputs = [output for cell in lessons.code_cells(nb) for output in cell.outputs]
    return [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]


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
    for page, other in ((lesson, solutions), (solutions, lesson)):
        assert f"]({os.path.relpath(other, page.parent)})" in test_repository.markdown(page)


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
        f"Exercise {number}.{k}" for k in range(1, 7)
    ]
    asked, answered = (
        [ast.unparse(call) for cell in exercise_cells(nb) for call in check_calls(cell.source)]
        for nb in (lesson, solutions)
    )
    assert asked == answered
    checks = {**CHECKS, **BUILDS}
    documented = [checks[call.partition("(")[0]].__doc__.partition(":")[0] for call in asked]
    assert documented == [heading.partition(":")[0] for heading in headings(lesson)]


def test_an_exercise_is_a_specification_and_one_blank_cell(lesson: NotebookNode) -> None:
    for text in exercise_texts(lesson):
        cell = lesson.cells[lesson.cells.index(text) + 1]
        limit = 200 if ".6: " in text.source.splitlines()[0] else 120  # the last one builds something larger
        assert len(text.source.split()) <= limit, text.source.splitlines()[0]
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
    assert sorted(names) == sorted([*CHECKS, *BUILDS])


def test_exercises_import_downwards_only() -> None:
    """The package needs nothing of ours but itself: relative imports, and those of other people's packages."""
    for path in (lessons.ROOT / "code" / "exercises").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & {module.stem for module in (lessons.ROOT / "code").glob("*.py")}, path.name


# ---------------------------------------------------------------------------------------------------
# The exercises on their own, in a fresh kernel


def exercises_alone(number: int, folder: Path, *, answers: bool = False) -> Path:
    """A notebook of the exercises of a lesson, in a folder laid out like this project.

    With answers, the functions that the learner writes mistake a name.
    """
    for name in ("code", "models", "serving"):
        (folder / name).symlink_to(lessons.ROOT / name)
    nb = lessons.read_notebook(lesson_path(number))
    nb.cells = [cell for cell in nb.cells if cell in exercise_texts(nb) or cell in exercise_cells(nb)]
    for cell in exercise_cells(nb) if answers else []:
        cell.source = cell.source.replace("    ...\n", "    return misspelt\n")
    alone = folder / "notebooks" / lesson_path(number).relative_to(lessons.NOTEBOOKS).with_name("Exercises.ipynb")
    alone.parent.mkdir(parents=True)
    lessons.write_notebook(nb, alone)
    return alone


@pytest.mark.notebooks
def test_exercises_run_without_their_lesson(number: int, no_network: dict[str, str], tmp_path: Path) -> None:
    outcome = lessons.run_notebook(exercises_alone(number, tmp_path), environment=no_network)
    assert outcome.failure is None
    shown = results(outcome.notebook)
    assert len(shown) == 6 and all(result.startswith("not attempted yet") for result in shown)


@pytest.mark.notebooks
def test_a_misspelt_name_is_reported_with_its_line(no_network: dict[str, str], tmp_path: Path) -> None:
    outcome = lessons.run_notebook(exercises_alone(1, tmp_path, answers=True), environment=no_network)
    assert outcome.failure is None
    _, *messages = results(outcome.notebook)
    lines = [
        [line.strip() for line in cell.source.splitlines()].index("return misspelt") + 1
        for cell in lessons.code_cells(outcome.notebook)
        if "misspelt" in cell.source
    ]
    assert len(messages) == len(lines) == 5
    for message, line in zip(messages, lines, strict=True):
        assert f", in line {line} (`return misspelt`): name 'misspelt' is not defined" in message
