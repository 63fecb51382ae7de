"""Several replicas of the server behind one address, on Ray Serve: python -m serving.replicas, or `make replicas`.

    clients <-- HTTP --> Ray's proxy <--> Front <--> Replica: the app of `serving.app`, and an engine of its own
                                               <--> Replica: another process, or on a cluster another machine

The front (`front`) lets a request in and reads where it should go (`routing`). Ray sends it there, or keeps it while
all replicas are full; the answer comes back piece by piece.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.config import HTTPOptions, RequestRouterConfig
from ray.serve.request_router import MultiplexMixin, PendingRequest, RequestRouter, RunningReplica
from starlette.types import Message, Scope

from . import __main__ as program
from .app import Settings, create_app
from .front import Front
from .loading import find, load
from .routing import in_order

ONGOING_PER_ROW = 2  # requests that a replica is given: for each row that gets free there is one already
FRONT_REQUESTS = 10_000  # what the front has in hand at once: what waits in Ray's queue counts, and so do lookups
HEALTH_PERIOD_S = 1.0
LONGEST_BACKOFF_S = 0.05  # how long a free place may stay unseen when all were full
APPLICATION = "serving"
OBJECT_STORE_BYTES = 100 * 2**20
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
LOG = logging.getLogger("serving")


class HomeRouter(MultiplexMixin, RequestRouter):
    """Tells Ray in which order the replicas should be offered a request; the first that is not full takes it."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # wait a moment when all are full
        adapter, home = pending_request.metadata.multiplexed_model_id, pending_request.kwargs["home"]
        ranks = [candidate_replicas]
        if adapter and isinstance(home, str):
            ranks = self.rank_replicas_via_multiplex(candidate_replicas, adapter)
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        names = ([replica.replica_id.unique_id for replica in rank] for rank in ranks)
        return [[replicas[name]] for rank in names for name in in_order(rank, home)]


class Replica:
    """A server without a socket. It loads an adapter when the first request for it comes.

    Args:
        model, folders: as `loading.find` returns them. options: the command line's.
    """

    async def __init__(self, model: str, folders: Mapping[str, Path], options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        sizes = {"rows": options.rows, "cache_tokens": options.cache_tokens, "queue": options.queue}
        served = load(model, None, weights=options.weights, **sizes)
        self.folders, served.adapters = folders, list(folders)
        self.app = create_app(served, Settings(options.queue, None, options.timeout))
        self.driver = self.app.state.service.driver
        self.lifespan = self.app.router.lifespan_context(self.app)
        await self.lifespan.__aenter__()
        self.name = f"{serve.get_replica_context().replica_id.unique_id}, process {os.getpid()}"

    async def check_health(self) -> None:
        """Ray asks it now and then, and replaces a replica that raises."""
        if not self.driver.is_alive:
            raise RuntimeError("the engine's thread has ended")

    @serve.multiplexed(max_num_models_per_replica=-1)  # none is ever unloaded: the folder bounds how many there are
    async def adapter(self, name: str) -> str:
        """Have an adapter loaded; Ray's router then knows that this replica has it."""
        await self.driver.load(name, self.folders[name])
        return name

    async def relay(self, scope: Scope, body: bytes, home: str | int) -> AsyncIterator[list[Message]]:
        """What the app sends for a request, piece by piece; pieces that lie here together go together.

        It is given up when nobody asks for more. `home` is for the router.
        """
        if adapter := serve.get_multiplexed_model_id():
            await self.adapter(adapter)
        sent: asyncio.Queue[Message | None] = asyncio.Queue()
        running = asyncio.create_task(self._run(scope, body, sent))
        try:
            going_on = True
            while going_on:
                messages = [await sent.get()]
                while not sent.empty():
                    messages.append(sent.get_nowait())
                going_on = messages[-1] is not None
                yield [message for message in messages if message is not None]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self, scope: Scope, body: bytes, sent: asyncio.Queue[Message | None]) -> None:
        """Let the app answer; `None` is the end."""
        received: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return received.pop() if received else await asyncio.Event().wait()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-served-by", self.name.encode())]
            sent.put_nowait(message)

        try:
            await self.app(scope, receive, send)
        except Exception:
            LOG.exception("the app has a fault")
        finally:
            sent.put_nowait(None)


def deployment(model: str, folders: Mapping[str, Path], options: argparse.Namespace) -> serve.Application:
    """The front and its replicas, with their limits, as Ray Serve runs them."""
    common: dict[str, Any] = {
        "graceful_shutdown_timeout_s": options.grace,
        "health_check_period_s": HEALTH_PERIOD_S,
        "logging_config": {"enable_access_log": False},
    }
    replicas = serve.deployment(Replica).options(
        num_replicas=options.replicas,
        max_ongoing_requests=ONGOING_PER_ROW * options.rows,
        max_queued_requests=max(1, options.queue),  # each request is in the queue for a moment
        ray_actor_options={"num_cpus": 1},
        request_router_config=RequestRouterConfig(
            request_router_class="serving.replicas.HomeRouter", max_backoff_s=LONGEST_BACKOFF_S
        ),
        **common,
    )
    front = serve.deployment(Front).options(
        max_ongoing_requests=FRONT_REQUESTS, ray_actor_options={"num_cpus": 0}, **common
    )
    return front.bind(replicas.bind(model, folders, options), list(folders), options)


def free_port(host: str, port: int) -> int:
    """The port, or any that is free for 0. Raises OSError if somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        return listener.getsockname()[1]


def start(model: str, folders: Mapping[str, Path], options: argparse.Namespace, port: int) -> None:
    """Start Ray on this machine, and in it the replicas; returns when all of them are ready."""
    found_in = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.update(ENVIRONMENT, PYTHONPATH=found_in)
    ray.init(
        num_cpus=options.replicas + 2,  # Ray counts in its books only: a machine may have fewer
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="HeadOnly", http_options=HTTPOptions(host=options.host, port=port))
    serve.run(deployment(model, folders, options), name=APPLICATION, route_prefix="/")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; the exit code."""
    parser = program.parser()
    parser.prog = "serving.replicas"
    parser.add_argument("--replicas", type=program.positive, default=2, help="servers to start (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        model, shown, folders = find(options.model, options.adapters)
        port = free_port(options.host, options.port)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"serving.replicas: {error}\n")
        return 1
    model = str(Path(model).resolve()) if Path(model).is_dir() else model
    folders = {name: folder.resolve() for name, folder in folders.items()}
    program.say(f"Starting Ray and {options.replicas} replicas; this takes up to a minute ...")
    stop = threading.Event()
    try:
        start(model, folders, options, port)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        address = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}"
        how = f"{options.replicas} replicas, {options.weights}, {options.rows} rows each"
        program.say(f"{address} serves {', '.join([shown, *folders])} ({how}). Try:")
        program.say(program.to_try(shown, options.api_key is not None, address))
        stop.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        program.say(f"Stopping: the answers that are under way have {options.grace:g} s to end.")
        serve.delete(APPLICATION)  # when its answers have ended
    except RuntimeError as error:
        sys.stderr.write(f"serving.replicas: the replicas did not start: {error}\n")
    finally:
        ray.shutdown()
    return 0 if stop.is_set() else 1


if __name__ == "__main__":
    from serving.replicas import main as started_by_name  # Ray's processes look the classes up in this module

    sys.exit(started_by_name())
