"""`make lessons` makes the book of this machine's results, from a small project with three lessons."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import lessons
import machine_book
from committed import ROOT, copy_entries
from scoreboards import SCOREBOARD_MIME, Scoreboard

for package in ("sphinx", "myst_nb", "sphinx_book_theme"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the book needs {package}, which `make lessons` installs", allow_module_level=True)

INDEX = """# A small book

```{toctree}
:glob:

../notes/Lesson_*
../notes/Glossary
```
"""
FACTS = "print('python 3.11.7, cpu threads {threads}, processor {processor}')"
BOARD = (
    "scores = Scoreboard('Lesson {number}'); scores.add('a <b>step</b>, 1 | 2', {predicted}, {measured}, 'ms'); scores"
)

# `make lessons` on a machine whose speed need not be measured.
RUN = """
import signal, sys
import lessons
from machine_facts import Machine
signal.signal(signal.SIGTERM, signal.default_int_handler)
described = {"processor": "Other", "cpu threads": "1", "instruction set": "AVX2"}
lessons.measure_machine = lambda: Machine(described, 8.5e9, processors=2, load=0.1)
sys.exit(lessons.main(sys.argv[1:]))
"""


def write_toy_lesson(notebooks: Path, number: int, end: str) -> None:
    """A lesson that was executed on another machine, where it measured 2 ms; here it would measure 8 ms."""
    setup = "import sys\nsys.path.insert(0, '../code')\nfrom scoreboard import Scoreboard\n"
    sources = [setup + FACTS.format(threads=1, processor="Other"), BOARD.format(number=number, predicted=7, measured=8)]
    board = Scoreboard(f"Lesson {number}")
    board.add("a <b>step</b>, 1 | 2", 2, 2, "ms")
    saved = board._repr_mimebundle_()
    outputs = [
        [new_output("stream", text="python 3.11.7, cpu threads 2, processor AMD EPYC\n")],
        [new_output("execute_result", data=saved, execution_count=2)],
        [new_output("stream", text="Headline: 2.0 ms a step with int8, at 34 rows\n")],
    ]
    cells = [
        new_code_cell(source, execution_count=count, outputs=output)
        for count, (source, output) in enumerate(zip([*sources, end], outputs, strict=True), start=1)
    ]
    cells[-1].metadata["tags"] = ["timing"]
    title = new_markdown_cell(f"# Lesson {number}: Toys\n\nIts [note](../notes/Lesson_{number}.md).")
    nb = new_notebook(cells=[title, *cells])
    lessons.normalise(nb)
    lessons.write_notebook(nb, notebooks / f"Lesson_{number}-Toys.ipynb")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three lessons with their notes, and the real book/ but for its pages; nothing of it is in git."""
    root = tmp_path_factory.mktemp("toy")
    for name in ("notebooks", "notes", "book"):
        (root / name).mkdir()
    (root / "code").symlink_to(ROOT / "code", target_is_directory=True)
    pages = [path.name for path in (ROOT / "book").glob("*.md")]
    copy_entries(ROOT / "book", root / "book", but=pages)
    (root / "book" / "index.md").write_text(INDEX)
    (root / "notes" / "Glossary.md").write_text(
        "# Glossary\n\n| Term | Meaning |\n|---|---|\n| **row** | one request |\n"
    )
    print_headline = "print('Headline: 8.0 ms a step with int8, at 34 rows')"
    for number, end in enumerate([print_headline, "raise ValueError('a *wrong* shape')", print_headline], start=1):
        write_toy_lesson(root / "notebooks", number, end)
        (root / "notes" / f"Lesson_{number}.md").write_text(
            f"# Lesson {number}: Toys\n\nIts [notebook](../notebooks/Lesson_{number}-Toys.ipynb).\n"
        )
    return root


def command(project: Path, out: Path, *wanted: str) -> list[str]:
    """The command line that runs these lessons of a project."""
    return [sys.executable, "-c", RUN, "run", *wanted, "--notebooks", str(project / "notebooks"), "--out", str(out)]


def run(project: Path, out: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
    tools = ROOT / "tools"
    return subprocess.run(command(project, out, *wanted), cwd=tools, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(project: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder with the results of Lessons 1 and 2, of which the second fails, and what was said."""
    out = project / "build" / "lessons"
    return out, run(project, out, "1", "2")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    import browser

    with browser.open_browser() as opened:
        yield opened


@pytest.mark.slow
def test_a_lesson_that_fails_is_named_and_there_is_a_book(made: tuple[Path, Any]) -> None:
    out, said = made
    assert said.returncode == 1, said.stderr
    assert "error: Lesson_2-Toys.ipynb, code cell 3 (`raise ValueError" in said.stderr
    assert "WARNING" not in said.stderr, said.stderr
    assert said.stdout.splitlines()[-1].endswith(f"open {out / 'index.html'} in a browser.")
    assert 'url=book/machine.html"' in (out / "index.html").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["lessons"]


@pytest.mark.slow
def test_notebooks_have_the_outputs_of_this_machine_and_those_not_run_the_committed_ones(
    made: tuple[Path, Any],
) -> None:
    out, _ = made
    pages = {number: (out / f"notebooks/Lesson_{number}-Toys.html").read_text() for number in (1, 2, 3)}
    assert "Headline: 8.0 ms" in pages[1] and "Headline: 2.0 ms" not in pages[1]
    assert "a *wrong* shape" in pages[2]
    assert "Headline: 2.0 ms" in pages[3]
    assert lessons.headline(lessons.read_notebook(out / "Lesson_1-Toys.ipynb")) == "8.0 ms a step with int8, at 34 rows"
    assert not (out / "Lesson_3-Toys.ipynb").exists()


@pytest.mark.slow
def test_first_page_shows_both_runs_and_says_why_they_may_differ(made: tuple[Path, Any], chromium: Any) -> None:
    import browser

    out, _ = made
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    wrong = browser.listen(page)
    page.goto((out / "index.html").as_uri())
    page.wait_for_url("**/book/machine.html")
    assert page.locator("h1").first.inner_text().startswith("Your machine")
    text = page.locator("article").first.inner_text().replace("’", "'").replace("‘", "'")
    assert "make lessons ran Lesson 1 and Lesson 2 on this machine" in text
    assert "Lesson 2 failed in code cell 3, raise ValueError('a *wrong* shape'): ValueError: a *wrong* shape." in text
    assert "s, the notebook): 8.0 ms a step with int8, at 34 rows" in text
    assert "8 in the headline (committed: 2) and 1 of 1 measured numbers on the scoreboard differ" in text
    assert "PyTorch used 1 thread here and 2 there" in text
    assert "processor is Other (AVX2) here and was AMD EPYC there" in text
    assert "a <b>step</b>, 1 | 2" in text
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 900})
        browser.screenshot(page, f"machine-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("link", name="the notebook").first.click()
    assert page.url == (out / "notebooks/Lesson_1-Toys.html").as_uri()
    page.locator("article").get_by_role("link", name="note").click()
    assert page.url == (out / "notes/Lesson_1.html").as_uri()
    assert wrong == []
    page.close()


@pytest.mark.slow
def test_stopped_while_the_book_is_made_the_book_before_is_whole(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "lessons"
    out.mkdir()
    (out / "index.html").write_text("the book before")
    process = subprocess.Popen(command(project, out, "1"), cwd=ROOT / "tools", stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".book-*/book")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Interrupted: ")
    assert (out / "index.html").read_text() == "the book before"
    assert (out / "Lesson_1-Toys.ipynb").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["lessons"]


def test_what_to_install_is_said_where_packages_are_missing(tmp_path: Path) -> None:
    requirements = tmp_path / "book" / "requirements.txt"
    requirements.parent.mkdir()
    requirements.write_text("# two packages\n-r ../requirements.txt\npytest==9.2.0\nno-such.package==1.0\n")
    said = machine_book.why_no_book(tmp_path)
    assert said.startswith("For the book, which needs no-such.package, run `python -m pip install -r ")
    requirements.write_text("-r ../requirements.txt\npytest==9.2.0\n")
    assert machine_book.why_no_book(tmp_path) == ""


def test_new_entries_take_the_place_of_old_ones_and_leave_others(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        (folder / "notes").mkdir(parents=True)
        (folder / "notes" / f"{folder.name}.html").write_text("")
        (folder / "index.html").write_text(folder.name)
    (old / "Lesson_1-Toys.ipynb").write_text("{}")
    machine_book.replace_entries(new, old)
    assert sorted(path.name for path in old.rglob("*")) == ["Lesson_1-Toys.ipynb", "index.html", "new.html", "notes"]
    assert (old / "index.html").read_text() == "new"


def test_scoreboard_beside_text_survives_the_run() -> None:
    rows = {SCOREBOARD_MIME: [{"what": "seconds", "predicted": 1.0}], "text/plain": "the table"}
    cell = new_code_cell("scores", execution_count=1, outputs=[new_output("display_data", data=rows)])
    nb = new_notebook(cells=[new_markdown_cell("# A lesson"), cell])
    lessons.normalise(nb)
    assert nb.cells[1].outputs[0].data == rows
