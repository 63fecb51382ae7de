"""The processes of the peers: one for each library, which computes only when it is told to (peer_worker.py).

A process that ends, fails or does not answer takes its own systems out of the comparison, with the reason; the others
go on.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

import psutil
from tqdm.auto import tqdm

from helpers import Request
from results_file import ROOT

ANSWER_WITHIN_S = 900
SETTLE_S = 0.3  # threads that have just computed may wait for more work, spinning, for up to 0.2 s


@dataclass(frozen=True)
class System:
    """One way to serve the workload.

    Attributes:
        library: the worker that runs it, `peer_LIBRARY.py`.
        variant: what the worker calls it.
        label: as in the table.
        precision: of the weights. Only fp32 systems must find our tokens.
        batching: `"static"` or `"continuous"`.
        like: the key of our own system that works like it: with the same slots, batching and precision, and packed
            where this one prepares its weights for the processor beforehand. `None` where we measure none.
    """

    library: str
    variant: str
    label: str
    precision: str
    batching: str
    like: str | None = None

    @property
    def key(self) -> str:
        """Its name on the command line and in the JSON."""
        return f"{self.library}-{self.variant}"


@dataclass(frozen=True)
class Setting:
    """What every worker has to know.

    Attributes:
        folder: holds the model in `folder / "model"`, and each worker's log.
        slots: rows at a time.
        threads: for computing.
        device: `"cpu"` or `"cuda"`.
    """

    folder: Path
    slots: int
    threads: int
    device: str = "cpu"


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def worker_environment(threads: int) -> dict[str, str]:
    """The variables that every worker sees: the same number of threads, no network, and no cap on rounds."""
    inherited = {name: value for name, value in os.environ.items() if name != "COURSE_REPEATS"}
    same_threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return inherited | same_threads | offline


def in_a_group_of_its_own() -> dict[str, Any]:
    """Options that keep Ctrl-C from a worker: only this process receives it, and then ends the workers."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


class WorkerError(Exception):
    """A worker has ended, or does not answer."""


class Worker:
    """One library's process. Both sides talk in lines of JSON; a thread here collects those that come back."""

    def __init__(self, python: Path, library: str, variants: Sequence[str], setting: Setting) -> None:
        self.log: IO[bytes] = (setting.folder / f"{library}.log").open("w+b")
        arguments = [library, setting.folder / "model", setting.slots, setting.threads, setting.device, *variants]
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("peer_worker.py"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=worker_environment(setting.threads),
            **in_a_group_of_its_own(),
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()

    def _read_lines(self) -> None:
        """Put every line into the queue, and an empty one when there are no more."""
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message, and wait for the answer."""
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:  # the process has ended and reads no more
            raise WorkerError(self.why_it_ended()) from None
        return self.answer()

    def answer(self, within_s: float = ANSWER_WITHIN_S) -> dict[str, Any]:
        """Wait for a line."""
        deadline = monotonic() + within_s
        while monotonic() < deadline:
            with suppress(queue.Empty):
                line = self._lines.get(timeout=min(1.0, within_s))  # a short wait: Ctrl-C gets through in between
                if not line:
                    raise WorkerError(self.why_it_ended())
                return json.loads(line)
        raise WorkerError(f"no answer within {within_s:g} s")

    def processor_seconds(self) -> tuple[float, float]:
        """Processor seconds since the machine started: those used by other programs, and all, the idle ones too."""
        try:
            own = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            raise WorkerError(self.why_it_ended()) from None
        times = psutil.cpu_times()
        used = times.user + times.system + getattr(times, "nice", 0.0)
        return used - own.user - own.system, used + times.idle

    def why_it_ended(self) -> str:
        """The process's exit status and the last line that it wrote to its log."""
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").replace(str(ROOT), ".").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"the process ended with status {status}: {last}"[:300]

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=5)
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with suppress(OSError):  # something was still to be written to it
                stream.close()


@dataclass(frozen=True)
class Served:
    """The result of serving all requests once.

    Attributes:
        tokens: of every request.
        seconds: how long it took.
        used_by_others: the share of the machine's processor time that other programs took meanwhile, 0 to 1.
    """

    tokens: list[list[int]]
    seconds: float
    used_by_others: float


class WorkerPool:
    """All workers, the systems that still take part, and the reasons why the others do not.

    Attributes:
        systems: those that take part.
        versions: of the packages that each library's worker uses.
        skipped: why a system does not take part, by its key.
    """

    def __init__(self, systems: Sequence[System], settle_s: float = SETTLE_S) -> None:
        self.systems, self.settle_s = list(systems), settle_s
        self.workers: dict[str, Worker] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.skipped: dict[str, str] = {}

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.stop()

    def load(self, pythons: dict[str, Path], setting: Setting) -> None:
        """Start every library's worker with its Python, and wait until all have loaded their systems."""
        for library in dict.fromkeys(system.library for system in self.systems):
            variants = [system.variant for system in self.systems if system.library == library]
            if pythons[library].exists():
                self.workers[library] = Worker(pythons[library], library, variants, setting)
            else:
                self.drop(library, variants, "not installed: its environment is missing (make peers)")
        for library, worker in tqdm(list(self.workers.items()), desc="loading"):
            self._greet(library, worker)

    def _greet(self, library: str, worker: Worker) -> None:
        """Wait until a worker has loaded what it can, and drop the systems that it cannot load."""
        try:
            greeting = worker.answer()
        except WorkerError as error:
            self.drop_library(library, error)
            return
        self.versions[library] = greeting["versions"]
        for variant, why in greeting["failed"].items():
            self.drop(library, [variant], why)

    def drop(self, library: str, variants: Sequence[str], why: str) -> None:
        """Leave these systems out from now on."""
        gone = [s for s in self.systems if s.library == library and s.variant in variants]
        self.systems = [system for system in self.systems if system not in gone]
        self.skipped |= {system.key: why for system in gone}

    def drop_library(self, library: str, error: WorkerError) -> None:
        """Leave a whole library out from now on, and end its worker: it may still be computing."""
        self.drop(library, [system.variant for system in self.systems], str(error))
        self.workers.pop(library).stop()

    def serve(self, system: System, requests: Sequence[Request]) -> Served | None:
        """The tokens of every request and how long they took; `None` if that failed."""
        prompts_and_budgets = [(request.prompt, request.max_tokens) for request in requests]
        worker = self.workers[system.library]
        try:
            before = worker.processor_seconds()
            answer = worker.ask({"variant": system.variant, "requests": prompts_and_budgets})
            after = worker.processor_seconds()
        except WorkerError as error:
            self.drop_library(system.library, error)
            return None
        if "failed" in answer:
            self.drop(system.library, [system.variant], answer["failed"])
            return None
        sleep(self.settle_s)
        others, total = (now - then for now, then in zip(after, before, strict=True))
        return Served(answer["tokens"], answer["seconds"], max(0.0, others / total) if total else 0.0)
