"""A small server without a model, which says to the page what a test wants; steps to say; the page before it."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "serving" / "page.html"
VOICES = ["storyteller", "pirate", "whisper", "telegram", "verse"]
SERVER = {"models": VOICES, "rows": 8, "cache_blocks": 512, "block_tokens": 16, "step_tokens": 64, "weights": "fp32"}
FRAME = "data: {}\n\n"
END = object()  # put into a stream's queue, it cuts the stream


# ---------------------------------------------------------------------------------------------------
# A server without a model


def wait_for(true: Callable[[], Any], otherwise: str, seconds: float = 20) -> None:
    """Return as soon as the condition holds; fail if it does not within this time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


@dataclass
class Stage:
    """What the small server says and heard; tests set and read it while it runs."""

    bodies: list[dict] = field(default_factory=list)  # of all requests for answers, in the order in which they came
    listeners: list[queue.Queue] = field(default_factory=list)  # one per open stream of steps
    down: bool = False  # no stream of steps begins
    key: str | None = None
    refuse: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status and headers of the next answers
    pieces: list = field(default_factory=lambda: ["a", " mouse", "."])  # of every answer; messages; `END` cuts it
    more: threading.Event = field(default_factory=threading.Event)  # answers wait for it after their first piece
    gone: threading.Event = field(default_factory=threading.Event)  # somebody left in the middle of an answer
    server: dict = field(default_factory=lambda: dict(SERVER))
    url: str = ""

    def say(self, *steps: dict) -> None:
        """Send some steps, in one message, to everybody who listens."""
        self.send({"steps": list(steps)})

    def send(self, message: object) -> None:
        """Send a message, or `END`."""
        wait_for(lambda: self.listeners, "nobody listens")
        for listener in list(self.listeners):
            listener.put(message)


class Handler(BaseHTTPRequestHandler):
    """The routes that the page uses."""

    protocol_version = "HTTP/1.1"
    stage: Stage

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(200, PAGE.read_bytes(), {"Content-Type": "text/html; charset=utf-8"})
        elif self.path != "/live" or self.stage.down:
            self._refuse(404)
        elif self._may():
            self._live()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._may():
            self.stage.bodies.append(body)
            if self.stage.refuse:
                self._refuse(*self.stage.refuse.pop(0))
            else:
                self._complete(body)

    def _may(self) -> bool:
        may = self.stage.key is None or self.headers["Authorization"] == f"Bearer {self.stage.key}"
        if not may:
            self._refuse(401)
        return may

    def _live(self) -> None:
        messages: queue.Queue = queue.Queue()
        messages.put({"server": self.stage.server})
        self.stage.listeners.append(messages)
        try:
            self._begin_stream()
            for message in iter(messages.get, END):
                self._chunk(FRAME.format(json.dumps(message)))
        except OSError:
            pass  # the page has left
        finally:
            self.stage.listeners.remove(messages)
            self.close_connection = True

    def _complete(self, body: dict) -> None:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        try:
            self._begin_stream()
            for piece in self.stage.pieces:
                self._say(piece, len(prompts))
                self._wait_while_somebody_reads()
            self._chunk(FRAME.format("[DONE]"))
            self._chunk("")
        except OSError:
            self.stage.gone.set()
            self.close_connection = True

    def _say(self, piece: object, prompts: int) -> None:
        """Send a piece of the answer to each prompt, a message, or nothing any longer."""
        if piece is END:
            raise OSError("cut off")
        reason = "length" if piece is self.stage.pieces[-1] else None
        choices = [{"index": index, "text": piece, "finish_reason": reason} for index in range(prompts)]
        for message in [piece] if isinstance(piece, dict) else [{"choices": [choice]} for choice in choices]:
            self._chunk(FRAME.format(json.dumps(message)))

    def _wait_while_somebody_reads(self) -> None:
        while not self.stage.more.wait(0.05):
            self._chunk(": still here\n\n")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        error = {"message": f"no, {status}", "type": "test", "param": None, "code": None}
        self._answer(status, json.dumps({"error": error}).encode(), headers or {})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Tests print nothing."""


@contextmanager
def on_stage() -> Iterator[Stage]:
    """A running server and what steers it."""
    stage = Stage()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OnStage", (Handler,), {"stage": stage}))
    server.daemon_threads = True
    stage.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield stage
    stage.more.set()
    for listener in list(stage.listeners):
        listener.put(END)
    server.shutdown()
    thread.join()
    server.server_close()


# ---------------------------------------------------------------------------------------------------
# Steps as the engine would make them


@dataclass
class Asked:
    """A request of a made-up stream: how long its prompt is, how much of it is cached, how long its answer will be."""

    number: int
    model: str
    prompt: int
    budget: int
    cached: int = 0
    read: int = 0
    answered: int = 0

    def row(self, slot: int, budget: int) -> dict:
        """Read what the budget allows."""
        kind, first = "decode" if self.answered else "prefill", self.read == 0
        tokens = 1 if self.answered else min(self.prompt - self.cached - self.read, budget)
        self.read += tokens
        self.answered += self.read + self.cached >= self.prompt
        row = {"slot": slot, "number": self.number, "model": self.model, "kind": kind, "tokens": tokens}
        return {**row, "cached": self.cached} if first and self.cached else row

    def end(self) -> dict:
        """What the stream tells of a request that has ended."""
        sizes = {"prompt_tokens": self.prompt, "output_tokens": self.answered, "cached_tokens": self.cached}
        times = {"ttft_s": 0.02 + self.number / 100, "tpot_s": 0.0123}
        return {"number": self.number, "model": self.model, **sizes, **times, "finish_reason": "length"}


def course(voices: list[str], first: int = 0, cached: int = 0, prompt: int = 7) -> list[Asked]:
    """The course workload in some voices, the requests counted from `first`; all but eight find `cached` tokens."""
    asked = []
    for i in range(32):
        budget, found = (10, cached) if i % 8 else (100, cached)
        asked.append(Asked(first + i, voices[i % len(voices)], prompt, budget, found if i >= 8 else 0))
    return asked


def simulate(waiting: list[Asked], first_step: int = 0, time_s: float = 0.0) -> list[dict]:
    """The steps in which a server with continuous batching answers all of these, first come, first served."""
    slots: list[Asked | None] = [None] * SERVER["rows"]
    steps, kept, waiting = [], 0, list(waiting)
    while waiting or any(slots):
        budget, rows = SERVER["step_tokens"], []
        for slot in range(len(slots)):
            slots[slot] = slots[slot] or (waiting.pop(0) if waiting else None)
            if slots[slot] and budget:
                rows.append(slots[slot].row(slot, budget))
                budget -= rows[-1]["tokens"]
        ended = [asked for asked in slots if asked and asked.answered >= asked.budget]
        slots = [None if asked in ended else asked for asked in slots]
        kept += sum((asked.read + asked.cached) // 16 for asked in ended)
        used = sum(-(-(asked.read + asked.cached) // 16) for asked in slots if asked)
        step = {"step": first_step + len(steps), "time_s": time_s + 0.02 * len(steps), "seconds": 0.018, "rows": rows}
        blocks = {"free": SERVER["cache_blocks"] - used - kept, "cached": kept, "used": used}
        steps.append({**step, "waiting": len(waiting), "blocks": blocks, "ended": [asked.end() for asked in ended]})
    return steps


# ---------------------------------------------------------------------------------------------------
# The page


@contextmanager
def open_page(chromium: Any, stage: Stage, width: int = 1280, **options: Any) -> Iterator[Any]:
    """The page, not necessarily connected yet."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
    page.set_default_timeout(60_000)
    page.goto(stage.url)
    yield page
    page.close()


def link_is(page: Any, text: str) -> None:
    """Wait until the page says this of its connection."""
    page.locator("#link", has_text=text).wait_for()


def show(page: Any, stage: Stage, steps: list[dict], columns: int = 240) -> None:
    """Send steps, and wait until they are drawn and all texts are up to date."""
    page.get_by_label("Steps shown").select_option(str(columns))
    stage.say(*steps)
    wait_for(lambda: page.evaluate("state.latest?.step") == steps[-1]["step"], "the page took no steps")
    page.evaluate("new Promise(done => { requestDraw(); setTimeout(done, 600); })")


# The texts whose contrast with their background is below 4.5, as WCAG 2.2 computes it, with both colours.
PALE_TEXTS = """
() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = element => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 && element.parentElement ? ground(element.parentElement) : colour;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || element.matches("script, :disabled")) continue;
    const pair = [parse(getComputedStyle(element).color), ground(element)].map(luminance).sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)}: ${element.textContent.trim().slice(0, 60)}`);
  }
  return found;
}
"""
