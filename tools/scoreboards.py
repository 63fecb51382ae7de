"""The scoreboards that the committed lessons show at their end, read back from their outputs.

The page on the ladder draws and lists the predictions of all lessons from here, and the tests hold each lesson to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nbformat import NotebookNode

from notebook_files import ROOT, code_cells, find_lessons, read_notebook

sys.path.insert(0, str(ROOT / "code"))

from scoreboard import SCOREBOARD_MIME, Scoreboard, quantity  # noqa: F401


def saved_scoreboards(paths: Sequence[Path] | None = None) -> list[Scoreboard]:
    """The scoreboard of every lesson, in order; a notebook that shows none is left out."""
    return [board for path in paths or find_lessons() for board in scoreboards_of(path)]


def scoreboards_of(path: Path) -> Iterator[Scoreboard]:
    """Every scoreboard that the outputs of the notebook at `path` hold."""
    return scoreboards_in(read_notebook(path))


def scoreboards_in(nb: NotebookNode) -> Iterator[Scoreboard]:
    """Every scoreboard that the outputs of a notebook hold, as it was when the notebook was executed."""
    for cell in code_cells(nb):
        for output in cell.outputs:
            saved = output.get("data", {}).get(SCOREBOARD_MIME)
            if saved is not None:
                board = Scoreboard(saved["lesson"])
                for row in saved["rows"]:
                    board.add(**row)
                yield board
