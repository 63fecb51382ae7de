"""Notebooks as files: finding, reading and writing them, and the form in which an executed one is saved."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from committed import ROOT, chosen_notebooks

NOTEBOOKS = chosen_notebooks() or ROOT / "notebooks"
FURTHER = "further"  # the folder in it whose lessons come after the others, and which those never need

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
    """The notebooks in `folder`, in order, and then the further ones; with `wanted` (numbers or names), those only.

    Raises LessonError if there are none, or one that is wanted is not there.
    """
    found = [*sorted(folder.glob("*.ipynb")), *sorted(folder.glob(f"{FURTHER}/*.ipynb"))]
    if not found:
        raise LessonError(f"there are no notebooks in {folder.name}/")
    if not wanted:
        return found
    chosen = {_find_lesson(name, found) for name in wanted}
    return [path for path in found if path in chosen]


def _find_lesson(name: str, found: list[Path]) -> Path:
    for path in found:
        if name in (lesson_number(path), path.stem) or Path(name).name == path.name:
            return path
    raise LessonError(f"there is no lesson {name!r}; there are: {', '.join(path.name for path in found)}")


def files_of(root: Path, *patterns: str) -> list[Path]:
    """The files below `root` that fit one of the patterns, without what Python and Jupyter leave behind."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts))


def notebooks_of(folder: Path) -> list[Path]:
    """All notebooks below a folder, in order."""
    return files_of(folder, "**/*.ipynb")


def lesson_number(path: Path) -> str:
    """`Lesson_2-Batching.ipynb` -> "2"; "" for a file named otherwise."""
    match = re.match(r"Lesson_(\d+)-", path.name)
    return match.group(1) if match else ""


def lesson_title(path: Path) -> str:
    """`Lesson_5-Low-Rank_Adaptation.ipynb` -> "Low-Rank Adaptation"."""
    return re.sub(r"^Lesson_\d+-", "", path.stem).replace("_", " ")


def page_title(path: Path) -> str:
    """`Lesson_2-Batching.ipynb` -> "Lesson 2: Batching"."""
    number = lesson_number(path)
    return f"Lesson {number}: {lesson_title(path)}" if number else lesson_title(path)


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


def shown(path: Path) -> Path:
    """`path` as seen from the current folder where it lies below it."""
    path, here = path.resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def first_line(text: str) -> str:
    """The first line of `text` that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_line(text: str) -> str:
    """The last line of `text` that is not blank."""
    return first_line("\n".join(reversed(text.splitlines())))
