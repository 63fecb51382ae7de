"""Small changes to the source of a function, one at a time, to see whether a test notices them.

    mutants("def f(a, b):\n    return a + b", "f")
        "return a + b → return a - b"      def f(a, b): return a - b
        "return a + b → return a"          def f(a, b): return a
        ...

A mutant is named after the innermost statement that was changed, before and after. Every loop of a mutant counts
its rounds, so that one that would never end raises `Endless`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

ROUNDS = 20_000  # no loop of a right answer in these tests comes near it


class Endless(Exception):
    """A loop of a mutant has run for more rounds than any right answer needs."""


def mutants(source: str, name: str) -> dict[str, ast.Module]:
    """The modules that differ from `source` in one place inside its functions, under the names described above."""
    original = _WithoutHints().visit(ast.parse(source))
    found: dict[str, ast.Module] = {}
    for function in [node for node in original.body if isinstance(node, ast.FunctionDef)]:
        for place, node in enumerate(ast.walk(function)):
            for change, _ in enumerate(replacements(node)):
                title, changed = _changed(original, function.name, place, change)
                if title is not None:
                    found.setdefault(title, changed)
    return found


class _WithoutHints(ast.NodeTransformer):
    """Leaves out type hints and `strict=True`: with right arguments nothing runs differently without them."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "strict"]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _changed(original: ast.Module, function_name: str, place: int, change: int) -> tuple[str | None, ast.Module]:
    """A copy of the module in which the node at this place of the walk is replaced, and the mutant's title."""
    module = copy.deepcopy(original)
    function = next(node for node in module.body if getattr(node, "name", None) == function_name)
    nodes = list(ast.walk(function))
    node, replacement = nodes[place], list(replacements(nodes[place]))[change]
    parents = {child: parent for parent in ast.walk(function) for child in ast.iter_child_nodes(parent)}
    if node is function or node not in parents:
        return None, module
    statement = node
    while not isinstance(statement, ast.stmt):
        statement = parents[statement]
    before = _head(statement)
    _replace(parents[node], node, replacement)
    after = _head(replacement if statement is node else statement)
    return (None if before == after else f"{before} → {after}"), ast.fix_missing_locations(module)


def _head(statement: ast.stmt) -> str:
    """The statement on one line, without the block that it may hold."""
    statement = ast.fix_missing_locations(copy.deepcopy(statement))
    if hasattr(statement, "body"):
        statement.body, statement.orelse = [ast.Pass()], []
        return ast.unparse(statement).partition("\n")[0]
    return " ".join(ast.unparse(statement).split())


def _replace(parent: ast.AST, node: ast.AST, replacement: ast.AST) -> None:
    for field, value in ast.iter_fields(parent):
        if value is node:
            setattr(parent, field, replacement)
        elif isinstance(value, list) and any(item is node for item in value):
            setattr(parent, field, [replacement if item is node else item for item in value])


# --- What can be changed -------------------------------------------------------------------------------

BINARY = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq,),
}
NAMES = {"max": "min", "min": "max", "ceil": "floor", "floor": "ceil", "any": "all", "all": "any"}
NAMES |= {"zeros_like": "ones_like", "ones_like": "zeros_like", "argmax": "argmin", "amax": "amin", "round": "floor"}


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in the place of this one; always the same ones in the same order."""
    node = copy.deepcopy(node)
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.BinOp):
        yield node.left
        yield node.right
        for operation in BINARY.get(type(node.op), ()):
            yield ast.BinOp(node.left, operation(), node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield from node.values
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operation in COMPARISONS.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [operation()], node.comparators)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Subscript):
        yield from _subscripts(node)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.stmt):
        yield from _statements(node)
    elif isinstance(node, ast.comprehension):
        yield from _comprehensions(node)


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield from (ast.Constant(node.value + step) for step in (1, -1))
        if node.value == -1:
            yield ast.Constant(0)
    elif isinstance(node.value, float):
        yield from (ast.Constant(value) for value in (node.value + 0.5, node.value - 0.5))


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    for index in range(len(node.args)):
        if len(node.args) > 1:
            yield ast.Call(node.func, node.args[:index] + node.args[index + 1 :], node.keywords)
        yield node.args[index]  # the call left out, one argument in its place
    for index in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, node.keywords[:index] + node.keywords[index + 1 :])
    if isinstance(node.func, ast.Attribute):
        yield node.func.value  # x.clamp(min=0) → x
        if node.func.attr in NAMES:
            yield ast.Call(ast.Attribute(node.func.value, NAMES[node.func.attr], ast.Load()), node.args, node.keywords)
    elif isinstance(node.func, ast.Name) and node.func.id in NAMES:
        yield ast.Call(ast.Name(NAMES[node.func.id], ast.Load()), node.args, node.keywords)


def _subscripts(node: ast.Subscript) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load):
        yield node.value
    for index in _indices(node.slice):
        yield ast.Subscript(node.value, index, node.ctx)


def _indices(index: ast.expr) -> Iterator[ast.expr]:
    """The index one place to the left and to the right; a slice without or beside each of its ends."""
    if isinstance(index, ast.Slice):
        for end in ("lower", "upper"):
            value = getattr(index, end)
            inwards = ast.Constant(1 if end == "lower" else -1)
            for other in [inwards] if value is None else [None, *_shifted(value)]:
                changed = copy.deepcopy(index)
                setattr(changed, end, other)
                yield changed
    elif not isinstance(index, (ast.Tuple, ast.Constant)):
        yield from _shifted(index)


def _shifted(value: ast.expr) -> Iterator[ast.expr]:
    yield ast.BinOp(value, ast.Add(), ast.Constant(1))
    yield ast.BinOp(value, ast.Sub(), ast.Constant(1))


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr, ast.Break)):
        yield ast.Pass()
    if isinstance(node, ast.AugAssign):
        target = copy.deepcopy(node.target)
        yield ast.Assign([target], node.value)
        for operation in BINARY.get(type(node.op), ()):
            yield ast.AugAssign(node.target, operation(), node.value)
    if isinstance(node, ast.If):
        yield from (ast.If(ast.Constant(value), node.body, node.orelse) for value in (True, False))
    if isinstance(node, ast.For):
        yield from (ast.For(node.target, cut, node.body, node.orelse) for cut in _cut(node.iter))


def _comprehensions(node: ast.comprehension) -> Iterator[ast.AST]:
    yield from (ast.comprehension(node.target, cut, node.ifs, node.is_async) for cut in _cut(node.iter))
    for index in range(len(node.ifs)):
        yield ast.comprehension(node.target, node.iter, node.ifs[:index] + node.ifs[index + 1 :], node.is_async)


def _cut(items: ast.expr) -> Iterator[ast.expr]:
    """The same items without the first one, and without the last one."""
    everything = ast.Call(ast.Name("list", ast.Load()), [items], [])
    for lower, upper in ((ast.Constant(1), None), (None, ast.Constant(-1))):
        yield ast.Subscript(everything, ast.Slice(lower, upper, None), ast.Load())


# --- Running a mutant ----------------------------------------------------------------------------------


class _CountRounds(ast.NodeTransformer):
    """Puts a call of `count_round()` at the head of every loop's body."""

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._counted(node)

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._counted(node)

    def _counted(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        node.body.insert(0, ast.Expr(ast.Call(ast.Name("count_round", ast.Load()), [], [])))
        return node


def define(module: ast.Module, name: str, namespace: dict[str, Any]) -> Any:
    """The function called `name` that the module defines, with the names of `namespace` at hand."""
    rounds = 0

    def count_round() -> None:
        nonlocal rounds
        rounds += 1
        if rounds > ROUNDS:
            raise Endless

    counted = ast.fix_missing_locations(_CountRounds().visit(copy.deepcopy(module)))
    names = {**namespace, "count_round": count_round}
    exec(compile(counted, f"a mutant of {name}", "exec"), names)
    return names[name]
