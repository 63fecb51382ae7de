"""The checks of Lesson 7, a server and those who ask it."""

from __future__ import annotations

from collections.abc import Sequence

from .checking import Function, compare_function, compare_number, exercise


@exercise("rows, step time and length of the answers say what a server can complete, before anybody has asked it")
def check_capacity(capacity: float | None, share_of_rows: float | None) -> None:
    """Exercise 7.1: how many answers per second a server completes, and how busy it is below that."""
    rows, step_s, tokens, rate = 8, 0.005, 64, 15
    expected = rows / (tokens * step_s)
    mistakes = {
        "that is one row; there are eight": expected / rows,
        "those are tokens per second; an answer has 64": rows / step_s,
        "that is the time of one answer": tokens * step_s,
        "that is the time between two answers": 1 / expected,
    }
    compare_number("capacity", capacity, expected, mistakes)
    mistakes = {
        "divide the rate that comes by the one that can be completed": expected / rate,
        "that is the share of the rows that are free": 1 - rate / expected,
        "that is a number of rows; divide it by eight": rate * tokens * step_s,
    }
    compare_number("share_of_rows", share_of_rows, rate / expected, mistakes)


@exercise("in a closed loop rate and latency are tied together: whoever waits does not ask, so the queue never grows")
def check_closed_loop(latency_s: float | None, rate: float | None) -> None:
    """Exercise 7.2: Little's law for askers who wait for their answer before they ask again."""
    mistakes = {
        "the rate is given; the askers share it": 1 / 25,
        "that is a rate per asker; turn it round": 25 / 50,
        "all fifty are in the server all the time, not only those behind the rows": 42 / 25,
    }
    compare_number("latency_s", latency_s, 50 / 25, mistakes)
    mistakes = {
        "five askers ask at the same time, each four times per second": 1 / 0.25,
        "an answer takes a quarter of a second, so an asker gets several in a second": 5 * 0.25,
        "five askers cannot fill eight rows": 25,
    }
    compare_number("rate", rate, 5 / 0.25, mistakes)


Answers = Sequence[tuple[float, float, float, int]]  # (arrival_s, first_s, last_s, tokens) of each request


def _share_in_time(answers: Answers, ttft_s: float, tpot_s: float) -> float:
    kept = 0
    for arrival, first, last, tokens in answers:
        gap = (last - first) / (tokens - 1) if tokens > 1 else 0.0
        kept += tokens > 0 and first - arrival <= ttft_s and gap <= tpot_s
    return kept / len(answers)


def _share_otherwise(
    answers: Answers,
    ttft_s: float,
    tpot_s: float,
    *,
    with_refused: bool = False,
    with_ttft: bool = True,
    with_tpot: bool = True,
    gaps: int = 1,
    of_answered: bool = False,
    per_token_since_arrival: bool = False,
) -> float:
    """The share with one mistake."""
    kept = 0
    for arrival, first, last, tokens in answers:
        start = arrival if per_token_since_arrival else first
        gap = (last - start) / (tokens - gaps) if tokens > 1 else 0.0
        in_time = (first - arrival <= ttft_s or not with_ttft) and (gap <= tpot_s or not with_tpot)
        kept += in_time and (tokens > 0 or with_refused)
    counted = sum(answer[3] > 0 for answer in answers) if of_answered else len(answers)
    return kept / max(1, counted)


@exercise("goodput counts what was promised and kept; whoever was refused counts against it, and so does a late answer")
def check_share_in_time(function: Function | None) -> None:
    """Exercise 7.3: the share of the requests that got first token and pace as promised."""
    good, late, slow = (1.0, 1.25, 2.25, 5), (1.0, 2.0, 3.0, 5), (1.0, 1.25, 5.25, 5)
    refused, single, brisk = (1.0, 1.0, 1.0, 0), (4.0, 4.25, 4.25, 1), (0.0, 0.5, 1.0, 2)
    cases = {
        "the example": ([good, refused, late, late, slow, slow, slow], 0.5, 0.25),
        "one good answer": ([good], 0.5, 0.25),
        "one late answer": ([late], 0.5, 0.25),
        "one slow answer": ([slow], 0.5, 0.25),
        "one refusal": ([refused], 0.5, 0.25),
        "one token": ([single, late], 0.5, 0.125),
        "exactly at the promise": ([brisk, good], 0.5, 0.5),
        "a promise that nobody keeps": ([good, single], 0.125, 0.25),
        "a pace that two tokens keep and five do not": ([brisk, (0.0, 0.25, 3.25, 5), refused, good], 0.5, 0.5),
        "two tokens too far apart": ([(0.0, 0.25, 1.25, 2), good], 0.5, 0.5),
        "an answer that began late and kept its pace": ([(0.0, 0.5, 1.5, 5), (0.0, 0.5, 1.625, 5)], 0.5, 0.25),
    }
    mistakes = {
        "a refusal is no answer, and was not in time": lambda *given: _share_otherwise(*given, with_refused=True),
        "the first token is to come in time, too": lambda *given: _share_otherwise(*given, with_ttft=False),
        "the pace is part of the promise": lambda *given: _share_otherwise(*given, with_tpot=False),
        "between five tokens there are four gaps": lambda *given: _share_otherwise(*given, gaps=0),
        "refusals count among those who asked": lambda *given: _share_otherwise(*given, of_answered=True),
        "the pace counts from the first token on": lambda *given: _share_otherwise(
            *given, per_token_since_arrival=True
        ),
        "that is the share which was not in time": lambda *given: 1 - _share_in_time(*given),
        "divide by the number of requests": lambda *given: float(_share_in_time(*given) * len(given[0])),
    }
    compare_function(function, _share_in_time, cases, mistakes)


def _knee(rates: Sequence[float], shares: Sequence[float], wanted: float) -> float:
    best = 0.0
    for rate, share in zip(rates, shares, strict=True):
        if share < wanted:
            break
        best = rate
    return best


@exercise("beyond the knee no lucky run counts: the promise has to hold at every rate below, too")
def check_knee(function: Function | None) -> None:
    """Exercise 7.4: the highest rate up to which the promise is kept."""
    cases = {
        "the example": ([5.0, 10.0, 15.0, 20.0], [1.0, 0.97, 0.82, 0.1], 0.9),
        "kept everywhere": ([2.0, 4.0], [1.0, 0.95], 0.9),
        "kept nowhere": ([2.0, 4.0], [0.5, 0.25], 0.9),
        "a lucky run behind the knee": ([1.0, 2.0, 3.0, 4.0], [1.0, 0.7, 0.95, 0.2], 0.9),
        "a weak run at first": ([1.0, 2.0], [0.8, 1.0], 0.9),
        "exactly at the promise": ([3.0, 6.0, 9.0], [1.0, 0.75, 0.5], 0.75),
        "one rate": ([7.0], [0.9], 0.5),
        "one rate that is too high": ([7.0], [0.4], 0.5),
    }

    def lucky(rates: Sequence[float], shares: Sequence[float], wanted: float) -> float:
        return max((rate for rate, share in zip(rates, shares, strict=True) if share >= wanted), default=0.0)

    def first_broken(rates: Sequence[float], shares: Sequence[float], wanted: float) -> float:
        return next((rate for rate, share in zip(rates, shares, strict=True) if share < wanted), rates[-1])

    def strict(rates: Sequence[float], shares: Sequence[float], wanted: float) -> float:
        return _knee(rates, [share if share > wanted else 0.0 for share in shares], wanted)

    mistakes = {
        "a rate behind the first one that fails does not count": lucky,
        "that is the first rate that fails; the knee is the last one before it": first_broken,
        "a share that is exactly the wanted one is enough": strict,
        "give the rate, not its share": lambda rates, shares, wanted: dict(zip(rates, shares, strict=True)).get(
            _knee(rates, shares, wanted), 0.0
        ),
    }
    compare_function(function, _knee, cases, mistakes)


@exercise("a queue is as long as patience times capacity, and whoever does not fit is better told at once")
def check_queue_room(longest_queue: int | None, refused_per_s: float | None) -> None:
    """Exercise 7.5: how many may wait so that the last one is still in time, and how many must be refused."""
    mistakes = {
        "the first token itself takes time, too": int(1.25 * 25),
        "the one behind these would still be in time": 29,
        "the rows are no part of the queue": 30 + 8,
        "that is a time; multiply by what is completed in a second": 1,
    }
    compare_number("longest_queue", longest_queue, 30, mistakes)
    mistakes = {
        "that many are completed, not refused": 25,
        "the queue is full, so it takes nobody in": 40,
        "a full queue stays full: it does not swallow more each second": 40 - 25 - 30,
    }
    compare_number("refused_per_s", refused_per_s, 15, mistakes)
