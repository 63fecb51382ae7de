"""The book of `make book`, as a reader meets it: in a browser that reaches nothing outside, wide and narrow."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from book_pages import (
    CHAPTERS,
    COLOURS,
    NOTEBOOKS,
    PAGES,
    SHRUNK,
    SOLUTIONS,
    UNDRAWN,
    contrast,
    dead_links,
    page_of,
)
from committed import ROOT

for package in ("sphinx", "myst_nb", "sphinx_book_theme"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the book needs {package}, which `make book` installs", allow_module_level=True)

pytestmark = pytest.mark.slow
WIDE, NARROW = 1280, 400
THEMES = ("light", "dark")
GUIDELINES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
PREFIX_CACHE = "term-prefix-cache-prefix-caching"


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
def visit(address: str) -> Iterator[Any]:
    """One visit for all tests, so that the browser fetches scripts and styles once."""
    import browser

    with browser.open_browser() as opened:
        yield opened.new_context(base_url=address, reduced_motion="reduce")


@pytest.fixture
def page(visit: Any) -> Iterator[Any]:
    """An empty page, in which nothing may go wrong until the test ends."""
    import browser

    opened = visit.new_page()
    opened.set_viewport_size({"width": WIDE, "height": 900})
    wrong = browser.listen(opened)
    yield opened
    opened.evaluate("localStorage.clear()")  # the next test begins without this one's choice of colours
    opened.close()
    assert wrong == []


def open_page(page: Any, name: str) -> None:
    """Open a page of the book, and wait until its formulas are drawn."""
    page.goto(f"/{name}.html", wait_until="load")
    page.wait_for_function(f"({UNDRAWN})().length == 0")


def look_again(page: Any, theme: str) -> None:
    """Have the system of the reader be light or dark."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(f"document.documentElement.dataset.theme == '{theme}'")


# ---------------------------------------------------------------------------------------------------
# In a browser


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_at_both_widths_and_in_light_and_dark(name: str, page: Any) -> None:
    import browser

    open_page(page, name)
    for theme in THEMES:
        look_again(page, theme)
        pale = {pair: text for pair, text in page.evaluate(COLOURS).items() if contrast(pair) < 4.5}
        assert pale == {}, theme
        browser.screenshot(page, f"{name.replace('/', '-')}-{theme}")
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 900})
        browser.screenshot(page, f"{name.replace('/', '-')}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(SHRUNK) == []


@pytest.mark.parametrize(
    ("wanted", "first", "also"),
    [
        ("prefix cache", f"notes/Glossary.html#{PREFIX_CACHE}", "notes/further/Lesson_8.html"),
        ("generate_token_with_past", "book/code.html#helpers.generate_token_with_past", "notes/Lesson_1.html"),
    ],
)
def test_one_search_from_the_first_page_finds(wanted: str, first: str, also: str, page: Any) -> None:
    page.goto("/index.html")
    page.wait_for_url("**/book/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type(wanted)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#search-results li a[href*='{also}']")
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    assert found[0].endswith(first)


def test_two_clicks_from_the_first_page_explain_prefix_cache(page: Any) -> None:
    open_page(page, "book/index")
    page.locator("article").get_by_role("link", name="glossary", exact=True).click()
    page.locator(f"tr:has(#{PREFIX_CACHE}) a").click()
    page.wait_for_url("**/notes/further/Lesson_8.html#what-a-prefix-saves")
    assert page.get_by_role("heading", name="What a prefix saves").is_visible()


def tab_to(page: Any, selector: str, most: int = 60) -> None:
    """Press the tabulator key until something that fits the selector has the focus, and can be seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            assert page.evaluate("document.activeElement.checkVisibility({visibilityProperty: true})")
            return
    raise AssertionError(f"{most} steps do not lead to {selector}")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_keyboard_is_enough(width: int, page: Any) -> None:
    open_page(page, "book/index")
    page.set_viewport_size({"width": width, "height": 900})
    tab_to(page, "a[href='#main-content']", most=3)
    if width == NARROW:
        tab_to(page, "button.primary-toggle")
        page.keyboard.press("Enter")
    tab_to(page, "nav a[href$='notes/Lesson_2.html']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/notes/Lesson_2.html")
    tab_to(page, ".theme-switch-button")
    page.keyboard.press("Enter")  # the menu opens
    tab_to(page, ".theme-change-button[data-mode='dark']", most=5)
    page.keyboard.press("Enter")
    page.wait_for_function("document.documentElement.dataset.mode == 'dark'")


@pytest.mark.parametrize(
    "name", ["book/index", "notes/Lesson_1", SOLUTIONS[0], "notes/Glossary", "book/engine", "search"]
)
def test_nothing_serious_keeps_anybody_from_reading(name: str, page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="this test needs axe-playwright-python")
    open_page(page, name)
    for theme, rules in (("light", GUIDELINES), ("dark", {"type": "rule", "values": ["color-contrast"]})):
        look_again(page, theme)
        options = {"runOnly": rules, "resultTypes": ["violations"], "preload": False}
        violations = axe.Axe().run(page, options=options).response["violations"]
        serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
        assert {one["id"]: [node["html"][:200] for node in one["nodes"]][:5] for one in serious} == {}, theme


# ---------------------------------------------------------------------------------------------------
# The pages as files


def test_every_link_of_every_page_arrives(built: Path) -> None:
    pages = [page for page in sorted(built.rglob("*.html")) if "_static" not in page.parts]  # these are no pages
    assert {built / f"{name}.html" for name in PAGES} <= set(pages)
    dead = {page.relative_to(built).as_posix(): dead_links(page) for page in pages}
    assert {name: links for name, links in dead.items() if links} == {}


def test_no_page_names_a_file_to_fetch_from_outside(built: Path) -> None:
    for path in built.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', path.read_text())
        assert fetched == [], path.name


def test_every_picture_is_described_in_words(built: Path) -> None:
    for name in PAGES:
        for picture in page_of(built / f"{name}.html").pictures:
            words = picture.get("alt") or ""
            assert len(words.split()) > 3, (name, picture)
    assert all(page_of(built / f"{name}.html").pictures for name in NOTEBOOKS)


@pytest.mark.parametrize("note", CHAPTERS)
def test_notebook_and_solutions_follow_their_note(note: str, built: Path) -> None:
    page, order = built / f"{note}.html", [note]
    for _ in range(2):
        [after] = re.findall(r'class="right-next"\s+href="([^"]+)"', page.read_text(encoding="utf-8"))
        page = (page.parent / after).resolve()
        order.append(page.relative_to(built).with_suffix("").as_posix())
    lesson = f"Lesson_{note[-1]}-"
    assert order[1:] == [name for name in (*NOTEBOOKS, *SOLUTIONS) if Path(name).name.startswith(lesson)]


def test_pages_on_the_code_describe_every_module(built: Path) -> None:
    described = set().union(*(page_of(path).ids for path in (built / "book").glob("*.html")))
    paths = [path.relative_to(ROOT / "code").with_suffix("") for path in (ROOT / "code").rglob("*.py")]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    assert {f"module-{name}" for name in modules} <= described
    assert {"helpers.generate_token_with_past", "utils.quantize", "engine.engine.Engine.step"} <= described


def test_links_to_modules_lead_to_what_they_say_about_themselves(built: Path) -> None:
    found = page_of(built / "notes/Lesson_1.html").links
    assert "../book/code.html#module-helpers" in found
    assert not any(link.endswith("helpers.py") for link in found)
    assert any(link.endswith("ladder-cpu.json") for link in page_of(built / "notes/Ladder.html").links)
    assert "notebooks/solutions/Lesson_1-Solutions.html" in page_of(built / "README.html").links


def test_terms_lead_to_their_row_of_the_glossary(built: Path) -> None:
    assert "Glossary.html#term-kv-cache" in page_of(built / "notes/Lesson_1.html").links
    assert "Glossary.html#term-static-batch-synchronous-batching" in page_of(built / "notes/Lesson_2.html").links
    assert f"../Glossary.html#{PREFIX_CACHE}" in page_of(built / "notes/further/Lesson_8.html").links
