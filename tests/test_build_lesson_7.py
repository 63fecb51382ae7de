"""The check of Exercise 7.6 takes right clients of any style, and says of wrong ones what is wrong."""

from __future__ import annotations

import asyncio
import json
import linecache
import urllib.error
import urllib.request
from collections.abc import Callable

import httpx
import pytest
import torch

from build_it import check_open_loop
from measure import now_s

PLAIN = """
async def open_loop(url, asks, ttft_s, tpot_s):
    start = now_s()

    async def one(client, arrival, body):
        await asyncio.sleep(max(0.0, start + arrival - now_s()))
        times = []
        async with client.stream("POST", url + "/v1/completions", json=body) as reply:
            if reply.status_code == 503:
                return arrival, arrival, arrival, 0
            async for line in reply.aiter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                    times.append(now_s() - start)
        return arrival, times[0], times[-1], len(times)

    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answers = await asyncio.gather(*(one(client, *each) for each in asks))
    good = 0
    for arrival, first, last, tokens in answers:
        good += tokens > 0 and first - arrival <= ttft_s and last - first <= tpot_s * (tokens - 1)
    return list(answers), good / len(answers)
"""


def defined(source: str) -> Callable:
    """The function of this source, whose lines a message can name."""
    names = {"asyncio": asyncio, "json": json, "httpx": httpx, "now_s": now_s}
    linecache.cache["<learner>"] = (len(source), None, source.splitlines(keepends=True), "<learner>")
    exec(compile(source, "<learner>", "exec"), names)
    return names["open_loop"]


def changed(old: str, new: str) -> Callable:
    """The plain client with one piece of its source changed."""
    assert PLAIN.count(old) == 1
    return defined(PLAIN.replace(old, new))


async def with_threads(url: str, asks: list, ttft_s: float, tpot_s: float) -> tuple[list, float]:
    """Another style: a thread for each request, and nothing but the standard library."""
    start, opener = now_s(), urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def one(arrival: float, body: dict) -> tuple[float, float, float, int]:
        request = urllib.request.Request(
            f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        times = []
        try:
            with opener.open(request) as reply:
                for line in reply:
                    if b'"text"' in line:
                        times.append(now_s() - start)
        except urllib.error.HTTPError as error:
            error.close()
            return arrival, arrival, arrival, 0
        return arrival, times[0], times[-1], len(times)

    async def at_its_time(arrival: float, body: dict) -> tuple[float, float, float, int]:
        await asyncio.sleep(start + arrival - now_s())
        return await asyncio.to_thread(one, arrival, body)

    answers = [await task for task in [asyncio.ensure_future(at_its_time(*ask)) for ask in asks]]
    waits = [(first - at, (last - first) / max(1, n - 1)) if n else (9e9, 0) for at, first, last, n in answers]
    return answers, sum(wait <= ttft_s and gap <= tpot_s for wait, gap in waits) / len(answers)


@pytest.mark.parametrize("answer", [defined(PLAIN), with_threads])
def test_right_clients_of_any_style_are_taken(answer: Callable) -> None:
    state = torch.get_rng_state()
    result = check_open_loop(answer)
    assert result, result
    assert torch.equal(torch.get_rng_state(), state), "the learner's random state is left alone"


GATHER = "answers = await asyncio.gather(*(one(client, *each) for each in asks))"
SLEEP = "await asyncio.sleep(max(0.0, start + arrival - now_s()))"
WRONG = [
    (lambda *given: ([], 1.0), "async def"),
    (changed(GATHER, "answers = [await one(client, *each) for each in asks]"), "waits for no answer"),
    (changed(SLEEP, "pass"), "early; every request has its own time"),
    (changed(SLEEP, "await asyncio.sleep(2 * arrival)"), "late; every request has its own time"),
    (changed(SLEEP, "import time\n        time.sleep(max(0.0, start + arrival - now_s()))"), "late"),
    (changed(' and json.loads(line[6:])["choices"]', ""), "the last chunk has no choices"),
    (changed('line.startswith("data: {") and json.loads(line[6:])["choices"]', '"data" in line'), "[DONE] is none"),
    (changed("arrival, times[0], times[-1]", "arrival, arrival, times[-1]"), "before that token was sent"),
    (changed("times = []", "times = [now_s() - start]"), "is said to have 5 tokens, 4 were sent"),
    (changed("now_s() - start)", "now_s())"), "after that token was sent"),
    (changed("async for line in reply.aiter_lines():", "for line in (await reply.aread()).decode().split('\\n'):"),
     "read each chunk when it comes"),
    (changed("return arrival, arrival, arrival, 0", "return arrival, arrival, arrival, 1"), "has 0 tokens, not 1"),
    (changed("if reply.status_code == 503:", "if False:"), "raised IndexError"),
    (changed("return list(answers), good", "return list(answers[::-1]), good"), "the arrival of request 0"),
    (changed("return list(answers), good / len(answers)", "return list(answers)"), "expected a tuple (answers, share)"),
    (changed("return list(answers), good", "return list(answers)[1:], good"), "expected a list of"),
    (changed("good / len(answers)", "float(good)"), "the share in time"),
    (changed("tokens > 0 and first - arrival <= ttft_s and last - first <= tpot_s * (tokens - 1)",
             "first - arrival <= ttft_s and last - first <= tpot_s * max(0, tokens - 1)"), "the share in time"),
    (changed("first - arrival <= ttft_s and ", ""), "the share in time"),
    (changed(" and last - first <= tpot_s * (tokens - 1)", ""), "the share in time"),
    (changed("times = []", "times = nothing"), "in line 7"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_clients_are_refused_with_what_is_wrong(answer: Callable, words: str) -> None:
    result = check_open_loop(answer)
    assert result.outcome == "wrong", result
    assert words in repr(result) and "\n" not in repr(result)


async def blank(*given: object) -> None: ...


async def unfinished(*given: object) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("answer", [..., None, blank, unfinished])
def test_a_blank_is_not_attempted_yet(answer: object) -> None:
    assert repr(check_open_loop(answer)).startswith("not attempted yet")


def test_a_client_of_a_running_loop_is_taken() -> None:
    """In a notebook the check is called while an event loop runs."""

    async def check() -> object:
        return check_open_loop(defined(PLAIN))

    assert asyncio.run(check())
