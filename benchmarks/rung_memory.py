"""How much memory a rung takes: measured in a process of its own, so that no other rung's model is counted.

python benchmarks/rung_memory.py RUNG DEVICE    print it as JSON
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "code")]

import psutil
import torch

from helpers import gpt2_sized
from rungs import Rung, find_rung
from workload import QUICK


def memory_of(name: str, device: str) -> dict[str, int]:
    """How many bytes a process needs to hold the model of a rung, and how many at most while it serves requests."""
    command = [sys.executable, __file__, name, device]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def memory_of_process(rung: Rung) -> dict[str, int]:
    """By how much the resident memory of this process grows with the model, and at most while it serves."""
    process = psutil.Process()
    warm = gpt2_sized()  # what the libraries allocate once is not the model's
    warm(input_ids=torch.zeros(1, 2, dtype=torch.long))
    del warm
    release_memory()
    before = process.memory_info().rss
    model = gpt2_sized()
    prepared = rung.prepare(model)
    del model
    release_memory()
    resident = process.memory_info().rss - before
    requests = QUICK.make(prepared.get_input_embeddings().num_embeddings)
    with PeakMemory(process) as peak:
        rung.serve(prepared, requests, QUICK.slots, None)
    return {"resident_bytes": resident, "peak_bytes": peak.rss - before}


def memory_on_gpu(rung: Rung) -> dict[str, int]:
    """How much memory of the GPU PyTorch holds with the model, and at most while it serves."""
    prepared = rung.prepare(gpt2_sized().to("cuda"))
    gc.collect()
    resident = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    rung.serve(prepared, QUICK.make(prepared.get_input_embeddings().num_embeddings), QUICK.slots, None)
    return {"resident_bytes": resident, "peak_bytes": torch.cuda.max_memory_allocated()}


def release_memory() -> None:
    """Give freed memory back to the system, where that can be asked for, so that what stays resident is in use."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """The highest resident memory of a process while the block runs, looked up every 5 ms."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.rss, self._done = process, 0, threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while True:
            self.rss = max(self.rss, self.process.memory_info().rss)
            if self._done.wait(0.005):
                return

    def __enter__(self) -> PeakMemory:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()


if __name__ == "__main__":
    rung_name, rung_device = sys.argv[1:]
    measure_memory = memory_on_gpu if rung_device == "cuda" else memory_of_process
    print(json.dumps(measure_memory(find_rung(rung_name, rung_device))))
