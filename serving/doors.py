"""What a request passes before it comes to a route: its size, its time, its key.

Two doors: `Protocol`, on the connection, for clients who never finish a request or never read an answer; and `Door`,
around the app, which lets a request in whole or not at all.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import JSON, ApiError, refusal, to_json

MOST_BODY_BYTES = 2**20
MOST_SKIPPED_BYTES = 2**26  # a body above the limit is read to its end, and forgotten, so that the client can read why
SEND_BUFFER_BYTES = 2**17  # in the kernel, for each connection: an answer to a slow reader should not pile up there
DEFAULT_TIMEOUT_S = 10.0
OPEN_TO_ALL = "/health"


class Door:
    """Lets in whole requests of a bounded size, with the right key if there is one.

    Args:
        api_key: what `Authorization: Bearer` has to say everywhere but at /health; `None`: everybody is let in.
        timeout_s: a body has to be complete in this time.
        page: the web page, which asks for the key itself, as a reply to browsers that come without one.
    """

    def __init__(
        self, app: ASGIApp, api_key: str | None, timeout_s: float, page: Callable[[int], Any] | None = None
    ) -> None:
        self.app, self.timeout_s, self.page = app, timeout_s, page
        self.key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._let_in(scope, receive)
        except ApiError as error:
            response = self.page(401) if error.status == 401 and self.page and wants_page(scope) else refusal(error)
            await response(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, replayed(body, receive), send)

    async def _let_in(self, scope: Scope, receive: Receive) -> bytes | None:
        """The request's whole body; `None` if the client left before it was complete. Raises ApiError."""
        if self.key is not None and scope["path"] != OPEN_TO_ALL:
            check_key(header(scope, b"authorization"), self.key)
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > MOST_SKIPPED_BYTES:
            raise too_large()
        try:
            async with asyncio.timeout(self.timeout_s):
                body = await read_body(receive)
        except TimeoutError:
            close = {"Connection": "close"}
            message = f"the request was not complete after {self.timeout_s:g} seconds"
            raise ApiError(408, message, code="request_timeout", headers=close) from None
        return body


async def read_body(receive: Receive) -> bytes | None:
    """The body; `None` if the client left meanwhile. Raises ApiError if it is too large, after the last of it."""
    body, size, more = bytearray(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        piece, more = message.get("body", b""), message.get("more_body", False)
        size += len(piece)
        if size <= MOST_BODY_BYTES:
            body += piece
        elif size > MOST_SKIPPED_BYTES:
            break
    if size > MOST_BODY_BYTES:
        raise too_large()
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body first, and then what else comes: the message that the client has left."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def check_key(authorization: bytes, key: bytes) -> None:
    """Raises ApiError (401) unless the header says "Bearer" and the key; how long that takes tells nothing about it."""
    kind, _, given = authorization.partition(b" ")
    if not hmac.compare_digest(given.strip(), key) or kind.lower() != b"bearer":
        wants = {"WWW-Authenticate": "Bearer"}
        message = "this server wants a key: send the header Authorization: Bearer and the key it was started with"
        raise ApiError(401, message, code="invalid_api_key", headers=wants)


def too_large() -> ApiError:
    """413."""
    message = f"the body is too large: at most {MOST_BODY_BYTES} bytes are taken"
    return ApiError(413, message, code="request_too_large", headers={"Connection": "close"})


def wants_page(scope: Scope) -> bool:
    """Whether a browser asks for the page."""
    return scope["path"] == "/" and b"text/html" in header(scope, b"accept")


def header(scope: Scope, name: bytes) -> bytes:
    """A header's value, or nothing."""
    return next((value for known, value in scope["headers"] if known == name), b"")


class Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn reads it, with an end to patience.

    A client has `timeout_s` (in the app's state) to send all of a request's headers, and some more time to send a body
    that nobody reads any longer. A connection that is to be closed with an answer in it that is not fetched is cut.
    """

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._unset_keepalive_if_required()  # uvicorn forgets it where the client has broken off
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the clock when a request begins, and stop it when the request is there."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unwatch()
        elif self.deadline is None:
            self.deadline = self.loop.call_later(self._timeout_s, self._late)

    def _unwatch(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    @property
    def _timeout_s(self) -> float:
        return self.app_state.get("timeout_s", DEFAULT_TIMEOUT_S)

    def _late(self) -> None:
        """The time is over. While headers were missing, the client is told; `Door` tells it about a body."""
        self.deadline = None
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._refuse(ApiError(408, f"no whole request came in {self._timeout_s:g} seconds", code="request_timeout"))
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, msg.rstrip("."), code="invalid_http"))

    def _refuse(self, error: ApiError) -> None:
        """Answer in place of the app, if it has not begun to, and close."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = to_json(error.body)
        headers = [("content-type", JSON.media_type), ("content-length", str(len(body))), ("connection", "close")]
        response = h11.Response(status_code=error.status, headers=headers)
        for part in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(part))
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client who does not read
        else:
            super().timeout_keep_alive_handler()
