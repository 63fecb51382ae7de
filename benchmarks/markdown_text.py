"""Tables, lists and paragraphs of the pages that report.py writes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def wrap(text: str, indent: str = "") -> str:
    """Lines as long as those of the notes."""
    return "\n".join(textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with numbers on the right."""
    columns = [[row[column] for row in rows] for column in range(len(header))]
    numeric = [all(cell[:1].isdigit() or not cell for cell in column) for column in columns]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))
