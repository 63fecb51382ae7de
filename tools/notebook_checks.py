"""What is wrong with a committed notebook: not executed, out of date, too long, or naming a private folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nbformat import NotebookNode

from notebook_files import (
    HEADLINE,
    ROOT,
    WIDGET_VIEW,
    LessonError,
    code_cells,
    first_line,
    headline,
    read_notebook,
    source_hash,
)

MAX_OUTPUT_LINES = 40
MAX_NOTEBOOK_BYTES = 2_000_000

# A path counts where it starts, not in the middle of an address: example.org/home/page is none.
PATH_START = r"(?<![\w.~-])"
PRIVATE_PATHS = re.compile(PATH_START + r"/(?:home|root|Users|tmp|private|var/folders)/|\bC:\\")
BITMAPS = ("image/png", "image/jpeg")
SETS_PATH = re.compile(r"sys\.path\.insert\(0, *(['\"])(?:\.\./)+code\1\)")


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
