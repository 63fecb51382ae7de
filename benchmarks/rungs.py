"""The rungs of the ladder. Each removes one waste, and serves the same requests with the public functions of code/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from engine_serving import ENGINE_LOOP, serve_by_engine
from helpers import Request, generate_tokens, run_continuous, run_static
from linear import linear_layers
from measure import Trace
from packed import pack_model, packed_layers
from rung_steps import HELPERS_LOOP, Loop
from utils import quantize_model

Prepare = Callable[[PreTrainedModel], PreTrainedModel]
Serve = Callable[[PreTrainedModel, list[Request], int, Trace | None], list[Request]]


@dataclass(frozen=True)
class Rung:
    """One way to serve the workload.

    Attributes:
        name: as in the table and the figure.
        prepare: makes this rung's model from the float32 one.
        serve: runs the requests on it, with so many slots.
        exact: whether it computes with the same float32 weights as the first rung, so that nothing but the order of
            its sums differs. On a CPU that has changed no token of this workload; on a GPU, where the kernel depends
            on the number of rows, it may.
        packed: whether every linear layer must be packed for it to deserve its name.
        loop: what runs the forwards of its single steps.
        beside: the rung that it is compared with; `None` is the one before.
    """

    name: str
    prepare: Prepare
    serve: Serve
    exact: bool = True
    packed: bool = False
    loop: Loop = HELPERS_LOOP
    beside: str | None = None

    @property
    def engine(self) -> bool:
        """Whether the engine serves it."""
        return self.loop is ENGINE_LOOP


# --- Models ------------------------------------------------------------------------------------------


def as_it_is(model: PreTrainedModel) -> PreTrainedModel:
    """The float32 model itself: several rungs share it."""
    return model


def in_bf16(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in bfloat16."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(torch.bfloat16).to(model.device).eval()


def packed_bf16(model: PreTrainedModel) -> PreTrainedModel:
    """A packed copy in bfloat16."""
    return pack_model(in_bf16(model))


def packed_int8(model: PreTrainedModel) -> PreTrainedModel:
    """A packed copy with 8-bit weights, those of the output head too."""
    return pack_model(quantize_model(model, quantize_head=True))


def why_not_packed(model: nn.Module) -> str | None:
    """Why a model may not be called packed; `None` for one whose linear layers all are."""
    packed, left = len(packed_layers(model)), sum(1 for _ in linear_layers(model))
    if packed and not left:
        return None
    return f"{left} of {packed + left} linear layers could not be packed: this PyTorch or processor lacks the kernel"


# --- Serving -----------------------------------------------------------------------------------------


def one_at_a_time_without_cache(
    model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None
) -> list[Request]:
    """Serve every request alone, without a cache: each forward reads the whole text so far."""
    del slots, trace
    served = []
    for request in requests:
        tokens = list(generate_tokens(model, request.prompt, request.max_tokens, use_cache=False))
        served.append(Request(request.prompt, request.max_tokens, output_ids=tokens))
    return served


def one_at_a_time(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Serve every request alone, with its cache."""
    del slots
    return run_static(requests, 1, model=model, trace=trace)


def static(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Serve batches that stay together until the slowest row is done."""
    return run_static(requests, slots, model=model, trace=trace)


def continuous(model: PreTrainedModel, requests: list[Request], slots: int, trace: Trace | None) -> list[Request]:
    """Serve by continuous batching: a slot gets the next request as soon as it is free."""
    return run_continuous(requests, slots, model=model, trace=trace)


# --- The rungs ---------------------------------------------------------------------------------------


def engine_rung(name: str, prepare: Prepare, beside: str, *, exact: bool = True) -> Rung:
    """The engine on the packed weights of another rung."""
    return Rung(name, prepare, serve_by_engine, exact, packed=True, loop=ENGINE_LOOP, beside=beside)


RUNGS = (
    Rung("one at a time, no cache", as_it_is, one_at_a_time_without_cache),
    Rung("KV cache", as_it_is, one_at_a_time),
    Rung("static batches", as_it_is, static),
    Rung("continuous batching", as_it_is, continuous),
    Rung("packed weights, fp32", pack_model, continuous, packed=True),
    Rung("packed weights, bf16", packed_bf16, continuous, exact=False, packed=True),
    Rung("packed int8, head too", packed_int8, continuous, exact=False, packed=True),
    engine_rung("engine, packed fp32", pack_model, "packed weights, fp32"),
    engine_rung("engine, packed bf16", packed_bf16, "packed weights, bf16", exact=False),
    engine_rung("engine, packed int8", packed_int8, "packed int8, head too", exact=False),
)


def rungs_for(device: str) -> tuple[Rung, ...]:
    """The rungs that make sense there: weights are packed for a CPU's kernels only."""
    if device == "cpu":
        return RUNGS
    return (*(rung for rung in RUNGS if not rung.packed), Rung("bf16", in_bf16, continuous, exact=False))


def find_rung(name: str, device: str) -> Rung:
    """The rung of this name."""
    return next(rung for rung in rungs_for(device) if rung.name == name)


def prepare_models(
    rungs: Sequence[Rung], model: PreTrainedModel
) -> tuple[dict[str, PreTrainedModel], list[dict[str, str]]]:
    """The model of every rung by name, and the rungs that are left out because their weights cannot be packed.

    Rungs with the same weights share one model.
    """
    models, left_out = {}, []
    made: dict[Prepare, PreTrainedModel] = {}
    for rung in rungs:
        prepared = made[rung.prepare] = made.get(rung.prepare) or rung.prepare(model)
        reason = why_not_packed(prepared) if rung.packed else None
        if reason:
            left_out.append({"name": rung.name, "reason": reason})
        else:
            models[rung.name] = prepared
    return models, left_out
