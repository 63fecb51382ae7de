"""The book with this machine's outputs: the same texts, the notebooks as executed here, and the page "Your machine"."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from build_book import build
from committed import MADE, committed_notebooks, copy_entries
from comparison import Lesson
from machine_facts import Machine
from machine_page import machine_page
from notebook_files import LessonError, find_lessons, read_notebook, shown, write_notebook
from notebook_runs import Outcome

LEFT_OUT = ("notebooks", "book", *MADE)  # of the project; the first two are made anew
FIRST_TOCTREE = "```{toctree}\n"
ENTRY = "```{toctree}\n:titlesonly:\n\nmachine\n```\n\n"
PAGE = "machine.md"


class Stopped(BaseException):
    """Ctrl-C while Sphinx works, which takes a KeyboardInterrupt for itself and goes on."""


def show_results(outcomes: Sequence[Outcome], machine: Machine, notebooks: Path, out: Path) -> int:
    """Write the summary of a run to the folder `out`, then the book. Returns the exit status.

    The executed notebooks lie in `out` already. The book belongs to the project that the folder `notebooks` is in.
    """
    project = notebooks.absolute().parent
    in_git = notebooks.absolute() == project / "notebooks"
    with committed_notebooks(project) if in_git else nullcontext(notebooks) as committed:
        lessons = all_lessons(outcomes, notebooks, committed)
        summary = machine_page(machine, lessons, lambda lesson: lesson.path.as_posix())
        (out / PAGE).write_text(summary, encoding="utf-8")
        if reason := why_no_book(project):
            print(f"The results are in {shown(out)}, summed up in {shown(out / PAGE)}. {reason}")
            return 0
        print("Making the book of these results ...", flush=True)
        status, is_there = make_book(project, committed, lessons, machine, out)
    if is_there:
        print(f"The book, with this machine's outputs, is made: open {shown(out / 'index.html')} in a browser.")
    return status


def all_lessons(outcomes: Sequence[Outcome], notebooks: Path, committed: Path) -> list[Lesson]:
    """Every lesson of the folder `notebooks`, with its committed notebook and with what came of it here."""
    here = {outcome.path.relative_to(notebooks): outcome for outcome in outcomes}
    lessons = []
    for path in (path.relative_to(notebooks) for path in find_lessons(folder=notebooks)):
        original = committed / path
        lessons.append(Lesson(path, read_notebook(original) if original.is_file() else None, here.get(path)))
    return lessons


def why_no_book(project: Path) -> str:
    """One sentence that says what to install for the book, or that this project has none; "" if it can be made."""
    requirements = project / "book" / "requirements.txt"
    if not requirements.is_file():
        return "This project has no book/requirements.txt, so no book is made."
    lines = requirements.read_text(encoding="utf-8").splitlines()
    missing = [name for line in lines if (name := re.match(r"\w[\w.-]*", line)) and not is_installed(name[0])]
    if not missing:
        return ""
    names = ", ".join(name[0] for name in missing)
    return (
        f"For the book, which needs {names}, run `python -m pip install -r {shown(requirements)}`, then run the "
        "lessons again."
    )


def is_installed(package: str) -> bool:
    """Whether this Python has a package."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------
# Making it


def make_book(
    project: Path, committed: Path, lessons: Sequence[Lesson], machine: Machine, out: Path
) -> tuple[int, bool]:
    """Make the book in a folder beside `out`, and put it there when it is whole.

    Returns Sphinx's exit status and whether there is a book: after warnings the status is not 0, and there is one.

    Raises KeyboardInterrupt if it is interrupted; what is in `out` stays as it was.
    """
    with TemporaryDirectory(prefix=".book-", dir=out.resolve().parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        lay_out(project, committed, lessons, machine, folder / "project")
        try:
            with stoppable():
                status = build(folder / "project", folder / "book")
        except Stopped:
            raise KeyboardInterrupt from None
        is_there = (folder / "book" / "index.html").is_file()
        if is_there:
            replace_entries(folder / "book", out)
    return status, is_there


def lay_out(project: Path, committed: Path, lessons: Sequence[Lesson], machine: Machine, folder: Path) -> None:
    """Lay out a folder like the project, with the notebooks as executed here and with the page on this machine."""
    shutil.copytree(committed, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for lesson in lessons:
        if lesson.here:
            copy = folder / "notebooks" / lesson.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_notebook(lesson.here.notebook, copy)
    book = folder / "book"
    copy_entries(project, folder, but=LEFT_OUT)
    copy_entries(project / "book", book, but=("index.md", PAGE))
    index = (project / "book" / "index.md").read_text(encoding="utf-8")
    if FIRST_TOCTREE not in index:
        raise LessonError(
            "book/index.md has no table of contents (a toctree) in which the page on this machine could stand"
        )
    (book / "index.md").write_text(index.replace(FIRST_TOCTREE, ENTRY + FIRST_TOCTREE, 1), encoding="utf-8")
    page = machine_page(machine, lessons, lambda lesson: f"../notebooks/{lesson.path.as_posix()}")
    (book / PAGE).write_text(page, encoding="utf-8")


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block, Ctrl-C and SIGTERM raise Stopped, and end at once the processes that this one has started."""
    started_by = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() != started_by:
            os._exit(1)
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def replace_entries(source: Path, folder: Path) -> None:
    """Move all that lies in the folder `source` to `folder`, in place of what is called by the same names there."""
    for entry in source.iterdir():
        target = folder / entry.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        entry.replace(target)
