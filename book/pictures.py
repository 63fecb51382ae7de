"""Words for the plots of the notebooks, for readers who do not see them: what the function that draws says it draws."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

FIGURES = Path(__file__).resolve().parents[1] / "code" / "figures"
DRAWS = re.compile(r"\bfigures\.(?:(lesson_\d+)\.)?(\w+)\(")


@cache
def docstrings(path: Path) -> dict[str, str]:
    """The first paragraph of the docstring of every function in a file, on one line."""
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    texts = {function.name: ast.get_docstring(function) or "" for function in functions}
    return {name: " ".join(text.partition("\n\n")[0].split()) for name, text in texts.items()}


def drawn_by(source: str) -> str | None:
    """What a cell draws, in the words of the last function of `figures` that it calls; None if it calls none."""
    words = None
    for module, function in DRAWS.findall(source):
        words = docstrings(FIGURES / f"{module or 'charts'}.py").get(function) or words
    return words


def code_cells(document: nodes.document) -> Iterator[nodes.container]:
    """The code cells of a notebook, each with its source and its outputs."""
    for container in document.findall(nodes.container):
        if container.get("nb_element") == "cell_code":
            yield container


class PlotsInWords(SphinxTransform):
    """Give every plot an alternative text. Of a cell that calls nothing of `figures` it names the section only."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        """Look at the code cells of the document."""
        for cell in code_cells(self.document):
            images = list(cell.findall(nodes.image))
            if not images:
                continue
            source = next(cell.findall(nodes.literal_block)).astext()
            section = cell.parent.next_node(nodes.title).astext()
            for image in images:
                image["alt"] = f"Plot: {drawn_by(source) or f'in the section {section}.'}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.add_transform(PlotsInWords)
    return {"parallel_read_safe": True}
