"""What all drawings are drawn on: a light card measured in pixels, one palette, one type scale.

Coordinates are pixels of an 800 pixels wide picture, with y growing downwards. Colours differ in
lightness, and whatever colour says is said again by a hatch, a label or a place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.text import Text

from figures import BLUE, ORANGE, PALE, PURPLE, use_style

WIDTH = 800
TITLE, BODY, SMALL = 16, 13, 12  # pixels; nothing is smaller than 12, which is 9 points
POINTS_PER_PIXEL = 0.75
INK, CARD = "#1a1a1a", "#fcfcfa"
STRONG = "strong"  # a thicker outline: a bold font would bring a second set of glyphs into every file
STRONG_LOOK = f"stroke: {INK}; stroke-width: 190"


class Fill(NamedTuple):
    """How an area looks: a colour, and a hatch for those who do not see the colour."""

    color: str
    hatch: str | None = None


SOLID_BLUE, PALE_BLUE = Fill(BLUE), Fill("#c3d8ee")
SOLID_ORANGE, PALE_ORANGE, HATCHED_ORANGE = Fill(ORANGE), Fill("#f9dcb3"), Fill("#f9dcb3", "////")
SOLID_PURPLE, PALE_PURPLE, PALE_GREEN = Fill(PURPLE), Fill("#dfcbe3"), Fill("#d5e8c4")
MID_GREY, PALE_GREY, BLANK = Fill("#b9b9b9"), Fill(PALE), Fill(CARD)


def set_style() -> None:
    """The notebooks' style, and what a file needs that must look alike in every browser."""
    use_style()
    rcParams.update(
        {
            "figure.facecolor": CARD,
            "savefig.facecolor": CARD,
            "axes.facecolor": CARD,
            "figure.constrained_layout.use": False,
            "text.color": INK,
            "font.size": BODY * POINTS_PER_PIXEL,
            "axes.labelsize": BODY * POINTS_PER_PIXEL,
            "xtick.labelsize": SMALL * POINTS_PER_PIXEL,
            "ytick.labelsize": SMALL * POINTS_PER_PIXEL,
            "hatch.linewidth": 0.7,
            "svg.fonttype": "path",  # outlines: the text keeps its width where the font is missing
        }
    )


class Sheet:
    """One drawing: a card with a title that states the finding, and what is put on it."""

    def __init__(self, height: int, title: str) -> None:
        self.figure = Figure(figsize=(WIDTH / 96, height / 96))
        self.height = height
        self.paper = self.figure.add_axes((0, 0, 1, 1))
        self.paper.set(xlim=(0, WIDTH), ylim=(height, 0))
        self.paper.axis("off")
        self.paper.add_patch(
            Rectangle((0.5, 0.5), WIDTH - 1, height - 1, facecolor="none", edgecolor="#d6d6d6", clip_on=False)
        )
        self.text(20, 26, title, size=TITLE, strong=True)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = BODY,
        color: str = INK,
        strong: bool = False,
        **options: str | float | dict,
    ) -> Text:
        """Words whose middle is at y, starting at x unless `ha` says otherwise; other options as in matplotlib."""
        upright_line = "\n" not in words and not options.keys() & {"va", "rotation"}
        if upright_line:  # centred by its baseline, so that words in a row stand on one line
            y, options = y + 0.36 * size, {"va": "baseline"} | options
        options = {"ha": "left", "va": "center", "linespacing": 1.35} | options
        mark = {"gid": STRONG} if strong else {}
        return self.paper.text(x, y, words, fontsize=size * POINTS_PER_PIXEL, color=color, **mark, **options)

    def note(self, x: float, y: float, words: str, **options: str | float) -> Text:
        """A smaller, grey remark."""
        return self.text(x, y, words, **{"size": SMALL, "color": "#4a4a4a"} | options)

    def box(
        self, x: float, y: float, width: float, height: float, words: str = "", fill: Fill = BLANK, size: int = BODY
    ) -> None:
        """A rectangle with words in its middle."""
        self.cells([(x, y)], width, height, fill)
        if words:
            self._label((x + width / 2, y + height / 2), words, fill, size)

    def cells(self, places: Iterable[tuple[float, float]], width: float, height: float, fill: Fill) -> None:
        """Equal rectangles at these places (left, top), as one outline, which keeps the file small."""
        corners = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
        outlines = [Outline([(x + right, y + down) for right, down in corners], closed=True) for x, y in places]
        if outlines:
            look = {"facecolor": fill.color, "hatch": fill.hatch, "edgecolor": INK, "linewidth": 0.6, "clip_on": False}
            self.paper.add_patch(PathPatch(Outline.make_compound_path(*outlines), **look))

    def table(
        self,
        x: float,
        y: float,
        rows: Sequence[Sequence[str]],
        width: float,
        height: float,
        fills: Sequence[Sequence[Fill]],
    ) -> None:
        """A grid of cells of this width and height, with a short word in each."""
        places: dict[Fill, list[tuple[float, float]]] = {}
        for r, row in enumerate(fills):
            for c, fill in enumerate(row):
                places.setdefault(fill, []).append((x + c * width, y + r * height))
        for fill, corners in places.items():
            self.cells(corners, width, height, fill)
        for r, row in enumerate(rows):
            for c, word in enumerate(row):
                if word:
                    middle = x + (c + 0.5) * width, y + (r + 0.5) * height
                    self._label(middle, word, fills[r][c], SMALL)

    def _label(self, middle: tuple[float, float], words: str, fill: Fill, size: int) -> None:
        """Words on a filled area; a hatch stays clear of them."""
        clear = {"bbox": {"facecolor": fill.color, "edgecolor": "none", "pad": 1}} if fill.hatch else {}
        self.text(*middle, words, size=size, color=ink_on(fill), ha="center", **clear)

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """A thick line around cells that matter."""
        look = {"facecolor": "none", "edgecolor": INK, "linewidth": 2.2, "clip_on": False}
        self.paper.add_patch(Rectangle((x, y), width, height, **look))

    def arrow(self, start: tuple[float, float], end: tuple[float, float], **options: str | float) -> None:
        """An arrow from one place to another."""
        look = {"arrowstyle": "-|>", "mutation_scale": 9, "color": INK, "linewidth": 1.1, "clip_on": False}
        look |= {"shrinkA": 0, "shrinkB": 0}
        self.paper.add_patch(FancyArrowPatch(start, end, **look | options))

    def line(self, start: tuple[float, float], end: tuple[float, float], **options: str | float) -> None:
        """A plain line."""
        self.paper.plot(*zip(start, end, strict=True), **{"color": INK, "linewidth": 0.9, "clip_on": False} | options)

    def span(self, left: float, right: float, y: float, words: str, *, below: bool = False, size: int = BODY) -> None:
        """A length from left to right, and what it is called."""
        self.arrow((left, y), (right, y), arrowstyle="|-|", mutation_scale=3)
        self.text((left + right) / 2, y + (12 if below else -12), words, size=size, ha="center")

    def ruler(self, at: Callable[[float], float], ticks: Sequence[int], y: float) -> None:
        """An axis with numbers; `at` says where a number is drawn."""
        self.line((at(ticks[0]), y), (at(ticks[-1]), y))
        for tick in ticks:
            self.line((at(tick), y), (at(tick), y + 5))
            self.note(at(tick), y + 16, f"{tick:,}", ha="center")

    def key(self, x: float, y: float, entries: Iterable[tuple[Fill, str, float]]) -> None:
        """What the fills mean, side by side: (fill, words, room in pixels)."""
        for fill, words, room in entries:
            self.cells([(x, y - 6)], 18, 12, fill)
            self.text(x + 25, y, words, size=SMALL)
            x += room

    def plot(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes for data, placed by the corner of their frame (left, top)."""
        place = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(place, zorder=-1)  # below the words on the paper

    def save(self, path: Path, alt: str) -> None:
        """Write the file, without its date, with the alternative text as its title."""
        svg = StringIO()
        self.figure.savefig(svg, format="svg", metadata={"Title": alt, "Date": None, "Creator": None})
        path.write_text(compact(svg.getvalue()), encoding="utf-8", newline="\n")


LONG_NUMBER = re.compile(r"\b[1-9]\d*\.\d{4,}")  # not those below 1: they are scales


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.3f}".rstrip("0").rstrip(".")


def compact(svg: str) -> str:
    """The same picture in fewer bytes: no metadata or indentation, coordinates to a thousandth."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(f'id="{STRONG}"', f'class="{STRONG}"').replace("</style>", f".{STRONG}{{{STRONG_LOOK}}}</style>")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"(?<![>\s])\s*\n\s*", " ", svg)  # a tag and its attributes on one line
    svg = re.sub(r"\n\s+", "\n", svg)
    svg = re.sub(r'="[^"]*"', lambda attribute: LONG_NUMBER.sub(_rounded, attribute[0]), svg)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r" ?([MLQCz]) ?", r"\1", path[0]), svg)
    svg = re.sub(r'transform="translate\((\S+) 0\)"', r'x="\1"', svg)  # the place of a glyph in its word
    return svg.replace("DejaVuSans-", "r")


def ink_on(fill: Fill) -> str:
    """White on dark fills, ink on light ones."""
    red, green, blue = to_rgb(fill.color)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else INK
