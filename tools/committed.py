"""The notebooks as git has them, whatever has been typed into the files since.

Somebody who solves an exercise in notebooks/ itself has broken nothing, so tests and lint look at the notebooks in
git's index: what is committed, or staged with `git add`. To have them look at the files as they are, set the
environment variable COURSE_NOTEBOOKS to `notebooks`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "COURSE_NOTEBOOKS"


def differing(root: Path = ROOT) -> list[str]:
    """The files in notebooks/ that are changed or new since they were committed or staged; none outside git."""
    changed = _git(root, "diff", "--name-only", "--", "notebooks")
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", "notebooks")
    return [*changed, *new]


@contextmanager
def committed_notebooks(root: Path = ROOT) -> Iterator[Path]:
    """A folder that holds the notebooks as git has them: notebooks/ itself unless something there differs.

    Otherwise it is a copy, in a temporary folder that is laid out like the project, with links to all the rest.
    """
    if not differing(root):
        yield root / "notebooks"
        return
    with tempfile.TemporaryDirectory(prefix="committed-") as name:
        folder = Path(name).resolve()
        tracked = _git(root, "ls-files", "--", "notebooks")
        _git(root, "checkout-index", f"--prefix={folder}/", "--", *tracked)
        for entry in root.iterdir():
            if entry.name != "notebooks" and not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
        yield folder / "notebooks"


def _git(root: Path, *arguments: str) -> list[str]:
    """The lines that a git command prints; none where there is no git, or no repository of it here."""
    if not (root / ".git").exists():
        return []
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return result.stdout.splitlines() if result.returncode == 0 else []


def chosen_notebooks() -> Path | None:
    """The folder that COURSE_NOTEBOOKS names, or None."""
    name = os.environ.get(VARIABLE)
    return Path(name).resolve() if name else None
