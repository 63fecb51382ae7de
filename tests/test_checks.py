"""Bad input: the error names what is wrong and what is allowed, and nothing has changed when it is raised."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conftest import CONTEXT, VOCABULARY, tiny_model
from helpers import (
    Batch,
    Request,
    filter_batch,
    generate_batch,
    generate_next_token,
    generate_token,
    generate_token_with_past,
    generate_tokens,
    init_batch,
    load_model,
    merge_batches,
    run_continuous,
    run_static,
)
from measure import compare, timed
from utils import (
    LoraLayer,
    QuantizedLinear,
    add_lora,
    generate,
    load_lora,
    lora_state_dict,
    merge_lora,
    quantize,
    quantize_model,
    size_in_bytes,
)


@dataclass
class World:
    """Everything a call could damage: models, tokenizers and batches in the middle of their work."""

    model: PreTrainedModel
    llama: PreTrainedModel
    adapted: PreTrainedModel
    quantized: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    right_padding: PreTrainedTokenizerBase
    no_pad_token: PreTrainedTokenizerBase
    running: Batch
    used_up: Batch
    of_llama: Batch
    fresh: Batch
    request: Request = field(default_factory=lambda: Request("fine", 3))
    started: Request = field(default_factory=lambda: Request([1, 2], 5, output_ids=[7]))
    linear: nn.Linear = field(default_factory=lambda: nn.Linear(8, 5))


@pytest.fixture
def world(tokenizer: PreTrainedTokenizerBase) -> World:
    model, llama = tiny_model("gpt2"), tiny_model("llama")
    right_padding, no_pad_token = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    right_padding.padding_side, no_pad_token.pad_token = "right", None
    used_up = generate_next_token(init_batch([FINE, ([3], 3)]), model)
    return World(
        model=model,
        llama=llama,
        adapted=merge_lora(add_lora(tiny_model("gpt2"), 4)),
        quantized=quantize_model(model),
        tokenizer=copy.deepcopy(tokenizer),
        right_padding=right_padding,
        no_pad_token=no_pad_token,
        running=generate_next_token(used_up, model),
        used_up=used_up,
        of_llama=generate_next_token(init_batch([FINE]), llama),
        fresh=init_batch([FINE]),
    )


def state_of(thing: Any) -> Any:
    """A value that is equal before and after exactly when nothing has changed."""
    if isinstance(thing, torch.Tensor):
        return thing.dtype, thing.tolist()
    if isinstance(thing, nn.Module):
        flags = [(name, parameter.requires_grad) for name, parameter in thing.named_parameters()]
        kinds = [(name, type(module).__name__, module.training) for name, module in thing.named_modules()]
        return flags, kinds, {name: tensor.clone() for name, tensor in thing.state_dict().items()}
    if isinstance(thing, PreTrainedTokenizerBase):
        return thing.padding_side, thing.pad_token, thing.backend_tokenizer.to_str()
    if isinstance(thing, Batch):
        cache = thing.past_key_values
        tensors = [thing.input_ids, thing.attention_mask, thing.position_ids]
        tensors += [] if cache is None else [t for layer in cache.layers for t in (layer.keys, layer.values)]
        return copy.deepcopy(thing.requests), [state_of(tensor) for tensor in tensors]
    return copy.deepcopy(thing)


def assert_same(before: Any, after: Any) -> None:
    """`before == after`, also where they hold tensors."""
    if isinstance(before, torch.Tensor):
        assert torch.equal(before, after)
    elif isinstance(before, dict):
        assert before.keys() == after.keys()
        for name in before:
            assert_same(before[name], after[name])
    elif isinstance(before, (tuple, list)):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    else:
        assert before == after


FINE = ([1, 2], 3)
BAD_REQUESTS = {
    "empty prompt": (([], 3), ValueError, "request 1: the prompt is empty; it must have at least one token"),
    "negative budget": (([1], -1), ValueError, "request 1: max_tokens is -1; it must be 0 or more"),
    "budget True": (([1], True), TypeError, "request 1: max_tokens is True; it must be an int, 0 or more"),
    "budget 1.5": (([1], 1.5), TypeError, r"request 1: max_tokens is 1\.5; it must be an int, 0 or more"),
    "token too large": (
        ([VOCABULARY], 3),
        ValueError,
        f"request 1: token id {VOCABULARY} is outside .*; ids are 0 to {VOCABULARY - 1}",
    ),
    "negative token": (([-1], 3), ValueError, f"request 1: token id -1 is outside .* 0 to {VOCABULARY - 1}"),
    "over the context": (
        ([1] * 90, 10),
        ValueError,
        f"request 1: 90 prompt tokens and max_tokens=10 make 100; the model's context is {CONTEXT} tokens",
    ),
    "float tokens": (([1.0], 3), TypeError, "request 1: the prompt is .*; it must be text or a list of token ids"),
    "number as prompt": ((3, 3), TypeError, "request 1: the prompt is 3; it must be text or a list"),
    "text as request": ("text", TypeError, r"request 1 is 'text'; it must be a Request or a \(prompt, max_tokens\)"),
}
SERVERS: dict[str, Callable[[World, list], Any]] = {
    "run_static": lambda world, requests: run_static(requests, 2, model=world.model),
    "run_continuous": lambda world, requests: run_continuous(requests, 2, model=world.model),
    "generate": lambda world, requests: generate(world.model, world.tokenizer, requests),
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_named_before_anything_runs(world, server, name):
    bad, error, says = BAD_REQUESTS[name]
    forwards = []
    world.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    good = Request([1, 2], 3)
    before = {name: state_of(thing) for name, thing in vars(world).items()}
    with pytest.raises(error, match=says):
        SERVERS[server](world, [good, bad])
    assert not forwards and good == Request([1, 2], 3)
    assert_same(before, {name: state_of(thing) for name, thing in vars(world).items()})


def unmerged(world: World) -> tuple[PreTrainedModel, dict]:
    model = add_lora(copy.deepcopy(world.model), 4)
    return model, lora_state_dict(model)


def load_adapter(world: World, change: Callable[[dict], dict]) -> None:
    """Load a changed adapter, and check here that the refusing model is as it was."""
    model, state = unmerged(world)
    before = state_of(model)
    try:
        load_lora(model, change(state))
    finally:
        assert_same(before, state_of(model))


CALLS: dict[str, tuple[Callable[[World], Any], type[Exception], str]] = {
    # Requests and tokenizers
    "empty text": (
        lambda w: init_batch([w.request, ("", 3)], w.tokenizer),
        ValueError,
        "request 1: the prompt is empty",
    ),
    "right padding": (
        lambda w: init_batch([("a", 1)], w.right_padding),
        ValueError,
        'pads on the right; set tokenizer.padding_side = "left"',
    ),
    "no pad token": (
        lambda w: generate_batch(w.model, w.no_pad_token, ["a"], 3),
        ValueError,
        "no pad token; set tokenizer.pad_token = tokenizer.eos_token",
    ),
    "a started request": (
        lambda w: init_batch([FINE, w.started]),
        ValueError,
        "request 1 already has 1 output tokens; a prefill takes fresh requests",
    ),
    "two rows at once": (
        lambda w: generate_tokens(w.model, torch.ones(2, 3, dtype=torch.long), 3),
        ValueError,
        "input_ids has 2 rows; generate_tokens takes one",
    ),
    "over the context, one sequence": (
        lambda w: generate_tokens(w.model, [1] * CONTEXT, 1),
        ValueError,
        f"{CONTEXT} prompt tokens and max_tokens=1 make {CONTEXT + 1}; the model's context is {CONTEXT}",
    ),
    "another model's tokenizer": (
        lambda w: run_continuous([("text", 3)], model=w.model),
        ValueError,
        "the course tokenizer has 4096 tokens and this model 257; pass tokenizer=",
    ),
    # Slots
    "no slots": (lambda w: run_continuous([FINE], 0, model=w.model), ValueError, "batch_size is 0; .* 1 or more"),
    "fewer than none": (lambda w: run_static([FINE], -3, model=w.model), ValueError, "batch_size is -3; .* 1 or more"),
    "half a slot": (lambda w: run_static([FINE], 2.0, model=w.model), TypeError, r"batch_size is 2\.0; .* an int"),
    "slots True": (lambda w: run_static([FINE], True, model=w.model), TypeError, "batch_size is True; .* an int"),
    # Batches
    "merging without a cache": (
        lambda w: merge_batches(w.running, w.fresh),
        ValueError,
        r"the second batch has no KV cache; call generate_next_token on it \(prefill\)",
    ),
    "merging into no cache": (lambda w: merge_batches(w.fresh, w.running), ValueError, "the first batch has no KV"),
    "merging two models": (
        lambda w: merge_batches(w.running, w.of_llama),
        ValueError,
        "of 2 layers x 4 heads x 8 .* and 2 layers x 2 heads x 8",
    ),
    "a batch over the context": (
        lambda w: generate_next_token(init_batch([FINE, ([1] * 90, 10)]), w.model),
        ValueError,
        f"request 1: 90 prompt tokens and max_tokens=10 make 100; the model's context is {CONTEXT} tokens",
    ),
    "a used-up batch": (
        lambda w: generate_next_token(w.used_up, w.model),
        ValueError,
        "attention_mask is 3 wide, but 3 cached and 1 new tokens make 4. A batch is consumed by its step",
    ),
    "a batch field": (lambda w: w.running["inputs"], KeyError, "a Batch has requests, input_ids, .*; not 'inputs'"),
    "right padding in a mask": (
        lambda w: generate_token(
            w.model, {"input_ids": torch.ones(1, 2, dtype=torch.long), "attention_mask": torch.tensor([[1, 0]])}
        ),
        ValueError,
        "the last column of attention_mask is 0: rows must be padded on the left",
    ),
    "a mask too narrow": (
        lambda w: generate_token_with_past(
            w.model, {"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 2).long()}
        ),
        ValueError,
        "attention_mask is 2 wide, but 0 cached and 3 new tokens make 3",
    ),
    # Quantization
    "NaN": (lambda w: quantize(torch.tensor([1.0, float("nan")])), ValueError, "NaN or infinity; .* finite values"),
    "infinity": (lambda w: quantize(torch.tensor([1.0, float("-inf")])), ValueError, "NaN or infinity"),
    "nothing": (lambda w: quantize(torch.zeros(0, 3)), ValueError, r"at least one value; .* shape \(0, 3\)"),
    "integers": (lambda w: quantize(torch.tensor([1, 2])), TypeError, "floating-point tensor; this one is torch.int64"),
    "nine bits": (lambda w: quantize(torch.ones(4), bits=9), ValueError, "bits is 9; it must be 2 to 8"),
    "one bit": (lambda w: quantize_model(w.model, bits=1), ValueError, "bits is 1; it must be 2 to 8"),
    "no such dimension": (lambda w: quantize(torch.ones(4), dim=1), ValueError, "dim is 1; .* has dimensions 0 to 0"),
    "odd groups": (
        lambda w: quantize_model(w.model, group_size=7),
        ValueError,
        "group_size is 7; it must divide the 32 values of a channel",
    ),
    "quantizing twice": (lambda w: quantize_model(w.quantized), ValueError, "quantized already; quantize the original"),
    "quantizing an embedding": (
        lambda w: QuantizedLinear(w.model.transformer.wte),
        TypeError,
        "Embedding is not a linear layer; give an nn.Linear or a Conv1D",
    ),
    "the size of text": (lambda w: size_in_bytes("text"), TypeError, "takes tensors, .*, not <class 'str'>"),
    # LoRA
    "rank 0": (lambda w: LoraLayer(w.linear, 0), ValueError, "r is 0; the rank of a 8 x 5 layer must be 1 to 5"),
    "rank too large": (lambda w: LoraLayer(w.linear, 6), ValueError, "r is 6; .* must be 1 to 5"),
    "rank 2.0": (lambda w: LoraLayer(w.linear, 2.0), TypeError, r"r is 2\.0; the rank must be an int, 1 to 5"),
    "rank True": (lambda w: LoraLayer(w.linear, True), TypeError, "r is True; the rank must be an int, 1 to 5"),
    "adapting a norm": (
        lambda w: LoraLayer(w.model.transformer.ln_f, 2),
        TypeError,
        "LayerNorm is not a linear layer",
    ),
    "rank too large for the model": (lambda w: add_lora(w.model, 99), ValueError, "r is 99; .* 32 x 96 .* 1 to 32"),
    "unknown targets": (
        lambda w: add_lora(w.model, 2, targets=["nothing"]),
        ValueError,
        "no linear layer is named 'nothing'; the model has c_attn, c_fc, c_proj, lm_head",
    ),
    "adapting twice": (lambda w: add_lora(w.adapted, 2), ValueError, "has LoRA layers already; load_lora puts other"),
    "merging into codes": (
        lambda w: merge_lora(add_lora(copy.deepcopy(w.quantized), 2)),
        ValueError,
        "a quantized base has no float weight to merge into",
    ),
    "loading while merged": (
        lambda w: load_lora(w.adapted, lora_state_dict(w.adapted)),
        ValueError,
        r"merged into the base weights; call unmerge_lora\(model\)",
    ),
    "an adapter too short": (
        lambda w: load_adapter(w, lambda state: dict(list(state.items())[1:])),
        KeyError,
        r"missing from the adapter \['transformer.h.0.attn.c_attn.lora_a'\]",
    ),
    "a stranger in the adapter": (
        lambda w: load_adapter(w, lambda state: state | {"stranger": torch.zeros(1)}),
        KeyError,
        r"unknown to the model \['stranger'\]",
    ),
    "an adapter of another rank": (
        lambda w: load_adapter(w, lambda state: state | {"transformer.h.0.attn.c_attn.lora_a": torch.ones(2, 32)}),
        ValueError,
        r"lora_a is \(2, 32\), the model's is \(4, 32\)",
    ),
    # Measuring
    "no repeats": (lambda w: timed(w.fresh.__len__, repeats=0), ValueError, "repeats is 0 and warmup 1; at least 1"),
    "negative warm-up": (
        lambda w: compare(w.fresh.__len__, w.fresh.__len__, warmup=-1),
        ValueError,
        "warmup -1; at least 1 and 0",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_call_says_what_is_wrong_and_changes_nothing(world, name):
    call, error, says = CALLS[name]
    before = {name: state_of(thing) for name, thing in vars(world).items()}
    with pytest.raises(error) as caught:
        call(world)
    message = str(caught.value.args[0])
    assert re.search(says, message), message
    assert_same(before, {name: state_of(thing) for name, thing in vars(world).items()})


def test_the_check_for_changes_sees_a_change(world):
    """The comparison above is not vacuous: each kind of damage is seen."""
    layer = world.of_llama.past_key_values.layers[0]
    damages = {
        "model": lambda: world.model.transformer.wte.weight.data[0].add_(1),
        "adapted": lambda: world.adapted.requires_grad_(True),
        "quantized": lambda: world.quantized.train(),
        "tokenizer": lambda: world.tokenizer(["a", "bc"], padding=True),
        "running": lambda: world.running.requests[0].output_ids.append(1),
        "of_llama": lambda: vars(layer).update(keys=layer.keys + 1),
        "request": lambda: vars(world).update(request=replace(world.request, max_tokens=4)),
    }
    for name, damage in damages.items():
        before = state_of(getattr(world, name))
        damage()
        with pytest.raises(AssertionError):
            assert_same(before, state_of(getattr(world, name)))


def test_no_requests_give_no_answers(world):
    assert run_static([], model=world.model) == run_continuous([], model=world.model) == []
    assert generate(world.model, world.tokenizer, []) == generate_batch(world.model, world.tokenizer, [], 3) == []
    nobody = init_batch([])
    assert len(nobody) == 0 and generate_next_token(nobody, world.model) is filter_batch(nobody)[0] is nobody


@pytest.mark.parametrize("cap", ["0", "-1", "many", "1.5"])
def test_course_repeats_must_be_a_count(monkeypatch, cap):
    monkeypatch.setenv("COURSE_REPEATS", cap)
    with pytest.raises(ValueError, match=f"COURSE_REPEATS is '{cap}'; it must be a whole number, 1 or more"):
        timed(int)


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(
        OSError, match=r"a folder: .* is none\. Use a folder or a hub id .*load_model\(\) for the bundled"
    ):
        load_model(tmp_path / "nowhere")
