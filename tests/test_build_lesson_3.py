"""The check of the scheduler takes right ones of any style, and says of a wrong one which rule it breaks."""

from __future__ import annotations

import itertools
import linecache
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from build_it import check_scheduler, lesson_3
from build_it.lesson_3 import CASES, ROOM, SLOTS, PaperEngine, tokens_reserved
from build_it.parts import CourseEngine
from build_it.workload import course_requests
from helpers import Request, load_model, run_continuous
from measure import Trace

# --- Right ones ----------------------------------------------------------------------------------------


def by_slices(requests: list[Request], slots: int, room: int, engine: Any) -> None:
    waiting, running = list(requests), engine.empty()
    while waiting or len(running):
        count = how_many(waiting, slots - len(running), room - tokens_reserved(running.requests))
        newcomers, waiting = waiting[:count], waiting[count:]
        if newcomers:
            running = engine.merge(running, engine.filter(engine.prefill(newcomers)))
        if len(running):
            running = engine.filter(engine.decode(running))


def how_many(waiting: list[Request], free_slots: int, free_tokens: int) -> int:
    totals = itertools.accumulate(len(request.prompt_ids) + request.max_tokens for request in waiting)
    return min(free_slots, sum(total <= free_tokens for total in totals))


def with_a_queue_and_counters(requests: list[Request], slots: int, room: int, engine: Any) -> list[Request]:
    queue, running, reserved = deque(requests), engine.empty(), 0
    while queue or running.requests:
        newcomers = []
        while queue and len(running) + len(newcomers) < slots:
            size = len(queue[0].prompt_ids) + queue[0].max_tokens
            if reserved + size > room:
                break
            reserved += size
            newcomers.append(queue.popleft())
        running = engine.filter(engine.merge(running, engine.prefill(newcomers)))
        running = engine.filter(engine.decode(running))
        reserved = sum(len(request.prompt_ids) + request.max_tokens for request in running.requests)
    return requests


def refilling_before_the_decode(requests: list[Request], slots: int, room: int, engine: Any) -> None:
    """A slot that a prefill has freed again, because one token was all, is filled before the next decode step."""
    waiting, running = list(requests), engine.empty()
    while waiting or len(running):
        while waiting:
            count = how_many(waiting, slots - len(running), room - tokens_reserved(running.requests))
            if not count:
                break
            running = engine.merge(running, engine.filter(engine.prefill(waiting[:count])))
            waiting = waiting[count:]
        running = engine.filter(engine.decode(running))


class AsAClass:
    def __call__(self, requests: list[Request], slots: int, room: int, engine: Any) -> None:
        self.next, self.requests, self.running = 0, requests, engine.empty()
        while self.next < len(requests) or len(self.running) > 0:
            first = self.next
            active = [request for request in self.running.requests if not request.finished]
            while self.next < len(requests):
                active.append(requests[self.next])
                if len(active) > slots or tokens_reserved(active) > room:
                    break
                self.next += 1
            self.running = engine.merge(self.running, engine.prefill(requests[first : self.next]))
            self.running = engine.filter(engine.decode(engine.filter(self.running)))


RIGHT = [by_slices, with_a_queue_and_counters, refilling_before_the_decode, AsAClass()]


@pytest.mark.parametrize("serve", RIGHT, ids=lambda serve: getattr(serve, "__name__", "as_a_class"))
def test_schedulers_of_any_style_are_right(serve: Callable) -> None:
    result = check_scheduler(serve)
    assert result, result
    assert repr(result).startswith("correct: ") and "every answer the one that it gets alone" in repr(result)


# --- Wrong ones ----------------------------------------------------------------------------------------

LOOP = """
def serve(requests, slots, room, engine):
    waiting, running = list(requests), engine.empty()
    while waiting or len(running):
        used = sum(len(request.prompt_ids) + request.max_tokens for request in running.requests)
        newcomers = []
        while waiting and len(running) + len(newcomers) < slots:
            size = len(waiting[0].prompt_ids) + waiting[0].max_tokens
            if used + size > room:
                break
            used += size
            newcomers.append(waiting.pop(0))
        if newcomers:
            running = engine.merge(running, engine.filter(engine.prefill(newcomers)))
        if len(running):
            running = engine.filter(engine.decode(running))
"""

WRONG = {  # what is changed in the loop, what it becomes, and the words that the message must hold
    "one slot too many": ("< slots", "<= slots", "requests run at once, in"),
    "the running rows forgotten": ("len(running) + len(newcomers) < slots", "len(newcomers) < slots", "run at once"),
    "one slot too few": ("len(running) + len(newcomers) < slots", "len(newcomers) + 1 < slots", "fits and has to wait"),
    "no room": ("used + size > room", "False", "tokens are reserved, and the room is 20"),
    "room that must not be full": ("used + size > room", "used + size >= room", "fits and has to wait"),
    "prompts forgotten": (
        "size = len(waiting[0].prompt_ids) + ",
        "size = ",
        "tokens are reserved, and the room is 20",
    ),
    "budgets forgotten": (" + waiting[0].max_tokens", "", "tokens are reserved"),
    "running requests reserve nothing": (
        "used = sum(len(request.prompt_ids) + request.max_tokens for request in running.requests)",
        "used = 0",
        "tokens are reserved, and the room is",
    ),
    "only newcomers of one pass are counted": ("used += size", "pass", "tokens are reserved"),
    "what is left instead of what may come": (
        "request.max_tokens for",
        "request.max_tokens - len(request.output_ids) for",
        "tokens are reserved",
    ),
    "the queue from behind": ("waiting.pop(0)", "waiting.pop()", "which came earlier"),
    "the caller's list": ("list(requests)", "requests", "the list of the requests was changed"),
    "one newcomer a prefill": (
        "running = engine.merge(running, engine.filter(engine.prefill(newcomers)))",
        "for one in newcomers:\n                running = engine.merge(running, engine.filter(engine.prefill([one])))",
        "could have shared the prefill just before",
    ),
    "no filter after the prefill": (
        "engine.filter(engine.prefill(newcomers))",
        "engine.prefill(newcomers)",
        "has its whole answer and is still in a decode step",
    ),
    "no filter after the decode": (
        "running = engine.filter(engine.decode(running))",
        "running = engine.decode(running)",
        "has its whole answer and is still in a decode step",
    ),
    "newcomers replace the others": (
        "engine.merge(running, engine.filter(engine.prefill(newcomers)))",
        "engine.filter(engine.prefill(newcomers))",
        "runs, but a decode step was made without it",
    ),
    "merged twice": (
        "if len(running):\n",
        "running = engine.merge(running, running)\n        if len(running):\n",
        "is in the batch of a decode step twice",
    ),
    "static": ("while waiting and len(running)", "while waiting and not len(running) and len(running)", "has to wait"),
    "the old batch": (
        "running = engine.filter(engine.decode(running))",
        "engine.decode(running)\n            running = engine.filter(running)",
        "a decode step has used up",
    ),
    "stops when nobody waits": ("while waiting or len(running):", "while waiting:", "at the end request"),
    "one pass": ("while waiting or len(running):", "for _ in range(1):", "at the end request 0 has 2 of its 3 tokens"),
    "a list for a batch": ("engine.empty()", "[]", "'list' object has no attribute 'requests'"),
    "merges a list": ("engine.prefill(newcomers)))", "engine.prefill(newcomers)).requests)", "merge was given ["),
    "a prompt, not a request": ("engine.prefill(newcomers)", "engine.prefill([newcomers[0].prompt])", "none of the"),
    "room taken twice": ("used + size > room", "used + 2 * size > room", "fits and has to wait"),
    "an unknown name": ("used += size", "used += sizes", "in line 11 (`used += sizes`): name 'sizes' is not defined"),
}


def scheduler(source: str) -> Callable:
    names: dict[str, Any] = {}
    linecache.cache["learner"] = (len(source), None, source.splitlines(keepends=True), "learner")
    exec(compile(source, "learner", "exec"), names)
    return names["serve"]


def test_the_loop_that_is_changed_is_right() -> None:
    assert check_scheduler(scheduler(LOOP))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_scheduler_is_told_what_it_breaks(name: str) -> None:
    old, new, words = WRONG[name]
    assert LOOP.count(old) >= 1
    with mock.patch.object(lesson_3, "load_model", side_effect=AssertionError("found only on the storyteller")):
        result = check_scheduler(scheduler(LOOP.replace(old, new)))
    assert result.outcome == "wrong", result
    assert repr(result).startswith("not yet right: ") and "\n" not in repr(result)
    assert words in repr(result), result


def test_a_scheduler_that_admits_one_request_a_pass_keeps_others_waiting() -> None:
    def one_a_pass(requests: list[Request], slots: int, room: int, engine: Any) -> None:
        waiting, running = list(requests), engine.empty()
        while waiting or len(running):
            if waiting and len(running) < slots:
                running = engine.merge(running, engine.filter(engine.prefill([waiting.pop(0)])))
            running = engine.filter(engine.decode(running))

    assert "with three requests and three slots: request 1 fits and has to wait" in repr(check_scheduler(one_a_pass))


def test_a_scheduler_that_skips_the_large_one_lets_others_overtake() -> None:
    def whoever_fits(requests: list[Request], slots: int, room: int, engine: Any) -> None:
        waiting, running = list(requests), engine.empty()
        while waiting or len(running):
            newcomers = []
            for request in waiting:
                together = [*running.requests, *newcomers, request]
                if len(together) <= slots and tokens_reserved(together) <= room:
                    newcomers.append(request)
            waiting = [request for request in waiting if request not in newcomers]
            running = engine.merge(running, engine.filter(engine.prefill(newcomers)))
            running = engine.filter(engine.decode(running))

    assert "request 2 was admitted before request 1, which came earlier" in repr(check_scheduler(whoever_fits))


def test_requests_that_are_equal_are_still_two() -> None:
    def by_equality(requests: list[Request], slots: int, room: int, engine: Any) -> None:
        waiting, running = list(requests), engine.empty()
        while waiting or len(running):
            count = how_many(waiting, slots - len(running), room - tokens_reserved(running.requests))
            newcomers = waiting[:count]
            waiting = [request for request in waiting if request not in newcomers]
            running = engine.merge(running, engine.filter(engine.prefill(newcomers)))
            running = engine.filter(engine.decode(running))

    assert "with two requests that are alike: " in repr(check_scheduler(by_equality))


def test_an_answer_that_a_scheduler_has_touched_is_noticed_on_the_storyteller() -> None:
    def scribbling(requests: list[Request], slots: int, room: int, engine: Any) -> None:
        by_slices(requests, slots, room, engine)
        if len(requests) > 9:
            requests[3].output_ids[-1] += 1

    assert "the answer to request 3 is not the one that it gets alone" in repr(check_scheduler(scribbling))


def test_a_loop_that_never_ends_is_left() -> None:
    def waits_forever(requests: list[Request], slots: int, room: int, engine: Any) -> None:
        running = engine.empty()
        while not all(request.finished for request in requests):
            running = engine.decode(running)

    assert "the loop does not end; 3 of 3 requests have not been admitted" in repr(check_scheduler(waits_forever))


# --- Blanks, and what the check relies on --------------------------------------------------------------


@pytest.mark.parametrize("blank", [None, ..., lambda requests, slots, room, engine: ..., lambda *_: None])
def test_a_blank_is_not_attempted_and_loads_no_model(blank: Any) -> None:
    with mock.patch.object(lesson_3, "load_model", side_effect=AssertionError("a model was loaded")):
        assert check_scheduler(blank).outcome == "not attempted"


def test_something_else_is_not_a_scheduler() -> None:
    assert "expected a function, got 5" in repr(check_scheduler(5))


def test_every_request_of_every_case_fits_alone() -> None:
    for case in CASES.values():
        assert all(prompt + budget <= case.room for prompt, budget in case.sizes)


def test_the_room_matters_for_the_course_and_without_it_the_forwards_are_those_of_run_continuous() -> None:
    model, tokenizer = load_model()
    counts = {}
    for room in (ROOM, 10_000):
        engine, requests = CourseEngine(model), course_requests(tokenizer)
        by_slices(requests, SLOTS, room, engine)
        counts[room] = len(engine.forwards)
    trace = Trace()
    run_continuous(course_requests(tokenizer), SLOTS, model=model, trace=trace)
    assert counts[10_000] == trace.forwards < counts[ROOM]


def test_the_engine_without_a_model_makes_the_forwards_of_the_one_with_it() -> None:
    model, tokenizer = load_model()
    seen = []
    for engine_of in (PaperEngine, lambda _: CourseEngine(model)):
        requests = course_requests(tokenizer, 12, long=9, short=3)
        engine = Recording(engine_of(requests))
        by_slices(requests, 4, 200, engine)
        assert all(len(request.output_ids) == request.max_tokens for request in requests)
        seen.append(engine.forwards)
    assert seen[0] == seen[1]


class Recording:
    """An engine that writes down how many rows each of its forwards has."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.forwards = engine, []
        self.empty, self.merge, self.filter = engine.empty, engine.merge, engine.filter

    def prefill(self, newcomers: list[Request]) -> Any:
        self.forwards.append(("prefill", len(newcomers)))
        return self.engine.prefill(newcomers)

    def decode(self, batch: Any) -> Any:
        self.forwards.append(("decode", len(batch)))
        return self.engine.decode(batch)
