"""The engine in a thread of its own, and the two ways between it and the event loop.

    event loop                                        the engine's thread
    submit, cancel, load  --- commands, one queue -->  before each step all commands are obeyed, then one forward runs
    the calls' own queues <-- call_soon_threadsafe --  after each step one message with all that the step brought

A command is a function that the thread calls. The event loop never waits for a forward: who submits a call awaits a
future. The thread never waits for the event loop: it hands its message over and goes on. What a call's client does not
fetch stays in the call's queue, up to a bound; a client who is behind by more loses the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from engine import Engine, EngineFull, Event, Request, Sampling

from .errors import ApiError, engine_failed, server_full
from .watching import Ended, Slots, Step, WatchedScheduler

MOST_UNREAD = 4096  # events that wait in a call for its client
LOG = logging.getLogger("serving")


class Wish(NamedTuple):
    """One answer to be had."""

    ids: list[int]
    sampling: Sampling
    adapter: str | None


class Piece(NamedTuple):
    """What a step brought for one answer of a call: `index` says which, `tokens` how many it has now."""

    index: int
    event: Event
    tokens: int


class Call:
    """One client's request on the event loop: its answers come here, piece by piece.

    Attributes:
        requests: the engine's requests, one for each wish, once the engine has taken them.
        streamed: whether every piece is wanted; otherwise there is one at the end of each answer.
    """

    def __init__(self, wishes: Sequence[Wish], streamed: bool) -> None:
        self.wishes, self.streamed = wishes, streamed
        self.requests: list[Request] = []
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = len(wishes)  # answers that have not ended
        self.closed = False  # nobody reads any more
        self._pieces: deque[Piece] = deque()
        self._failure: ApiError | None = None
        self._news = asyncio.Event()

    def put(self, piece: Piece) -> bool:
        """Take a piece for the client. False: too many lie here already."""
        self._pieces.append(piece)
        self._news.set()
        return len(self._pieces) <= MOST_UNREAD

    def fail(self, failure: ApiError) -> None:
        """Nothing more will come but this."""
        self._failure = self._failure or failure
        self._news.set()

    async def pieces(self) -> list[Piece]:
        """All pieces that have come since the last time, at least one; none when every answer has ended.

        Raises ApiError: the answers will not be complete.
        """
        while not self._pieces and not self._failure and self.left:
            self._news.clear()
            await self._news.wait()
        if self._failure and not self._pieces:
            raise self._failure
        pieces, self._pieces = list(self._pieces), deque()
        return pieces


class Driver:
    """Runs an engine in a thread. All methods without an underscore are for the event loop.

    Args:
        queue: so many answers may wait beside those that run.
        tell: is called on the event loop after each step.
    """

    def __init__(self, engine: Engine, queue: int, tell: Callable[[Step], None]) -> None:
        self.engine, self.queue, self.tell = engine, queue, tell
        self.scheduler = WatchedScheduler(
            engine.scheduler.blocks, engine.scheduler.max_rows, engine.scheduler.step_tokens
        )
        engine.scheduler = self.scheduler
        self.open = 0  # answers that were let in and have not ended
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        # The thread's own:
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._calls: dict[int, tuple[Call, int]] = {}  # by the request's number: the call, and which answer of it
        self._slots = Slots(engine.scheduler.max_rows)
        self._steps, self._goes_on = 0, True
        self._thread = Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def most_open(self) -> int:
        """How many answers may be open."""
        return self.scheduler.max_rows + self.queue

    def check_room(self, answers: int) -> None:
        """Raises ApiError if so many answers cannot be let in now: the server is full or stops, or its engine has."""
        if self.draining:
            raise server_full("the server is about to stop; ask again in a moment")
        if not self.is_alive:
            raise engine_failed()
        if self.open + answers > self.most_open:
            most = f"{self.scheduler.max_rows} run and {self.queue} wait at most"
            raise server_full(f"the server is full: {self.open} answers are under way, {most}; ask again in a moment")

    async def submit(self, wishes: Sequence[Wish], streamed: bool) -> Call:
        """Have the engine take a call: all of its wishes or none.

        Raises ApiError as `check_room` does. ValueError, TypeError: the engine refuses a wish.
        """
        self.check_room(len(wishes))
        self._count(len(wishes))
        call = Call(wishes, streamed)
        self._commands.put(partial(self._add, call))
        try:
            await call.taken
        except asyncio.CancelledError:
            self.cancel(call)
            raise
        return call

    def cancel(self, call: Call) -> None:
        """Nobody wants the call's answers any more. Nothing happens if they have all ended."""
        call.closed = True
        if call.left:
            self._commands.put(partial(self._cancel, call))

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter between two steps. Raises ValueError as `Engine.load_adapter` does."""
        loaded: asyncio.Future[None] = self._loop.create_future()
        self._commands.put(partial(self._load, name, folder, loaded))
        await loaded

    async def drain(self, grace_s: float) -> None:
        """Let nobody in, wait for the answers that are under way, and end those that take longer than the grace."""
        self.draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            LOG.warning("%d answers were not complete when the time was over", self.open)
            failure = ApiError(503, "the server stops, and the answer was not complete in time", code="stopping")
            self._commands.put(lambda: self._fail(list(self._calls), failure))
            await self._idle.wait()

    def stop(self) -> None:
        """End the thread, at the end of its step."""
        self._commands.put(self._stop)
        self._thread.join()

    def _count(self, more: int) -> None:
        self.open += more
        self._idle.set() if not self.open else self._idle.clear()

    def _take(self, news: list[tuple[Call, Piece | ApiError]], step: Step | None) -> None:
        """What a step brought, on the event loop."""
        for call, piece in news:
            is_last = isinstance(piece, ApiError) or piece.event.finish_reason is not None
            if is_last:
                call.left -= 1
                self._count(-1)
            if isinstance(piece, ApiError):
                call.fail(piece)
            elif not call.closed and not call.put(piece):
                call.fail(server_full("the answer was not fetched as fast as it came"))
                self.cancel(call)
        if step is not None:
            self.tell(step)

    def _refused(self, call: Call, error: Exception) -> None:
        """The engine did not take a call, on the event loop."""
        call.left = 0
        self._count(-len(call.wishes))
        if not call.taken.done():
            call.taken.set_exception(error)

    def _died(self, calls: list[Call]) -> None:
        """The thread has ended by a fault of its own, on the event loop: nobody waits for it."""
        for call in calls:
            call.left = 0
            call.fail(engine_failed())
        self._count(-self.open)

    # --- In the engine's thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._goes_on:
                self._obey()
                self._step()
        except BaseException:
            LOG.exception("the engine's thread has ended; nothing can be served any more")
            self._loop.call_soon_threadsafe(self._died, [call for call, _ in self._calls.values()])

    def _obey(self) -> None:
        """Do what was asked for since the last step; wait for something to do if there is nothing."""
        if not self.engine.requests:
            self._commands.get()()
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            command()

    def _add(self, call: Call) -> None:
        numbers: list[int] = []
        try:
            for wish in call.wishes:
                numbers.append(self.engine.add(wish.ids, wish.sampling, wish.adapter))
        except EngineFull as error:
            self._undo(call, numbers, server_full(str(error)))
        except Exception as error:
            self._undo(call, numbers, error)
        else:
            call.requests = [self.engine.requests[number] for number in numbers]
            self._calls |= {number: (call, index) for index, number in enumerate(numbers)}
            self._loop.call_soon_threadsafe(lambda: call.taken.done() or call.taken.set_result(None))

    def _undo(self, call: Call, numbers: list[int], error: Exception) -> None:
        for number in numbers:
            self.engine.cancel(number)
        self._loop.call_soon_threadsafe(self._refused, call, error)

    def _cancel(self, call: Call) -> None:
        for request in call.requests:
            if request.number in self._calls:
                self.engine.cancel(request.number)

    def _load(self, name: str, folder: Path, loaded: asyncio.Future[None]) -> None:
        try:
            self.engine.load_adapter(name, folder)
        except Exception as error:
            self._loop.call_soon_threadsafe(loaded.set_exception, error)
        else:
            self._loop.call_soon_threadsafe(loaded.set_result, None)

    def _stop(self) -> None:
        self._goes_on = False

    def _step(self) -> None:
        """One step of the engine, and all that came of it in one message."""
        start_s = self.engine.clock()
        try:
            events = self.engine.step()
        except Exception:
            LOG.exception("a step failed; its requests end with an error")
            self._fail([row.request.number for row in self.scheduler.rows] or list(self._calls), engine_failed())
            return
        news, ended = [], []
        for event in events:
            if event.number not in self._calls:
                continue  # it was cancelled because its call has failed
            call, index = self._calls[event.number]
            if event.finish_reason is not None:
                del self._calls[event.number]
                ended.append(Ended(event.request, event.finish_reason))
            if event.finish_reason is not None or call.streamed:
                news.append((call, Piece(index, event, event.request.output_tokens)))
        self._tell(news, start_s, sum(bool(event.ids) for event in events), ended)

    def _fail(self, numbers: list[int], failure: ApiError) -> None:
        """End these requests, and all others of the same calls."""
        calls = {id(self._calls[number][0]): self._calls[number][0] for number in numbers if number in self._calls}
        news, ended = [], []
        for call in calls.values():
            for request in call.requests:
                if self._calls.pop(request.number, None):
                    self.engine.cancel(request.number)
                    news.append((call, failure))
                    ended.append(Ended(request, "error"))
        self._tell(news, self.engine.clock(), 0, ended)

    def _tell(self, news: list[tuple[Call, Piece | ApiError]], start_s: float, tokens: int, ended: list[Ended]) -> None:
        """Hand over what a step brought, if it brought anything."""
        step, rows, blocks = None, self.scheduler.rows, self.scheduler.blocks
        if rows or ended:
            self._slots.update(row.request for row in rows)
            self._steps += bool(rows)
            end_s = self.engine.clock()
            step = Step(
                number=self._steps,
                end_s=end_s,
                seconds=end_s - start_s,
                rows=rows,
                slots=[self._slots.of[row.request] for row in rows],
                preempted=self.scheduler.preempted,
                tokens=tokens,
                waiting=len(self.scheduler.waiting),
                blocks={
                    "free": len(blocks.free),
                    "cached": len(blocks.cached),
                    "used": blocks.count - blocks.available,
                },
                ended=ended,
            )
            self.scheduler.rows, self.scheduler.preempted = [], 0  # they are told once
        if news or step:
            self._loop.call_soon_threadsafe(self._take, news, step)
