"""What Lesson 7 writes out: its server, its clocks, its arrivals, and its queue on paper."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from heapq import heapify, heapreplace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import lessons
from exercise_answers import lesson_path, solved
from test_notebooks import is_running, wait_until


def core() -> dict[str, Any]:
    """The functions and classes that the lesson defines, without running anything else of it."""
    names: dict[str, Any] = {"np": np, "Counter": Counter, "dataclass": dataclass, "WANTED": 0.9}
    names |= {"heapify": heapify, "heapreplace": heapreplace, "TTFT_S": 0.25, "TPOT_S": 0.05, "body": {}}
    for cell in lessons.code_cells(lessons.read_notebook(lesson_path(7))):
        nodes = ast.parse(cell.source).body
        kept = [node for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
        exec(compile(ast.Module(kept, type_ignores=[]), "Lesson 7", "exec"), names)
    return names


CORE = core()


def waits_step_by_step(arrivals: list[int], rows: int, service: int) -> list[int]:
    """The same queue, played tick by tick."""
    waiting, running, started = [], {}, {}
    for tick in range(max(arrivals) + service * (len(arrivals) + 1)):
        waiting += [number for number, arrival in enumerate(arrivals) if arrival == tick]
        running = {number: end for number, end in running.items() if end > tick}
        while waiting and len(running) < rows:
            number = waiting.pop(0)
            started[number], running[number] = tick, tick + service
    return [started[number] - arrival for number, arrival in enumerate(arrivals)]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_queue_on_paper_is_the_one_played_tick_by_tick(rows: int) -> None:
    arrivals = sorted(np.random.default_rng(rows).integers(0, 60, 25).tolist())
    assert CORE["waits"](arrivals, rows, 7) == waits_step_by_step(arrivals, rows, 7)


def test_arrivals_come_at_the_rate_that_was_wanted() -> None:
    times = CORE["poisson"](20.0, 500.0)
    assert len(times) == 10_000 and times == sorted(times)
    assert times[-1] == pytest.approx(500, rel=0.05)
    gaps = np.diff(times)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05), "as exponential gaps have it"
    assert CORE["poisson"](20.0, 5.0) == CORE["poisson"](20.0, 5.0)


def answer(*times: float, arrival: float = 0.0) -> Any:
    return CORE["Answer"](arrival, list(times))


def test_ttft_and_tpot_of_an_answer() -> None:
    one = answer(1.5, 1.75, 2.5, arrival=1.0)
    assert (one.ttft_s, one.tpot_s) == (0.5, 0.5)


def test_a_promise_is_kept_as_in_the_exercise() -> None:
    answers = [answer(0.2, 0.24), answer(0.3, 0.31), answer(0.1, 0.2), answer(), answer(0.25, 0.3)]
    tuples = [(a.arrival_s, *((a.times_s[0], a.times_s[-1]) if a.times_s else (0, 0)), len(a.times_s)) for a in answers]
    ours = np.mean([CORE["kept"](each) for each in answers])
    assert ours == solved()["share_in_time"](tuples, 0.25, 0.05 + 1e-9) == 2 / 5


def test_the_knee_is_that_of_the_exercise() -> None:
    for shares in ([1.0, 0.95, 0.5], [0.8, 1.0, 1.0], [1.0, 0.89, 0.99], [1.0, 0.9, 0.9]):
        ours = CORE["knee_of"](dict(zip([0.4, 0.6, 0.8], shares, strict=True)))
        assert ours == solved()["knee"]([0.4, 0.6, 0.8], shares, 0.9)


def test_refused_requests_are_not_completed_ones() -> None:
    answers = [answer(0.5, 1.0), answer(arrival=1.5), answer(1.5, 2.0, arrival=1.0)]
    assert CORE["completed_per_s"](answers) == 1.0
    assert CORE["ttfts"](answers) == [0.5, 0.5]


def without_start(source: str) -> str:
    """The cell that defines the lesson's server, without the line that starts one."""
    return source[: source.index("\n\n\nserver = ")]


FAILS = 'raise ValueError("as a learner may")'
LEAVES = 'from pathlib import Path\nPath("server").write_text(str(Server().process.pid))'


@pytest.mark.notebooks
def test_a_cell_that_fails_leaves_no_server_behind(tmp_path: Path, no_network: dict[str, str]) -> None:
    for name in ("code", "models", "serving"):
        (tmp_path / name).symlink_to(lessons.ROOT / name)
    setup, starts, *_ = [cell.source for cell in lessons.code_cells(lessons.read_notebook(lesson_path(7)))]
    starts = without_start(starts)
    nb = new_notebook(cells=[new_code_cell(source) for source in (setup, starts, LEAVES, FAILS)])
    (tmp_path / "notebooks" / "further").mkdir(parents=True)
    path = tmp_path / "notebooks" / "further" / "Lesson_7-Failing.ipynb"
    lessons.write_notebook(nb, path)
    outcome = lessons.run_notebook(path, environment=no_network)
    assert outcome.failure is not None and "as a learner may" in outcome.failure.error
    number = int((path.parent / "server").read_text())
    wait_until(lambda: not is_running(number))


HOLDS = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel; a shell's background job would ignore it
server = Server()
try:
    print(server.process.pid, server.url, flush=True)
    while True:
        time.sleep(0.05)  # one endless wait could begin just after the signal, and never see it
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no process groups")
def test_an_interrupt_leaves_the_server_running_and_a_killed_kernel_does_not() -> None:
    """Jupyter interrupts and kills the whole process group of a kernel."""
    (starts,) = (
        cell.source
        for cell in lessons.code_cells(lessons.read_notebook(lesson_path(7)))
        if "class Server" in cell.source
    )
    source = "import os, re, signal, subprocess, sys, time\n" + without_start(starts) + HOLDS
    kernel = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=lessons.NOTEBOOKS / "further",
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        number, url = kernel.stdout.readline().split()
        os.killpg(kernel.pid, signal.SIGINT)
        assert kernel.stdout.readline() == "interrupted\n"
        assert httpx.get(f"{url}/health", trust_env=False).status_code == httpx.codes.OK
    finally:
        os.killpg(kernel.pid, signal.SIGKILL)
        kernel.communicate()
    wait_until(lambda: not is_running(int(number)))
