"""Docstrings as `code/` has them, in the form that Sphinx reads: what is drawn or typed in them is kept as it is."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def with_literal_blocks(lines: list[str]) -> list[str]:
    """The lines with a mark before each block that is indented below a text: it is shown as it stands.

    >>> with_literal_blocks(["One step:", "", "    y = x A", "", "The end."])
    ['One step:', '', '::', '', '    y = x A', '', 'The end.']
    """
    marked: list[str] = []
    above = ""  # the last line that is not empty
    for number, line in enumerate(lines):
        starts = number > 0 and not lines[number - 1].strip() and line.startswith("    ")
        if starts and above and not above.startswith(" "):
            marked += ["::", ""]
        marked.append(line)
        above = line if line.strip() else above
    return marked


def prepare(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Prepare the lines of one docstring, in place."""
    lines[:] = with_literal_blocks(lines)


def leave_out(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: all that Python says about them is their number."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon, which comes at 500
    app.connect("autodoc-skip-member", leave_out)
    return {"parallel_read_safe": True}
