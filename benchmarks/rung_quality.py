"""What rounding does on each rung to a model that has learned something: the storyteller, with six million parameters.

Random weights are good for timing, but they say little about text. So every rung is also applied to the storyteller:
its perplexity on held-out documents, and how many of its answers stay as they are. A larger model may lose more or
less by the same rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from corpus import documents
from engine_serving import serve_by_engine
from evaluate import document_losses, encode
from helpers import STORYTELLER, Request, load_model, run_continuous
from rungs import Prepare, Rung

SEED, DOCUMENTS = "ladder", 60  # another sample than those of the model card and of Lesson 4
ANSWERS, PROMPT_TOKENS, NEW_TOKENS = 32, 12, 40


def storyteller_quality(rungs: Sequence[Rung], device: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The sample of text, and for every rung the perplexity on it and how many answers are those of fp32."""
    model, tokenizer = load_model(STORYTELLER, device=device)
    encoded = encode(tokenizer, list(documents(SEED, DOCUMENTS, held_out=True)))
    prompts = [Request(ids[:PROMPT_TOKENS], NEW_TOKENS) for ids in encoded[:ANSWERS]]
    unchanged = answers_of(model, prompts)
    made: dict[Prepare, tuple[PreTrainedModel, float]] = {}  # of rungs with the same weights
    tokens, rows = 0, []
    for rung in tqdm(rungs, desc="storyteller"):
        if rung.prepare not in made:
            changed = rung.prepare(model)
            value, tokens = perplexity(changed, encoded)
            made[rung.prepare] = changed, value
        changed, value = made[rung.prepare]
        answers = engine_answers(changed, prompts) if rung.engine else answers_of(changed, prompts)
        rows.append(
            {
                "storyteller_perplexity": value,
                "storyteller_same_answers": sum(map(list.__eq__, answers, unchanged)),
                "storyteller_answers": len(unchanged),
            }
        )
    sample = {
        "documents": len(encoded),
        "tokens": tokens,
        "held_out_documents_of_seed": SEED,
        "answers_begin_with_tokens": PROMPT_TOKENS,
        "answers_have_tokens_at_most": NEW_TOKENS,
    }
    return sample, rows


def answers_of(model: PreTrainedModel, prompts: list[Request]) -> list[list[int]]:
    """The tokens of every answer, served by continuous batching."""
    return [request.output_ids for request in run_continuous(prompts, 8, model=model)]


def engine_answers(model: PreTrainedModel, prompts: list[Request]) -> list[list[int]]:
    """The tokens of every answer, served by the engine."""
    return [request.output_ids for request in serve_by_engine(model, prompts, 8, None)]


def perplexity(model: PreTrainedModel, encoded: list[list[int]]) -> tuple[float, int]:
    """Of these documents: exp of the mean loss over their tokens, and how many tokens there are."""
    losses, counts = zip(*document_losses(model, encoded), strict=True)
    return math.exp(sum(losses) / sum(counts)), sum(counts)
