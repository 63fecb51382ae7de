"""What a lesson writes out under a name of `code/` is what `code/` does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lessons

CODE = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in (lessons.ROOT / "code").glob("*.py")}
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


class Essence(ast.NodeTransformer):
    """Leaves out what a lesson may leave out: docstrings, type hints, and calls that only check the input."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        node.args.defaults = [self.visit(default) for default in node.args.defaults]
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            argument.annotation = None
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._body(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return node if node.value is None else ast.Assign([node.target], node.value)

    def _body(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body if not is_docstring_or_check(statement)]
        return node


def is_docstring_or_check(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return True
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id.startswith(("check_", "_check_"))
    )


def essence(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(Essence().visit(ast.parse(ast.unparse(node)))))


def definitions(tree: ast.Module) -> dict[str, ast.AST]:
    return {node.name: node for node in tree.body if isinstance(node, DEFINITIONS)}


def twins(path: Path) -> list[tuple[str, str, str]]:
    """(name, as the lesson has it, as `code/` has it) for each definition of a lesson with a name of `code/`."""
    ours = {name: node for tree in CODE.values() for name, node in definitions(tree).items()}
    found = []
    for cell in lessons.code_cells(lessons.read_notebook(path)):
        for name, node in definitions(ast.parse(cell.source)).items():
            if name in ours:
                found.append((name, essence(node), essence(ours[name])))
    return found


@pytest.mark.parametrize("path", lessons.find_lessons(), ids=lambda path: path.stem)
def test_a_function_written_out_in_a_lesson_is_the_one_in_code(path):
    for name, lesson, code in twins(path):
        assert lesson == code, name


def test_the_lessons_write_out_the_functions_that_they_teach():
    names = {name for path in lessons.find_lessons() for name, _, _ in twins(path)}
    assert {"positions_from_mask", "merge_batches", "filter_batch"} <= names


def test_a_changed_function_is_seen_and_a_missing_docstring_is_not():
    function = '@cached\ndef f(a: int, *, b: str = "x") -> int:\n    "Says what."\n    check_a(a)\n    return a + 1'
    assert essence(ast.parse(function)) == "@cached\ndef f(a, *, b='x'):\n    return a + 1"
    assert essence(ast.parse(function)) != essence(ast.parse(function.replace("1", "2")))
