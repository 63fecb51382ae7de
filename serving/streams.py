"""Answers on their way out: as server-sent events or whole, and given up as soon as the client has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .driver import Call
from .errors import ApiError
from .fields import StreamOptions
from .replies import Reply
from .watching import event

DONE = b"data: [DONE]\n\n"
T = TypeVar("T")


class EventStream(Response):
    """Server-sent events. The frames are given up when the client leaves, or takes nothing for `timeout_s` seconds.

    However it ends, `at_end` is called: frames that nobody has asked for yet cannot clean up after themselves.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncIterator[bytes], timeout_s: float, at_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.frames, self.timeout_s, self.at_end = frames, timeout_s, at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._send(send))
        except TimeoutError:
            scope.get("state", {}).get("abort", lambda: None)()
        finally:
            self.at_end()
            await self.frames.aclose()

    async def _send(self, send: Send) -> bool:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for frame in self.frames:
            async with asyncio.timeout(self.timeout_s):
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work, which is given up when the client leaves: then `None`."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(call: Call, reply: Reply) -> dict[str, Any]:
    """The reply, when all answers have ended. Raises ApiError if they do not end well."""
    while await call.pieces():
        pass
    return reply.all(call.requests)


async def chunks(call: Call, reply: Reply, options: StreamOptions | None) -> AsyncIterator[bytes]:
    """One event for each token of each answer, as they come; those that have come together leave together."""
    wants_usage = bool(options and options.include_usage)
    every = wants_usage and bool(options.continuous_usage_stats)
    try:
        while pieces := await call.pieces():
            frames = []
            for piece in pieces:
                chunk = reply.part(piece)
                if wants_usage:
                    chunk["usage"] = reply.usage_so_far(piece) if every else None
                frames.append(event(chunk))
            yield b"".join(frames)
        if wants_usage:
            yield event(reply.closing(call.requests))
    except ApiError as error:
        yield event(error.body)
    yield DONE
