"""Generation from text, quantization within its bound, LoRA equal to PEFT."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from conftest import random_requests, reference, tiny_model
from helpers import Request, run_continuous
from utils import (
    LoraLayer,
    QuantizedLinear,
    add_lora,
    dequantize,
    generate,
    load_lora,
    lora_state_dict,
    merge_lora,
    pack_int4,
    quantize,
    quantize_model,
    size_in_bytes,
    unmerge_lora,
    unpack_int4,
)

IDS = torch.tensor([[5, 100, 7, 42, 9]])


def random_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


# --- generate ----------------------------------------------------------------------------------------


def test_every_answer_reaches_its_own_asker(gpt2, tokenizer):
    requests = [(f"request number {index}", budget) for index, budget in enumerate([3, 12, 1, 7, 0, 5, 9, 2, 4, 6, 8])]
    texts = generate(gpt2, tokenizer, requests, batch_size=3)
    for (prompt, budget), text in zip(requests, texts, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        expected = tokenizer.decode(ids + reference(gpt2, Request(ids, budget)), skip_special_tokens=True)
        assert text == expected and text.startswith(prompt)
    assert len(set(texts)) == len(texts)
    assert texts == generate(model=gpt2, tokenizer=tokenizer, requests=requests)
    assert generate(gpt2, tokenizer, []) == []


def test_characters_of_several_bytes_stay_whole(tokenizer):
    """A model that writes the two bytes of an e-acute in two steps."""
    first, second = tokenizer("é")["input_ids"]
    model = model_that_says({first: second}, otherwise=first)
    assert generate(model, tokenizer, [("x", 4), ("caf", 2)], batch_size=2) == ["xéé", "café"]


def test_the_end_of_a_text_is_not_part_of_it(tokenizer):
    [b] = tokenizer("b")["input_ids"]
    model = model_that_says({b: tokenizer.eos_token_id}, otherwise=b)
    assert generate(model, tokenizer, [("a", 4)]) == ["abb"]  # and the model has said the end twice


def model_that_says(answers: dict[int, int], otherwise: int) -> nn.Module:
    """A model whose next token follows from the last one alone, and which does not stop."""
    model = tiny_model("gpt2")

    class Parrot(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.next_logits

    parrot = Parrot()
    model.lm_head = parrot

    def choose(_module: nn.Module, _args: tuple, kwargs: dict) -> None:
        last = kwargs["input_ids"][:, -1].tolist()
        chosen = [answers.get(token, otherwise) for token in last]
        parrot.next_logits = torch.eye(257, dtype=torch.float64)[chosen][:, None]

    model.register_forward_pre_hook(choose, with_kwargs=True)
    return model


# --- quantize and dequantize -------------------------------------------------------------------------

KINDS = pytest.mark.parametrize(
    "options",
    [{}, {"dim": 0}, {"dim": 1}, {"dim": -1}, {"dim": -2}, {"group_size": 6}, {"dim": 0, "group_size": 4}],
    ids=str,
)


@KINDS
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_error_is_at_most_half_a_step(options, bits):
    t = random_tensor(18, 12) * torch.logspace(-2, 2, 18)[:, None] + 0.3
    codes, state = quantize(t, bits=bits, **options)
    restored = dequantize(codes, state)
    assert codes.dtype == torch.uint8 and codes.shape == t.shape and int(codes.max()) <= 2**bits - 1
    assert restored.shape == t.shape and restored.dtype == t.dtype
    half_step = dequantize(
        torch.ones_like(codes), replace(state, scale=state.scale / 2, zero_point=state.zero_point * 0)
    )
    assert ((t - restored).abs() <= half_step * (1 + 1e-4)).all()
    assert (t - restored).abs().max() > 0.3 * half_step.max()  # the bound is not idle
    again = dequantize(*quantize(restored, bits=bits, **options))
    assert torch.allclose(again, restored, rtol=1e-5, atol=0)  # quantizing twice is quantizing once


def test_rounding_has_no_bias():
    t = random_tensor(200_000)
    codes, state = quantize(t)
    assert abs((dequantize(codes, state) - t).mean()) <= 0.02 * state.scale.item()


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_is_exact_even_outside_the_range(sign):
    t = sign * torch.tensor([3.0, 5.0, 7.7])
    codes, state = quantize(torch.cat([t, torch.zeros(1)]))
    assert dequantize(codes, state)[-1] == 0.0
    assert 0 <= quantize(t)[1].zero_point.item() <= 255


@pytest.mark.parametrize("value", [0.0, 1.0, -2.3, 1e-20, -1e30, 65504.0])
def test_constants_are_exact(value):
    t = torch.full((3, 4), value)
    assert torch.equal(dequantize(*quantize(t)), t)


def test_every_value_may_have_a_scale_of_its_own():
    t = random_tensor(3, 4)
    codes, state = quantize(t, group_size=1)
    assert state.scale.shape == (1, 12, 1) and torch.equal(dequantize(codes, state), t)


def test_per_channel_is_no_worse_than_per_tensor():
    t = random_tensor(16, 64) * torch.logspace(-2, 1, 16)[:, None]
    errors = [(dequantize(*quantize(t, dim=dim)) - t).abs().mean() for dim in (None, 0)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_comes_back(dtype):
    t = random_tensor(5, 7, dtype=dtype)
    assert dequantize(*quantize(t)).dtype == dtype


def test_the_widest_range_does_not_overflow():
    t = torch.tensor([-3e38, 0.0, 3e38])
    assert torch.isfinite(dequantize(*quantize(t))).all()


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_int4_packing_round_trips(width):
    codes = torch.randint(16, (2, 3, width), dtype=torch.uint8)
    packed = pack_int4(codes)
    assert packed.shape == (2, 3, (width + 1) // 2)
    assert torch.equal(unpack_int4(packed, width), codes)


# --- QuantizedLinear and quantize_model --------------------------------------------------------------


def linear_layers(inputs: int = 12, outputs: int = 20) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False), Conv1D(outputs, inputs)]


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize(("bits", "group_size"), [(8, None), (8, 4), (4, None), (4, 6)])
def test_quantized_linear_computes_with_the_dequantized_weight(kind, bits, group_size):
    layer = linear_layers()[kind]
    quantized = QuantizedLinear(layer, bits=bits, group_size=group_size)
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    expected = dequantize(*quantize(weight.detach(), bits=bits, dim=0, group_size=group_size))
    assert torch.equal(quantized.weight, expected)
    x = random_tensor(2, 3, 12)
    with torch.no_grad():
        assert torch.allclose(quantized(x), nn.functional.linear(x, expected, layer.bias))
        assert (quantized(x) - layer(x)).abs().max() > 0
    groups = 1 if group_size is None else 12 // group_size
    code_bytes = 20 * 12 if bits == 8 else 20 * 6
    assert size_in_bytes(quantized) == code_bytes + 20 * groups * (4 + 1) + (0 if layer.bias is None else 20 * 4)


def test_quantize_model_touches_only_linear_layers_and_only_the_copy(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = logits(model)
    quantized = quantize_model(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), expected)
    kinds = {type(module) for module in quantized.modules()}
    assert QuantizedLinear in kinds and Conv1D not in kinds
    plain = [name for name, module in quantized.named_modules() if type(module) is nn.Linear]
    assert plain in (["lm_head"], ["embed_out"])
    difference = (logits(quantized) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.1
    assert size_in_bytes(quantized) < size_in_bytes(model)


def test_quantize_model_leaves_biases_norms_and_embeddings_alone(gpt2):
    with torch.no_grad():
        for parameter in gpt2.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # fresh biases and norms are constants, which are exact
    before, after = gpt2.state_dict(), quantize_model(gpt2).state_dict()
    kept = [name for name in before if name in after]
    assert {name.rpartition(".")[2] for name in kept} == {"bias", "weight"}
    assert sum("bias" in name for name in kept) == 2 * 6 + 1 and "transformer.ln_f.weight" in kept
    assert all(torch.equal(before[name], after[name]) for name in kept)


def test_tied_weights_stay_tied(gpt2):
    quantized = quantize_model(gpt2)
    assert quantized.lm_head.weight is quantized.transformer.wte.weight
    assert quantized.lm_head.weight is not gpt2.lm_head.weight


def test_quantized_model_generates_alike_alone_and_in_a_batch(model):
    quantized = quantize_model(model)
    requests = random_requests(9)
    served = run_continuous(requests, 4, model=quantized)
    assert [r.output_ids for r in served] == [reference(quantized, request) for request in requests]


def test_skip_and_group_size(gpt2):
    quantized = quantize_model(gpt2, bits=4, group_size=8, skip=["c_proj"])
    kinds = {name.rpartition(".")[2]: type(module) for name, module in quantized.named_modules()}
    assert kinds["c_proj"] is Conv1D and kinds["c_fc"] is QuantizedLinear


def test_size_in_bytes_counts_tied_weights_once(gpt2):
    assert size_in_bytes(gpt2) == sum(t.numel() * t.element_size() for t in gpt2.parameters())  # each once
    twice = gpt2.state_dict(keep_vars=True)
    assert twice["lm_head.weight"] is twice["transformer.wte.weight"]
    t = torch.zeros(3, 5)
    assert size_in_bytes([t, {"again": t}]) == 60


# --- LoRA --------------------------------------------------------------------------------------------


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every B values, so that the adapters do something."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            with torch.no_grad():
                module.lora_b.copy_(torch.randn(module.lora_b.shape, generator=generator) * 0.3)
    return model


def test_a_new_adapter_changes_nothing_bit_for_bit(model):
    before = logits(model)
    assert add_lora(model, 4) is model
    assert torch.equal(logits(model), before)
    assert (logits(randomize(model)) - before).abs().max() > 1e-3


@pytest.mark.parametrize("rank", [1, 12])
def test_the_smallest_and_the_largest_rank_are_allowed(rank):
    layer = LoraLayer(linear_layers(12, 20)[0], rank)
    assert layer.lora_a.shape == (rank, 12) and layer.lora_b.shape == (20, rank) and layer.scaling == 1
    with pytest.raises(ValueError, match="must be 1 to 12"):
        LoraLayer(linear_layers(12, 20)[0], 13)


def test_only_the_factors_train(gpt2):
    add_lora(gpt2, 2)
    trainable = {name for name, parameter in gpt2.named_parameters() if parameter.requires_grad}
    assert trainable == {f"transformer.h.{i}.attn.c_attn.lora_{part}" for i in range(2) for part in "ab"}
    gpt2(input_ids=IDS, labels=IDS).loss.backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in gpt2.parameters())


@pytest.mark.parametrize("kind", range(3))
def test_lora_layer_equals_peft(kind):
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear_layers()[kind]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    ours = add_lora(Wrapped(), 3, alpha=7, targets=["layer"])
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["layer"], fan_in_fan_out=kind == 2)
    theirs = get_peft_model(Wrapped(), config)
    randomize(ours)
    with torch.no_grad():
        their_layer = theirs.base_model.model.layer
        their_layer.lora_A["default"].weight.copy_(ours.layer.lora_a)
        their_layer.lora_B["default"].weight.copy_(ours.layer.lora_b)
        x = random_tensor(4, 12)
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
        assert not torch.allclose(ours(x), Wrapped()(x), atol=1e-2)
        merge_lora(ours)
        merged = theirs.merge_and_unload()
        assert torch.allclose(ours.layer.base_layer.weight, merged.layer.weight, atol=1e-6)


def test_merge_and_unmerge(model):
    before = logits(model)
    adapted = logits(randomize(add_lora(model, 4, alpha=8)))
    merge_lora(model)
    once = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert (logits(model) - adapted).abs().max() <= 1e-6
    merge_lora(model)
    assert all(torch.equal(tensor, once[name]) for name, tensor in model.state_dict().items())
    unmerge_lora(unmerge_lora(model))
    assert (logits(model) - adapted).abs().max() <= 1e-6
    assert (adapted - before).abs().max() > 1e-3


def test_hot_swap_changes_the_answers_and_back(gpt2):
    base = copy.deepcopy(gpt2).state_dict()
    add_lora(gpt2, 4)
    states = [lora_state_dict(randomize(gpt2, seed)) for seed in (1, 2)]
    answers = [logits(load_lora(gpt2, state)) for state in states]
    assert (answers[0] - answers[1]).abs().max() > 1e-3
    assert torch.equal(logits(load_lora(gpt2, states[0])), answers[0])
    weights = {name.replace("base_layer.", ""): tensor for name, tensor in gpt2.state_dict().items()}
    assert all(torch.equal(weights[name], tensor) for name, tensor in base.items())


def test_state_dict_is_a_copy_in_the_models_own_names(gpt2):
    add_lora(gpt2, 4)
    state = lora_state_dict(gpt2)
    assert set(state) <= set(gpt2.state_dict())
    state["transformer.h.0.attn.c_attn.lora_a"].zero_()
    assert gpt2.transformer.h[0].attn.c_attn.lora_a.abs().sum() > 0


def test_lora_over_a_quantized_base(gpt2):
    quantized = quantize_model(gpt2)
    before = logits(quantized)
    add_lora(quantized, 4)
    assert torch.equal(logits(quantized), before)
    randomize(quantized)
    after = logits(quantized)
    assert (after - before).abs().max() > 1e-3
    with pytest.raises(ValueError, match="quantized base"):
        merge_lora(quantized)
    assert torch.equal(logits(quantized), after)


def test_quantizing_a_model_with_adapters_keeps_them(gpt2):
    randomize(add_lora(gpt2, 4))
    quantized = quantize_model(gpt2)
    layer = quantized.transformer.h[0].attn.c_attn
    assert isinstance(layer, LoraLayer) and isinstance(layer.base_layer, QuantizedLinear)
    assert torch.equal(layer.lora_b, gpt2.transformer.h[0].attn.c_attn.lora_b)


def test_adapters_follow_the_model_to_another_dtype(gpt2):
    add_lora(gpt2, 4).float()
    assert gpt2.transformer.h[0].attn.c_attn.lora_a.dtype == torch.float32


@pytest.mark.parametrize("bits", [8, 4])
def test_an_adapter_computes_in_the_dtype_of_a_quantized_base(bits):
    """QLoRA's shape: codes with float32 scales below, an adapter beside them, and everything computed in bfloat16."""
    base = quantize_model(tiny_model("gpt2").to(torch.bfloat16), bits=bits)
    with torch.no_grad():
        before = base(input_ids=torch.tensor([[1, 2, 3]])).logits
    adapted = add_lora(base, 2)
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    assert {parameter.dtype for layer in layers for parameter in (layer.lora_a, layer.lora_b)} == {torch.bfloat16}
    loss = adapted(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()
    assert all(layer.lora_b.grad is not None for layer in layers)
    with torch.no_grad():
        assert torch.equal(adapted(input_ids=torch.tensor([[1, 2, 3]])).logits, before)


def test_a_float32_adapter_works_over_a_bfloat16_base():
    layer = LoraLayer(torch.nn.Linear(6, 4).to(torch.bfloat16), 2).float()
    layer.base_layer.to(torch.bfloat16)
    torch.nn.init.normal_(layer.lora_b)
    assert layer(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_converting_a_quantized_model_leaves_its_codes_and_scales_alone():
    quantized = quantize_model(tiny_model("gpt2").float(), quantize_head=True)
    weights = {name: layer.weight for name, layer in quantized.named_modules() if isinstance(layer, QuantizedLinear)}
    converted = quantized.to(torch.bfloat16)
    for name, weight in weights.items():
        layer = converted.get_submodule(name)
        assert layer.scale.dtype == torch.float32 and layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight, weight.to(torch.bfloat16))
    assert converted.get_input_embeddings()(torch.tensor([3])).dtype == torch.bfloat16


def test_an_adapter_freezes_the_layer_it_is_given_and_changes_no_value():
    layer = torch.nn.Linear(6, 4)
    before = layer.weight.detach().clone()
    adapter = LoraLayer(layer, 2)
    assert adapter.base_layer is layer
    assert not layer.weight.requires_grad and not layer.bias.requires_grad
    adapter(torch.randn(3, 6)).sum().backward()
    assert torch.equal(layer.weight, before) and layer.weight.grad is None
    assert "no longer require a gradient" in " ".join(LoraLayer.__doc__.split())


def test_a_buffer_that_is_not_saved_does_not_count():
    """Older transformers keep a causal mask in every layer of GPT-2, which is no part of the model's size."""
    model = tiny_model("gpt2")
    before = size_in_bytes(model)
    model.transformer.h[0].register_buffer("mask", torch.ones(50, 50), persistent=False)
    assert size_in_bytes(model) == before
    model.transformer.h[0].register_buffer("saved", torch.ones(50, 50))
    assert size_in_bytes(model) == before + 50 * 50 * 4
