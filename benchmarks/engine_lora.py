"""Eight rows of four adapters in one batch beside eight rows without any, and what neighbours with adapters change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from engine import Engine, Request, Sampling
from engine.architectures import adaptable_layers
from engine_sizes import ROWS, Outcome, Sizes, Target, random_prompts
from linear import shape_of
from measure import Comparison, interleaved
from packed import pack_model

ATTENTION, ALL = ("attn.c_attn", "attn.c_proj"), ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
ADAPTERS = ((8, ATTENTION), (4, ALL), (16, ATTENTION), (8, ALL))  # ranks and layers, mixed as in any real server
PROMPT_TOKENS, AT_LEAST = 7, 0.75
Names = Sequence[str | None]


def measure(sizes: Sizes) -> Outcome:
    """Serve rows with and without adapters, in turn, on two models with packed weights."""
    measured, targets = {}, []
    lines = [f"{'':28}{'without ms/token':>17}{'loaded, unused':>16}{'four adapters':>15}{'speed':>8}{'identical':>11}"]
    for name, make in (("GPT-2's size", sizes.gpt2), ("storyteller", sizes.storyteller)):
        row = measured[name] = with_and_without(f"{name}, adapters", make(), sizes)
        without, unused, four = (row["median_s"][key] / sizes.new_tokens * 1e3 for key in row["median_s"])
        identical = f"{row['identical_rows']} of {row['rows_without_an_adapter']}"
        lines.append(f"{name:28}{without:17.1f}{unused:16.1f}{four:15.1f}{row['speed']:8.2f}{identical:>11}")
        plain = f"{name}: rows without an adapter that are bit-identical to those of an engine without adapters"
        targets += [
            Target(f"{name}: speed of eight rows of four adapters, rows without are 1", row["speed"], AT_LEAST),
            Target(plain, row["identical_rows"], row["rows_without_an_adapter"]),
        ]
    return Outcome(measured, lines, targets)


def with_and_without(label: str, model: PreTrainedModel, sizes: Sizes) -> dict[str, Any]:
    """Eight rows in an engine that has no adapter; in one that has four; and eight rows of these four."""
    packed, states = pack_model(model), [adapter_state(model, *adapter, seed) for seed, adapter in enumerate(ADAPTERS)]
    names = [f"adapter {number}" for number in range(len(ADAPTERS))]
    room = ROWS * (PROMPT_TOKENS + sizes.new_tokens + 16)
    bare, loaded = (Engine(packed, None, ROWS, cache_tokens=room) for _ in range(2))
    for name, state in zip(names, states, strict=True):
        loaded.load_adapter(name, state)
    nobody: Names = [None] * ROWS
    timings = interleaved(
        {
            "none loaded": partial(serve, bare, nobody, sizes.new_tokens),
            "loaded, unused": partial(serve, loaded, nobody, sizes.new_tokens),
            "four adapters": partial(serve, loaded, names * 2, sizes.new_tokens),
        },
        repeats=sizes.repeats,
        progress=label,
    )
    mixed: Names = [name for some in names for name in (None, some)]
    with_neighbours, alone = serve(loaded, mixed, sizes.new_tokens, 2), serve(bare, nobody, sizes.new_tokens, 2)
    same = [one.logprobs == other.logprobs for one, other in zip(with_neighbours[::2], alone[::2], strict=True)]
    changed = [one.logprobs != other.logprobs for one, other in zip(with_neighbours[1::2], alone[1::2], strict=True)]
    return {
        "seconds": {name: list(timing.seconds) for name, timing in timings.items()},
        "median_s": {name: timing.median_s for name, timing in timings.items()},
        "speed": Comparison(timings["none loaded"], timings["four adapters"]).ratio,
        "speed_loaded_unused": Comparison(timings["none loaded"], timings["loaded, unused"]).ratio,
        "adapters": [{"rank": rank, "layers": list(layers)} for rank, layers in ADAPTERS],
        "rows_without_an_adapter": len(same),
        "identical_rows": sum(same),
        "rows_that_their_adapter_changes": sum(changed),
    }


def serve(engine: Engine, adapters: Names, new_tokens: int, logprobs: int | None = None) -> list[Request]:
    """A row per adapter or `None`, each with a prompt of its own."""
    for prompt, adapter in zip(random_prompts(engine.model, len(adapters), PROMPT_TOKENS), adapters, strict=True):
        engine.add(prompt, Sampling(new_tokens, ignore_eos=True, logprobs=logprobs), adapter)
    return engine.run()


def adapter_state(model: PreTrainedModel, rank: int, ends: Sequence[str], seed: int) -> dict[str, Tensor]:
    """An adapter with random weights, in the form that `utils.lora_state_dict` returns."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, layer in adaptable_layers(model).items():
        if name.endswith(tuple(ends)):
            out_features, in_features = shape_of(layer)
            state[f"{name}.lora_a"] = torch.randn(rank, in_features, generator=generator) * in_features**-0.5
            state[f"{name}.lora_b"] = torch.randn(out_features, rank, generator=generator) * 0.02
    return state
