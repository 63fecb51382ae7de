"""The engine's forward over flat tokens, beside what transformers computes: chunks of prompts, groups of heads."""

from __future__ import annotations

import pytest

from conftest import VOCABULARY, reference, tiny_model
from engine import Engine, Sampling
from helpers import Request

PROMPT = [(7 * place + 3) % VOCABULARY for place in range(23)]


def answer(engine: Engine, prompt: list[int], budget: int) -> list[int]:
    engine.add(prompt, Sampling(budget))
    return engine.run()[0].output_ids


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_prompt_read_in_chunks_of_any_size_gets_the_same_answer(architecture):
    model = tiny_model(architecture)
    wanted = reference(model, Request(PROMPT, 4))
    for tokens in (1, 2, 11, 15, 16, 17, 22, 23, 24):  # of 23 and of a block of 16, before, at and after the boundary
        engine = Engine(model, None, max_rows=1, step_tokens=tokens)
        assert answer(engine, PROMPT, 4) == wanted, f"{tokens} tokens per step"
        assert answer(engine, PROMPT, 4) == wanted, f"{tokens} tokens per step, the first block found in the cache"


def test_neighbouring_query_heads_share_a_key_head():
    """Of 4 query heads 0 and 1 look at key head 0, as `repeat_interleave` has it, not 0 and 2, as `repeat` would."""
    model = tiny_model("llama")
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)
    assert answer(Engine(model, None), PROMPT, 12) == reference(model, Request(PROMPT, 12))


def test_a_preempted_answer_is_read_again_in_chunks_before_it_goes_on(gpt2):
    prompts = [PROMPT[:2], PROMPT[2:4]]
    engine = Engine(gpt2, None, max_rows=2, step_tokens=3, cache_tokens=20, block_tokens=4)
    for prompt in prompts:
        engine.add(prompt, Sampling(16))
    ended, inside_an_answer = [], 0
    while engine.requests:
        ended += [event.request for event in engine.step() if event.finish_reason]
        running = engine.scheduler.running
        inside_an_answer += sum(request.prompt_tokens < request.computed < len(request.ids) - 1 for request in running)
    assert inside_an_answer > 0
    assert [request.output_ids for request in ended] == [reference(gpt2, Request(prompt, 16)) for prompt in prompts]
