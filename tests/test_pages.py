"""The pages of `make lessons`, in a browser: nothing comes from outside, nothing is cut off, every link arrives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import lessons
from formulas import formula_svg
from pages import anchor, page_exporter, relocate_links

WIDTHS = (400, 768, 1280)
PAGES = sorted(path.as_posix() for path in lessons.pages_of(lessons.NOTEBOOKS, Path("/")).values())

# The texts that reach beyond the window, or beyond a box that hides what is too wide, and cannot be scrolled.
CUT_OFF = """
() => [...document.querySelectorAll("pre, table, img, svg, p, li, h1, h2, h3")].filter(element => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const right = Math.max(range.getBoundingClientRect().right, element.getBoundingClientRect().right);
  for (let box = element; box; box = box.parentElement) {
    const overflow = getComputedStyle(box).overflowX, edge = box.getBoundingClientRect().right;
    if (box.tagName == "svg" || box.parentElement?.tagName == "svg") continue;
    if (overflow == "auto" || overflow == "scroll") return edge > innerWidth + 1;
    if (overflow != "visible" && right > edge + 1) return true;
  }
  return right > innerWidth + 1;
}).map(element => `${element.tagName}: ${element.textContent.trim().slice(0, 60)}`)
"""

# Texts outside of code that still hold the dollar signs of a formula.
RAW_FORMULAS = """
() => {
  const walk = document.createTreeWalker(document.querySelector("main") ?? document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walk.nextNode())
    if (/\\$[^$]+\\$/.test(walk.currentNode.data) && !walk.currentNode.parentElement.closest("pre, code, svg"))
      found.push(walk.currentNode.data);
  return found;
}
"""

# Drawings that are shown smaller than they were drawn, which makes their text smaller than 9 points.
SHRUNK = """
() => [...document.querySelectorAll('p > img[src$=".svg"]')]
  .filter(drawing => drawing.getBoundingClientRect().width < drawing.naturalWidth - 1).map(drawing => drawing.src)
"""

LINKS = "elements => elements.map(element => element.href || element.src)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all pages, made from the notebooks as they are committed."""
    out = tmp_path_factory.mktemp("pages")
    assert lessons.main(["pages", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    import browser

    with browser.open_browser() as opened:
        yield opened


@cache
def ids(path: Path) -> set[str]:
    """Every place of a page that a link can lead to."""
    return set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))


def dead_links(urls: list[str]) -> list[str]:
    """Those of a page's links to files that lead to nothing, or to a place that the file does not have."""
    dead = []
    for url in {url for url in urls if url.startswith("file:")}:
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        if not path.exists() or (path.suffix == ".html" and parts.fragment and parts.fragment not in ids(path)):
            dead.append(url)
    return dead


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", *(page.lstrip("/") for page in PAGES)])
def test_page_is_whole_at_every_width_and_asks_nobody(name: str, built: Path, chromium) -> None:
    import browser

    page = chromium.new_page()
    wrong = browser.listen(page)
    page.goto((built / name).as_uri())
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        browser.screenshot(page, f"{Path(name).stem}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT_OFF) == [], f"cut off at {width} pixels"
        assert page.evaluate(SHRUNK) == [], f"shrunk at {width} pixels"
    assert page.evaluate(RAW_FORMULAS) == []
    assert page.locator("code.formula").all_inner_texts() == []
    for drawn in page.locator("svg.formula").all()[:20]:
        box = drawn.bounding_box()
        assert box is not None and box["width"] > 3 and box["height"] > 3
    assert dead_links(page.eval_on_selector_all("a[href], img[src]", LINKS)) == []
    assert wrong == []
    page.close()


@pytest.mark.slow
def test_a_reader_can_walk_from_the_index_to_the_note_and_the_solutions_and_back(built: Path, chromium) -> None:
    page = chromium.new_page()
    page.goto((built / "index.html").as_uri())
    page.get_by_role("link", name="introduction").click()
    page.locator('a[href*="Ladder"]').first.click()
    assert page.locator("h1").first.inner_text() == "The ladder and the systems"
    page.goto((built / "index.html").as_uri())
    page.get_by_role("link", name="Lesson 1: Text Generation").click()
    page.locator('a[href*="notes/Lesson_1"]').first.click()
    assert page.locator("h1").first.inner_text() == "Lesson 1: Text generation"
    page.locator('a[href*="solutions/"]').first.click()
    assert "solutions" in page.locator("h1").first.inner_text()
    page.locator('a[href*="Lesson_1-Text_Generation"]').first.click()
    assert page.url == (built / "Lesson_1-Text_Generation.html").as_uri()
    page.close()


# ---------------------------------------------------------------------------------------------------
# Without a browser


@pytest.mark.parametrize("tex", [r"\frac{W}{\beta} \ge 1", r"u_{\text{static}} \le 1", r"\sum_{i=1}^{t} a_{t,i} v_i"])
def test_formula_becomes_a_drawing_that_can_be_read_aloud(tex: str) -> None:
    drawn = formula_svg(tex)
    assert drawn.startswith("<svg")
    assert f'aria-label="{tex}"' in drawn
    assert re.search(r"vertical-align:-\d\.\d+em", drawn)


def test_formula_that_cannot_be_drawn_is_shown_as_it_was_written() -> None:
    assert formula_svg(r"\nonsense{<x>}") == r'<code class="formula">\nonsense{&lt;x&gt;}</code>'


def test_headings_get_the_anchors_of_github() -> None:
    assert anchor("The ladder, <em>measured</em>") == "the-ladder-measured"
    assert anchor("Keys &amp; values: why?") == "keys--values-why"


def test_links_lead_to_pages_where_there_are_some_and_else_to_the_file(tmp_path: Path) -> None:
    lesson, note = tmp_path / "notebooks" / "Lesson_2-B.ipynb", tmp_path / "notes" / "Lesson_2.md"
    out = tmp_path / "build" / "lessons"
    pages = {lesson: out / "Lesson_2-B.html", note: out / "notes" / "Lesson_2.html"}
    text = (
        '<a href="../notes/Lesson_2.md#ideas"> <img src="../notes/a.svg"> <a href="https://a.org/b.md"> <a href="#x">'
    )
    moved = (
        '<a href="notes/Lesson_2.html#ideas"> <img src="../../notes/a.svg"> <a href="https://a.org/b.md"> <a href="#x">'
    )
    assert relocate_links(text, lesson, pages) == moved
    assert relocate_links('<a href="../notebooks/Lesson_2-B.ipynb">', note, pages) == '<a href="../Lesson_2-B.html">'


def test_scoreboard_beside_text_survives_and_the_page_shows_the_text() -> None:
    rows = {"application/vnd.scoreboard+json": [{"what": "seconds", "predicted": 1.0}], "text/plain": "the table"}
    cell = new_code_cell("scores", execution_count=1, outputs=[new_output("display_data", data=rows)])
    nb = new_notebook(cells=[new_markdown_cell("# A lesson"), cell])
    lessons.normalise(nb)
    assert nb.cells[1].outputs[0].data == rows
    page, _ = page_exporter().from_notebook_node(nb)
    assert "the table" in page
    assert "vnd.scoreboard" not in page
