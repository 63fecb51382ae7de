"""Executing a notebook in a fresh kernel of this very Python, cell by cell."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from notebook_files import (
    LessonError,
    clear_outputs,
    first_line,
    headline,
    last_line,
    normalise,
    read_notebook,
)

CELL_TIMEOUT_S = 120


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
    """One lesson: its notebook as far as it got, its wall time (None if not executed), and its failure."""

    path: Path
    notebook: NotebookNode
    seconds: float | None
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
