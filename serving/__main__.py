"""Serve a model: python -m serving [--model NAME] [--port 8000] ..., or `make serve`.

On SIGTERM or Ctrl-C the server lets nobody in any more, completes the answers that are under way, within the grace, and
ends with exit code 0. A second signal ends the grace.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from .app import Settings, create_app
from .doors import DEFAULT_TIMEOUT_S, Protocol
from .driver import Driver
from .loading import WEIGHTS, Served, load

KEY_VARIABLE = "SERVING_API_KEY"
MOST_FILES = 2**16
LAST_FRAMES_S = 5  # in which the last pieces of answers go out, after the engine has made them


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="serving", description="Serve a model by OpenAI's interface.")
    add = parser.add_argument
    add("--model", help="a folder or a hub id: GPT-2, Llama, Qwen2 or Qwen3 (the bundled storyteller)")
    add("--adapters", metavar="FOLDER", help="its subfolders are LoRA adapters, as PEFT saves them; each is a model")
    add("--weights", choices=WEIGHTS, default="fp32", help="what to compute with (%(default)s)")
    add("--rows", type=positive, default=8, help="requests that run at a time (%(default)s)")
    add("--cache-tokens", type=positive, default=8192, help="room of the KV cache, in tokens (%(default)s)")
    add("--queue", type=natural, default=256, help="requests that may wait; others get 503 (%(default)s)")
    add(
        "--api-key",
        metavar="KEY",
        default=os.environ.get(KEY_VARIABLE) or None,
        help="what clients have to send as Authorization: Bearer KEY (nothing, or what the environment variable "
        f"{KEY_VARIABLE} says; nobody sees it there in the list of processes)",
    )
    add("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    add("--port", type=natural, default=8000, help="the port, 0 for any that is free (%(default)s)")
    add(
        "--grace", type=natural, default=30, help="seconds that answers have to end when the server stops (%(default)s)"
    )
    add("--timeout", type=positive, default=int(DEFAULT_TIMEOUT_S), help="seconds that a client has to send a request, "
        "and to take each piece of an answer (%(default)s)")  # fmt: skip
    return parser


def natural(text: str) -> int:
    """An int, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def positive(text: str) -> int:
    """An int, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


class Server(uvicorn.Server):
    """uvicorn's server, except that a signal begins a drain, during which it still answers, and that it then ends well.

    Args:
        greeting: what to say when the server listens, made of its address.
    """

    def __init__(self, config: uvicorn.Config, driver: Driver, grace_s: float, greeting: Callable[[str], str]) -> None:
        super().__init__(config)
        self.driver, self.grace_s, self.greeting = driver, grace_s, greeting
        self.draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        say(self.greeting(f"http://{f'[{host}]' if ':' in host else host}:{port}"))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Begin to stop; once more: stop now."""
        if self.draining is None:
            self.draining = self.loop.create_task(self._drain())
        else:
            self.should_exit = True

    async def _drain(self) -> None:
        say(f"Stopping: the answers that are under way have {self.grace_s:g} s to end.")
        await self.driver.drain(self.grace_s)
        self.should_exit = True

    async def shutdown(self, sockets: list | None = None) -> None:
        await self.driver.drain(0)
        self.config.app.state.service.live.close()
        await super().shutdown(sockets)


def greeting(served: Served, has_key: bool, address: str) -> str:
    """What is served, where, and three things to try."""
    scheduler = served.engine.scheduler
    room = scheduler.blocks.count * scheduler.blocks.block_tokens
    how = f"{served.weights}, {scheduler.max_rows} rows, {room} tokens of cache"
    return f"{address} serves {', '.join(served.models)} ({how}). Try:\n{to_try(served.name, has_key, address)}"


def to_try(name: str, has_key: bool, address: str) -> str:
    """Three things to try with the model of this name, and how to end."""
    key = " -H 'Authorization: Bearer KEY'" if has_key else ""
    body = f'{{"model": "{name}", "prompt": "Once upon a time", "max_tokens": 60}}'
    client = f"OpenAI(base_url='{address}/v1', api_key='{'KEY' if has_key else 'none'}')"
    call = f"completions.create(model='{name}', prompt='Once upon a time', max_tokens=60)"
    return f"""\
  curl {address}/v1/completions -H 'Content-Type: application/json'{key} -d '{body}'
  python -c "from openai import OpenAI; print({client}.{call}.choices[0].text)"
  a browser: {address}/
Ctrl-C stops it."""


def say(text: str) -> None:
    """Tell the person at the terminal; nothing happens if nobody reads it any more."""
    with suppress(OSError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def allow_many_connections() -> None:
    """As many open files, and with them connections, as the system lets this process have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
    with suppress(OSError, ValueError):  # macOS says that there is no limit, and may have one
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; the exit code."""
    options = parser().parse_args(arguments)
    say("Loading the model ...")
    try:
        served = load(
            options.model,
            options.adapters,
            weights=options.weights,
            rows=options.rows,
            cache_tokens=options.cache_tokens,
            queue=options.queue,
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"serving: {error}\n")
        return 1
    allow_many_connections()
    app = create_app(served, Settings(options.queue, options.api_key, options.timeout))
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        http=Protocol,
        loop="asyncio",  # also where uvloop is installed, which Ray brings along
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=LAST_FRAMES_S,
    )
    greet = partial(greeting, served, options.api_key is not None)
    Server(config, app.state.service.driver, options.grace, greet).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
