"""Measuring: the only place where this project reads a clock.

Terms, defined once (all in seconds; `Trace` computes them):

    TTFT        time to first token: from sending a request to its first token, queueing included
    TPOT        time per output token of one request: (latency - TTFT) / (tokens - 1)
    ITL         inter-token latency: every single gap between two tokens of one request
    latency     from sending a request to its last token = TTFT + TPOT * (tokens - 1)
    throughput  output tokens per second over all requests
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm

from helpers import Batch, Request
from scoreboard import MISS, Prediction, Scoreboard  # noqa: F401


def now_s() -> float:
    """The time in seconds by the clock of all measurements here; only differences of two such times mean anything."""
    return perf_counter()


# --- Timing a function -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Repeated runs of one thing. `str()` gives median and quartiles in milliseconds."""

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The run in the middle: half were faster, half slower."""
        return median(self.seconds)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """A quarter of the runs were faster than the first, a quarter slower than the second."""
        if len(self.seconds) == 1:
            return self.seconds * 2
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def __str__(self) -> str:
        low, high = self.quartiles_s
        return f"{self.median_s * 1e3:.1f} ms (quartiles {low * 1e3:.1f} to {high * 1e3:.1f}, {len(self.seconds)} runs)"


@dataclass(frozen=True)
class Comparison:
    """Two things timed in turn, a b a b ..., so that a machine that drifts slows both alike."""

    a: Timing
    b: Timing

    @property
    def ratio(self) -> float:
        """The time of `a` divided by the time of `b`: the median over the pairs."""
        return median(a / b for a, b in zip(self.a.seconds, self.b.seconds, strict=True))


def timed(fn: Callable[[], Any], *, repeats: int = 5, warmup: int = 1, progress: str | None = None) -> Timing:
    """Time `fn()`: `warmup` runs that do not count, then `repeats` that do.

    The environment variable `COURSE_REPEATS` caps the repeats, and with it set nothing is warmed up: a
    whole lesson can be tried quickly (`COURSE_REPEATS=1`), at the price of timings that mean little.

    Args:
        progress: a label; shows a progress bar over the runs.

    Raises:
        ValueError: fewer than 1 repeat or 0 warm-up runs, or a `COURSE_REPEATS` that is no such number.
    """
    return Timing(tuple(_run_rounds([fn], repeats, warmup, progress)[0]))


def compare(
    a: Callable[[], Any],
    b: Callable[[], Any],
    *,
    repeats: int = 5,
    warmup: int = 1,
    progress: str | None = None,
) -> Comparison:
    """Time `a()` and `b()` in interleaved pairs. Arguments and errors as for `timed`."""
    timings = interleaved({"a": a, "b": b}, repeats=repeats, warmup=warmup, progress=progress)
    return Comparison(timings["a"], timings["b"])


def interleaved(
    functions: Mapping[str, Callable[[], Any]], *, repeats: int = 5, warmup: int = 1, progress: str | None = None
) -> dict[str, Timing]:
    """Time several functions in turn, round after round. Arguments and errors as for `timed`."""
    seconds = _run_rounds(list(functions.values()), repeats, warmup, progress)
    return {name: Timing(tuple(runs)) for name, runs in zip(functions, seconds, strict=True)}


def _run_rounds(
    functions: Sequence[Callable[[], Any]], repeats: int, warmup: int, progress: str | None
) -> list[list[float]]:
    repeats, warmup = _capped(repeats, warmup)
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in tqdm(range(warmup + repeats), desc=progress, leave=False, disable=progress is None):
        for fn, runs in zip(functions, seconds, strict=True):
            elapsed = _seconds(fn)
            if turn >= warmup:
                runs.append(elapsed)
    return seconds


def _seconds(fn: Callable[[], Any]) -> float:
    _synchronize()
    start = perf_counter()
    fn()
    _synchronize()
    return perf_counter() - start


def step_seconds(steps: Iterator[Any]) -> list[float]:
    """How long each item of an iterator took to come, such as each token of `generate_tokens`."""
    seconds: list[float] = []
    done = object()
    while True:
        _synchronize()
        start = perf_counter()
        item = next(steps, done)
        _synchronize()
        if item is done:
            return seconds
        seconds.append(perf_counter() - start)


@contextmanager
def seconds_inside(module: torch.nn.Module) -> Iterator[list[float]]:
    """How long each forward of `module` takes while the block runs, in seconds.

        with seconds_inside(model) as forwards:
            run_continuous(requests, model=model)
        sum(forwards), len(forwards)

    The list gets an entry per forward.
    """
    seconds: list[float] = []
    started: list[float] = []

    def begin(*_: Any) -> None:
        _synchronize()
        started.append(perf_counter())

    def end(*_: Any) -> None:
        _synchronize()
        seconds.append(perf_counter() - started.pop())

    hooks = module.register_forward_pre_hook(begin), module.register_forward_hook(end)
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def _synchronize() -> None:
    """Wait for the accelerator, whichever there is: a call to it returns before its work is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _capped(repeats: int, warmup: int) -> tuple[int, int]:
    """How many runs to time and to warm up with: those asked for, or fewer when `COURSE_REPEATS` says so."""
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}; at least 1 and 0 are needed")
    cap = os.environ.get("COURSE_REPEATS", "")
    if not cap:
        return repeats, warmup
    if not cap.isdecimal() or int(cap) < 1:
        raise ValueError(f"COURSE_REPEATS is {cap!r}; it must be a whole number, 1 or more, or not be set")
    return min(repeats, int(cap)), 0


# --- The machine -------------------------------------------------------------------------------------


def memory_bandwidth(*, size_bytes: int | None = None, repeats: int = 7, device: str = "cpu") -> float:
    """Bytes per second at which a buffer too large for the caches can be read; the best of several runs.

    The floor of a decode step at batch 1: every weight is read once, so it cannot take less than
    weight bytes / this.

    Args:
        size_bytes: of the buffer; `None` takes four times the processor's caches, at least 256 MiB.
    """
    size_bytes = max(256 * 2**20, 4 * _cache_bytes()) if size_bytes is None else size_bytes
    buffer = torch.ones(size_bytes // 4, dtype=torch.float32, device=device)
    timing = timed(buffer.sum, repeats=repeats, warmup=2)
    return buffer.numel() * buffer.element_size() / min(timing.seconds)


def _cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The last-level caches of all processors together, where Linux tells (0 elsewhere), each counted once."""
    sizes = {}
    for folder in cpus.glob("cpu[0-9]*/cache/index3"):
        sharing = (folder / "shared_cpu_list").read_text()
        sizes[sharing] = int((folder / "size").read_text().strip().removesuffix("K")) * 1024
    return sum(sizes.values())


def machine() -> dict[str, str]:
    """What a number depends on: versions, processor kind, threads and device. No names, no paths."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu threads": str(torch.get_num_threads()),
        "gpu": gpu,
    }


def _processor() -> str:
    """What the processor is called, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


# --- Tracing a run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forward:
    """One forward pass of a traced run.

    Attributes:
        phase: `"prefill"` or `"decode"`.
        requests: index of the request in every row.
        gained: indices of the requests that gained a token; the other rows rode along for nothing.
        width: columns of the batch, cached and new (S+T).
        padded_tokens: cells of rows x width that are padding.
        start_s, end_s: since the run began.
    """

    phase: str
    requests: tuple[int, ...]
    gained: tuple[int, ...]
    width: int
    padded_tokens: int
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long the forward took."""
        return self.end_s - self.start_s


class Stamped(Protocol):
    """A request that has ended and holds its own times in seconds, all by one clock; `engine.Request` is one."""

    arrival_s: float  # when it was sent
    token_times_s: list[float]  # when each of its tokens was there
    end_s: float | None  # `None` before its end


@dataclass
class RequestTimes:
    """When a request was sent, and when each of its tokens was there, in seconds since the run began."""

    arrival_s: float = 0.0
    token_times_s: list[float] = field(default_factory=list)


@dataclass
class Trace:
    """When the requests of a run were sent and got their tokens; all times follow from that.

        trace = Trace()
        run_continuous(requests, batch_size=8, trace=trace)  # or run_static
        trace.forwards, trace.slot_utilization, trace.throughput

        trace.read(engine.run(), slots=8)                    # the times that the engine's requests hold themselves

    `run_static` and `run_continuous` get all requests when the run begins, the engine whenever they come. Waiting for
    a slot is part of TTFT and latency. A request without tokens has no TTFT; its entry is NaN, and so is the TPOT of a
    single token.

    Attributes:
        rows: the forwards, where the run was watched; none of those of an engine.
        slots: how many requests can run at a time.
        forwards: number of forward passes, prefill and decode; 0 where nobody has counted them.
        requests: the times of every request, in the order in which they were given.
    """

    rows: list[Forward] = field(default_factory=list)
    slots: int = 0
    forwards: int = 0
    requests: list[RequestTimes] = field(default_factory=list)
    _index: dict[int, int] = field(default_factory=dict, repr=False)
    _start: float = field(default=0.0, repr=False)

    def begin(self, requests: Sequence[Request], slots: int) -> None:
        """Called by the run when it starts. A trace that was used before is cleared."""
        self.rows.clear()
        self.slots, self.forwards, self.requests = slots, 0, [RequestTimes() for _ in requests]
        self._index = {id(request): index for index, request in enumerate(requests)}
        self._start = perf_counter()

    @contextmanager
    def forward(self, batch: Batch) -> Iterator[None]:
        """Called by the run around each forward."""
        phase = "prefill" if batch.past_key_values is None else "decode"
        requests = tuple(self._index[id(request)] for request in batch.requests)
        gained = tuple(index for index, request in zip(requests, batch.requests, strict=True) if not request.finished)
        mask = batch.attention_mask
        padded = mask.numel() - int(mask.sum())
        _synchronize()
        start = perf_counter() - self._start
        yield
        _synchronize()
        end = perf_counter() - self._start
        self.forwards += 1
        self.rows.append(Forward(phase, requests, gained, mask.shape[1], padded, start, end))
        for index in gained:
            self.requests[index].token_times_s.append(end)

    def read(self, requests: Iterable[Stamped], *, slots: int = 0, forwards: int = 0) -> None:
        """Take the times that requests hold themselves. The run began when the first of them was sent.

        Raises ValueError if one has not ended. Nothing is changed then.
        """
        requests = list(requests)
        unfinished = [index for index, request in enumerate(requests) if request.end_s is None]
        if unfinished:
            raise ValueError(f"{len(unfinished)} of {len(requests)} requests have not ended, first {unfinished[0]}")
        start = min((request.arrival_s for request in requests), default=0.0)
        self.rows.clear()
        self.slots, self.forwards = slots, forwards
        self.requests = [
            RequestTimes(request.arrival_s - start, [time - start for time in request.token_times_s])
            for request in requests
        ]

    @property
    def request_count(self) -> int:
        """Number of requests."""
        return len(self.requests)

    @property
    def tokens(self) -> int:
        """Tokens generated over all requests."""
        return sum(map(len, self.token_times_s()))

    @property
    def padded_tokens(self) -> int:
        """Padding cells summed over all forwards."""
        return sum(row.padded_tokens for row in self.rows)

    @property
    def slot_utilization(self) -> float:
        """Share of slots x forwards that produced a token somebody asked for."""
        return self.tokens / (self.slots * self.forwards) if self.slots * self.forwards else 0.0

    @property
    def total_s(self) -> float:
        """From the beginning of the run to its last token."""
        return max((times[-1] for times in self.token_times_s() if times), default=0.0)

    @property
    def throughput(self) -> float:
        """Output tokens per second over all requests."""
        return self.tokens / self.total_s if self.tokens else 0.0

    def token_times_s(self) -> list[list[float]]:
        """For every request, when each of its tokens was there."""
        return [request.token_times_s for request in self.requests]

    def ttft_s(self) -> np.ndarray:
        """Time to first token of every request."""
        return self._since_arrival_s(0)

    def latency_s(self) -> np.ndarray:
        """Time to the last token of every request."""
        return self._since_arrival_s(-1)

    def _since_arrival_s(self, token: int) -> np.ndarray:
        """From when each request was sent to its first (0) or last token (-1)."""
        times = [(request.token_times_s, request.arrival_s) for request in self.requests]
        return np.array([tokens[token] - arrival if tokens else np.nan for tokens, arrival in times])

    def tpot_s(self) -> np.ndarray:
        """Time per output token after the first, of every request."""
        return np.array([np.mean(np.diff(t)) if len(t) > 1 else np.nan for t in self.token_times_s()])

    def itl_s(self) -> np.ndarray:
        """Every gap between two tokens of the same request, over all requests."""
        return np.concatenate([np.diff(times) for times in self.token_times_s()] or [np.array([])])

    def slot_rows(self) -> list[list[int | None]]:
        """Which request sits in which slot at every forward: `[forward][slot]`, `None` where a slot is idle.

        Only requests that gained a token count; a row that rides along leaves its slot idle.
        """
        last_seen = {request: index for index, row in enumerate(self.rows) for request in row.requests}
        held: dict[int, int] = {}  # request -> slot
        grid = []
        for index, row in enumerate(self.rows):
            held = {request: slot for request, slot in held.items() if last_seen[request] >= index}
            free = [slot for slot in range(self.slots) if slot not in held.values()]
            held |= dict(zip((r for r in row.requests if r not in held), free, strict=False))
            occupied = {held[request]: request for request in row.gained}
            grid.append([occupied.get(slot) for slot in range(self.slots)])
        return grid
