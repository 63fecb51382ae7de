"""What the engine did in a step, for the metrics and for whoever watches at /live. No text of anybody is in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

from engine import Request
from engine.scheduler import Scheduler, Work

from .errors import to_json

FRAME_S = 0.05  # steps go out together, twenty times a second at most
SILENCE_S = 15.0  # after so long a comment goes out, so that a lost connection is noticed
MOST_UNREAD = 100  # frames that wait for a watcher; one who takes no more is let go


class Row(NamedTuple):
    """What one request read in a step."""

    request: Request
    tokens: int
    cached: int  # tokens found in the cache; only in the step in which the request got its row
    is_decode: bool


class WatchedScheduler(Scheduler):
    """The engine's scheduler; it remembers what it decided last."""

    rows: list[Row] = []
    preempted = 0  # requests that lost their rows in the last step

    def schedule(self) -> list[Work]:
        before = set(self.running)
        work = super().schedule()
        self.preempted = len(before.difference(self.running))
        self.rows = [
            Row(
                request,
                tokens,
                cached=0 if request in before else request.computed,
                is_decode=tokens == 1 and request.output_tokens > 0,
            )
            for request, tokens in work
        ]
        return work


class Slots:
    """A slot number, 0 to `count` - 1, for each running request, which keeps it as long as it runs."""

    def __init__(self, count: int) -> None:
        self.free = list(range(count - 1, -1, -1))
        self.of: dict[Request, int] = {}

    def update(self, running: Iterable[Request]) -> None:
        """Take the slots of those who run no longer, and give slots to those who have begun; the lowest come first."""
        running = list(running)
        for request in self.of.keys() - set(running):
            self.free.append(self.of.pop(request))
        self.free.sort(reverse=True)
        for request in running:
            if request not in self.of:
                self.of[request] = self.free.pop()


class Ended(NamedTuple):
    """How a request fared: times in seconds, `None` where there were too few tokens to have any."""

    request: Request
    reason: str  # "length", "stop", "cancelled" or "error"

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        times = self.request.token_times_s
        return times[0] - self.request.arrival_s if times else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first."""
        times = self.request.token_times_s
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None

    def shown(self, model: str) -> dict[str, Any]:
        """As /live tells it."""
        request = self.request
        return {
            "number": request.number,
            "model": name_of(request, model),
            "prompt_tokens": request.prompt_tokens,
            "output_tokens": request.output_tokens,
            "cached_tokens": request.cached_tokens or 0,
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "finish_reason": self.reason,
        }


class Step(NamedTuple):
    """One step of the engine. `end_s` is by the engine's clock, `seconds` is how long the step took."""

    number: int
    end_s: float
    seconds: float
    rows: list[Row]
    slots: list[int]  # of the rows
    preempted: int
    tokens: int  # how many answers got a token
    waiting: int
    blocks: dict[str, int]
    ended: list[Ended]

    def shown(self, model: str, start_s: float) -> dict[str, Any]:
        """As /live tells it."""
        rows = [
            {
                "slot": slot,
                "number": row.request.number,
                "model": name_of(row.request, model),
                "kind": "decode" if row.is_decode else "prefill",
                "tokens": row.tokens,
                "cached": row.cached,
            }
            for slot, row in zip(self.slots, self.rows, strict=True)
        ]
        return {
            "step": self.number,
            "time_s": round(self.end_s - start_s, 6),
            "seconds": round(self.seconds, 6),
            "rows": rows,
            "waiting": self.waiting,
            "blocks": self.blocks,
            "ended": [ended.shown(model) for ended in self.ended],
        }


def name_of(request: Request, model: str) -> str:
    """The name by which a client asked for it."""
    return request.adapter.name if request.adapter else model


class Live:
    """Tells all watchers what happens. Lives on the event loop."""

    def __init__(self, model: str, server: dict[str, Any], start_s: float) -> None:
        self.model, self.server, self.start_s = model, server, start_s
        self.closed = False
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._steps: list[dict[str, Any]] = []

    def tell(self, step: Step) -> None:
        """Take a step; it goes out within `FRAME_S`."""
        if not self._watchers:
            return
        if not self._steps:
            asyncio.get_running_loop().call_later(FRAME_S, self._send)
        self._steps.append(step.shown(self.model, self.start_s))

    def close(self) -> None:
        """The server stops: all streams end."""
        self.closed = True
        for watcher in list(self._watchers):
            self._put(watcher, None)

    async def watch(self) -> AsyncIterator[bytes]:
        """Server-sent events: what the server is, then its steps, until the watcher leaves or the server stops."""
        watcher: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_UNREAD + 1)
        self._watchers.add(watcher)
        try:
            frame = None if self.closed else event({"server": self.server})
            while frame is not None:
                yield frame
                frame = await self._next(watcher)
        finally:
            self._watchers.discard(watcher)

    async def _next(self, watcher: asyncio.Queue[bytes | None]) -> bytes | None:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await watcher.get()
        except TimeoutError:
            return b":\n\n"

    def _send(self) -> None:
        frame, self._steps = event({"steps": self._steps}), []
        for watcher in list(self._watchers):
            self._put(watcher, frame)

    def _put(self, watcher: asyncio.Queue[bytes | None], frame: bytes | None) -> None:
        """One frame more; a watcher with too many of them gets its end instead."""
        if watcher.qsize() >= MOST_UNREAD:
            self._watchers.discard(watcher)
            frame = None
        watcher.put_nowait(frame)


def event(content: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(content) + b"\n\n"
