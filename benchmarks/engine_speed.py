"""The engine beside `run_continuous` on the same weights and requests: GPT-2's size, and the storyteller."""

from __future__ import annotations

from functools import partial
from typing import Any

from transformers import PreTrainedModel

from engine_serving import serve_by_engine
from engine_sizes import Outcome, Sizes, Target
from helpers import run_continuous
from measure import compare
from packed import pack_model

AT_LEAST = {"GPT-2's size, packed fp32": 1.15, "storyteller, packed fp32": 2.0, "storyteller, fp32 as it is": 2.0}


def measure(sizes: Sizes) -> Outcome:
    """Serve the workload by both, in turn."""
    storyteller = sizes.storyteller()
    models = (pack_model(sizes.gpt2()), pack_model(storyteller), storyteller)
    measured = {name: beside_continuous(name, model, sizes) for name, model in zip(AT_LEAST, models, strict=True)}
    lines = [f"{'':28}{'run_continuous s':>17}{'engine s':>10}{'tokens/s':>10}{'times':>7}{'same answers':>14}"]
    targets = []
    for name, row in measured.items():
        same = f"{row['same_answers']} of {row['requests']}"
        lines.append(
            f"{name:28}{row['continuous_median_s']:17.2f}{row['engine_median_s']:10.2f}"
            f"{row['engine_tokens_per_s']:10.0f}{row['times_as_fast']:7.2f}{same:>14}"
        )
        targets.append(Target(f"{name}: times as fast as run_continuous", row["times_as_fast"], AT_LEAST[name]))
        targets.append(Target(f"{name}: answers that stay the same", row["same_answers"], row["requests"]))
    return Outcome(measured, lines, targets)


def beside_continuous(name: str, model: PreTrainedModel, sizes: Sizes) -> dict[str, Any]:
    """Both ways to serve the same requests on one model."""
    requests, slots = sizes.workload.make(model.get_input_embeddings().num_embeddings), sizes.workload.slots
    continuous = partial(run_continuous, requests, slots, model=model)
    engine = partial(serve_by_engine, model, requests, slots, None)
    same = [one.output_ids == other.output_ids for one, other in zip(continuous(), engine(), strict=True)]  # and warm
    comparison = compare(continuous, engine, repeats=sizes.repeats, warmup=0, progress=name)
    tokens = sum(request.max_tokens for request in requests)
    return {
        "continuous_s": list(comparison.a.seconds),
        "engine_s": list(comparison.b.seconds),
        "continuous_median_s": comparison.a.median_s,
        "engine_median_s": comparison.b.median_s,
        "engine_tokens_per_s": tokens / comparison.b.median_s,
        "times_as_fast": comparison.ratio,
        "same_answers": sum(same),
        "requests": len(requests),
    }
