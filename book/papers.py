"""The list of what the notes cite, collected from their own links: [Orca](https://...) (Yu et al., 2022)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sphinx.application import Sphinx

PAGE = "book/papers"
CITED = re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+)\)\s+\(([^()]+?),\s+((?:19|20)\d\d)\)")


class Paper(NamedTuple):
    """A paper or an article; sorts by year, then by authors."""

    year: str
    authors: str
    title: str
    address: str


def papers_in(notes: Mapping[str, str]) -> dict[Paper, list[str]]:
    """What these texts cite, oldest first, and the names of the texts that do. One address is one paper."""
    cited: dict[str, tuple[Paper, list[str]]] = {}
    for name, text in notes.items():
        for title, address, authors, year in CITED.findall(text):
            paper = Paper(year, " ".join(authors.split()), " ".join(title.split()), address)
            _, names = cited.setdefault(address, (paper, []))
            if name not in names:
                names.append(name)
    return dict(sorted(cited.values()))


def as_markdown(papers: Mapping[Paper, list[str]], folder: str) -> str:
    """A list with one line per paper; the links to the texts get the texts' own titles."""
    lines = []
    for paper, names in papers.items():
        places = ", ".join(f"[]({folder}/{name})" for name in names)
        lines.append(f"- {paper.authors} ({paper.year}): [{paper.title}]({paper.address}). Cited in: {places}")
    return "\n".join(lines)


def add_papers(app: Sphinx, document: str, content: list[str]) -> None:
    """Put the list at the end of its page."""
    if document != PAGE:
        return
    folder = Path(app.srcdir) / "notes"
    paths = sorted(folder.rglob("*.md"))
    notes = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    content[0] += "\n" + as_markdown(papers_in(notes), "../notes") + "\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.connect("source-read", add_papers)
    return {"parallel_read_safe": True}
