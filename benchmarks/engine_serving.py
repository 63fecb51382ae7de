"""The engine serves the requests of the benchmarks: what they share about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from transformers import PreTrainedModel

from call_times import seconds_of_calls
from engine import Engine, Sampling
from helpers import Request
from measure import Trace, timed
from rung_steps import Loop, Outside, outside

BLOCK_TOKENS, STEP_TOKENS = 16, 256


def engine_for(
    model: PreTrainedModel,
    requests: Sequence[Request],
    rows: int,
    *,
    step_tokens: int = STEP_TOKENS,
    block_tokens: int = BLOCK_TOKENS,
) -> Engine:
    """An engine that has taken these requests (prompts are ids); its cache has room for `rows` of the longest."""
    longest = max(len(request.prompt) + request.max_tokens for request in requests)
    cache_tokens = rows * -(-longest // block_tokens) * block_tokens
    engine = Engine(model, None, rows, max(rows, step_tokens), cache_tokens, block_tokens, len(requests))
    for request in requests:
        engine.add(request.prompt, Sampling(request.max_tokens, ignore_eos=request.ignore_eos))
    return engine


def serve_by_engine(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Serve by the engine: one forward reads the prompts of newcomers and the next tokens of the running rows."""
    engine, forwards, ended = engine_for(model, requests, slots), 0, {}
    while engine.requests:
        ended |= {event.number: event.request for event in engine.step() if event.finish_reason}
        forwards += 1
    served = [ended[number] for number in range(len(requests))]
    if trace is not None:
        trace.read(served, slots=slots, forwards=forwards)
    return [replace(asked, output_ids=got.output_ids) for asked, got in zip(requests, served, strict=True)]


def engine_stepper(model: PreTrainedModel, rows: int, max_tokens: int) -> Callable[[], object]:
    """Prefill so many rows, and return a function that runs one decode step on them at each call."""
    engine = engine_for(model, [Request([1 + row] * 7, max_tokens, ignore_eos=True) for row in range(rows)], rows)
    engine.step()
    return engine.step


def time_outside_of_engine(model: PreTrainedModel, requests: list[Request], slots: int) -> Outside:
    """What the engine's step costs besides the forward: scheduling, blocks, the choice of the token, events."""
    engine = engine_for(model, requests, slots)
    with seconds_of_calls(engine.paged, "forward") as forwards:
        timing = timed(engine.run, repeats=1, warmup=0)
    return outside(timing.median_s, forwards, len(requests))


ENGINE_LOOP = Loop(engine_stepper, time_outside_of_engine)
