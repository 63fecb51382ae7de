"""Chapters: a lesson's notebook and its solutions follow its note, without a word about it in the files.

After notes/Lesson_2.md come notebooks/Lesson_2-*.ipynb and notebooks/solutions/Lesson_2-*.ipynb; after
notes/further/Lesson_6.md come notebooks/further/Lesson_6-*.ipynb and notebooks/solutions/Lesson_6-*.ipynb.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import filter as matching
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

NOTE = re.compile(r"notes/((?:\w+/)*)(Lesson_\d+)")
TOCTREE = "\n\n```{{toctree}}\n:hidden:\n\n{}\n```\n"


def rest_of_chapter(note: str, documents: Iterable[str]) -> list[tuple[str, str]]:
    """What follows a note, as (title, document) in the order of reading; nothing if `note` is no lesson's note."""
    if not (found := NOTE.fullmatch(note)):
        return []
    folder, lesson = found.groups()
    patterns = {
        "The notebook": f"notebooks/{folder}{lesson}-*",
        "The solutions": f"notebooks/solutions/{lesson}-*",
    }
    return [(title, name) for title, pattern in patterns.items() for name in sorted(matching(documents, pattern))]


def add_rest_of_chapter(app: Sphinx, document: str, content: list[str]) -> None:
    """Put a hidden table of contents at the end of a note."""
    if entries := rest_of_chapter(document, app.env.found_docs):
        content[0] += TOCTREE.format("\n".join(f"{title} </{name}>" for title, name in entries))


class NotebookTitles(SphinxTransform):
    """Tell a lesson's notebook from its note, which has the same heading: "Lesson 2: Batching (notebook)"."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        """Add the word to the first heading."""
        document = self.env.docname
        if document.startswith("notebooks/") and "/solutions/" not in document:
            title = next(self.document.findall(nodes.title))
            title += nodes.Text(" (notebook)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.connect("source-read", add_rest_of_chapter)
    app.add_transform(NotebookTitles)
    return {"parallel_read_safe": True}
