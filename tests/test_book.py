"""The book of `make book`, as a reader meets it: in a browser that reaches nothing outside, wide and narrow."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from committed import ROOT

for package in ("sphinx", "myst_nb", "sphinx_book_theme"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the book needs {package}, which `make book` installs", allow_module_level=True)

WIDTHS = (1280, 400)
CHAPTERS = [f"notes/Lesson_{number}" for number in range(1, 6)]
NOTES = [f"notes/{path.stem}" for path in sorted((ROOT / "notes").glob("*.md"))]
NOTEBOOKS = [str(path.relative_to(ROOT).with_suffix("")) for path in sorted((ROOT / "notebooks").rglob("*.ipynb"))]
CARDS = [str(path.relative_to(ROOT).with_suffix("")) for path in sorted((ROOT / "models").glob("*/MODEL_CARD.md"))]
PAGES = ["book/index", "README", "book/code", "book/engine", "book/papers", *NOTES, *NOTEBOOKS, *CARDS]

# Formulas that MathJax has not drawn, or has drawn as an error.
UNDRAWN = """
() => [...document.querySelectorAll(".math")]
  .filter(formula => !formula.querySelector("mjx-container > *")
    || formula.querySelector("mjx-merror, [data-mjx-error]"))
  .map(formula => formula.textContent)
"""

# Drawings that are shown smaller than they were drawn, which makes their text smaller than 9 points.
SHRUNK = """
() => [...document.querySelectorAll('article img[src$=".svg"]')]
  .filter(drawing => drawing.getBoundingClientRect().width < drawing.naturalWidth - 1).map(drawing => drawing.src)
"""


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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the book, made from the notebooks as they are committed, without any warning."""
    out = tmp_path_factory.mktemp("book") / "book"
    command = [sys.executable, str(ROOT / "tools" / "build_book.py"), f"--out={out}"]
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    assert str(out / "index.html") in made.stdout
    return out


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    """The address of the book on a server of this machine: search reads pages, which a browser does not do in files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    import browser

    with browser.open_browser() as opened:
        yield opened


# ---------------------------------------------------------------------------------------------------
# In a browser


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_at_both_widths_and_asks_nobody(name: str, address: str, chromium: Any) -> None:
    import browser

    page = chromium.new_page(viewport={"width": WIDTHS[0], "height": 900})
    wrong = browser.listen(page)
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_function(f"({UNDRAWN})().length == 0")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        browser.screenshot(page, f"{name.replace('/', '-')}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(SHRUNK) == []
    assert wrong == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["prefix cache", "generate_token_with_past"])
def test_one_search_from_the_first_page_finds(wanted: str, address: str, chromium: Any) -> None:
    import browser

    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    wrong = browser.listen(page)
    page.goto(f"{address}/index.html")
    page.wait_for_url(f"{address}/book/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type(wanted)
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    assert any("/notes/Lesson_1.html" in link for link in found)
    browser.screenshot(page, f"search-{wanted.split()[0]}")
    assert wrong == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["book/index", "notes/Lesson_1", NOTEBOOKS[0], "notes/Glossary", "book/engine"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_keeps_anybody_from_reading(name: str, theme: str, address: str, chromium: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="this test needs axe-playwright-python")
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=theme)
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_function(f"({UNDRAWN})().length == 0")
    violations = axe.Axe().run(page).response["violations"]
    serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
    assert {one["id"]: [node["html"][:200] for node in one["nodes"]][:5] for one in serious} == {}
    page.close()


# ---------------------------------------------------------------------------------------------------
# The pages as files


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


@pytest.mark.slow
def test_every_link_of_every_page_arrives(built: Path) -> None:
    pages = [page for page in sorted(built.rglob("*.html")) if "_static" not in page.parts]  # these are no pages
    assert {built / f"{name}.html" for name in PAGES} <= set(pages)
    dead = {page.relative_to(built).as_posix(): dead_links(page) for page in pages}
    assert {name: links for name, links in dead.items() if links} == {}


@pytest.mark.slow
def test_no_page_names_a_file_to_fetch_from_outside(built: Path) -> None:
    for path in built.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', path.read_text())
        assert fetched == [], path.name


@pytest.mark.slow
def test_every_picture_is_described_in_words(built: Path) -> None:
    for name in PAGES:
        for picture in page_of(built / f"{name}.html").pictures:
            words = picture.get("alt") or ""
            assert len(words.split()) > 3, (name, picture)
    notebooks = [page_of(built / f"{name}.html").pictures for name in NOTEBOOKS if "solutions" not in name]
    assert all(notebooks)


@pytest.mark.slow
@pytest.mark.parametrize("note", CHAPTERS)
def test_notebook_and_solutions_follow_their_note(note: str, built: Path) -> None:
    number = note[-1]
    html = (built / f"{note}.html").read_text(encoding="utf-8")
    [after] = re.findall(r'class="right-next"\s+href="([^"]+)"', html)
    assert re.fullmatch(rf"\.\./notebooks/Lesson_{number}-.*\.html", after)
    html = (built / "notes" / after).resolve().read_text(encoding="utf-8")
    assert re.findall(r'class="right-next"\s+href="([^"]+)"', html) == [f"solutions/Lesson_{number}-Solutions.html"]
    assert re.findall(r'class="left-prev"\s+href="([^"]+)"', html) == [f"../{note}.html"]


@pytest.mark.slow
def test_pages_on_the_code_describe_every_module(built: Path) -> None:
    described = page_of(built / "book/code.html").ids | page_of(built / "book/engine.html").ids
    modules = [path.stem for path in (ROOT / "code").glob("*.py")]
    modules += [f"engine.{path.stem}" for path in (ROOT / "code" / "engine").glob("*.py") if path.stem != "__init__"]
    assert {f"module-{name}" for name in modules} <= described
    assert {"helpers.generate_token_with_past", "utils.quantize", "engine.engine.Engine.step"} <= described


@pytest.mark.slow
def test_links_to_modules_lead_to_what_they_say_about_themselves(built: Path) -> None:
    found = page_of(built / "notes/Lesson_1.html").links
    assert "../book/code.html#module-helpers" in found
    assert not any(link.endswith("helpers.py") for link in found)
    assert any(link.endswith("ladder-cpu.json") for link in page_of(built / "notes/Ladder.html").links)
    assert "notebooks/solutions/Lesson_1-Solutions.html" in page_of(built / "README.html").links


@pytest.mark.slow
def test_terms_lead_to_their_row_of_the_glossary(built: Path) -> None:
    assert "Glossary.html#term-kv-cache" in page_of(built / "notes/Lesson_1.html").links
    assert "Glossary.html#term-static-batch-synchronous-batching" in page_of(built / "notes/Lesson_2.html").links
