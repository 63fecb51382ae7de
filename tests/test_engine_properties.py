"""The law of the engine, searched for counterexamples by hypothesis: whatever happens, everybody gets the answer
that the request gets alone.

Tiny random models in float64, requests that begin alike, adapters, a cache that is too small for all of them.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import test_properties  # noqa: F401  (loads the profile)
from conftest import tiny_model
from engine import Engine, Event, Sampling
from engine.text import INCOMPLETE
from engine_invariants import check_schedule
from test_engine_adapters import adapter
from test_engine_sampling import alone
from test_engine_text import by_hand, decoded

BEGINNINGS = [list(range(40, 54)), list(range(40, 48)), [1, 2]]
PROMPTS = st.builds(list.__add__, st.sampled_from(BEGINNINGS), st.lists(st.integers(1, 2), max_size=2))
LONGEST = 8
BUDGETS = st.integers(1, LONGEST)
SAMPLINGS = [
    {},
    {"temperature": 1.5, "seed": 1},
    {"temperature": 3.0, "seed": 2, "top_k": 40},
    {"temperature": 2.0, "seed": 2, "top_p": 0.9},
]
SEEN: Counter = Counter()
KINDS = """compared, cancelled, preempted, preempted inside an answer, found a prefix, ended by a stop string,
ended by the end of sequence, prefill and decode in one step, several adapters in one step,
other weights under the same name""".replace("\n", " ").split(", ")


@lru_cache(maxsize=8)
def shared_model(architecture: str):
    return tiny_model(architecture)


@lru_cache(maxsize=20_000)
def longest_answer(architecture: str, prompt: tuple[int, ...], kind: int | None, sampling: int) -> list[int]:
    """What a request with the greatest budget gets alone, from the model alone or from PEFT's with the adapter."""
    model = shared_model(architecture) if kind is None else adapter(architecture, kind)[0]
    model.generation_config.eos_token_id = None
    return alone(model, list(prompt), Sampling(max_tokens=LONGEST, **SAMPLINGS[sampling]))


def stop_strings(text: str) -> st.SearchStrategy[tuple[str, ...]]:
    """None, or one of two whole characters that stands in the text."""
    pairs = [text[place : place + 2] for place in range(len(text) - 1)]
    return st.sampled_from([(), *((pair,) for pair in pairs if INCOMPLETE not in pair)])


class Asked:
    """A request as it was asked, and what was told of it."""

    def __init__(self, prompt: list[int], answer: list[int], sampling: Sampling) -> None:
        self.prompt, self.answer, self.sampling = prompt, answer, sampling
        self.ids, self.text, self.reason = [], "", None

    def tell(self, event: Event) -> None:
        assert self.reason is None, "somebody is told more after the end"
        self.ids += event.ids
        self.text += event.text
        self.reason = event.finish_reason

    def check(self, tokenizer, eos: int | None) -> None:
        """Compare with what the request gets alone, cut at its budget, its end or its stop string."""
        ids, budget = self.answer, self.sampling.max_tokens
        length = min([budget, *(ids.index(eos) + 1 for _ in "1" if eos in ids and not self.sampling.ignore_eos)])
        ended = length <= budget and ids[length - 1] == eos and not self.sampling.ignore_eos
        text, tokens = by_hand(tokenizer, ids[: length - ended], self.sampling.stop, 0)
        stopped = tokens < length - ended or text != decoded(tokenizer, ids[: length - ended])
        length = tokens if stopped else length
        if self.reason == "cancelled":
            assert self.ids == ids[: len(self.ids)]
            assert text.startswith(self.text) or stopped
            return
        assert self.ids == ids[:length]
        assert self.text == text
        assert self.reason == ("stop" if stopped or ended else "length")
        SEEN["compared"] += len(self.ids)
        SEEN["ended by a stop string"] += stopped
        SEEN["ended by the end of sequence"] += ended


class Serving(RuleBasedStateMachine):
    """Requests come, are cancelled and end, adapters come and go, in any order, in an engine of any size."""

    architecture = "gpt2"
    tokenizer = None

    @initialize(
        rows=st.integers(1, 4),
        spare=st.integers(0, 12),
        block_tokens=st.sampled_from([1, 3, 4, 16]),
        cache_tokens=st.integers(24, 60),
        eos=st.sampled_from([None, *range(5)]),
        loads=st.lists(st.integers(0, 2), max_size=2),
    )
    def begin(self, rows, spare, block_tokens, cache_tokens, eos, loads):
        model = shared_model(self.architecture)
        self.eos = None
        if eos is not None:
            self.eos = longest_answer(self.architecture, tuple(BEGINNINGS[eos % 3]), None, 0)[eos]
        model.generation_config.eos_token_id = self.eos
        self.sizes = rows, rows + spare
        cache_tokens = max(cache_tokens, 2 * block_tokens)
        self.engine = Engine(model, self.tokenizer, rows, rows + spare, cache_tokens, block_tokens)
        self.asked: dict[int, Asked] = {}
        self.loaded: dict[str, int] = {}
        self.uses: dict[int, str] = {}
        forward = self.engine.paged.forward

        def watched(work):
            assert len(work) <= self.sizes[0] and sum(row.tokens for row in work) <= self.sizes[1]
            SEEN["prefill and decode in one step"] += len({row.request.output_tokens > 0 for row in work}) == 2
            SEEN["several adapters in one step"] += len({row.request.adapter for row in work}) > 2
            return forward(work)

        self.engine.paged.forward = watched
        for name, kind in zip("ab", loads, strict=False):
            self.load(name, kind)

    def alive(self) -> list[int]:
        return [number for number, asked in self.asked.items() if asked.reason is None]

    @rule(
        wishes=st.lists(st.tuples(PROMPTS, BUDGETS, st.sampled_from(range(len(SAMPLINGS)))), min_size=1, max_size=5),
        data=st.data(),
    )
    def add(self, wishes, data):
        for prompt, budget, sampling in wishes:
            name = data.draw(st.sampled_from([None, *self.loaded]), label="adapter")
            answer = longest_answer(self.architecture, tuple(prompt), self.loaded.get(name), sampling)
            ignore_eos = data.draw(st.booleans(), label="ignore_eos")
            stop = data.draw(stop_strings(decoded(self.tokenizer, answer)), label="stop")
            wanted = Sampling(max_tokens=budget, ignore_eos=ignore_eos, stop=stop, **SAMPLINGS[sampling])
            number = self.engine.add(prompt, wanted, adapter=name)
            self.asked[number] = Asked(prompt, answer, wanted)
            self.uses[number] = name

    @rule(steps=st.integers(1, 4))
    def step(self, steps):
        for _ in range(steps):
            self.one_step()

    def one_step(self):
        running = list(self.engine.scheduler.running)
        for event in self.engine.step():
            self.asked[event.number].tell(event)
        preempted = [request for request in running if request.number in self.engine.scheduler.waiting]
        SEEN["preempted"] += len(preempted)
        SEEN["preempted inside an answer"] += any(request.output_tokens for request in preempted)
        SEEN["found a prefix"] += any(request.cached_tokens for request in self.engine.scheduler.running)

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(self.alive()))
        self.engine.cancel(number)
        assert number not in self.engine.requests
        SEEN["cancelled"] += 1

    @rule(name=st.sampled_from("ab"), kind=st.integers(0, 2))
    def change_adapter(self, name, kind):
        self.load(name, kind)

    def load(self, name, kind):
        if name in self.loaded:
            if any(self.uses.get(number) == name for number in self.engine.requests):
                with pytest.raises(ValueError, match="in use"):
                    self.engine.unload_adapter(name)
                return
            self.engine.unload_adapter(name)
            SEEN["other weights under the same name"] += self.loaded[name] != kind
        self.engine.load_adapter(name, adapter(self.architecture, kind)[1])
        self.loaded[name] = kind

    @rule(wrong=st.sampled_from([{"prompt": []}, {"prompt": [1] * 99}, {"adapter": "c"}, {"sampling": Sampling(0)}]))
    def ask_what_cannot_be(self, wrong):
        before = list(self.engine.requests)
        with pytest.raises(ValueError):
            self.engine.add(**{"prompt": [1], **wrong})
        assert list(self.engine.requests) == before

    @invariant()
    def whatever_must_hold_holds(self):
        if hasattr(self, "engine"):
            check_schedule(self.engine.scheduler)
            waiting_or_running = {request.number for request in self.engine.scheduler.running}
            assert waiting_or_running | set(self.engine.scheduler.waiting) == set(self.engine.requests)

    def teardown(self):
        if not hasattr(self, "engine"):
            return
        for _ in range(1000):
            if not self.alive():
                break
            self.one_step()
            self.whatever_must_hold_holds()
        assert not self.alive() and not self.engine.requests, "some request is never served"
        blocks = self.engine.scheduler.blocks
        assert blocks.available == blocks.count
        for asked in self.asked.values():
            asked.check(self.tokenizer, self.eos)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_whatever_happens_everybody_gets_the_answer_that_the_request_gets_alone(architecture, tokenizer):
    SEEN.clear()
    machine = type(f"Serving{architecture}", (Serving,), {"architecture": architecture, "tokenizer": tokenizer})
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=25))
    assert all(SEEN[kind] for kind in KINDS), SEEN
