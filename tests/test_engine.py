"""The engine, one thing at a time: answers, events, times, cancelling, a full cache, what is refused."""

from __future__ import annotations

import ast
import doctest
import importlib
from itertools import count
from pathlib import Path

import pytest
import torch

import engine
from conftest import ARCHITECTURES, CONTEXT, VOCABULARY, random_requests, reference, tiny_model
from engine import Engine, EngineFull, Sampling
from engine.text import TextStream
from engine_invariants import check_schedule
from helpers import load_model, run_continuous
from utils import pack_model, quantize_model

SERVED = [name for name in ARCHITECTURES if name != "gpt_neox"]
SIZES = [{}, {"max_rows": 1}, {"max_rows": 3, "step_tokens": 5, "cache_tokens": 32, "block_tokens": 4}]


def answers(engine: Engine) -> list[list[int]]:
    return [request.output_ids for request in engine.run()]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("architecture", SERVED)
def test_answers_are_those_of_generate(architecture, sizes):
    model = tiny_model(architecture)
    requests = [request for request in random_requests(16) if request.max_tokens]
    engine = Engine(model, None, **sizes)
    for request in requests:
        engine.add(request.prompt, Sampling(request.max_tokens))
    assert answers(engine) == [reference(model, request) for request in requests]
    check_schedule(engine.scheduler)
    assert engine.scheduler.blocks.available == engine.scheduler.blocks.count


@pytest.mark.parametrize("how", ["plain", "packed", "quantized", "packed and quantized"])
def test_answers_are_those_of_run_continuous_on_the_same_layers(how):
    model, tokenizer = load_model()
    model = quantize_model(model, quantize_head=True) if "quantized" in how else model
    model = pack_model(model) if "packed" in how else model
    requests = [(prompt, budget) for prompt in ("Once upon a time", "The fox", "A letter:") for budget in (3, 12, 25)]
    engine = Engine(model, tokenizer, max_rows=4, step_tokens=10)
    for prompt, budget in requests:
        engine.add(prompt, Sampling(budget))
    assert answers(engine) == [r.output_ids for r in run_continuous(requests, 4, model=model, tokenizer=tokenizer)]


def test_another_architecture_is_told_who_serves_it():
    with pytest.raises(ValueError, match="GPTNeoXForCausalLM.*run_continuous"):
        Engine(tiny_model("gpt_neox"), None)


@pytest.mark.parametrize("change", [{"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}])
def test_a_sliding_window_is_refused(change):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**{**tiny_model("qwen3").config.to_dict(), "layer_types": None, **change})
    with pytest.raises(ValueError, match="sliding_attention"):
        Engine(Qwen3ForCausalLM(config), None)


@pytest.mark.parametrize("options", [{"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}], ids=str)
def test_gpt2s_ways_to_scale_attention(options):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**{**tiny_model("gpt2").config.to_dict(), **options})).double().eval()
    engine = Engine(model, None)
    requests = [request for request in random_requests(4) if request.max_tokens]
    for request in requests:
        engine.add(request.prompt, Sampling(request.max_tokens))
    assert answers(engine) == [reference(model, request) for request in requests]


@pytest.mark.parametrize(
    "rope", [{"rope_type": "linear", "factor": 4.0}, {"rope_type": "yarn", "factor": 2.0}], ids=str
)
def test_rotary_positions_of_other_kinds(rope):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**tiny_model("llama").config.to_dict())
    config.rope_parameters = {"rope_theta": 10_000.0, **rope}
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval()
    engine = Engine(model, None)
    requests = [request for request in random_requests(4) if request.max_tokens]
    for request in requests:
        engine.add(request.prompt, Sampling(request.max_tokens))
    assert answers(engine) == [reference(model, request) for request in requests]


def test_rotary_positions_that_change_with_the_length_are_refused():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**tiny_model("llama").config.to_dict())
    config.rope_parameters = {"rope_theta": 10_000.0, "rope_type": "dynamic", "factor": 2.0}
    with pytest.raises(ValueError, match="'dynamic'"):
        Engine(LlamaForCausalLM(config), None)


# --- Events and times --------------------------------------------------------------------------------


def test_events_tell_every_token_once_and_the_end_once(gpt2):
    engine = Engine(gpt2, None, max_rows=2, step_tokens=4)
    numbers = [engine.add([1, 2, 3, 4, 5, 6], Sampling(budget)) for budget in (1, 3, 5)]
    told, ends = {number: [] for number in numbers}, {}
    while engine.requests:
        for event in engine.step():
            assert event.number not in ends
            told[event.number] += event.ids
            if event.finish_reason:
                ends[event.number] = event.finish_reason, event.request
    assert numbers == [0, 1, 2] and set(ends) == set(numbers)
    assert all(request.output_ids == told[number] for number, (_, request) in ends.items())
    assert [len(told[number]) for number in numbers] == [1, 3, 5]
    assert {reason for reason, _ in ends.values()} == {"length"}


def test_a_request_that_comes_later_gets_the_same_answer(gpt2):
    engine, ended = Engine(gpt2, None, max_rows=2), []
    engine.add([1, 2, 3], Sampling(9))
    for _ in range(4):
        engine.step()
    engine.add([7, 8], Sampling(5))
    ended = engine.run()
    engine.add([1, 2, 3], Sampling(9))
    again = engine.run()
    assert [request.number for request in ended + again] == [0, 1, 2]
    assert ended[0].output_ids == again[0].output_ids != ended[1].output_ids


def test_an_idle_engine_does_nothing(gpt2):
    engine = Engine(gpt2, None)
    assert engine.step() == [] and engine.run() == []


def test_every_time_stamp_lies_in_the_request(gpt2):
    engine, ticks = Engine(gpt2, None, max_rows=1, step_tokens=2), count()
    engine.clock = lambda: float(next(ticks))
    first, second = engine.add([1, 2, 3], Sampling(2)), engine.add([4], Sampling(2))
    third = engine.add([5], Sampling(2))
    engine.cancel(third)
    ended = {request.number: request for request in engine.run()}
    assert [ended[number].arrival_s for number in (first, second, third)] == [0, 1, 2]
    assert (ended[third].end_s, ended[third].token_times_s) == (3, [])
    assert ended[first].token_times_s == [5, 6] and ended[first].end_s == 6  # the prompt takes two steps: 4 and 5
    assert ended[second].token_times_s == [7, 8] and ended[second].end_s == 8


def test_one_step_is_one_forward_and_reads_no_more_than_its_budget(gpt2):
    engine, read = Engine(gpt2, None, max_rows=3, step_tokens=7), []
    forward = engine.paged.forward
    engine.paged.forward = lambda work: read.append(sum(row.tokens for row in work)) or forward(work)
    for length in (20, 3, 9):
        engine.add([1] * length, Sampling(4))
    steps = 0
    while engine.requests:
        engine.step()
        steps += 1
    assert len(read) == steps and max(read) == 7


def test_a_long_prompt_does_not_hold_up_those_who_decode(gpt2):
    engine = Engine(gpt2, None, max_rows=4, step_tokens=8)
    early = [engine.add([number, 2], Sampling(20)) for number in range(3)]
    engine.step()
    engine.add([1] * 60, Sampling(1))
    for _ in range(8):
        assert {event.number for event in engine.step()} >= set(early)


# --- Cancelling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 6])
def test_whoever_is_cancelled_leaves_nothing_behind_and_disturbs_nobody(gpt2, steps):
    engine = Engine(gpt2, None, max_rows=2, step_tokens=4)
    prompts = [[1, 2, 3], [4] * 12, [5, 6]]
    numbers = [engine.add(prompt, Sampling(8)) for prompt in prompts]
    told = [event for _ in range(steps) for event in engine.step()]
    engine.cancel(numbers[1])
    check_schedule(engine.scheduler)
    assert numbers[1] not in engine.requests
    (event,) = [event for event in engine.step() if event.number == numbers[1]]
    assert (event.text, event.ids, event.finish_reason) == ("", [], "cancelled")
    assert event.request.output_ids == [token for told in told if told.number == numbers[1] for token in told.ids]
    engine.cancel(numbers[1])
    ended = engine.run()
    assert [request.output_ids for request in ended] == [served_alone(gpt2, prompts[0]), served_alone(gpt2, prompts[2])]
    assert engine.scheduler.blocks.available == engine.scheduler.blocks.count


def served_alone(model, prompt, budget=8):
    engine = Engine(model, None)
    engine.add(prompt, Sampling(budget))
    return engine.run()[0].output_ids


def test_a_run_in_which_all_are_cancelled_ends(gpt2):
    engine = Engine(gpt2, None)
    number = engine.add([1, 2], Sampling(8))
    engine.cancel(number)
    (request,) = engine.run()
    assert request.finish_reason == "cancelled" and engine.run() == []


@pytest.mark.parametrize("number", [1, -1, None, "0"])
def test_nobody_can_be_cancelled_who_was_never_there(gpt2, number):
    engine = Engine(gpt2, None)
    engine.add([1, 2], Sampling(1))
    with pytest.raises(ValueError, match="there is no request .*; 1 were added, counted from 0"):
        engine.cancel(number)


# --- A full cache, a shared prefix, a forward that fails ---------------------------------------------


def test_a_preempted_request_goes_on_where_it_was(tokenizer):
    model = tiny_model("gpt2")
    engine = Engine(model, tokenizer, max_rows=2, cache_tokens=20, block_tokens=4)
    prompts, sampling = [[1] * 7, [2] * 7], Sampling(12, temperature=1.0, seed=5, logprobs=0)
    for prompt in prompts:
        engine.add(prompt, sampling)
    preempted, texts = False, ["", ""]
    while engine.requests:
        for event in engine.step():
            texts[event.number] += event.text
            last = event.request if event.number == 1 else None
        preempted |= any(request.output_tokens for request in engine.scheduler.waiting.values())
    assert preempted and last.output_ids == Solo(model, tokenizer, prompts[1], sampling).output_ids
    assert texts[1] == last.text == Solo(model, tokenizer, prompts[1], sampling).text
    assert len(last.token_times_s) == len(last.logprobs) == 12


def Solo(model, tokenizer, prompt, sampling):
    engine = Engine(model, tokenizer, max_rows=1)
    engine.add(prompt, sampling)
    return engine.run()[0]


@pytest.mark.parametrize("architecture", SERVED)
@pytest.mark.parametrize("length", [15, 16, 17, 31, 32, 33])
def test_a_prompt_that_was_read_before_is_not_read_again(architecture, length):
    model, prompt = tiny_model(architecture), list(range(length))
    engine = Engine(model, None)
    read, forward = [], engine.paged.forward
    engine.paged.forward = lambda work: read.append(work[0].tokens) or forward(work)
    served = []
    for _ in range(2):
        engine.add(prompt, Sampling(5))
        served += engine.run()
    assert served[0].output_ids == served[1].output_ids == served_alone(model, prompt, 5)
    assert [request.cached_tokens for request in served] == [0, (length - 1) // 16 * 16]
    assert read[5] == length - (length - 1) // 16 * 16


def test_an_answer_is_a_prefix_for_the_next_question(gpt2):
    engine = Engine(gpt2, None)
    engine.add([1] * 10, Sampling(25))
    (first,) = engine.run()
    engine.add(first.ids + [9], Sampling(5))
    (second,) = engine.run()
    assert second.cached_tokens == 32 and second.output_ids == served_alone(gpt2, first.ids + [9], 5)


def test_after_a_forward_that_failed_the_step_can_be_repeated(gpt2):
    engine = Engine(gpt2, None, max_rows=3, step_tokens=5, cache_tokens=32, block_tokens=4)
    prompts, forward, calls = [[1] * 7, [2] * 3, [3] * 9], engine.paged.forward, count()

    def sometimes(work):
        if next(calls) % 3 == 1:
            raise torch.OutOfMemoryError("too much")
        return forward(work)

    engine.paged.forward = sometimes
    for prompt in prompts:
        engine.add(prompt, Sampling(8))
    ended, failed = [], 0
    while engine.requests:
        try:
            ended += [event.request for event in engine.step() if event.finish_reason]
        except torch.OutOfMemoryError:
            failed += 1
            check_schedule(engine.scheduler)
    assert failed > 3
    ended = sorted(ended, key=lambda request: request.number)
    assert [request.output_ids for request in ended] == [served_alone(gpt2, prompt) for prompt in prompts]


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
@pytest.mark.parametrize("where", ["in the forward", "in the text"])
def test_the_requests_of_a_step_that_failed_can_be_cancelled_and_the_others_go_on(
    gpt2, tokenizer, monkeypatch, steps, where
):
    engine = Engine(gpt2, tokenizer, max_rows=2, step_tokens=8, cache_tokens=40, block_tokens=4)
    prompts, concerned = [[1] * 3, [2] * 12, [3] * 4, [4] * 5], set()
    forward, blocks = engine.paged.forward, engine.scheduler.blocks
    for prompt in prompts:
        engine.add(prompt, Sampling(6))
    told = [event for _ in range(steps) for event in engine.step()]

    def watched(work):
        concerned.update(row.request.number for row in work)
        return forward(work) if where == "in the text" else 1 / 0

    with monkeypatch.context() as patch:
        patch.setattr(engine.paged, "forward", watched)
        patch.setattr(TextStream, "push", lambda stream, token: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.step()
    assert concerned == {request.number for request in engine.scheduler.running} == {0, 1}
    for number in concerned:
        engine.cancel(number)
    check_schedule(engine.scheduler)
    assert blocks.available == blocks.count and list(engine.requests) == [2, 3]
    ended = engine.run()
    assert [request.finish_reason for request in ended] == ["cancelled", "cancelled", "length", "length"]
    assert [request.output_ids for request in ended[2:]] == [served_alone(gpt2, prompt, 6) for prompt in prompts[2:]]
    assert not any(event.finish_reason for event in told)


# --- What is refused ---------------------------------------------------------------------------------

NAN = float("nan")
REFUSED = [
    ("", {}, ValueError, "the prompt is empty"),
    ([], {}, ValueError, "the prompt is empty"),
    (None, {}, TypeError, "must be text or a list of token ids"),
    ([1.0], {}, TypeError, "must be text or a list of token ids"),
    ([True], {}, TypeError, "must be text or a list of token ids"),
    ([VOCABULARY], {}, ValueError, f"token id {VOCABULARY} is outside .* 0 to {VOCABULARY - 1}"),
    ([-1], {}, ValueError, "token id -1 is outside"),
    ([1] * CONTEXT, {"max_tokens": 1}, ValueError, f"the model's context is {CONTEXT} tokens"),
    (
        [1] * 60,
        {"max_tokens": 6},
        ValueError,
        "60 prompt tokens and max_tokens=6 need 5 blocks of 16 tokens; the cache has 4",
    ),
    ([1], {"max_tokens": 0}, ValueError, "max_tokens is 0; it must be 1 or more"),
    ([1], {"max_tokens": -1}, ValueError, "max_tokens is -1"),
    ([1], {"max_tokens": 1.5}, TypeError, "max_tokens is 1.5; it must be an int"),
    ([1], {"max_tokens": True}, TypeError, "max_tokens is True"),
    ([1], {"min_tokens": 17}, ValueError, "min_tokens is 17; it must be 0 to 16"),
    ([1], {"min_tokens": None}, TypeError, "min_tokens is None"),
    ([1], {"temperature": -0.1}, ValueError, "temperature is -0.1; it must be 0 to 1e\\+308"),
    ([1], {"temperature": NAN}, ValueError, "temperature is nan"),
    ([1], {"temperature": float("inf")}, ValueError, "temperature is inf"),
    ([1], {"temperature": 10**400}, ValueError, "temperature is 1000"),
    ([1], {"temperature": "hot"}, TypeError, "temperature is 'hot'; it must be a number"),
    ([1], {"top_p": -0.1}, ValueError, "top_p is -0.1; it must be 0 to 1"),
    ([1], {"top_p": 1.1}, ValueError, "top_p is 1.1"),
    ([1], {"top_p": NAN}, ValueError, "top_p is nan"),
    ([1], {"top_k": -1}, ValueError, "top_k is -1; it must be 0 or more"),
    ([1], {"seed": -1}, ValueError, "seed is -1; it must be 0 or more"),
    ([1], {"seed": "x"}, TypeError, "seed is 'x'; it must be an int"),
    ([1], {"logprobs": 21}, ValueError, "logprobs is 21; it must be 0 to 20"),
    ([1], {"stop": "end"}, TypeError, "stop is 'end'; it must be a list of strings"),
    ([1], {"stop": [1]}, TypeError, r"stop is \[1\]; it must be a list of strings"),
    ([1], {"stop": ["a", ""]}, ValueError, "an empty string would end every answer"),
    ([1], {"adapter": "pirate"}, ValueError, r"there is no adapter 'pirate'; loaded are \[\]"),
    ([1], {"adapter": ["pirate"]}, ValueError, "there is no adapter"),
]


@pytest.mark.parametrize(("prompt", "wanted", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_served_is_refused_and_changes_nothing(tokenizer, gpt2, prompt, wanted, error, message):
    engine, adapter = Engine(gpt2, tokenizer, cache_tokens=70), wanted.get("adapter")
    options = {name: value for name, value in wanted.items() if name != "adapter"}
    engine.add([1, 2], Sampling(3))
    with pytest.raises(error, match=message):
        engine.add(prompt, Sampling(**options), adapter)
    assert list(engine.requests) == list(engine.scheduler.waiting) == [0]
    assert engine.add([1, 2], Sampling(3)) == 1
    assert [len(request.output_ids) for request in engine.run()] == [3, 3]


def test_without_a_tokenizer_there_is_no_text(gpt2):
    engine = Engine(gpt2, None)
    with pytest.raises(ValueError, match="the prompt is text, but the engine has no tokenizer; give token ids"):
        engine.add("Once")
    with pytest.raises(ValueError, match="the engine has no tokenizer and makes no text"):
        engine.add([1], Sampling(stop=["x"]))
    with pytest.raises(TypeError, match="must be a Sampling"):
        engine.add([1], {"max_tokens": 3})
    engine.add([1])
    assert engine.run()[0].text == ""


def test_a_request_that_just_fits_is_served_and_one_token_more_is_refused(gpt2):
    engine = Engine(gpt2, None, cache_tokens=32, block_tokens=16)
    engine.add([1] * 25, Sampling(8))  # nobody reads the last token: 32 places
    assert len(engine.run()[0].output_ids) == 8
    with pytest.raises(ValueError, match="need 3 blocks"):
        engine.add([1] * 25, Sampling(9))


def test_so_many_may_wait_and_no_more(gpt2):
    engine = Engine(gpt2, None, max_rows=1, max_waiting=2)
    engine.add([1], Sampling(3)), engine.add([2], Sampling(3))
    with pytest.raises(EngineFull, match="2 requests wait, and at most 2 may"):
        engine.add([3], Sampling(3))
    engine.step()
    assert engine.add([3], Sampling(3)) == 2
    assert len(engine.run()) == 3


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"max_rows": 0}, ValueError, "max_rows is 0; it must be 1 or more"),
        ({"max_rows": 8, "step_tokens": 7}, ValueError, "step_tokens is 7; it must be 8 or more"),
        ({"block_tokens": 0}, ValueError, "block_tokens is 0; it must be 1 or more"),
        ({"cache_tokens": 15}, ValueError, "cache_tokens is 15; it must be 16 or more"),
        ({"max_rows": 2.0}, TypeError, "max_rows is 2.0; it must be an int"),
        ({"max_waiting": -1}, ValueError, "max_waiting is -1; it must be 0 or more"),
    ],
    ids=str,
)
def test_sizes_that_make_no_engine(gpt2, sizes, error, message):
    with pytest.raises(error, match=message):
        Engine(gpt2, None, **sizes)


def test_what_the_caller_changes_afterwards_changes_nothing(gpt2, tokenizer):
    engine, prompt, stop = Engine(gpt2, tokenizer), [1, 2, 3], ["never"]
    engine.add(prompt, Sampling(4, stop=stop))
    prompt.append(9), stop.append("")
    assert engine.run()[0].output_ids == served_alone(gpt2, [1, 2, 3], 4)


# --- Small enough to be read, and right in its examples -----------------------------------------------


def test_the_engine_can_be_read_in_an_evening():
    files = {path.name: path.read_text(encoding="utf-8") for path in Path(engine.__file__).parent.glob("*.py")}
    lengths = {name: len(text.splitlines()) for name, text in files.items()}
    assert sum(lengths.values()) <= 1100 and max(lengths.values()) <= 250, lengths
    for text in files.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                assert node.end_lineno - first.lineno + 1 <= 35, node.name
            imported = [getattr(node, "module", None), *(alias.name for alias in getattr(node, "names", []))]
            assert not {"threading", "asyncio", "concurrent", "multiprocessing"} & set(imported)


def test_the_examples_in_docstrings_are_right():
    names = [path.stem for path in Path(engine.__file__).parent.glob("*.py") if path.stem != "__init__"]
    results = [doctest.testmod(importlib.import_module(f"engine.{name}")) for name in names]
    assert sum(result.attempted for result in results) >= 2 and not any(result.failed for result in results)
