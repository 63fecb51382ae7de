"""Run, execute and check the lessons: what `make lessons`, `make execute` and the tests use.

    python tools/lessons.py run [LESSON ...]       execute copies; results and pages go to build/lessons/
    python tools/lessons.py execute [LESSON ...]   execute the committed notebooks again, in place
    python tools/lessons.py check [LESSON ...]     list what is wrong with the committed notebooks

LESSON is a number (3) or a file name (Lesson_3-Continuous_Batching.ipynb); without one, all are meant.

Three conventions hold for every lesson. Its first code cell puts ../code on sys.path. Its result is
the last line it prints that starts with "Headline: ". Progress bars (tqdm.auto) are for the person
watching: they are dropped from what is saved, while any other text on stderr is kept, and fails the check.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import html
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PAGES = ROOT / "build" / "lessons"

CELL_TIMEOUT_S = 120
MAX_OUTPUT_LINES = 40
MAX_NOTEBOOK_BYTES = 2_000_000
HEADLINE = "Headline: "

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class LessonError(Exception):
    """A lesson that cannot be found or read; the text is written for the person at the keyboard."""


# ---------------------------------------------------------------------------------------------------
# Finding, reading and writing notebooks


def find_lessons(wanted: Sequence[str] = (), folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks in `folder`, in order; with `wanted` (numbers or file names), those only.

    Raises LessonError if there are none, or one that is wanted is not there.
    """
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise LessonError(f"there are no notebooks in {folder.name}/")
    if not wanted:
        return found
    return sorted({_find_lesson(name, found) for name in wanted})


def _find_lesson(name: str, found: list[Path]) -> Path:
    for path in found:
        if name in (lesson_number(path), path.stem) or Path(name).name == path.name:
            return path
    raise LessonError(f"there is no lesson {name!r}; there are: {', '.join(path.name for path in found)}")


def lesson_number(path: Path) -> str:
    """`Lesson_2-Batching.ipynb` -> "2"; "" for a file named otherwise."""
    match = re.match(r"Lesson_(\d+)-", path.name)
    return match.group(1) if match else ""


def lesson_title(path: Path) -> str:
    """`Lesson_5-Low-Rank_Adaptation.ipynb` -> "Low-Rank Adaptation"."""
    return re.sub(r"^Lesson_\d+-", "", path.stem).replace("_", " ")


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook of format 4; cells without an id get one made from their text.

    Raises LessonError if the file is not such a notebook.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["nbformat_minor"] = max(5, content["nbformat_minor"])
        give_ids(content["cells"])
        nb = nbformat.reads(json.dumps(content), as_version=4)
        nbformat.validate(nb)
    except (ValueError, KeyError, TypeError, nbformat.ValidationError) as error:
        reason = f"{type(error).__name__}: {first_line(str(error))}"
        raise LessonError(f"{path.name} is not a notebook of format 4 ({reason})") from error
    return nb


def give_ids(cells: list[dict]) -> None:
    """Give each cell without an id one that depends on its text alone, so that it stays the same."""
    taken = {cell["id"] for cell in cells if "id" in cell}
    for cell in cells:
        if "id" not in cell:
            text = "".join(cell["source"])
            while (name := hashlib.sha256(text.encode()).hexdigest()[:12]) in taken:
                text += "\n"
            cell["id"] = name
            taken.add(name)


def write_notebook(nb: NotebookNode, path: Path) -> None:
    """Write `nb` to `path` all at once: whoever reads it finds the old file or the new one, never a part."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells in order; "code cell 7" anywhere in this file is the seventh of them."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def source_hash(nb: NotebookNode) -> str:
    """The sha256 of the text of all code and Markdown cells: not of outputs, metadata or code/."""
    sources = [[cell.cell_type, cell.source] for cell in nb.cells if cell.cell_type in ("code", "markdown")]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def printed_text(cell: NotebookNode, stream: str = "stdout") -> str:
    """All that a code cell wrote to `stream`."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == stream)


def headline(nb: NotebookNode) -> str | None:
    """The text after "Headline: " in the last such line that a code cell printed."""
    lines = [line for cell in code_cells(nb) for line in printed_text(cell).splitlines()]
    results = [line.removeprefix(HEADLINE).strip() for line in lines if line.startswith(HEADLINE)]
    return results[-1] if results else None


# ---------------------------------------------------------------------------------------------------
# Putting an executed notebook into the form in which it is saved


def clear_outputs(nb: NotebookNode) -> None:
    """Remove every output and execution count."""
    for cell in code_cells(nb):
        cell.outputs = []
        cell.execution_count = None


def normalise(nb: NotebookNode) -> None:
    """Keep what a reader needs and what two executions have in common; note the hash of the source."""
    for count, cell in enumerate((cell for cell in code_cells(nb) if cell.execution_count), start=1):
        set_execution_count(cell, count)
        cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
    nb.metadata.pop("widgets", None)
    nb.metadata.update(
        kernelspec=dict(KERNELSPEC),
        language_info=dict(LANGUAGE_INFO),
        companion={"source_hash": source_hash(nb)},
    )


def set_execution_count(cell: NotebookNode, count: int) -> None:
    """Number an executed cell, and its result with it."""
    cell.execution_count = count
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = count


# "Loading:  40%|####      | 4/10 [00:01<00:02,  2.00it/s]", or without a total "7it [00:03,  2.10it/s]"
BAR = re.compile(r"(.*: )?\s*(\d+%\|.*\| \S+|\d\S*( \w+)?) \[(\d+:)?\d+:\d\d.*\]\s*")


def is_progress_bar(output: NotebookNode) -> bool:
    """True for a widget, and for text on stderr that is tqdm's bars and nothing else (no warning)."""
    if output.output_type in ("display_data", "execute_result"):
        return WIDGET_VIEW in output.data
    if output.output_type != "stream" or output.name != "stderr":
        return False
    lines = [line for line in re.split(r"[\r\n]|\x1b\[A", output.text) if line.strip()]
    return all(BAR.fullmatch(line) for line in lines)


# ---------------------------------------------------------------------------------------------------
# Executing


@dataclass(frozen=True)
class Failure:
    """Where a lesson stopped: the number of its code cell, the cell's first line, and the error."""

    code_cell: int
    first_line: str
    error: str

    def __str__(self) -> str:
        return f"code cell {self.code_cell} (`{self.first_line}`): {self.error}"


@dataclass(frozen=True)
class Outcome:
    """One executed lesson: its notebook as far as it got, its wall time, and the failure if there was one."""

    path: Path
    notebook: NotebookNode
    seconds: float
    failure: Failure | None = None

    @property
    def headline(self) -> str | None:
        """The result the lesson prints, or None."""
        return headline(self.notebook)

    @property
    def summary(self) -> str:
        """What the lesson came to, in one line: its headline, or where it failed."""
        if self.failure:
            return f"FAILED in code cell {self.failure.code_cell}"
        return self.headline or "(no headline)"


class ThisInterpreter(KernelSpecManager):
    """Knows one kernel, this very Python, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernel of the running interpreter, under any name."""
        return KernelSpec(**get_kernel_dict())


def kernel_environment(ipython_dir: str, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, without what a user's own setup would change in a lesson."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {"IPYTHONDIR": ipython_dir, "TOKENIZERS_PARALLELISM": "false"}
    return environment | dict(extra)


def run_notebook(
    path: Path,
    *,
    timeout_s: float = CELL_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
    on_cell: Callable[[], object] = lambda: None,
) -> Outcome:
    """Execute a copy of the notebook at `path` in a fresh kernel, in the notebook's own folder.

    A cell may take `timeout_s` seconds. `environment` adds variables to the kernel's environment, and
    `on_cell` is called after each code cell. A failing cell ends the lesson and is part of the outcome.
    Raises LessonError if the file is not a notebook or no kernel starts.
    """
    nb = read_notebook(path)
    clear_outputs(nb)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as ipython_dir:
        env = kernel_environment(ipython_dir, environment or {})
        failure = asyncio.run(_execute_cells(nb, path.parent, timeout_s, env, on_cell))
    normalise(nb)
    return Outcome(path, nb, time.perf_counter() - started, failure)


async def _execute_cells(
    nb: NotebookNode,
    folder: Path,
    timeout_s: float,
    environment: dict[str, str],
    on_cell: Callable[[], object],
) -> Failure | None:
    """Execute every cell in place; on the way out, however that is, the kernel is killed."""
    manager = AsyncKernelManager(kernel_spec_manager=ThisInterpreter(), transport_encryption="auto")
    client = NotebookClient(
        nb,
        km=manager,
        timeout=timeout_s,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    try:
        await start_kernel(client, folder, environment)
        return await _execute_until_failure(client, on_cell)
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
        if manager.has_kernel:
            await manager.shutdown_kernel(now=True)


async def start_kernel(client: NotebookClient, folder: Path, environment: dict[str, str]) -> None:
    """Start the client's kernel in `folder` and wait until it answers; raises LessonError if it dies."""
    try:
        await client.async_start_new_kernel(cwd=str(folder), env=environment)
        await client.async_start_new_kernel_client()
    except RuntimeError as error:
        raise LessonError(f"the kernel of {sys.executable} does not start: {error}") from error


async def _execute_until_failure(client: NotebookClient, on_cell: Callable[[], object]) -> Failure | None:
    number = 0
    for index, cell in enumerate(client.nb.cells):
        if cell.cell_type != "code":
            continue
        number += 1
        try:
            await client.async_execute_cell(cell, index)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise_if_cancelled(error)
            return Failure(number, first_line(cell.source), describe(error, client))
        on_cell()
    return None


def raise_if_cancelled(error: Exception) -> None:
    """Ctrl-C cancels the running task, which nbclient reports as a dead kernel: take it for what it is."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def describe(error: Exception, client: NotebookClient) -> str:
    """One line for what ended a lesson."""
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {last_line(error.evalue)}"
    if isinstance(error, CellTimeoutError):
        return f"it ran longer than {client.timeout:g} seconds"
    return "its kernel died (out of memory?)"


def first_line(text: str) -> str:
    """The first line of `text` that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_line(text: str) -> str:
    """The last line of `text` that is not blank."""
    return first_line("\n".join(reversed(text.splitlines())))


# ---------------------------------------------------------------------------------------------------
# Pages


def lesson_page(outcome: Outcome, out: Path) -> str:
    """The executed lesson as one HTML page to be put into the folder `out`."""
    exporter = HTMLExporter(template_name="lab")
    exporter.require_js_url = "data:text/javascript,"  # the template asks for it, only widgets use it
    resources = {"metadata": {"name": page_title(outcome.path)}}
    page, _ = exporter.from_notebook_node(outcome.notebook, resources=resources)
    return relocate_links(page, outcome.path.parent, out)


def page_title(path: Path) -> str:
    """`Lesson_2-Batching.ipynb` -> "Lesson 2: Batching"."""
    number = lesson_number(path)
    return f"Lesson {number}: {lesson_title(path)}" if number else lesson_title(path)


def relocate_links(page: str, source: Path, out: Path) -> str:
    """Links between lessons lead to their pages; links out of `source` (../notes) still arrive from `out`."""
    way_back = Path(os.path.relpath(source.resolve(), out.resolve())).as_posix()
    page = re.sub(r'(href="[^":/]+)\.ipynb(["#])', r"\1.html\2", page)
    return re.sub(r'((?:href|src)=")\.\./', rf"\g<1>{way_back}/../", page)


INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lessons, executed</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
ol {{ list-style: none; padding: 0; }}
li {{ padding: .75rem 0; border-top: 1px solid #8886; }}
h2 {{ font-size: 1.1rem; margin: 0; }}
p {{ margin: .25rem 0; overflow-wrap: anywhere; }}
.seconds {{ opacity: .7; font-size: .9rem; }}
.failed {{ color: light-dark(#a30000, #ff8a80); }}
</style>
</head>
<body>
<h1>Lessons, executed</h1>
<ol>
{lessons}
</ol>
</body>
</html>
"""

INDEX_ENTRY = """<li>
<h2><a href="{link}">{title}</a></h2>
<p{failed}>{summary}</p>
<p class="seconds">{seconds:.0f} s · <a href="{notebook}">executed notebook</a></p>
</li>"""


def index_page(outcomes: Iterable[Outcome]) -> str:
    """A page that lists lessons: title, result, seconds, and links to the page and the notebook."""
    return INDEX.format(lessons="\n".join(_index_entry(outcome) for outcome in outcomes))


def _index_entry(outcome: Outcome) -> str:
    return INDEX_ENTRY.format(
        link=html.escape(f"{outcome.path.stem}.html"),
        title=html.escape(page_title(outcome.path)),
        failed=' class="failed"' if outcome.failure else "",
        summary=html.escape(outcome.summary),
        seconds=outcome.seconds,
        notebook=html.escape(outcome.path.name),
    )


# ---------------------------------------------------------------------------------------------------
# Checking committed notebooks

# A path counts where it starts, not in the middle of an address: example.org/home/page is none.
PATH_START = r"(?<![\w.~-])"
PRIVATE_PATHS = re.compile(PATH_START + r"/(?:home|root|Users|tmp|private|var/folders)/|\bC:\\")
BITMAPS = ("image/png", "image/jpeg")
SETS_PATH = re.compile(r"sys\.path\.insert\(0, *(['\"])\.\./code\1\)")


def problems(path: Path) -> list[str]:
    """All that is wrong with a committed notebook, one line each; empty for a clean one."""
    try:
        nb = read_notebook(path)
    except LessonError as error:
        return [str(error).removeprefix(f"{path.name} ")]
    found = [*size_problems(path), *source_problems(nb), *count_problems(nb), *private_path_problems(nb)]
    for number, cell in enumerate(code_cells(nb), start=1):
        found += [f"code cell {number} {problem}" for problem in output_problems(cell)]
    return found


def size_problems(path: Path) -> Iterator[str]:
    """A notebook is small enough to read on the web."""
    size = path.stat().st_size
    if size >= MAX_NOTEBOOK_BYTES:
        yield f"the file has {size:,} bytes; {MAX_NOTEBOOK_BYTES:,} are too many"


def source_problems(nb: NotebookNode) -> Iterator[str]:
    """Outputs belong to this very source; the first code cell finds code/; a headline is printed."""
    recorded = nb.metadata.get("companion", {}).get("source_hash")
    if recorded is None:
        yield "it was not executed by `make execute`"
    elif recorded != source_hash(nb):
        yield "its source has changed since it was executed: run `make execute`"
    if not code_cells(nb) or not SETS_PATH.search(code_cells(nb)[0].source):
        yield 'its first code cell does not call sys.path.insert(0, "../code")'
    if headline(nb) is None:
        yield f"no code cell prints a line that starts with {HEADLINE!r}"


def count_problems(nb: NotebookNode) -> Iterator[str]:
    """Every code cell was executed, in order, once."""
    for number, cell in enumerate(code_cells(nb), start=1):
        if cell.execution_count is None:
            yield f"code cell {number} {'was not executed' if cell.source.strip() else 'is empty'}"
        elif cell.execution_count != number:
            yield f"code cell {number} has the execution count {cell.execution_count}"


def output_problems(cell: NotebookNode) -> Iterator[str]:
    """What a reader should not find below a code cell."""
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ends in an error: {output.ename}"
        elif output.output_type == "stream" and output.name == "stderr":
            yield f"writes to stderr: {first_line(output.text)}"
        elif WIDGET_VIEW in output.get("data", {}):
            yield "shows a widget, which a saved notebook cannot"
        lines = output_text(output).count("\n") + 1
        if lines > MAX_OUTPUT_LINES:
            yield f"prints {lines} lines; more than {MAX_OUTPUT_LINES} are a wall"


def output_text(output: NotebookNode) -> str:
    """The text that an output shows, without the line end after it."""
    text = output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
    return text.rstrip("\n")


def private_path_problems(nb: NotebookNode, root: Path = ROOT) -> Iterator[str]:
    """No text in the notebook names a folder of the machine it was written on."""
    for place, text in named_texts(nb):
        for line in text.splitlines():
            if PRIVATE_PATHS.search(line) or re.search(PATH_START + re.escape(str(root)) + r"\b", line):
                yield f"{place} holds an absolute path: {line.strip()[:80]}"
                break


def named_texts(nb: NotebookNode) -> Iterator[tuple[str, str]]:
    """Each text in the notebook but for pictures, with the place where it stands."""
    number = 0
    for position, cell in enumerate(nb.cells, start=1):
        if cell.cell_type != "code":
            yield f"cell {position} ({cell.cell_type})", cell.source
            continue
        number += 1
        yield f"code cell {number}", cell.source
        for output in cell.outputs:
            yield f"the output of code cell {number}", all_text(output)


def all_text(node: object) -> str:
    """Every string inside a notebook node, one after another; PNG and JPEG data are no text."""
    if isinstance(node, Mapping):
        return "\n".join(all_text(value) for key, value in node.items() if key not in BITMAPS)
    if isinstance(node, list):
        return "\n".join(all_text(value) for value in node)
    return node if isinstance(node, str) else ""


# ---------------------------------------------------------------------------------------------------
# Commands


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


def command_run(lessons: Sequence[Path], out: Path, timeout_s: float) -> int:
    """Execute copies of the lessons, write them and their pages to `out`, sum up. Returns the exit status."""
    if any(path.parent.resolve() == out.resolve() for path in lessons):
        raise LessonError("the folder for executed copies is the notebooks' own; choose another")
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for outcome in run_lessons(lessons, timeout_s):
        outcomes.append(outcome)
        write_notebook(outcome.notebook, out / outcome.path.name)
        (out / f"{outcome.path.stem}.html").write_text(lesson_page(outcome, out), encoding="utf-8")
        (out / "index.html").write_text(index_page(outcomes), encoding="utf-8")
    print_summary(outcomes)
    print(f"Pages: {shown(out / 'index.html')}")
    return report_failures(outcomes)


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


def shown(path: Path) -> Path:
    """`path` as seen from the current folder where it lies below it."""
    path, here = path.resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of this program."""
    parser = argparse.ArgumentParser(description="Run, execute and check the lessons.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in [
        ("run", "execute copies of the lessons; results and pages go to a folder"),
        ("execute", "execute the committed notebooks again, in place"),
        ("check", "list what is wrong with the committed notebooks"),
    ]:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("lessons", metavar="LESSON", nargs="*", help="number or file name; default: all")
        command.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="the folder of the lessons")
        if name == "run":
            command.add_argument("--out", type=Path, default=PAGES, help="where the results go")
        if name != "check":
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
            return command_run(lessons, options.out, options.timeout)
        if options.command == "execute":
            return command_execute(lessons, options.timeout)
        return command_check(lessons)
    except LessonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the kernel is stopped, unfinished lessons are unchanged.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` stops the kernel as Ctrl-C does
    sys.exit(main())
