"""A server on loopback that answers as its script says, and writes down when: to try a client on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from measure import now_s

PATIENCE_S = 2.0  # how long answers are held back for requests that do not come


@dataclass(frozen=True)
class Line:
    """How one request is answered: after `first_s` the first token, the others `gap_s` apart. No tokens: a 503."""

    first_s: float
    gap_s: float
    tokens: int


@dataclass
class FakeServer:
    """Answers POST requests whose prompt is the number of a line in the script; a context manager.

    Attributes:
        script: how each request is answered.
        together: whether nobody is answered before all have come.
        came_s: when each request came, by `measure.now_s`.
        sent_s: when each of its tokens was sent.
    """

    script: Sequence[Line]
    together: bool = False
    came_s: dict[int, float] = field(default_factory=dict)
    sent_s: dict[int, list[float]] = field(default_factory=dict)
    url: str = ""

    def __enter__(self) -> FakeServer:
        listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listening)), daemon=True)
        self._thread.start()
        listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._stop, self._all_came = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listening.set()
        await self._stop.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            number = int((await read_body(reader))["prompt"])
            self.came_s[number] = now_s()
            await self._reply(number, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()

    async def _reply(self, number: int, writer: asyncio.StreamWriter) -> None:
        line = self.script[number]
        if not line.tokens:
            writer.write(head("503 Service Unavailable", "Retry-After: 1", "Content-Length: 2") + b"{}")
            await writer.drain()
            return
        writer.write(head("200 OK", "Content-Type: text/event-stream"))
        await writer.drain()
        if self.together:
            await self._until_all_have_come()
        sent_s = self.sent_s[number] = []
        for token in range(line.tokens):
            await asyncio.sleep(line.gap_s if token else line.first_s)
            sent_s.append(now_s())
            writer.write(frame({"choices": [{"index": 0, "text": f" {token}", "finish_reason": None}]}))
            await writer.drain()
        writer.write(frame({"choices": [], "usage": {"completion_tokens": line.tokens}}) + b"data: [DONE]\n\n")
        await writer.drain()

    async def _until_all_have_come(self) -> None:
        if len(self.came_s) == len(self.script):
            self._all_came.set()
        try:
            await asyncio.wait_for(self._all_came.wait(), PATIENCE_S)
        except TimeoutError:
            self._all_came.set()  # the client waits for answers: let it go on, to see what else it does


async def read_body(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The JSON of one HTTP request."""
    headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in headers if line.startswith("content-length:"))
    return json.loads(await reader.readexactly(length))


def head(status: str, *headers: str) -> bytes:
    """The beginning of an HTTP reply; the connection's end is the reply's end."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


def frame(content: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"
