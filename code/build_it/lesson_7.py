"""Exercise 7.6: an open-loop client, tried on a server that knows when it sent what.

async open_loop(url, asks, ttft_s, tpot_s) -> (answers, share)
    asks      (arrival_s, body) of each request, in order of arrival, in seconds since the call
    answers   (arrival_s, first_s, last_s, tokens) of each, in the order of the asks; 0 tokens: refused by a 503
    share     of the asks that got their first token within ttft_s, and the others tpot_s apart or less
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from exercises.checking import NotAttempted, Wrong, difference, exercise, is_blank, running, short
from measure import now_s

from .fake_server import FakeServer, Line

Ask = tuple[float, dict[str, Any]]
Client = Callable[[str, list[Ask], float, float], Awaitable[Any]]

SLACK_S = 0.12  # by which client and server may disagree on a time: the machine may be busy
LONGEST_S = 20.0
LOOSE = (60.0, 60.0)  # a promise that every answer keeps


@exercise("the times of an open loop are the askers' own: nobody waits unseen, and no server slows its questioner")
def check_open_loop(function: Any) -> None:
    """Exercise 7.6: a client that sends at given times, reads streams, and counts what came in time."""
    if not inspect.iscoroutinefunction(function):
        raise Wrong(f"expected a function that is defined with async def, got {short(function)}")
    _check_one(function)
    _check_open(function)
    _check_refusal(function)
    _check_promise(function)


def _check_one(function: Client) -> None:
    """Complain unless the tokens of a single stream are counted and timed as they come."""
    with FakeServer([Line(0.25, 0.2, 4)]) as server:
        start_s, result = _run(function, server, [0.0], LOOSE, "one request")
    answers, _ = _parts(result, [0.0], "one request")
    _check_times(server, start_s, answers, "one request")


def _check_open(function: Client) -> None:
    """Complain unless every request is sent at its time, though nobody is answered before all have come."""
    case, arrivals = "four requests, none of which is answered before all have come", [0.0, 0.25, 0.5, 0.75]
    with FakeServer([Line(0.1, 0.05, 3)] * 4, together=True) as server:
        start_s, result = _run(function, server, arrivals, LOOSE, case)
    answers, _ = _parts(result, arrivals, case)
    for number, arrival in enumerate(arrivals):
        late_s = server.came_s[number] - start_s - arrival
        if late_s > 1.0:
            raise Wrong(f"{case}: request {number} was sent {late_s:.1f} s late; an open loop waits for no answer")
        if late_s < -SLACK_S / 2 or late_s > 2 * SLACK_S:
            words = f"{abs(late_s):.2f} s {'late' if late_s > 0 else 'early'}"
            raise Wrong(f"{case}: request {number} was sent {words}; every request has its own time")
    _check_times(server, start_s, answers, case)


def _check_refusal(function: Client) -> None:
    """Complain unless a 503 is an entry without tokens, and the others are served."""
    case, arrivals = "three requests, the second of which is refused", [0.0, 0.0, 0.2]
    with FakeServer([Line(0.1, 0.1, 2), Line(0, 0, 0), Line(0.1, 0.1, 3)]) as server:
        start_s, result = _run(function, server, arrivals, LOOSE, case)
    answers, share = _parts(result, arrivals, case)
    if answers[1][3] != 0:
        raise Wrong(f"{case}: a refused request has 0 tokens, not {short(answers[1][3])}")
    _check_times(server, start_s, answers, case)
    _check_share(share, 2 / 3, case)


def _check_promise(function: Client) -> None:
    """Complain unless the share counts those who got both what was promised."""
    case, arrivals = "one good, one refused, one late and one slow answer", [0.0, 0.0, 0.1, 0.1]
    script = [Line(0.1, 0.05, 4), Line(0, 0, 0), Line(0.9, 0.05, 3), Line(0.1, 0.6, 2)]
    with FakeServer(script) as server:
        _, result = _run(function, server, arrivals, (0.5, 0.3), case)
    _check_share(_parts(result, arrivals, case)[1], 1 / 4, case)


def _run(
    function: Client, server: FakeServer, arrivals: Sequence[float], promise: tuple[float, float], case: str
) -> tuple[float, Any]:
    """When the client was called, and what it returned. It gets a loop and a thread of its own."""
    asks = [(arrival, {"model": "fake", "prompt": str(n), "stream": True}) for n, arrival in enumerate(arrivals)]

    async def ask() -> tuple[float, Any]:
        start_s = now_s()
        return start_s, await asyncio.wait_for(function(server.url, asks, *promise), LONGEST_S)

    with ThreadPoolExecutor(1) as thread, running(function, case):
        try:
            return thread.submit(lambda: asyncio.run(ask())).result()
        except TimeoutError as error:
            raise Wrong(f"{case}: not done after {LONGEST_S:g} s") from error


def _parts(result: Any, arrivals: Sequence[float], case: str) -> tuple[Any, Any]:
    """The answers and the share. Complains if they do not look like that."""
    if is_blank(result):
        raise NotAttempted("the function returns nothing")
    if not isinstance(result, tuple) or len(result) != 2:
        raise Wrong(f"{case}: expected a tuple (answers, share), got {short(result)}")
    answers, share = result
    if not isinstance(answers, list) or len(answers) != len(arrivals):
        raise Wrong(f"{case}: expected a list of {len(arrivals)} answers, got {short(answers)}")
    for number, (answer, arrival) in enumerate(zip(answers, arrivals, strict=True)):
        if not isinstance(answer, tuple) or len(answer) != 4:
            raise Wrong(
                f"{case}: answer {number} is to be (arrival_s, first_s, last_s, tokens), and is {short(answer)}"
            )
        if difference(answer[0], arrival) is not None:
            raise Wrong(f"{case}: the arrival of request {number} is the time that was given, {arrival:g}")
    return answers, share


def _check_times(server: FakeServer, start_s: float, answers: Any, case: str) -> None:
    """Complain unless tokens and times are those that the server wrote down."""
    for number, (_, first_s, last_s, tokens) in enumerate(answers):
        if not server.script[number].tokens:
            continue
        sent_s = [time_s - start_s for time_s in server.sent_s[number]]
        if difference(tokens, len(sent_s)) is not None:
            hint = "; the last chunk has no choices, and [DONE] is none" if tokens in range(len(sent_s), 99) else ""
            raise Wrong(
                f"{case}: answer {number} is said to have {short(tokens)} tokens, {len(sent_s)} were sent{hint}"
            )
        for name, told_s, true_s in (("first_s", first_s, sent_s[0]), ("last_s", last_s, sent_s[-1])):
            if difference(told_s, told_s) is not None:
                raise Wrong(f"{case}: {name} of answer {number} is not a number")
            if told_s < true_s - SLACK_S / 4:
                raise Wrong(f"{case}: {name} of answer {number} is {true_s - told_s:.2f} s before that token was sent; "
                            "times count from the call, and headers come before the first token")  # fmt: skip
            if told_s > true_s + SLACK_S:
                raise Wrong(f"{case}: {name} of answer {number} is {told_s - true_s:.2f} s after that token was sent; "
                            "read each chunk when it comes")  # fmt: skip


def _check_share(share: Any, expected: float, case: str) -> None:
    complaint = difference(share, float(expected))
    if complaint is not None:
        raise Wrong(f"{case}: the share in time: {complaint}")
