"""The pages of the book, by name, and what the tests look at in them: links, pictures, formulas, colours."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from committed import ROOT


def _names(*patterns: str) -> list[str]:
    """The project's files that fit a pattern, as the book names their pages."""
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).with_suffix("").as_posix() for path in paths]


CHAPTERS = _names("notes/Lesson_[1-9].md", "notes/further/Lesson_*.md")
NOTEBOOKS = _names("notebooks/*.ipynb", "notebooks/further/*.ipynb")
SOLUTIONS = _names("notebooks/solutions/*.ipynb")
OTHERS = _names("book/*.md", "README.md", "serving/README.md", "models/*/MODEL_CARD.md")
PAGES = [*_names("notes/*.md", "notes/further/*.md"), *NOTEBOOKS, *SOLUTIONS, *OTHERS]

# Formulas that MathJax has not drawn, or has drawn as an error; and dollars that have not become formulas.
UNDRAWN = """
() => [...document.querySelectorAll(".math")]
  .filter(formula => !formula.querySelector("mjx-container > *")
    || formula.querySelector("mjx-merror, [data-mjx-error]"))
  .concat([...document.querySelectorAll("article :is(p, li, td, h1, h2, h3)")]
    .filter(text => [...text.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.includes("$"))))
  .map(element => element.textContent)
"""

# Drawings that are shown smaller than they were drawn, which makes their text smaller than 9 points.
SHRUNK = """
() => [...document.querySelectorAll('article img[src$=".svg"]')]
  .filter(drawing => drawing.getBoundingClientRect().width < drawing.naturalWidth - 1).map(drawing => drawing.src)
"""

# {"rgb(0, 0, 0) on rgb(255, 255, 255)": "the first text in these colours"}
COLOURS = """
() => {
  const grounds = new Map([[null, "rgb(255, 255, 255)"]]);
  const ground = element => {
    if (!grounds.has(element)) {
      const own = getComputedStyle(element).backgroundColor;
      grounds.set(element, own === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : own);
    }
    return grounds.get(element);
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].find(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (text && element.checkVisibility({opacityProperty: true, visibilityProperty: true}))
      found[`${getComputedStyle(element).color} on ${ground(element)}`] ??= text.data.trim().slice(0, 40);
  }
  return found;
}
"""


def contrast(pair: str) -> float:
    """The contrast of two colours as the web's guidelines define it (WCAG 2, 1.4.3): from 1, none, to 21.

    >>> contrast("rgb(0, 0, 0) on rgb(255, 255, 255)")
    21.0
    """
    darker, lighter = sorted(_luminance(colour) for colour in pair.split(" on "))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    """How bright a colour is, from 0 to 1. Half-transparent colours are no `rgb(...)`, and raise a ValueError."""
    if not (found := re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)):
        raise ValueError(f"{colour!r} is no opaque colour")
    parts = [int(part) / 255 for part in found.groups()]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Page(HTMLParser):
    """What a page of the book holds: its links, the places that links can lead to, and its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "img":
            self.pictures.append(found)


@cache
def page_of(path: Path) -> Page:
    return Page(path)


def dead_links(path: Path) -> list[str]:
    """Those of a page's links that lead to no file of the book, or to a place that the file does not have."""
    dead = []
    for link in set(page_of(path).links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        place = unquote(parts.fragment)
        if not target.is_file() or (place and target.suffix == ".html" and place not in page_of(target).ids):
            dead.append(link)
    return dead
