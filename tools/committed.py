"""The notebooks as git has them, whatever has been typed into the files since.

Somebody who solves an exercise in notebooks/ itself has broken nothing, so tests and lint look at the notebooks in
git's index: what is committed, or staged with `git add`. To have them look at the files as they are, set the
environment variable COURSE_NOTEBOOKS to `notebooks`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "COURSE_NOTEBOOKS"
MADE = ("build", "lab", "htmlcov")  # folders that programs make and git does not know


def differing(root: Path = ROOT) -> list[str]:
    """The files in notebooks/ that are changed or new since they were committed or staged; none outside git."""
    changed = _git(root, "diff", "--name-only", "--", "notebooks")
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", "notebooks")
    return [*changed, *new]


@contextmanager
def committed_notebooks(root: Path = ROOT) -> Iterator[Path]:
    """A folder that holds the notebooks as git has them: notebooks/ itself unless something there differs.

    Otherwise it is a copy, in a temporary folder that is laid out like the project and holds copies of all the rest.
    """
    if not differing(root):
        yield root / "notebooks"
        return
    with tempfile.TemporaryDirectory(prefix="committed-") as name:
        folder = Path(name).resolve()
        tracked = _git(root, "ls-files", "--", "notebooks")
        _git(root, "checkout-index", f"--prefix={folder}/", "--", *tracked)
        copy_entries(root, folder, but=("notebooks", *MADE))
        yield folder / "notebooks"


def copy_entries(source: Path, folder: Path, but: Collection[str] = ()) -> None:
    """Copies in `folder` of all that lies in the folder `source`, but for the names in `but` and hidden files.

    Where the system can, a copy shares its bytes with its original, so copies are for reading. Symbolic links would
    not do: MyST follows them, and then a link from one text to another leads out of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left_out = shutil.ignore_patterns(".*", "__pycache__", "checkpoints")  # of the training: gigabytes
    for entry in source.iterdir():
        if entry.name in but or left_out(None, [entry.name]):
            continue
        if entry.is_dir():
            shutil.copytree(entry, folder / entry.name, copy_function=share_or_copy, ignore=left_out)
        else:
            share_or_copy(entry, folder / entry.name)


def share_or_copy(original: Path | str, copy: Path | str) -> None:
    """A second name for a file, or a copy of it where the two lie on different disks."""
    try:
        Path(copy).hardlink_to(Path(original).resolve())
    except OSError:
        shutil.copyfile(original, copy)


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
