"""Where the time of a step goes at GPT-2's size: every layer by its name, attention, sampling, scheduling.

The pieces are timed from outside, one by one, in whole steps; what is left of the step is small operations between them
(sums, reshapes) and Python. Watching a step makes it slower, so steps that nobody watches take turns with those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel

import engine.engine as engine_module
import engine.model as model_module
from call_times import seconds_of_calls
from engine import Engine
from engine_serving import engine_for
from engine_sizes import ROWS, Outcome, Sizes, random_prompts
from helpers import Request
from packed import pack_model
from rungs import packed_bf16, packed_int8

WEIGHTS = {"packed fp32": pack_model, "packed bf16": packed_bf16, "packed int8": packed_int8}
CONTEXT, WARMUP = 60, 2  # tokens of each row, steps that do not count
Call = tuple[Any, str]  # an object or module, and the name of one of its functions


def measure(sizes: Sizes) -> Outcome:
    """Take decode steps of eight rows apart, for every kind of weights."""
    model = sizes.gpt2()
    measured = {name: pieces_of_steps(name, prepare(model), sizes.steps) for name, prepare in WEIGHTS.items()}
    return Outcome(measured, table(measured), [])


def pieces_of_steps(label: str, model: PreTrainedModel, steps: int) -> dict[str, Any]:
    """Medians over the steps, in seconds: the whole step, watched and not, and what each piece takes of it."""
    prompts = random_prompts(model, ROWS, CONTEXT)
    requests = [Request(prompt, 2 * (WARMUP + steps) + ROWS, ignore_eos=True) for prompt in prompts]
    engine = engine_for(model, requests, ROWS)
    while any(not request.output_tokens for request in engine.requests.values()):
        engine.step()
    pieces = dict(calls_to_watch(engine))
    watched, plain = [], []
    for turn in tqdm(range(WARMUP + steps), desc=f"{label}, pieces", leave=False):
        whole, parts = plain_step(engine), watched_step(engine, pieces)
        if turn >= WARMUP:
            plain.append(whole)
            watched.append(parts)
    seconds = {name: median(sum(step[name]) for step in watched) for name in ("step", *pieces)}
    step_s = seconds.pop("step")
    return {
        "step_s": median(plain),
        "watched_step_s": step_s,
        "pieces": {
            name: {"seconds": value, "calls": len(watched[-1][name])}
            for name, value in sorted(seconds.items(), key=lambda item: -item[1])
            if watched[-1][name]  # some layers are never called, such as dropout
        },
        "rest_s": median(sum(step["step"]) - sum(sum(step[name]) for name in pieces) for step in watched),
        "steps": steps,
    }


def calls_to_watch(engine: Engine) -> Iterator[tuple[str, list[Call]]]:
    """Pieces of a step that have no part in common, by what they are called."""
    layers: dict[str, list[Call]] = {}
    for name, layer in engine.model.named_modules():
        if not next(layer.children(), None):
            layers.setdefault(piece_name(name, layer), []).append((layer, "forward"))
    yield from layers.items()
    yield "attention: pages gathered", [(engine.paged, "_gather")]
    yield "attention: product", [(F, "scaled_dot_product_attention")]
    yield "attention: keys and values written", [(torch.Tensor, "index_copy_")]
    yield "tables and masks", [(model_module, "Flat")]
    yield "sampling", [(engine_module, "next_tokens")]
    yield "scheduling and blocks", [(engine.scheduler, "schedule"), (engine.scheduler, "done")]


def piece_name(name: str, layer: nn.Module) -> str:
    """What the layers of all blocks have in common.

    >>> piece_name("transformer.h.3.attn.c_attn", nn.GELU())
    'attn.c_attn (GELU)'
    """
    last = re.split(r"\.\d+\.", name)[-1].removeprefix("transformer.").removeprefix("model.")
    return f"{last} ({type(layer).__name__})"


def plain_step(engine: Engine) -> float:
    """A step that nobody watches: its seconds."""
    with seconds_of_calls(engine, "step") as seconds:
        engine.step()
    return seconds[0]


def watched_step(engine: Engine, pieces: dict[str, list[Call]]) -> dict[str, list[float]]:
    """A step, and the seconds of every call of every piece."""
    with ExitStack() as stack:
        calls = {
            name: [stack.enter_context(seconds_of_calls(*call)) for call in watched]
            for name, watched in (*pieces.items(), ("step", [(engine, "step")]))
        }
        engine.step()
    return {name: sum(lists, []) for name, lists in calls.items()}


def table(measured: dict[str, dict[str, Any]]) -> list[str]:
    """A line per piece, a column per kind of weights, in milliseconds; the layers of packed int8 have other names."""
    lines = []
    for name, row in measured.items():
        lines.append(f"{name:44}{'ms':>8}{'calls':>7}{'share':>8}")
        for piece, part in row["pieces"].items():
            share = part["seconds"] / row["watched_step_s"]
            lines.append(f"  {piece:42}{part['seconds'] * 1e3:8.2f}{part['calls']:7}{share:8.1%}")
        lines.append(
            f"  {'between these':42}{row['rest_s'] * 1e3:8.2f}{'':7}{row['rest_s'] / row['watched_step_s']:8.1%}"
        )
        both = f"whole step, watched ({row['step_s'] * 1e3:.2f} ms when it is not)"
        lines.append(f"  {both:42}{row['watched_step_s'] * 1e3:8.2f}")
    return lines
