"""Put one bug into a copy of `code/` and see whether its test turns red."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bug_museum.bugs import Bug

ROOT = Path(__file__).resolve().parent.parent.parent
RED = 1  # pytest's exit status when tests ran and one of them failed


def with_bug(source: str, bug: Bug) -> str:
    """The module's text with the bug in it.

    Raises ValueError if a text to be replaced is not there exactly once: the exhibit is out of date.
    """
    for old, new in bug.edits:
        if source.count(old) != 1:
            raise ValueError(f"{bug.title!r}: {source.count(old)} places in {bug.module}.py read\n{old}")
        source = source.replace(old, new)
    return source


def turns_red(bug: Bug) -> bool:
    """Whether the bug's test fails when the bug is there.

    Raises RuntimeError when the test could not be run at all: a bug that breaks the import proves nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "code"
        shutil.copytree(ROOT / "code", copy, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "models", Path(folder) / "models", ignore=shutil.ignore_patterns("training"))
        module = copy / f"{bug.module}.py"
        module.write_text(with_bug(module.read_text(encoding="utf-8"), bug), encoding="utf-8")
        result = _run_test(bug.caught_by, copy)
    if result.returncode not in (0, RED):
        raise RuntimeError(
            f"{bug.title!r}: {bug.caught_by} did not run\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
        )
    return result.returncode == RED


def _run_test(test: str, code: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    # pytest takes this option apart like a shell's command line, in which Windows' backslashes would disappear.
    command += ["-o", f"pythonpath={shlex.quote(code.as_posix())} models/training tools tests", f"tests/{test}"]
    # A process started by a test finds the copy before anything else, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", errors="replace")


def run_all(bugs: Sequence[Bug]) -> Iterator[tuple[Bug, bool]]:
    """Every bug with its verdict, in order; as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(bugs, pool.map(turns_red, bugs), strict=True)
