"""`make lab`: copies keep what a learner writes in them; links, homework and saving work in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import lab
import lessons
from committed import VARIABLE

LESSON, SOLUTIONS = "Lesson_1-Text_Generation", "Lesson_1-Solutions"
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")  # the file of a relative link in Markdown

# ---------------------------------------------------------------------------------------------------
# The copies


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one lesson, one note and some code."""
    root = tmp_path / "project"
    for folder in ("notebooks", "notes", "code"):
        (root / folder).mkdir(parents=True)
    write(root / "notebooks" / "Lesson_1-L.ipynb", "first text")
    (root / "notes" / "Lesson_1.md").write_text("a note")
    (root / "code" / "helpers.py").write_text("x = 1")
    return root


def write(path: Path, source: str, output: str = "") -> None:
    """A notebook with one code cell."""
    outputs = [new_output("stream", name="stdout", text=output)] if output else []
    lessons.write_notebook(new_notebook(cells=[new_code_cell(source, outputs=outputs)]), path)


def text(path: Path) -> str:
    """The source of a notebook's only cell."""
    return lessons.read_notebook(path).cells[0].source


def refresh(project: Path) -> list[str]:
    """What `make lab` does before it starts Jupyter Lab."""
    return lab.Copies(project / "lab", project).refresh()


def test_copies_lie_beside_links_to_the_rest(project: Path) -> None:
    assert refresh(project) == []
    assert text(project / "lab" / "notebooks" / "Lesson_1-L.ipynb") == "first text"
    assert (project / "lab" / "notes" / "Lesson_1.md").read_text() == "a note"
    (project / "code" / "helpers.py").write_text("x = 2")
    assert (project / "lab" / "code" / "helpers.py").read_text() == "x = 2"


def test_copy_follows_the_original_until_the_learner_writes_in_it(project: Path) -> None:
    original, copy = project / "notebooks" / "Lesson_1-L.ipynb", project / "lab" / "notebooks" / "Lesson_1-L.ipynb"
    refresh(project)
    write(copy, "first text", output="run by the learner")
    write(original, "second text")
    assert refresh(project) == []
    assert text(copy) == "second text"
    write(copy, "the learner's answer")
    assert refresh(project) == []
    assert text(copy) == "the learner's answer"


def test_newer_original_is_put_beside_the_learners_copy_once(project: Path) -> None:
    original, copies = project / "notebooks" / "Lesson_1-L.ipynb", project / "lab" / "notebooks"
    refresh(project)
    write(copies / "Lesson_1-L.ipynb", "answer")
    write(original, "second text")
    [sentence] = refresh(project)
    assert "notebooks/Lesson_1-L.ipynb has a new version" in sentence
    assert "notebooks/Lesson_1-L-new.ipynb" in sentence
    assert text(copies / "Lesson_1-L.ipynb") == "answer"
    assert text(copies / "Lesson_1-L-new.ipynb") == "second text"
    (copies / "Lesson_1-L-new.ipynb").unlink()
    assert refresh(project) == []  # the learner did not want it
    assert not (copies / "Lesson_1-L-new.ipynb").exists()


def test_what_was_put_beside_is_kept_too_when_it_is_written_in(project: Path) -> None:
    original, copies = project / "notebooks" / "Lesson_1-L.ipynb", project / "lab" / "notebooks"
    refresh(project)
    for number, name in enumerate(("Lesson_1-L", "Lesson_1-L-new", "Lesson_1-L-new-2")):
        write(copies / f"{name}.ipynb", f"answer {number}")
        write(original, f"version {number}")
        assert len(refresh(project)) == 1
    found = {path.stem: text(path) for path in copies.glob("*.ipynb")}
    answers = {"Lesson_1-L": "answer 0", "Lesson_1-L-new": "answer 1", "Lesson_1-L-new-2": "answer 2"}
    assert found == answers | {"Lesson_1-L-new-3": "version 2"}


def test_nothing_is_overwritten_when_the_record_is_lost(project: Path) -> None:
    copy = project / "lab" / "notebooks" / "Lesson_1-L.ipynb"
    refresh(project)
    write(copy, "answer")
    shutil.rmtree(project / "lab" / ".state")
    assert len(refresh(project)) == 1
    assert text(copy) == "answer"


def test_damaged_copy_is_kept_and_a_deleted_one_is_made_again(project: Path) -> None:
    copies = project / "lab" / "notebooks"
    refresh(project)
    (copies / "Lesson_1-L.ipynb").write_text("half a noteb")
    write(project / "notebooks" / "Lesson_1-L.ipynb", "second text")
    assert len(refresh(project)) == 1
    assert (copies / "Lesson_1-L.ipynb").read_text() == "half a noteb"
    (copies / "Lesson_1-L.ipynb").unlink()
    assert refresh(project) == []
    assert text(copies / "Lesson_1-L.ipynb") == "second text"


def test_where_links_cannot_be_made_the_files_are_copied_and_follow(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    copy = project / "lab" / "code" / "helpers.py"
    for version in ("x = 1", "x = 2"):
        (project / "code" / "helpers.py").write_text(version)
        assert refresh(project) == []
        assert copy.read_text() == version
    assert not (project / "lab" / "code").is_symlink()


def test_every_relative_link_of_the_real_lessons_and_notes_leads_somewhere(tmp_path: Path) -> None:
    copies = lab.Copies(tmp_path / "lab", lessons.ROOT)
    (tmp_path / "lab").mkdir(exist_ok=True)
    for name in lab.LINKED:  # as in the project, where the links are relative
        (tmp_path / name).symlink_to(lessons.ROOT / name)
    copies.refresh()
    texts = [path for path in (tmp_path / "lab").rglob("*") if path.suffix in (".md", ".ipynb")]
    assert len(texts) >= 15
    for path in texts:
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.relative_to(tmp_path)} links to {target}"


# ---------------------------------------------------------------------------------------------------
# What is saved


def test_bars_are_dropped_when_saving_and_widgets_with_their_state_stay() -> None:
    def view(model_id: str) -> dict:
        return new_output("display_data", data={lessons.WIDGET_VIEW: {"model_id": model_id}, "text/plain": "100%"})

    words = new_output("stream", name="stdout", text="words")
    nb = new_notebook(cells=[new_markdown_cell("x"), new_code_cell("y", outputs=[view("dead"), words, view("kept")])])
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"kept": {}}}}
    lab.drop_dead_widgets({"type": "notebook", "content": nb}, path="x", contents_manager=None)
    assert nb.cells[1].outputs == [words, view("kept")]
    file = {"type": "file", "content": "words"}
    lab.drop_dead_widgets(file)
    assert file == {"type": "file", "content": "words"}


def test_make_lab_passes_its_options_on() -> None:
    make = ["make", "--dry-run", "--old-file=.venv/.installed-serving", "lab", "LAB_OPTIONS=--no-browser --port=8890"]
    dry = subprocess.run(make, cwd=lessons.ROOT, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/python tools/lab.py --no-browser --port=8890" in dry.splitlines()


# ---------------------------------------------------------------------------------------------------
# A learner's session in a browser


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """All files of the project as they are now, with the committed notebooks, in a repository of their own."""
    if not (lessons.ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    folder = tmp_path / "clone"
    for name in git(lessons.ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        source = lessons.NOTEBOOKS.parent / name if name.startswith("notebooks/") else lessons.ROOT / name
        if source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message=x")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@contextmanager
def running_lab(project: Path) -> Iterator[str]:
    """What `make lab` starts, on a free port; the address of its first page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=learner"]
    own = {f"JUPYTER_{kind}_DIR": str(project.parent / "jupyter" / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "COURSE_MODEL")} | own
    with (project.parent / "lab.log").open("a") as log:
        command = [sys.executable, "tools/lab.py", *options]
        server = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api"), server)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def wait_for(condition: Callable[[], bool], server: subprocess.Popen) -> None:
    """Return when `condition` holds; fail if the server ends, or does not answer for a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert server.poll() is None, "Jupyter Lab did not start"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def answers(address: str) -> bool:
    """True when a server answers there."""
    try:
        with urlopen(address):
            return True
    except OSError:
        return False


def cell_with(path: Path, words: str) -> tuple[int, str]:
    """The place and the source of a notebook's first code cell with these words."""
    cells = enumerate(lessons.read_notebook(path).cells)
    return next((place, cell.source) for place, cell in cells if cell.cell_type == "code" and words in cell.source)


def run_selected(page, count: int) -> None:
    """Press Shift+Enter `count` times and wait until the kernel has nothing left to do."""
    for _ in range(count):
        page.keyboard.press("Shift+Enter")
    page.wait_for_function(
        "() => ![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent == '[*]:')"
    )


CHECK = "check_positions_processed("  # of an exercise that needs nothing but Python
IMPORT = f"from exercises import {CHECK[:-1]}\n\n\n"
BAR = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nprint('after the bar')"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_learner_reads_solves_saves_and_comes_back(clone: Path) -> None:
    import browser

    place, exercise = cell_with(lessons.NOTEBOOKS / f"{LESSON}.ipynb", CHECK)
    _, answer = cell_with(lessons.NOTEBOOKS / "solutions" / f"{SOLUTIONS}.ipynb", CHECK)
    with browser.open_browser() as chromium:
        with running_lab(clone) as address:
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            wrong = browser.listen(page)
            open_lesson(page, f"{address}/{LESSON}.ipynb?token=learner")
            page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=60_000)
            page.wait_for_timeout(1_000)
            assert page.locator(".jp-mod-dirty").count() == 0, "shown as unsaved on opening"
            figures = page.locator(".jp-OutputArea-output svg, .jp-OutputArea-output img")
            figures.first.wait_for(state="attached", timeout=60_000)  # Jupyter Lab draws the cells one after another
            browser.screenshot(page, "lab-lesson")

            follow_the_link_to_the_note_and_back(page)
            browser.screenshot(page, "lab-back")

            cells = page.locator(".jp-Notebook-cell")
            cells.nth(0).click()
            run_selected(page, 4)
            assert page.locator(".jp-OutputArea-output").filter(has_text="layers").count() > 0

            type_into(page, cells.nth(place), IMPORT + answer)
            run_selected(page, 1)
            cells.nth(place).get_by_text(re.compile("^correct: ")).first.wait_for(timeout=60_000)
            browser.screenshot(page, "lab-correct")

            type_into(page, cells.nth(place), IMPORT + answer + "\n\n" + BAR)
            run_selected(page, 1)
            cells.nth(place).locator("pre", has_text="after the bar").wait_for(timeout=60_000)
            cells.nth(place).locator(".jupyter-widgets").first.wait_for()  # alive as long as its kernel
            page.keyboard.press("ControlOrMeta+s")
            page.locator(".jp-mod-dirty").wait_for(state="detached")
            assert wrong == []
            page.close()

        with running_lab(clone) as address:
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            open_lesson(page, f"{address}/{LESSON}.ipynb?token=learner")
            cell = page.locator(".jp-Notebook-cell").nth(place)
            cell.scroll_into_view_if_needed()
            cell.locator("pre", has_text="after the bar").wait_for()
            cell.locator(".cm-content", has_text="from exercises import").wait_for()
            cell.locator(".cm-content").click()
            page.wait_for_timeout(1_000)
            browser.screenshot(page, "lab-reopened")
            assert page.get_by_text("Error displaying widget").count() == 0
            page.close()
    assert git(clone, "status", "--porcelain") == ""
    assert lessons.WIDGET_VIEW not in (clone / "lab" / "notebooks" / f"{LESSON}.ipynb").read_text(encoding="utf-8")
    assert cell_with(clone / "lab" / "notebooks" / f"{LESSON}.ipynb", answer)[0] == place
    assert cell_with(clone / "notebooks" / f"{LESSON}.ipynb", CHECK) == (place, exercise)
    assert_checks_are_green(clone)


def open_lesson(page, address: str) -> None:
    page.goto(address)
    page.locator(".jp-Notebook-cell").first.wait_for(timeout=60_000)


def follow_the_link_to_the_note_and_back(page) -> None:
    """Click the lesson's link to its note, see the note with its pictures, click the note's link to the lesson."""
    page.locator(".jp-Notebook .jp-RenderedMarkdown a[href*='Lesson_1.md']").first.click()
    note = page.locator(".jp-MarkdownViewer")
    note.locator("h1").wait_for()
    assert note.locator("h1").first.inner_text().startswith("Lesson 1")
    page.wait_for_function(
        "() => { const pictures = [...document.querySelectorAll('.jp-MarkdownViewer img')];"
        " return pictures.length > 0 && pictures.every(picture => picture.naturalWidth > 0); }"
    )
    note.locator("a[href*='Lesson_1-Text_Generation']").first.click()
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").wait_for()
    assert page.url.endswith(f"/lab/tree/notebooks/{LESSON}.ipynb")


def type_into(page, cell, source: str) -> None:
    """Replace the text of a code cell, the way a person does."""
    cell.scroll_into_view_if_needed()
    cell.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(source)


def assert_checks_are_green(project: Path) -> None:
    """Homework in lab/ and even in notebooks/ itself: lint and the checks of notebooks, as `make check` runs them."""
    nb = lessons.read_notebook(project / "notebooks" / f"{LESSON}.ipynb")
    nb.cells[-1].source += "\nx=1 "
    lessons.write_notebook(nb, project / "notebooks" / f"{LESSON}.ipynb")
    (project / "notebooks" / "Untitled.ipynb").write_text(json.dumps(new_notebook()))
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    lint = subprocess.run([sys.executable, "tools/lint.py"], cwd=project, env=environment, check=False)
    assert lint.returncode == 0
    chosen = "committed_lesson_is_clean or the_folder_holds"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_notebooks.py", "-k", chosen]
    result = subprocess.run(tests, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]
