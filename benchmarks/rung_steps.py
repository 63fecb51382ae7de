"""Where the seconds of a rung go: one decode step, the work of the loop around the model, the bytes of a forward."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from transformers import PreTrainedModel

from helpers import Request, generate_next_token, init_batch, run_continuous
from measure import Timing, interleaved, seconds_inside, timed
from utils import size_in_bytes

WARMUP_STEPS = 2
Key = TypeVar("Key", bound=Hashable)
Step = Callable[[], object]
Outside = dict[str, float]


@dataclass(frozen=True)
class Loop:
    """What runs a model's forwards.

    Attributes:
        stepper: (model, rows, max_tokens) -> a function that runs one decode step at each call.
        time_outside: (model, requests, slots) -> what serving costs besides the forwards.
    """

    stepper: Callable[[PreTrainedModel, int, int], Step]
    time_outside: Callable[[PreTrainedModel, list[Request], int], Outside]


def decode_steps(
    loops: Mapping[Key, tuple[Loop, PreTrainedModel]], row_counts: Sequence[int], repeats: int
) -> dict[Key, dict[int, Timing]]:
    """How long one decode step of every model takes, for each number of rows in the batch; all are timed in turn."""
    steps = {
        (key, rows): loop.stepper(model, rows, WARMUP_STEPS + repeats + 1)
        for key, (loop, model) in loops.items()
        for rows in row_counts
    }
    timings = interleaved(steps, repeats=repeats, warmup=WARMUP_STEPS, progress="decode steps")
    return {key: {rows: timings[key, rows] for rows in row_counts} for key in loops}


def stepper(model: PreTrainedModel, rows: int, max_tokens: int) -> Step:
    """Prefill a batch of so many rows, and return a function that runs one decode step on it at each call."""
    batch = generate_next_token(init_batch([Request([1 + row] * 7, max_tokens) for row in range(rows)]), model)

    def step() -> None:
        nonlocal batch
        batch = generate_next_token(batch, model)

    return step


def time_outside(model: PreTrainedModel, requests: list[Request], slots: int) -> Outside:
    """What serving costs besides the model's forwards: queue, masks, argmax, merging and filtering the cache."""
    with seconds_inside(model) as forwards:
        timing = timed(partial(run_continuous, requests, slots, model=model), repeats=1, warmup=0)
    return outside(timing.median_s, forwards, len(requests))


def outside(total_s: float, forwards: Sequence[float], requests: int) -> Outside:
    """What of the seconds of a run was not spent in its forwards, per forward and as a share."""
    outside_s = total_s - sum(forwards)
    return {
        "requests": requests,
        "forwards": len(forwards),
        "seconds_per_forward": outside_s / len(forwards),
        "share_of_the_time": outside_s / total_s,
    }


HELPERS_LOOP = Loop(stepper, time_outside)


def bytes_read(model: PreTrainedModel) -> int:
    """Bytes of weights that one forward reads: all of them, without an embedding that is only looked up."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tensors = [{id(t) for t in (*layer.parameters(), *layer.buffers())} for layer in (embedding, head)]
    tied = bool(tensors[0] & tensors[1])
    return size_in_bytes(model) - (0 if tied else size_in_bytes(embedding))
