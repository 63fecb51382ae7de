"""Terms of the glossary, linked where a page uses them first. Notes and notebooks know nothing of it.

A page links a term where it stands *in italics*, as the notes write a word that they introduce. A name that cannot be
anything else, of several words or in capitals, is linked in plain text too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

GLOSSARY = "notes/Glossary"
ROW = re.compile(r"^\| \*\*(.+?)\*\*", flags=re.MULTILINE)
UNLINKED = (nodes.reference, addnodes.pending_xref, nodes.literal, nodes.math, nodes.strong, nodes.emphasis)


def label_of(row: str) -> str:
    """The label, and the anchor, of a row of the glossary: "KV cache" -> "term-kv-cache"."""
    return f"term-{nodes.make_id(row)}"


@cache
def terms_of(glossary: str) -> dict[str, str]:
    """The label of every term, in small letters: {"memory-bound": "term-memory-bound-compute-bound", ...}."""
    return {term.casefold(): label_of(row) for row in ROW.findall(glossary) for term in row.split(", ")}


@cache
def sure_names(glossary: str) -> re.Pattern[str]:
    """Finds the terms that are meant wherever they stand: of several words, or with two capitals."""
    terms = [term for row in ROW.findall(glossary) for term in row.split(", ")]
    sure = [term for term in terms if re.search(r"[ -]|[A-Z].*[A-Z]", term)]
    longest_first = sorted(sure, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)", flags=re.IGNORECASE)


def plain_or_in_italics(document: nodes.document) -> Iterator[nodes.Text]:
    """The texts of the paragraphs in which a term can be linked."""
    for paragraph in list(document.findall(nodes.paragraph)):
        for text in list(paragraph.findall(nodes.Text)):
            alone_in_italics = isinstance(text.parent, nodes.emphasis) and len(text.parent) == 1
            outer = text.parent.parent if alone_in_italics else text.parent
            if not isinstance(outer, UNLINKED) and not isinstance(outer.parent, UNLINKED):
                yield text


class GlossaryTerms(SphinxTransform):
    """Give the glossary's terms an anchor, and other pages of the lessons links to them."""

    default_priority = 600  # links are links by now

    def apply(self, **_: Any) -> None:
        """Work on one document."""
        if self.env.docname == GLOSSARY:
            self.add_anchors()
        elif self.env.docname.startswith(("notes/", "notebooks/")):
            self.add_links(Path(self.env.doc2path(GLOSSARY)).read_text(encoding="utf-8"))

    def add_anchors(self) -> None:
        """Make the first bold text of every row of a table a target, and the first that a search for it finds."""
        standard = self.env.get_domain("std")
        for row in self.document.findall(nodes.row):
            if term := next(row[0].findall(nodes.strong), None):
                label = label_of(term.astext())
                term["ids"].append(label)
                standard.anonlabels[label] = self.env.docname, label
                entries = [("single", name, label, "main", None) for name in term.astext().split(", ")]
                row[0].insert(0, addnodes.index(entries=entries))

    def add_links(self, glossary: str) -> None:
        """Link each term of the glossary once."""
        seen: set[str] = set()
        for text in plain_or_in_italics(self.document):
            whole = isinstance(text.parent, nodes.emphasis)
            pieces = self.linked(text.astext(), glossary, whole, seen)
            if len(pieces) > 1 or not isinstance(pieces[0], nodes.Text):
                text.parent.replace(text, pieces)

    def linked(self, text: str, glossary: str, whole: bool, seen: set[str]) -> list[nodes.Node]:
        """A text in pieces, with links to those of its terms that are not in `seen`; they are put there."""
        terms, pieces, end = terms_of(glossary), [], 0
        pattern = re.compile(r"(.+?)s?", flags=re.DOTALL) if whole else sure_names(glossary)
        matches = [pattern.fullmatch(text)] if whole else pattern.finditer(text)
        for match in filter(None, matches):
            label = terms.get(" ".join(match[1].casefold().split()))
            if label and label not in seen:
                seen.add(label)
                pieces += [nodes.Text(text[end : match.start()]), self.link(match[0], label)]
                end = match.end()
        return [piece for piece in (*pieces, nodes.Text(text[end:])) if piece.astext()] or [nodes.Text(text)]

    def link(self, text: str, label: str) -> addnodes.pending_xref:
        """A link to a row of the glossary."""
        target = {"refdomain": "std", "reftype": "ref", "reftarget": label, "refexplicit": True, "refwarn": True}
        return addnodes.pending_xref("", nodes.inline("", text), refdoc=self.env.docname, **target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this file an extension of Sphinx."""
    app.add_transform(GlossaryTerms)
    return {"parallel_read_safe": True}
