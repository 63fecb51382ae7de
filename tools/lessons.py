"""Run, execute and check the lessons: what `make lessons`, `make execute` and the tests use.

    python tools/lessons.py run [LESSON ...]       execute copies, and make the book of them; both go to build/lessons/
    python tools/lessons.py execute [LESSON ...]   execute the committed notebooks again, in place
    python tools/lessons.py check [LESSON ...]     list what is wrong with the committed notebooks

LESSON is a number (3) or a file name (Lesson_3-Continuous_Batching.ipynb); without one, all are meant.

Three conventions hold for every lesson. Its first code cell puts ../code on sys.path. Its result is
the last line it prints that starts with "Headline: ". Progress bars (tqdm.auto) are for the person
watching: they are dropped from what is saved, while any other text on stderr is kept, and fails the check.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from machine_book import show_results
from machine_facts import measure_machine
from notebook_checks import (
    count_problems,
    output_problems,
    private_path_problems,
    problems,
)
from notebook_files import (
    NOTEBOOKS,
    ROOT,
    WIDGET_VIEW,
    LessonError,
    clear_outputs,
    code_cells,
    find_lessons,
    give_ids,
    headline,
    is_progress_bar,
    normalise,
    notebooks_of,
    page_title,
    read_notebook,
    source_hash,
    write_notebook,
)
from notebook_runs import CELL_TIMEOUT_S, Failure, Outcome, run_notebook

# What the tests use comes from the modules beside this one; they find all of it here.
__all__ = [
    "NOTEBOOKS",
    "ROOT",
    "WIDGET_VIEW",
    "Failure",
    "LessonError",
    "clear_outputs",
    "code_cells",
    "count_problems",
    "find_lessons",
    "give_ids",
    "headline",
    "is_progress_bar",
    "main",
    "normalise",
    "notebooks_of",
    "output_problems",
    "private_path_problems",
    "problems",
    "read_notebook",
    "run_notebook",
    "source_hash",
    "write_notebook",
]

RESULTS = ROOT / "build" / "lessons"


def run_lessons(lessons: Sequence[Path], timeout_s: float) -> Iterator[Outcome]:
    """Execute copies of the lessons one after another, under one progress bar that counts code cells."""
    planned = {path: len(code_cells(read_notebook(path))) for path in lessons}
    done = 0
    redraw_s = 0.1 if sys.stderr.isatty() else 30
    with tqdm(total=sum(planned.values()), unit="cell", mininterval=redraw_s) as bar:
        for path in lessons:
            bar.set_description(path.stem.split("-")[0].replace("_", " "))
            yield run_notebook(path, timeout_s=timeout_s, on_cell=bar.update)
            done += planned[path]
            bar.update(done - bar.n)  # past the cells that a failure left out


def command_run(lessons: Sequence[Path], notebooks: Path, out: Path, timeout_s: float) -> int:
    """Execute copies of the lessons, write them to `out`, sum up, make the book. Returns the exit status.

    A copy lies in `out` where its lesson lies in the folder `notebooks`.
    """
    copies = {path: out / path.relative_to(notebooks) for path in lessons}
    if any(copy.resolve() == path.resolve() for path, copy in copies.items()):
        raise LessonError("the folder for executed copies is the notebooks' own; choose another")
    require_course_model()
    machine = measure_machine()
    outcomes = []
    for outcome in run_lessons(lessons, timeout_s):
        outcomes.append(outcome)
        copies[outcome.path].parent.mkdir(parents=True, exist_ok=True)
        write_notebook(outcome.notebook, copies[outcome.path])
    print_summary(outcomes)
    failed = report_failures(outcomes)
    return show_results(outcomes, machine, notebooks, out) or failed


def require_course_model() -> None:
    """Load the model that COURSE_MODEL names, if it names one; raises LessonError if that fails.

    Otherwise all lessons would fail one after another, each with the same message.
    """
    if not os.environ.get("COURSE_MODEL"):
        return
    load = [sys.executable, "-c", "from helpers import load_model; load_model()"]
    result = subprocess.run(load, cwd=ROOT / "code", capture_output=True, text=True, check=False)
    if result.returncode:
        message = re.split(r"^\w+(?:Error|Exception): ", result.stderr.strip(), flags=re.MULTILINE)[-1]
        raise LessonError(f"COURSE_MODEL: {message}")


def command_execute(lessons: Sequence[Path], timeout_s: float) -> int:
    """Execute the lessons and replace those that ran to their end. Returns the exit status."""
    outcomes = []
    for outcome in run_lessons(lessons, timeout_s):
        outcomes.append(outcome)
        if outcome.failure is None:
            write_notebook(outcome.notebook, outcome.path)
    print_summary(outcomes)
    return report_failures(outcomes)


def command_check(lessons: Sequence[Path]) -> int:
    """Print what is wrong with the committed notebooks. Returns the exit status."""
    found = [f"{path.name}: {problem}" for path in lessons for problem in problems(path)]
    print("\n".join(found) if found else f"{len(lessons)} notebooks, nothing to complain about")
    return 1 if found else 0


def print_summary(outcomes: Sequence[Outcome]) -> None:
    """One line per lesson: its name, its seconds, its headline result."""
    width = max(len(page_title(outcome.path)) for outcome in outcomes)
    for outcome in outcomes:
        print(f"{page_title(outcome.path):{width}}  {outcome.seconds:5.1f} s  {outcome.summary}")


def report_failures(outcomes: Sequence[Outcome]) -> int:
    """Name each notebook and cell that failed on stderr. Returns the exit status, 1 if there is one."""
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        print(f"error: {outcome.path.name}, {outcome.failure}", file=sys.stderr)
    return 1 if failed else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of this program."""
    parser = argparse.ArgumentParser(description="Run, execute and check the lessons.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in [
        ("run", "execute copies of the lessons, and make the book of them, in a folder"),
        ("execute", "execute the committed notebooks again, in place"),
        ("check", "list what is wrong with the committed notebooks"),
    ]:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("lessons", metavar="LESSON", nargs="*", help="number or file name; default: all")
        command.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="the folder of the lessons")
        if name == "run":
            command.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
        if name in ("run", "execute"):
            command.add_argument(
                "--timeout", type=float, default=CELL_TIMEOUT_S, metavar="S", help="seconds a cell may take"
            )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 for a failure, 2 for misuse, 130 for Ctrl-C."""
    options = parse_arguments(arguments)
    try:
        lessons = find_lessons(options.lessons, options.notebooks)
        if options.command == "run":
            return command_run(lessons, options.notebooks, options.out, options.timeout)
        if options.command == "execute":
            return command_execute(lessons, options.timeout)
        return command_check(lessons)
    except LessonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted: the kernel is stopped; unfinished lessons, and the book before this run, are unchanged.",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):  # `kill` stops the kernel as Ctrl-C does, in the background too
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
