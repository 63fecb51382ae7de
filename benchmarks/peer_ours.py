"""The course's own serving functions and the engine, as systems for `peers.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from engine_serving import serve_by_engine
from helpers import Request, run_continuous, run_static
from peer_worker import RequestIds, Serve
from rungs import why_not_packed
from utils import pack_model, quantize_model

PACKAGES = ("torch", "transformers")
Run = Callable[..., list[Request]]


def load(variant: str, folder: Path, slots: int, threads: int, device: str) -> Serve:
    """`static` and `continuous` serve the model as it is, the others a packed copy: `packed...` by continuous batching,
    `engine...` by the engine.

    Raises ValueError where the layers cannot be packed, as on a GPU: the variant would not be what it is called.
    """
    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if variant.endswith("-bf16") else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    run = run_static if variant == "static" else run_engine if variant.startswith("engine") else run_continuous
    return partial(serve, prepare(variant, model), run, slots)


def prepare(variant: str, model: PreTrainedModel) -> PreTrainedModel:
    """The model that a variant serves."""
    if variant in ("static", "continuous"):
        return model
    if variant == "packed-int8":
        model = quantize_model(model)
    if variant in ("packed-int8-head", "engine-int8-head"):
        model = quantize_model(model, quantize_head=True)
    packed = pack_model(model)
    if reason := why_not_packed(packed):
        raise ValueError(reason)
    return packed


def run_engine(requests: list[Request], slots: int, *, model: PreTrainedModel) -> list[Request]:
    """Serve by the engine, as `run_continuous` does by continuous batching."""
    return serve_by_engine(model, requests, slots, None)


def serve(model: PreTrainedModel, run: Run, slots: int, requests: list[RequestIds]) -> list[list[int]]:
    """Serve these requests by one of the functions of `helpers`, or by the engine."""
    served = run([Request(prompt, budget, ignore_eos=True) for prompt, budget in requests], slots, model=model)
    return [request.output_ids for request in served]
