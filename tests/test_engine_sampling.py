"""How the engine chooses tokens, beside what transformers lets through; what a request gets alone, for all tests."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import test_properties  # noqa: F401  (loads the profile)
from conftest import VOCABULARY, tiny_model
from engine import Engine, Sampling
from engine.request import Request
from engine.sampling import FEW, candidates, drawn_token, next_tokens


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities (V,) that transformers would draw from."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return steps(None, logits[None].double())[0].softmax(-1)


def likeliest_first(probabilities: torch.Tensor) -> list[int]:
    return sorted(range(len(probabilities)), key=lambda token: (-float(probabilities[token]), token))


@torch.no_grad()
def alone(model: nn.Module, prompt: list[int], sampling: Sampling, eos: int | None = None) -> list[int]:
    """The ids that a request gets alone: from `model.generate`, or drawn one by one, with the whole sequence read anew.

    Stop strings are not looked at.
    """
    shortest = 0 if sampling.ignore_eos else sampling.min_tokens
    eos = None if sampling.ignore_eos else eos
    ids = torch.tensor([prompt])
    if not sampling.temperature:
        budget = {"max_new_tokens": sampling.max_tokens, "min_new_tokens": shortest if eos is not None else None}
        mask = torch.ones_like(ids)
        made = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0, eos_token_id=eos, **budget
        )
        return made[0, len(prompt) :].tolist()
    random, answer = Random(sampling.seed), []
    while len(answer) < sampling.max_tokens and (not answer or answer[-1] != eos):
        logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0, -1]
        if eos is not None and len(answer) < shortest:
            logits[eos] = -torch.inf
        answer.append(drawn(warped(logits, sampling), sampling, random.random()))
    return answer


def drawn(probabilities: torch.Tensor, sampling: Sampling, u: float) -> int:
    """The token at the fraction u of the probability, counted up one by one."""
    plain = not sampling.top_k and sampling.top_p == 1
    order = range(len(probabilities)) if plain else likeliest_first(probabilities)
    total = 0.0
    for token in order:
        total += float(probabilities[token])
        if total > u:
            return token
    return order[-1]


SAMPLINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.7, top_k=5),
    Sampling(temperature=1.3, top_p=0.8),
    Sampling(temperature=2.0, top_k=20, top_p=0.5),
    Sampling(temperature=0.01, top_p=0.01),
    Sampling(temperature=1.0, top_k=1),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_the_tokens_that_can_be_chosen_are_those_of_transformers(sampling):
    logits = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    probabilities, tokens = candidates(logits, sampling)
    found = torch.zeros(300, dtype=torch.float64)
    found[tokens] = probabilities / probabilities.sum()
    assert (found - warped(logits, sampling)).abs().max() < 1e-12


@pytest.mark.parametrize("sampling", SAMPLINGS[:4], ids=str)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling):
    logits, random, draws = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -30.0]), Random(5), 4000
    seen = Counter(drawn_token(logits, sampling, random.random()) for _ in range(draws))
    wanted = warped(logits, sampling)
    assert all(abs(seen[token] / draws - float(wanted[token])) < 0.03 for token in range(6))


@given(u=st.floats(0, 1, exclude_max=True), values=st.lists(st.integers(-50, 50), min_size=1, max_size=9, unique=True))
def test_a_drawn_token_is_one_that_can_be_chosen(u, values):
    logits = torch.tensor(values, dtype=torch.float64)
    for sampling in SAMPLINGS:
        assert float(warped(logits, sampling)[drawn_token(logits, sampling, u)]) > 0


def test_a_fraction_that_rounds_up_to_everything_takes_the_last_token():
    logits = torch.tensor([0.3, 0.2, 0.1]).log()
    assert drawn_token(logits, Sampling(temperature=1.0), 1 - 2**-53) == 2
    assert drawn_token(logits, Sampling(temperature=1.0, top_k=2), 1.0) == 1


def test_a_temperature_near_zero_is_greedy_and_no_number_overflows():
    logits = torch.tensor([1e4, -1e4, 1e4 - 1])
    assert drawn_token(logits, Sampling(temperature=1e-300), 0.999) == 0


def test_numbers_beyond_the_vocabulary_are_its_size():
    model = tiny_model("gpt2")
    engine = Engine(model, None)
    engine.add([1], Sampling(3, temperature=1.0, seed=1, top_k=10**30, logprobs=2))
    engine.add([1], Sampling(3, temperature=1.0, seed=1, top_k=VOCABULARY))
    first, second = engine.run()
    assert first.output_ids == second.output_ids
    request = Request(0, [1], 1, Sampling(logprobs=20), None, None, 0.0)
    next_tokens(torch.tensor([[1.0, 2.0, 3.0]]), [request], ())
    assert len(request.logprobs[0].likeliest) == 3


def test_with_a_top_p_of_zero_the_likeliest_token_is_left():
    assert drawn_token(torch.tensor([0.0, 1.0, 0.5]), Sampling(temperature=9.0, top_p=0), 0.99) == 1


def test_of_tokens_equally_likely_greedy_takes_the_first_as_transformers_does():
    request = Request(0, [1], 1, Sampling(), None, None, 0.0)
    assert next_tokens(torch.tensor([[0.0, 3.0, 3.0]]), [request], ()) == [1]


# --- Seeds -------------------------------------------------------------------------------------------


def served(model: nn.Module, wanted: list[tuple[list[int], Sampling]], **options) -> list[list[int]]:
    engine = Engine(model, None, **options)
    for prompt, sampling in wanted:
        engine.add(prompt, sampling)
    return [request.output_ids for request in engine.run()]


def test_a_seeded_answer_does_not_depend_on_its_neighbours():
    model, prompt = tiny_model("gpt2"), [7, 8, 9]
    mine = Sampling(max_tokens=12, temperature=1.0, seed=3)
    others = [(prompt, Sampling(max_tokens=9, temperature=1.0)), (prompt, Sampling(max_tokens=9))]
    answers = [served(model, [*others[:count], (prompt, mine), *others[:count]])[count] for count in range(3)]
    assert answers == [alone(model, prompt, mine)] * 3
    assert served(model, [(prompt, Sampling(max_tokens=12, temperature=1.0, seed=4))]) != answers[:1]


def test_two_rows_of_one_seed_get_the_same_and_rows_without_a_seed_do_not():
    model, prompt = tiny_model("gpt2"), [7, 8, 9]
    seeded, free = (Sampling(max_tokens=12, temperature=2.0, seed=seed) for seed in (1, None))
    first, second, third, fourth = served(model, [(prompt, seeded), (prompt, free), (prompt, seeded), (prompt, free)])
    assert first == third and second != fourth


def test_the_global_random_state_is_left_alone():
    import random

    before = random.getstate(), torch.get_rng_state()
    served(tiny_model("gpt2"), [([1, 2], Sampling(max_tokens=4, temperature=1.0))])
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


# --- Log probabilities and the shortest answer -------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_log_probabilities_are_the_models_own(temperature):
    model, prompt = tiny_model("llama"), [5, 6, 7]
    engine = Engine(model, None)
    engine.add(prompt, Sampling(max_tokens=6, temperature=temperature, seed=0, logprobs=3))
    engine.add(prompt, Sampling(max_tokens=6))
    request, silent = engine.run()
    assert [entry.token for entry in request.logprobs] == request.output_ids and not silent.logprobs
    with torch.no_grad():
        logits = model(torch.tensor([request.ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    for entry, row in zip(request.logprobs, logits, strict=True):
        assert abs(entry.logprob - float(row[entry.token])) < 1e-9
        values, ids = row.topk(3)
        assert [token for token, _ in entry.likeliest] == ids.tolist()
        assert all(abs(one - two) < 1e-9 for (_, one), two in zip(entry.likeliest, values.tolist(), strict=True))


def test_log_probabilities_are_of_what_the_model_said_before_the_end_was_forbidden():
    request, logits = (
        Request(0, [1], 1, Sampling(min_tokens=1, logprobs=1), None, None, 0.0),
        torch.tensor([[0.0, 3, 1]]),
    )
    wanted = logits[0].double().log_softmax(-1)
    assert next_tokens(logits, [request], {1}) == [2]
    assert request.logprobs == [(2, pytest.approx(float(wanted[2])), [(1, pytest.approx(float(wanted[1])))])]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("min_tokens", [0, 1, 5, 8])
def test_no_answer_is_shorter_than_its_shortest(temperature, min_tokens):
    model, prompt = tiny_model("gpt2"), [5, 6, 7]
    sampling = Sampling(max_tokens=8, temperature=temperature, seed=0, min_tokens=min_tokens)
    eos = alone(model, prompt, sampling)[2]
    model.generation_config.eos_token_id = eos
    (answer,) = served(model, [(prompt, sampling)])
    assert answer == alone(model, prompt, sampling, eos)
    assert len(answer) >= min_tokens and eos not in answer[:min_tokens]
    assert (eos in answer) or min_tokens > 2


def sorted_candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """What `candidates` is to give, by sorting everything."""
    probabilities = ((logits.double() - logits.double().max()) / sampling.temperature).softmax(-1)
    probabilities, tokens = probabilities.sort(descending=True, stable=True)
    probabilities, tokens = probabilities[: sampling.top_k or None], tokens[: sampling.top_k or None]
    kept = probabilities.cumsum(-1) - probabilities < sampling.top_p * probabilities.sum()
    kept[0] = True
    return probabilities[kept], tokens[kept]


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("step", [0.0, 0.5])
def test_the_candidates_are_those_that_sorting_everything_gives(spread, step):
    """With many equal logits (in steps), nuclei of a few tokens and of nearly all, alone and after top-k."""
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * spread
    logits = (logits / step).round() * step if step else logits
    sizes = set()
    for top_p in (0.0, 0.1, 0.5, 0.9, 0.999):
        for top_k in (0, 1, 5, 300, 1000, 5000):
            sampling = Sampling(temperature=0.8, top_p=top_p, top_k=top_k)
            (given, ids), (wanted, wanted_ids) = candidates(logits, sampling), sorted_candidates(logits, sampling)
            assert torch.equal(ids, wanted_ids)
            assert torch.allclose(given, wanted, rtol=1e-12)
            sizes.add(len(ids))
    assert min(sizes) == 1 and max(sizes) > 2 * FEW * (spread < 5)
