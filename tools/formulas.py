"""TeX formulas as SVG, drawn by matplotlib: pages show them without a network and without a script."""

from __future__ import annotations

import html
import re
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

SIZE = 16  # the font size at which outlines are computed; the drawing itself is sized in em, by the text around it
MATH_FONT = FontProperties(math_fontfamily="cm")
LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}
# Matplotlib knows a symbol by one of its names.
OTHER_NAMES = {
    r"\ge": r"\geq",
    r"\le": r"\leq",
    r"\ne": r"\neq",
    r"\to": r"\rightarrow",
    r"\lVert": r"\Vert",
    r"\rVert": r"\Vert",
}


@cache
def formula_svg(tex: str, *, display: bool = False) -> str:
    r"""A formula such as `\frac{a}{b}` as an SVG element on the text's baseline; its source if it cannot be drawn.

    With `display` it stands on its own line, where fractions are as large as the rest.
    """
    known = re.sub(r"\\[A-Za-z]+", lambda name: OTHER_NAMES.get(name[0], name[0]), " ".join(tex.split()))
    if display:
        known = known.replace(r"\frac", r"\dfrac")
    try:
        outline = TextPath((0, 0), f"${known}$", size=SIZE, prop=MATH_FONT)
    except ValueError:
        return f'<code class="formula">{html.escape(tex)}</code>'
    box = outline.get_extents().padded(0.5)
    return (
        f'<svg class="formula" role="img" aria-label="{html.escape(tex)}" '
        f'viewBox="{box.x0:.2f} {-box.y1:.2f} {box.width:.2f} {box.height:.2f}" '
        f'style="width:{box.width / SIZE:.3f}em;height:{box.height / SIZE:.3f}em;vertical-align:{box.y0 / SIZE:.3f}em">'
        f'<path fill="currentColor" d="{_outline_data(outline)}"/></svg>'
    )


def _outline_data(outline: Outline) -> str:
    """The `d` attribute of an SVG path; there y grows downwards, so its sign changes."""
    parts = []
    for points, code in outline.iter_segments(simplify=False):
        pairs = [] if code == Outline.CLOSEPOLY else [f"{x:.2f} {-y:.2f}" for x, y in points.reshape(-1, 2)]
        parts.append(LETTERS[code] + " ".join(pairs))
    return "".join(parts)
