"""The form of a lesson: how much there is to read, and that no plotting code stands between a reader and the matter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from nbformat import NotebookNode

import lessons
from test_notes import words

MAX_WORDS = 2000
MAX_PLOTTING_LINES = 8
DRAWING = {"plt", "figures", "fig", "figure", "ax", "axes", "left", "right"}

each_lesson = pytest.mark.parametrize("path", lessons.find_lessons(), ids=lambda path: path.stem)


def prose(nb: NotebookNode) -> str:
    """The Markdown of a lesson without the texts of its exercises."""
    return "\n\n".join(
        cell.source for cell in nb.cells if cell.cell_type == "markdown" and not cell.source.startswith("### Exercise ")
    )


@each_lesson
def test_a_lesson_can_be_read_in_one_sitting(path: Path) -> None:
    assert words(prose(lessons.read_notebook(path))) <= MAX_WORDS


def plotting_lines(source: str) -> int:
    """The lines of a cell that draw: of its statements, at any depth, that call something which draws."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE))):
        if isinstance(node, (ast.Expr, ast.Assign)) and draws(node.value):
            lines |= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def draws(node: ast.expr) -> bool:
    """Whether an expression is a call on one of the names that stand for figures and axes."""
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and node.id in DRAWING


@each_lesson
def test_no_plotting_code_hides_the_matter(path: Path) -> None:
    for number, cell in enumerate(lessons.code_cells(lessons.read_notebook(path)), start=1):
        assert plotting_lines(cell.source) <= MAX_PLOTTING_LINES, f"code cell {number}:\n{cell.source}"


def test_plotting_lines_are_counted_wherever_they_stand() -> None:
    assert (
        plotting_lines("x = 1\nfor i in y:\n    ax.plot(\n        x, y\n    )\nfig, ax = plt.subplots()\nprint(x)") == 4
    )
