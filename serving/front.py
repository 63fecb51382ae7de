"""The one address of several replicas: it lets requests in, has a replica answer, and another one if it dies.

A request whose replica dies before a piece of the answer has gone out is begun anew by another replica, and its client
sees nothing of it. An answer that has begun ends with an error.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .app import page
from .doors import Door, read_body
from .errors import ApiError, refusal, server_full
from .routing import Target, target_of
from .streams import DONE, unless_gone
from .watching import event

TRIES = 3  # replicas that a request may lose before it is refused: it may be what kills them
PASSED_ON = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers")
LOG = logging.getLogger("serving")


class Outgoing:
    """An answer on its way to the client. Its head waits for its body: until then the answer can begin anew."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.head: Message = {}
        self.begun = self.complete = False

    async def take(self, message: Message) -> None:
        """Send on what a replica's app has sent."""
        if message["type"] == "http.response.start":
            self.head = message
            return
        if not self.begun:
            self.begun = True
            await self.send(self.head)
        self.complete = not message.get("more_body", False)
        await self.send(message)

    async def break_off(self, failure: ApiError) -> None:
        """End an answer that has begun, if its end has not gone out: a stream ends with an error."""
        if self.complete:
            return
        is_stream = any(value.startswith(b"text/event-stream") for _, value in self.head["headers"])
        last = event(failure.body) + DONE if is_stream else b""
        await self.send({"type": "http.response.body", "body": last, "more_body": False})


class Front:
    """The one address: it lets requests in and passes them on to the replicas."""

    def __init__(self, replicas: DeploymentHandle, adapters: Sequence[str], options: argparse.Namespace) -> None:
        self.replicas, self.adapters = replicas, frozenset(adapters)
        self.door = Door(self.answer, options.api_key, options.timeout, page)

    async def __call__(self, request: Request) -> Response:
        """Ray gives every request to it, and calls what it returns."""
        return Behind(self.door)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI app, for whole requests that were let in."""
        body = await read_body(receive)
        if body is None:
            return
        target = target_of(scope, body, self.adapters)
        scope = {name: scope[name] for name in PASSED_ON if name in scope}
        try:
            await unless_gone(receive, self.forward(scope, body, target, Outgoing(send)))
        except ApiError as error:
            await refusal(error)(scope, receive, send)

    async def forward(self, scope: Scope, body: bytes, target: Target, outgoing: Outgoing) -> bool:
        """Have a replica answer, and another one if it dies. Raises ApiError: nothing was sent, and none can answer."""
        for _ in range(TRIES):
            try:
                await self.ask(scope, body, target, outgoing)
                return True
            except BackPressureError:
                raise server_full("all replicas are full, and so is the queue; ask again in a moment") from None
            except RayActorError as error:
                LOG.warning("a replica has died: %s", type(error).__name__)
                failure = replica_died("the replica died that was making this answer; ask again")
            except (RayError, RayServeException):
                LOG.exception("a replica cannot answer")
                failure = ApiError(500, "the replica has a fault; its log says which", code="internal")
                if not outgoing.begun:
                    raise failure from None
            if outgoing.begun:
                await outgoing.break_off(failure)
                return True
        raise replica_died(f"{TRIES} replicas died one after another that were to make this answer; ask again later")

    async def ask(self, scope: Scope, body: bytes, target: Target, outgoing: Outgoing) -> None:
        """Pass a request on, and its answer back. Raises what Ray raises."""
        replicas = self.replicas.options(stream=True, multiplexed_model_id=target.adapter)
        answer = replicas.relay.remote(scope, body, home=target.home)
        try:
            async for messages in answer:
                for message in messages:
                    await outgoing.take(message)
        finally:
            if not outgoing.complete:
                answer.cancel()


class Behind(Response):
    """A response that an ASGI app makes."""

    def __init__(self, app: Door) -> None:
        super().__init__()
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def replica_died(message: str) -> ApiError:
    """503: ask again."""
    return ApiError(503, message, code="replica_died", headers={"Retry-After": "1"})
