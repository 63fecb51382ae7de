"""An asker of any server that speaks OpenAI's interface: requests at given times, answers timed as they stream in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

import httpx

from load_answers import Answer, Ask
from measure import now_s

FULL = 503  # the status of a server that takes no more at the moment
PATIENCE_S = 300.0


def ask_all(url: str, model: str, asks: Sequence[Ask], at_a_time: int | None = None) -> list[Answer]:
    """Send every request at its own time, and wait for all answers.

    With `at_a_time`, at most so many are under way (a closed loop): a request is sent when one before it has ended, and
    that is its arrival.
    """
    return asyncio.run(_ask_all(url, model, asks, at_a_time))


async def _ask_all(url: str, model: str, asks: Sequence[Ask], at_a_time: int | None) -> list[Answer]:
    gate = asyncio.Semaphore(at_a_time) if at_a_time else nullcontext()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
        start_s = now_s()
        return await asyncio.gather(*(_ask(client, model, ask, start_s + ask.arrival_s, gate) for ask in asks))


async def _ask(
    client: httpx.AsyncClient, model: str, ask: Ask, at_s: float, gate: asyncio.Semaphore | nullcontext[None]
) -> Answer:
    """One request. It arrives when it was to be sent, even if this client was late."""
    await asyncio.sleep(max(0.0, at_s - now_s()))
    async with gate:
        arrival_s = now_s() if isinstance(gate, asyncio.Semaphore) else at_s
        body = {"model": model, "prompt": ask.prompt, "max_tokens": ask.max_tokens, "temperature": 0}
        body |= {"ignore_eos": True, "stream": True}
        times_s = []
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code == FULL:
                return Answer(arrival_s, arrival_s, arrival_s, 0)
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    if line.startswith('data: {"error"'):
                        raise RuntimeError(f"{client.base_url} ended an answer: {line[6:300]}")
                    times_s.append(now_s())
    # All tokens were asked for, and all came: a server may put several into one message, so messages are not counted.
    return Answer(arrival_s, times_s[0], times_s[-1], ask.max_tokens)
