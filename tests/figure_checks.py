"""What the tests of figures share."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST_POINTS = 9


def texts(figure: Figure) -> list[Text]:
    """Every text that a reader sees in the figure."""
    figure.canvas.draw()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def assert_readable(figure: Figure) -> None:
    """No text is smaller than 9 points."""
    small = [(text.get_text(), text.get_fontsize()) for text in texts(figure) if text.get_fontsize() < SMALLEST_POINTS]
    assert not small, f"too small to read, in points: {small}"


def title(ax: Axes) -> str:
    """The title, which stands on the left."""
    assert ax.get_title(loc="left"), "the title stands on the left"
    return ax.get_title(loc="left")


def legend(ax: Axes) -> list[str]:
    """The words of the legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]
