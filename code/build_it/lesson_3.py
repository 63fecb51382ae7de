"""The check of Lesson 3's last exercise: a scheduler, tried without a model first and on the storyteller then.

    serve(requests, slots, room, engine)
        requests   the queue, in order of arrival; each has prompt_ids, max_tokens, output_ids and finished
        slots      at most so many requests run at once
        room       and at most so many tokens of cache are reserved by them: prompt and budget of each
        engine     empty, prefill, decode, merge and filter, as `parts.Engine` has them

Between the scheduler and the engine stands a referee, who passes every call on and complains at the first one that
breaks a rule. So the complaint names the request and the forward with which it began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from exercises.checking import NotAttempted, Wrong, exercise, is_blank, running, short
from helpers import Request, generate_tokens, load_model

from .parts import CourseEngine, Engine, RunningBatch
from .workload import ROOM, SLOTS, course_requests

Scheduler = Callable[[list[Request], int, int, Engine], Any]

MOST_LOOKS = 10_000  # a scheduler that has asked so often and is not done is caught in its loop
END = 0  # the token with which a model without weights ends an answer


# --- An engine without a model -----------------------------------------------------------------------------


class PaperBatch:
    """Some requests and nothing else. Whoever asks for them, or for their number, is counted."""

    def __init__(self, requests: Sequence[Request], count: Callable[[], None]) -> None:
        self._requests = list(requests)
        self._count = count

    @property
    def requests(self) -> list[Request]:
        """One per row."""
        self._count()
        return self._requests

    def __len__(self) -> int:
        """The number of rows."""
        self._count()
        return len(self._requests)


@dataclass
class PaperEngine:
    """The five operations without a model: a forward gives every row a token that means nothing.

    Attributes:
        stops: after how many tokens an answer ends by itself, by the place of its request in `requests`.
    """

    requests: Sequence[Request]
    stops: Mapping[int, int] = field(default_factory=dict)
    looks: int = 0

    def empty(self) -> PaperBatch:
        """A batch without rows."""
        return PaperBatch([], self._count)

    def prefill(self, newcomers: Sequence[Request]) -> PaperBatch:
        """Every newcomer gets its first token."""
        return self.decode(PaperBatch(newcomers, self._count))

    def decode(self, batch: PaperBatch) -> PaperBatch:
        """Every row gets a token."""
        for request in batch.requests:
            place = next(place for place, other in enumerate(self.requests) if other is request)
            is_last = len(request.output_ids) + 1 == self.stops.get(place)
            request.append(END if is_last else END + 1, {END})
        return PaperBatch(batch.requests, self._count)

    def merge(self, first: PaperBatch, second: PaperBatch) -> PaperBatch:
        """The rows of both."""
        return PaperBatch(first.requests + second.requests, self._count)

    def filter(self, batch: PaperBatch) -> PaperBatch:
        """The rows that are not finished."""
        return PaperBatch([request for request in batch.requests if not request.finished], self._count)

    def _count(self) -> None:
        self.looks += 1
        if self.looks > MOST_LOOKS:
            waiting = sum(not request.output_ids for request in self.requests)
            raise Wrong(f"the loop does not end; {waiting} of {len(self.requests)} requests have not been admitted")


# --- The referee -------------------------------------------------------------------------------------------


def tokens_reserved(requests: Sequence[Request]) -> int:
    """The room that these requests may need: the prompt and the whole budget of each, in tokens."""
    return sum(len(request.prompt_ids) + request.max_tokens for request in requests)


@dataclass
class Referee:
    """An engine that passes everything on to another one and raises `Wrong` where a rule is broken.

    Attributes:
        admitted: how many requests have been prefilled; they are the first in the queue.
        holding: the requests that held slots and room at some time since the last decode step.
        prefilled: whether a prefill has run since the last decode step.
        used: the batches that a decode step has used up.
    """

    engine: Engine
    requests: Sequence[Request]
    slots: int
    room: int
    bar: tqdm | None = None
    admitted: int = 0
    holding: list[Request] = field(default_factory=list)
    prefilled: bool = False
    used: list[RunningBatch] = field(default_factory=list)

    def empty(self) -> RunningBatch:
        """A batch without rows."""
        return self.engine.empty()

    def prefill(self, newcomers: Sequence[Request]) -> RunningBatch:
        """Read these prompts, if it is their turn and they fit."""
        newcomers = list(newcomers)
        for request in newcomers:
            self._admit(request)
        self.holding += newcomers
        self.prefilled = self.prefilled or bool(newcomers)
        return self._progress(self.engine.prefill(newcomers))

    def decode(self, batch: RunningBatch) -> RunningBatch:
        """One step for everybody who runs, if nobody is missing and nobody who fits is kept waiting."""
        rows = self._rows(batch, "decode")
        if not rows:
            return self.engine.decode(batch)
        self._look_at_rows(rows)
        if self.admitted < len(self.requests) and self._fits(self.requests[self.admitted]):
            raise Wrong(f"request {self.admitted} fits and has to wait while a decode step runs")
        self.used.append(batch)
        stepped = self.engine.decode(batch)
        self.holding, self.prefilled = self._running(), False
        return self._progress(stepped)

    def merge(self, first: RunningBatch, second: RunningBatch) -> RunningBatch:
        """The rows of both."""
        for batch in (first, second):
            self._rows(batch, "merge")
        return self.engine.merge(first, second)

    def filter(self, batch: RunningBatch) -> RunningBatch:
        """The rows that are not finished."""
        self._rows(batch, "filter")
        return self.engine.filter(batch)

    def check_end(self) -> None:
        """Complain unless every request has its whole answer."""
        for place, request in enumerate(self.requests):
            if not request.finished:
                made, budget = len(request.output_ids), request.max_tokens
                raise Wrong(f"at the end request {place} has {made} of its {budget} tokens")

    def _running(self) -> list[Request]:
        return [request for request in self.requests[: self.admitted] if not request.finished]

    def _fits(self, request: Request) -> bool:
        """Whether a request would fit beside all who held slots and room since the last decode step."""
        together = [*self.holding, request]
        return len(together) <= self.slots and tokens_reserved(together) <= self.room

    def _admit(self, request: Request) -> None:
        place = self._place(request)
        if place < self.admitted:
            raise Wrong(f"request {place} was prefilled a second time")
        if place > self.admitted:
            raise Wrong(f"request {place} was admitted before request {self.admitted}, which came earlier")
        together = [*self._running(), request]
        if len(together) > self.slots:
            raise Wrong(f"with request {place}, {len(together)} requests run at once, in {self.slots} slots")
        reserved = tokens_reserved(together)
        if reserved > self.room:
            raise Wrong(f"with request {place}, {reserved} tokens are reserved, and the room is {self.room}")
        if self.prefilled and self._fits(request):
            raise Wrong(f"request {place} was prefilled alone, though it could have shared the prefill just before")
        self.admitted += 1

    def _look_at_rows(self, rows: Sequence[Request]) -> None:
        """Complain about rows that must not be in a decode step, and about those that are missing."""
        places = [self._place(request) for request in rows]
        for place, request in zip(places, rows, strict=True):
            if places.count(place) > 1:
                raise Wrong(f"request {place} is in the batch of a decode step twice")
            if request.finished:
                raise Wrong(f"request {place} has its whole answer and is still in a decode step")
        for request in self._running():
            if self._place(request) not in places:
                raise Wrong(f"request {self._place(request)} runs, but a decode step was made without it")

    def _place(self, request: Any) -> int:
        """Where a request stands in the queue."""
        places = [place for place, other in enumerate(self.requests) if other is request]
        if not places:
            raise Wrong(f"the engine was given {short(request)}, which is none of the requests")
        return places[0]

    def _rows(self, batch: Any, operation: str) -> list[Request]:
        """The requests of a batch that the engine itself has made, and that no step has used up."""
        if not hasattr(batch, "requests"):
            raise Wrong(f"{operation} was given {short(batch)}; it takes batches that the engine has returned")
        if any(batch is other for other in self.used):
            raise Wrong(f"{operation} was given a batch that a decode step has used up; the step returned a new one")
        return list(batch.requests)

    def _progress(self, batch: RunningBatch) -> RunningBatch:
        if self.bar is not None:
            self.bar.update(sum(request.finished for request in self.requests) - self.bar.n)
        return batch


# --- The check ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A small queue: (prompt tokens, budget) of each request, slots, room, and which answers end by themselves."""

    sizes: Sequence[tuple[int, int]]
    slots: int
    room: int
    stops: Mapping[int, int] = field(default_factory=dict)

    def requests(self, *, alike: bool) -> list[Request]:
        """The queue. Every prompt has a token of its own, unless requests of one size are to be alike."""
        prompts = [[1 if alike else place] * tokens for place, (tokens, _) in enumerate(self.sizes)]
        budgets = [budget for _, budget in self.sizes]
        return [Request(ids, budget, prompt_ids=ids) for ids, budget in zip(prompts, budgets, strict=True)]


CASES = {
    "three requests and three slots": Case([(4, 3), (2, 5), (3, 2)], 3, 100),
    "five requests and two slots": Case([(3, 5), (2, 2), (4, 3), (3, 4), (2, 2)], 2, 100),
    "one slot": Case([(2, 3), (2, 2), (3, 2)], 1, 100),
    "room for 20 tokens": Case([(4, 6), (4, 6), (2, 3), (3, 2), (1, 4)], 4, 20),
    "a large request in the middle": Case([(2, 4), (10, 10), (1, 2), (2, 2)], 4, 20),
    "answers that end before their budget": Case([(2, 9), (2, 4), (2, 8), (2, 3)], 2, 24, {0: 2, 2: 1}),
    "two requests that are alike": Case([(2, 3), (2, 3), (3, 2)], 1, 100),
    "answers of one token": Case([(2, 1), (3, 1), (2, 3), (2, 1), (2, 2), (2, 1)], 2, 100),
    "an empty queue": Case([], 2, 100),
}


@exercise("five operations and a queue are a scheduler, and it promises no more cache than there is")
def check_scheduler(serve: Scheduler | None) -> str:
    """Exercise 3.6: a scheduler with slots and room."""
    if not callable(serve):
        raise Wrong(f"expected a function, got {short(serve)}")
    for name, case in CASES.items():
        requests = case.requests(alike="alike" in name)
        referee = Referee(PaperEngine(requests, case.stops), requests, case.slots, case.room)
        _run(serve, name, referee)
    return _try_on_the_storyteller(serve)


def _run(serve: Scheduler, name: str, referee: Referee) -> None:
    """Let a scheduler serve one queue; every complaint begins with the name of this queue."""
    queue = list(referee.requests)
    try:
        with running(serve, name):
            result = serve(queue, referee.slots, referee.room, referee)
        if is_blank(result) and not referee.admitted and name == next(iter(CASES)):
            raise NotAttempted("no request has been prefilled")
        if len(queue) != len(referee.requests) or any(a is not b for a, b in zip(queue, referee.requests, strict=True)):
            raise Wrong("the list of the requests was changed; its owner still needs it")
        referee.check_end()
    except Wrong as complaint:
        text = str(complaint)
        raise Wrong(text if name in text else f"with {name}: {text}") from complaint


def _try_on_the_storyteller(serve: Scheduler) -> str:
    """The course's requests on the storyteller: every answer must be the one that the request gets alone."""
    model, tokenizer = load_model()
    requests = course_requests(tokenizer)
    name = "the course's requests on the storyteller"
    alone = _answers_alone(model, requests)
    engine = CourseEngine(model)
    with tqdm(total=len(requests), desc="your scheduler", leave=False) as bar:
        _run(serve, name, Referee(engine, requests, SLOTS, ROOM, bar))
    for place, request in enumerate(requests):
        if request.output_ids != alone[tuple(request.prompt_ids)][: request.max_tokens]:
            raise Wrong(f"with {name}: the answer to request {place} is not the one that it gets alone")
    return f"{len(requests)} requests in {len(engine.forwards)} forwards, every answer the one that it gets alone"


def _answers_alone(model: PreTrainedModel, requests: Sequence[Request]) -> dict[tuple[int, ...], list[int]]:
    """For every prompt the answer of its largest budget, made without a batch; shorter ones are its beginning."""
    budgets: dict[tuple[int, ...], int] = {}
    for request in requests:
        prompt = tuple(request.prompt_ids)
        budgets[prompt] = max(request.max_tokens, budgets.get(prompt, 0))
    prompts = tqdm(budgets.items(), desc="each prompt alone", leave=False)
    return {prompt: list(generate_tokens(model, list(prompt), budget)) for prompt, budget in prompts}
