"""The servers that are measured: this project's and vLLM's, each in a process of its own, on the same model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from measure import now_s
from peer_processes import in_a_group_of_its_own, worker_environment

ROOT = Path(__file__).resolve().parent.parent
VLLM_COMMAND = Path(__file__).with_name("vllm_command.py")
START_WITHIN_S, STOP_WITHIN_S = 300.0, 30.0
CACHE_TOKENS = 8192


@dataclass(frozen=True)
class Place:
    """A server that is ready.

    Attributes:
        ready_s: from the start of its process to its first healthy answer, in seconds.
    """

    url: str
    model: str
    ready_s: float


class ServerError(Exception):
    """A server did not start."""


@contextmanager
def ours(folder: Path, rows: int, threads: int) -> Iterator[Place]:
    """This project's server on the model of a folder, in fp32."""
    port = free_port()
    command = [sys.executable, "-m", "serving", "--model", str(folder), "--rows", str(rows), "--port", str(port)]
    command += ["--cache-tokens", str(CACHE_TOKENS), "--queue", "10000"]
    with started(command, worker_environment(threads), port, folder) as place:
        yield place


@contextmanager
def vllm(folder: Path, rows: int, threads: int, *, python: Path, logs: Path) -> Iterator[Place]:
    """vLLM's server on the same model, in fp32, eager as all the others are.

    Its threads are bound to cores, which are named; "all" is refused.
    """
    port = free_port()
    command = [str(python), str(VLLM_COMMAND), "serve", str(folder), "--served-model-name", folder.name]
    command += ["--dtype", "float32", "--max-num-seqs", str(rows), "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with started(command, vllm_environment(threads, logs), port, folder) as place:
        yield place


def vllm_environment(threads: int, logs: Path) -> dict[str, str]:
    """What vLLM reads from the environment; what it writes goes to a folder that is deleted."""
    return worker_environment(threads) | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
        "VLLM_CACHE_ROOT": str(logs / "vllm-cache"),
        "VLLM_CONFIG_ROOT": str(logs / "vllm-config"),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def started(command: list[str], environment: dict[str, str], port: int, folder: Path) -> Iterator[Place]:
    """Start a server, wait until it is ready, and end it and all its processes afterwards."""
    url, start_s = f"http://127.0.0.1:{port}", now_s()
    log_path = folder.parent / f"server-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, **in_a_group_of_its_own()
        )
        try:
            wait_until_ready(url, process, log_path)
            yield Place(url, folder.name, now_s() - start_s)
        finally:
            stop(process)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask for its health until it answers. Raises ServerError if it ends, or takes too long."""
    deadline_s = now_s() + START_WITHIN_S
    while now_s() < deadline_s:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise ServerError(f"the server ended with status {process.returncode}: {last[:300]}")
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise ServerError(f"the server was not ready after {START_WITHIN_S:g} s; its log ends: {log.read_text()[-300:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server; whatever of it is still there after a while is killed."""
    end_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_WITHIN_S)
    end_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()


def end_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and its children, where the system has process groups."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number) if hasattr(os, "killpg") else process.send_signal(number)
