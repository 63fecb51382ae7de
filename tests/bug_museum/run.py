"""Put one bug into a copy of `code/` and see whether its test turns red.

Every exhibit runs in a process of its own. On Linux these processes are forked from one that has imported the large
libraries, which takes longer than almost all of the tests; elsewhere each of them starts from nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from bug_museum.exhibit import Bug

ROOT = Path(__file__).resolve().parent.parent.parent
GREEN, RED = 0, 1  # pytest's exit status when tests ran and all passed, and when one of them failed
RAN = 100  # is added to it: a process that fails before pytest has ended does so with less
LIBRARIES = ["pytest", "peft", "hypothesis", "schemathesis", "safetensors.torch"]
LIBRARIES += [f"transformers.models.{name}.modeling_{name}" for name in ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3")]


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "code", folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("training"))
        module = folder / "code" / f"{bug.module}.py"
        module.write_text(with_bug(module.read_text(encoding="utf-8"), bug), encoding="utf-8")
        process = _processes().Process(target=run_test, args=(bug.caught_by, folder), daemon=True)
        process.start()
        try:
            process.join()
        finally:  # Ctrl-C leaves no test running
            process.kill()
        status, log = process.exitcode - RAN, folder / "log"
        if status not in (GREEN, RED):
            said = log.read_text(encoding="utf-8", errors="replace")[-6000:] if log.exists() else ""
            raise RuntimeError(f"{bug.title!r}: {bug.caught_by} did not run\n{said}")
    return status == RED


def _processes() -> BaseContext:
    """How processes are started. The libraries are imported by the first one that is asked for."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def run_test(test: str, folder: Path) -> None:
    """Run a test against `folder / "code"`, say what it says in `folder / "log"`, and end the process with its status.

    This process serves nothing else, so its output, environment and temporary files are the test's.
    """
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    for output in (1, 2):
        os.dup2(log, output)
    for name in [name for name in os.environ if name.startswith(("COV_", "PYTEST_"))]:
        del os.environ[name]
    (folder / "temporary").mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "temporary")
    os.chdir(ROOT)
    sys.path[:] = [entry for entry in sys.path if Path(entry) != ROOT / "code"]
    # pytest takes this option apart like a shell's command line, in which Windows' backslashes would disappear.
    code = shlex.quote((folder / "code").as_posix())
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={code} models/training tools tests"]
    sys.exit(RAN + pytest.main([*options, f"tests/{test}"]))


def run_all(bugs: Sequence[Bug]) -> Iterator[tuple[Bug, bool]]:
    """Every bug with its verdict, in order; as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(bugs, pool.map(turns_red, bugs), strict=True)
