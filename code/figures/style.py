"""One style for every figure: the palette, the sizes of text, and how a figure is saved.

The colours stay apart in black and white too: they differ in lightness. No text is smaller than 9 points.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY, PALE = "#1f5a99", "#e08214", "#4d9221", "#762a83", "#6b6b6b", "#e6e6e6"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE)
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D")


def use_style() -> None:
    """Set matplotlib's defaults for this session: call it once, at the top of a notebook."""
    plt.rcParams.update(
        {
            "figure.figsize": (8, 3.8),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.labelsize": 10,
            "grid.color": PALE,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "font.size": 10,
            "svg.hashsalt": "companion",  # the same figure gives the same file
        }
    )


def save_svg(figure: Figure, path: str | Path) -> None:
    """Write the figure as SVG, without the date, so that a redrawn figure is the same file."""
    figure.savefig(path, format="svg", metadata={"Date": None})
