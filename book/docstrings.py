"""Docstrings as `code/` has them, in the form that Sphinx reads: what is drawn or typed in them is kept as it is."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


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


def without_types(lines: list[str]) -> list[str]:
    """The lines with a colon in front of what is returned, so that a colon in the text does not end a type.

    >>> without_types(["Returns:", "    The cache: it has grown."])
    ['Returns:', '    : The cache: it has grown.']
    """
    after = ["", *lines]
    return [f"    : {line.strip()}" if above == "Returns:" else line for above, line in zip(after, lines, strict=False)]


def prepare(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Prepare the lines of one docstring, in place."""
    lines[:] = without_types(with_literal_blocks(lines))


def without_factories(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Write what a dataclass makes anew for each object as `...`; Python says `<factory>`, which nobody can read."""
    return arguments and arguments.replace("<factory>", "..."), result


def leave_out(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: all that Python says about them is their number."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def thing_named(name: str, module: str) -> Any:
    """The class or function that a module means by a name; None if there is none.

    A module of the lessons may name what it imports for type checkers only; `helpers` has all of these names.
    """
    for home in (module, *(["helpers"] if "." not in module else [])):
        thing = getattr(sys.modules.get(home), name, None)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            return thing
    return None


class NamesOfTheirModule(SphinxTransform):
    """Let a name mean what it means in the module that uses it: two modules have a class `Request`."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        """Look at every link to a name of the code."""
        for link in self.document.findall(addnodes.pending_xref):
            thing = thing_named(link["reftarget"], link.get("py:module") or "")
            if link["refdomain"] == "py" and thing is not None:
                link["reftarget"] = f"{thing.__module__}.{thing.__qualname__}"


def show_modules_as_python(app: Sphinx) -> list[Any]:
    """Have the pages with the modules' own code coloured: all texts are written by now, so what is drawn is not."""
    app.config.highlight_language = "python"
    return []  # and no page of our own


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon, which comes at 500
    app.connect("autodoc-process-signature", without_factories)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("html-collect-pages", show_modules_as_python, priority=400)  # before viewcode, which comes at 500
    app.add_transform(NamesOfTheirModule)
    return {"parallel_read_safe": True}
