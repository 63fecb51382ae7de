"""The course's two loops with requests that arrive while they run: static batches, and continuous batching.

`run_static` and `run_continuous` get all their requests at the start. Here the same steps (prefill, merge, decode,
filter) take only those that have arrived, in this process and without HTTP.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from transformers import PreTrainedModel

from helpers import Batch, Request, empty_batch, filter_batch, generate_next_token, init_batch, merge_batches
from load_answers import Answer, Ask
from measure import now_s


def serve_arrivals(model: PreTrainedModel, asks: Sequence[Ask], slots: int, *, together: bool) -> list[Answer]:
    """Serve requests as they come, first come, first served.

    Args:
        together: a batch stays together until its slowest row is done, and only then are others admitted (static).
    """
    requests = [Request(ask.prompt, ask.max_tokens, ignore_eos=True) for ask in asks]
    times_s: dict[int, list[float]] = {id(request): [] for request in requests}
    waiting, running, start_s = deque(zip(asks, requests, strict=True)), empty_batch(), now_s()
    while waiting or len(running):
        free = 0 if together and len(running) else slots - len(running)
        newcomers = _arrived(waiting, free, now_s() - start_s)
        if newcomers:
            running = merge_batches(running, _stepped(init_batch(newcomers), model, times_s, together))
        if len(running):
            running = _stepped(running, model, times_s, together)
        elif waiting and not newcomers:
            time.sleep(max(0.0, start_s + waiting[0][0].arrival_s - now_s()))
    return [
        Answer(start_s + ask.arrival_s, times_s[id(request)][0], times_s[id(request)][-1], ask.max_tokens)
        for ask, request in zip(asks, requests, strict=True)
    ]


def _arrived(waiting: deque[tuple[Ask, Request]], free: int, at_s: float) -> list[Request]:
    """Those at the head of the queue that are there already, as many as there are free slots."""
    newcomers = []
    while waiting and len(newcomers) < free and waiting[0][0].arrival_s <= at_s:
        newcomers.append(waiting.popleft()[1])
    return newcomers


def _stepped(batch: Batch, model: PreTrainedModel, times_s: dict[int, list[float]], together: bool) -> Batch:
    """The batch after one forward, without the rows that give their slots back."""
    going_on = [request for request in batch.requests if not request.finished]
    batch = generate_next_token(batch, model)
    token_s = now_s()
    for request in going_on:
        times_s[id(request)].append(token_s)
    if together:
        return empty_batch() if all(request.finished for request in batch.requests) else batch
    return filter_batch(batch)[0]
