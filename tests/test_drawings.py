"""The notes' drawings: current, readable, and described in words."""

from __future__ import annotations

import re
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.text import Text

FOLDER = Path(__file__).resolve().parent.parent / "notes" / "figures"
sys.path.insert(0, str(FOLDER))

import lesson_0
from canvas import POINTS_PER_PIXEL, WIDTH, Sheet, set_style
from draw import DRAWINGS, draw_all
from helpers import run_continuous, run_static
from lesson_3 import COURSE_BUDGETS, SLOTS, continuous_forwards, static_forwards, trace_of

NAMES = [drawing.file_name for drawing in DRAWINGS]
SMALLEST_TEXT = 12  # pixels at the drawing's natural width, in which pages show it: 9 points
SVG = "{http://www.w3.org/2000/svg}"


def committed(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_every_committed_drawing_is_drawn_and_every_drawn_one_is_committed():
    assert sorted(NAMES) == sorted(path.name for path in FOLDER.glob("*.svg"))


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    draw_all(folder)
    return folder


NUMBER = re.compile(r"(?<![\da-z#.])-?\d+(?:\.\d+)?")


def parts(svg: str) -> tuple[str, np.ndarray]:
    """Everything but the numbers, and the numbers.

    Another processor may round another way in the last digit, which moves a line by a thousandth of a
    pixel and renames what is named by a hash of it. So names count by the order in which they occur.
    """
    order: dict[str, str] = {}
    svg = re.sub(r"\b[a-z][0-9a-f]{10}\b", lambda name: order.setdefault(name[0], f"name{len(order)}"), svg)
    return NUMBER.sub("0", svg), np.array(NUMBER.findall(svg), dtype=float)


@pytest.mark.parametrize("name", NAMES)
def test_committed_drawing_is_current(name, redrawn):
    (old, old_numbers), (new, new_numbers) = parts(committed(name)), parts((redrawn / name).read_text(encoding="utf-8"))
    assert old == new, f"{name} is not what draw.py draws; run python notes/figures/draw.py"
    assert np.allclose(old_numbers, new_numbers, rtol=0, atol=0.005), f"{name} has moved; run notes/figures/draw.py"


@pytest.mark.parametrize("drawing", DRAWINGS, ids=NAMES)
def test_drawing_says_in_words_what_it_shows(drawing):
    title = ElementTree.fromstring(committed(drawing.file_name)).find(f"{SVG}title").text
    assert title == drawing.alt
    assert 20 <= len(title) <= 300 and title.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_drawing_brings_its_own_light_background(name):
    """So that it can be read on a dark page as well."""
    root = ElementTree.fromstring(committed(name))
    width, height = root.get("viewBox").split()[2:]
    card = root.find(f"{SVG}g").find(f"{SVG}g").find(f"{SVG}path")
    assert card.get("d") == f"M0 {height}L{width} {height}L{width} 0L0 0z"
    color = re.fullmatch(r"fill: #([0-9a-f]{6})", card.get("style"))[1]  # no opacity: it is opaque
    assert min(bytes.fromhex(color)) > 0xE0


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_too_small(name):
    """Text is outlines, drawn at a hundredth of a point per unit and scaled to its size."""
    svg = committed(name)
    assert "<text" not in svg
    assert float(ElementTree.fromstring(svg).get("viewBox").split()[2]) == WIDTH * POINTS_PER_PIXEL
    scales = [float(scale) for scale in re.findall(r"scale\((0\.\d+) -0\.\d+\)", svg)]
    assert scales and min(scales) * 100 / POINTS_PER_PIXEL >= SMALLEST_TEXT


def test_drawings_are_small_files():
    sizes = [len(committed(name).encode()) for name in NAMES]
    assert max(sizes) < 75_000 and sum(sizes) < 2_000_000


@pytest.mark.parametrize("drawing", DRAWINGS, ids=NAMES)
def test_no_text_is_cut_off_or_covers_another(drawing):
    with rc_context():
        set_style()
        boxes = text_boxes(drawing.draw())
    for words, box in boxes.items():
        assert box[0] >= 4 and box[1] >= 4 and box[2] <= WIDTH - 4, f"{words!r} leaves the card: {box}"
    for (one, a), (two, b) in combinations(boxes.items(), 2):
        across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert across <= 1 or down <= 2, f"{one[0]!r} and {two[0]!r} overlap"


def text_boxes(sheet: Sheet) -> dict[tuple[str, int], tuple[float, float, float, float]]:
    """Left, lower, right and upper edge of all words, in pixels."""
    sheet.figure.draw_without_rendering()
    pixels = 96 / sheet.figure.dpi
    texts = [text for text in sheet.figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    texts = [text for text in texts if text.axes is not sheet.paper or text in sheet.paper.texts]
    extents = [text.get_window_extent() for text in texts]
    return {
        (text.get_text(), index): tuple(edge * pixels for edge in (e.x0, e.y0, e.x1, e.y1))
        for index, (text, e) in enumerate(zip(texts, extents, strict=True))
    }


@pytest.mark.parametrize(("serve", "count"), [(run_static, static_forwards), (run_continuous, continuous_forwards)])
def test_counted_forwards_are_those_of_a_real_run(serve, count):
    """The drawing of the gain counts what the drawing of the course's workload runs."""
    budgets = [max(1, budget // 10) for budget in COURSE_BUDGETS]
    assert count(budgets, SLOTS) == trace_of(serve, budgets, SLOTS).forwards


def test_the_storyteller_finishes_the_proverb_as_lesson_0_says():
    """The note and the words that stand for the drawing spell the tokens out; another model may choose others."""
    prompt, answer = lesson_0.proverb()
    assert prompt == ["A", "␣friend", "␣in", "␣need"]
    assert [token for token, _ in answer] == ["␣is", "␣a", "␣friend", "␣", "ind", "eed", ".", "end"]
