"""The call shapes of the published course notebooks work with our functions, on the course model.

The loops below are written the way those notebooks call `helpers` and `utils`: requests are tuples, a batch
is read with `batch["input_ids"].size(0)`, nothing passes a model or a tokenizer but `generate`.
"""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import helpers
from helpers import (
    Request,
    course_model,
    filter_batch,
    generate_batch,
    generate_next_token,
    generate_tokens,
    init_batch,
    load_model,
    merge_batches,
    run_continuous,
)
from utils import generate, linear_lora

PROMPTS = ["The quick brown fox jumped over the", "The rain in Spain falls", "What comes up must"]


def alone(prompt: str, max_tokens: int) -> list[int]:
    model, tokenizer = course_model()
    ids = tokenizer(prompt)["input_ids"]
    return list(generate_tokens(model, ids, max_tokens, eos_token_id=tokenizer.eos_token_id))


def test_lesson_3_loop_with_tuples_and_no_model():
    queue = [(PROMPTS[0], 30 if index % 8 == 0 else 5) for index in range(12)]
    batch_size = 4
    batch = init_batch(queue[:batch_size])
    cached_batch = generate_next_token(batch)
    queue = queue[batch_size:]
    finished = 0
    while len(queue) > 0 or cached_batch["input_ids"].size(0) > 0:
        capacity = batch_size - cached_batch["input_ids"].size(0)
        if capacity > 0 and len(queue) > 0:
            new_batch = generate_next_token(init_batch(queue[:capacity]))
            queue = queue[capacity:]
            cached_batch = merge_batches(cached_batch, new_batch)
        cached_batch = generate_next_token(cached_batch)
        cached_batch, removed_indices = filter_batch(cached_batch)
        finished += len(removed_indices)
    assert finished == 12


def test_lesson_4_generate_by_keywords():
    model, tokenizer = course_model()
    requests = [(prompt, 8 + index) for index, prompt in enumerate(PROMPTS)]
    texts = generate(model=model, tokenizer=tokenizer, requests=requests)
    for (prompt, budget), text in zip(requests, texts, strict=True):
        assert text == prompt + tokenizer.decode(alone(prompt, budget), skip_special_tokens=True)


def test_the_three_prompts_continue_as_everyone_expects():
    model, tokenizer = course_model()
    texts = generate(model, tokenizer, [(prompt, 4) for prompt in PROMPTS])
    assert "lazy dog" in texts[0] and "mainly on the plain" in texts[1] and "come down" in texts[2]


def test_generate_batch_equals_each_prompt_alone():
    model, tokenizer = course_model()
    texts = generate_batch(model, tokenizer, PROMPTS, 20)
    assert texts == [tokenizer.decode(alone(prompt, 20), skip_special_tokens=True) for prompt in PROMPTS]


def test_the_course_model_is_a_copy_of_its_own_for_every_caller():
    one, other = course_model()[0], course_model()[0]
    assert one is not other
    assert torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one.lm_head.weight.data_ptr() != other.lm_head.weight.data_ptr()


def test_load_model_is_ready_to_serve():
    model, tokenizer = load_model(device="cpu")
    assert not model.training and model.dtype == torch.float32
    assert tokenizer.padding_side == "left" and tokenizer.pad_token is not None
    assert load_model(dtype=torch.bfloat16, device="cpu")[0].dtype == torch.bfloat16


def test_course_model_variable_names_the_model(monkeypatch, tmp_path):
    model, tokenizer = load_model(device="cpu")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path))
    other, _ = course_model()
    assert other is not model
    assert torch.equal(other.lm_head.weight.cpu(), model.lm_head.weight)
    monkeypatch.delenv("COURSE_MODEL")
    assert load_model(device="cpu")[0].config.n_embd == 256


def test_storyteller_in_fp32_equals_generate_batch_by_batch():
    """The real model, ragged prompts, end-of-sequence on; near ties would show as a difference."""
    model, tokenizer = course_model()
    prompts = [*PROMPTS, "Once upon a time there was a", "Dear Anna,", "Question: What is the capital of"] * 3
    requests = [Request(prompt, 5 + 7 * (index % 5)) for index, prompt in enumerate(prompts)]
    served = run_continuous(requests, 4)
    for request in served:
        ids = torch.tensor([request.prompt_ids], device=model.device)
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False
        )
        assert request.output_ids == expected[0, ids.shape[1] :].tolist()
    assert {request.finish_reason for request in served} == {"eos", "length"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_everything_runs_on_cuda():
    model, tokenizer = load_model(device="cuda")
    texts = generate(model, tokenizer, [(prompt, 6) for prompt in PROMPTS], batch_size=2)
    on_cpu = generate(*load_model(device="cpu"), [(prompt, 6) for prompt in PROMPTS], batch_size=2)
    assert texts == on_cpu
    assert helpers.load_model()[0].device.type == "cuda"


# --- Lesson 6: Multi-LoRA ------------------------------------------------------------------------------------------


class MultiLora(nn.Module):
    """A model as in the published Lesson 6, whose middle layer has an adapter for each row of the batch."""

    def __init__(self, hidden: int = 10) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, hidden), nn.Linear(hidden, hidden)
        self.lm_head = nn.Linear(hidden, 10)

    def forward(self, input_ids, loras_a, loras_b, lora_indices):
        x = self.embedding(input_ids)
        x = self.linear(x) + linear_lora(x, loras_a, loras_b, lora_indices)
        return self.lm_head(x)


def test_lesson_6_every_row_is_that_of_a_loop_over_the_rows():
    torch.manual_seed(42)
    model, bs, num_loras, h, r = MultiLora(), 7, 64, 10, 2
    loras_a, loras_b = torch.randn(num_loras, h, r), torch.randn(num_loras, r, h)
    lora_indices = torch.randint(num_loras, (bs,), dtype=torch.long)
    input_ids = torch.randint(10, (bs, 8), dtype=torch.long)
    with torch.no_grad():
        logits = model(input_ids=input_ids, loras_a=loras_a, loras_b=loras_b, lora_indices=lora_indices)
        x = model.embedding(input_ids)
        y = model.linear(x)
        for batch_idx, lora_idx in enumerate(lora_indices.numpy()):
            y[batch_idx] += x[batch_idx] @ loras_a[lora_idx] @ loras_b[lora_idx]
        torch.testing.assert_close(logits, model.lm_head(y), atol=1e-4, rtol=1e-4)
    assert logits.shape == (bs, 8, 10)


def test_linear_lora_adds_what_peft_adds():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 4))
    names, config = ["one", "two", "three"], LoraConfig(r=3, lora_alpha=6, target_modules=["0"])
    adapted = get_peft_model(base, config, adapter_name=names[0])
    for name in names[1:]:
        adapted.add_adapter(name, config)
    layer = adapted.base_model.model[0]
    for weights in layer.lora_B.values():
        nn.init.normal_(weights.weight)
    loras_a = torch.stack([layer.lora_A[name].weight.detach().T for name in names])  # (n, in, r)
    loras_b = torch.stack([layer.scaling[name] * layer.lora_B[name].weight.detach().T for name in names])
    x, chosen = torch.randn(5, 2, 6), [2, 0, 0, 1, 2]
    adapted.eval()
    with torch.no_grad():
        theirs = layer(x, adapter_names=[names[k] for k in chosen])
        ours = layer.base_layer(x) + linear_lora(x, loras_a, loras_b, torch.tensor(chosen))
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, layer.base_layer(x))


@pytest.mark.parametrize("shape", [(1, 1, 5), (3, 4, 5), (0, 2, 5), (2, 0, 5)])
def test_linear_lora_takes_batches_of_any_size(shape):
    x = torch.randn(shape)
    update = linear_lora(x, torch.randn(2, 5, 3), torch.randn(2, 3, 7), torch.zeros(shape[0], dtype=torch.int32))
    assert update.shape == (*shape[:2], 7)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lora_indices": torch.tensor([0, -1])}, "lora_indices has -1; the adapters are 0 to 3"),
        ({"lora_indices": torch.tensor([4, 0])}, "lora_indices has 4; the adapters are 0 to 3"),
        ({"lora_indices": torch.tensor([0])}, r"linear_lora takes \(B, T, in\)"),
        ({"x": torch.zeros(2, 5)}, r"linear_lora takes \(B, T, in\)"),
        ({"x": torch.zeros(2, 3, 6)}, r"linear_lora takes \(B, T, in\)"),
        ({"loras_b": torch.zeros(4, 2, 7)}, r"linear_lora takes \(B, T, in\)"),
        ({"loras_b": torch.zeros(3, 3, 7)}, r"linear_lora takes \(B, T, in\)"),
        ({"lora_indices": [0, 1]}, "lora_indices is of list"),
        ({"lora_indices": torch.tensor([0.0, 1.0])}, "lora_indices is of torch.float32"),
    ],
)
def test_linear_lora_refuses_what_does_not_fit(changed, words):
    given = {"x": torch.zeros(2, 3, 5), "loras_a": torch.zeros(4, 5, 3), "loras_b": torch.zeros(4, 3, 7)}
    given["lora_indices"] = torch.tensor([0, 3])
    assert linear_lora(**given).shape == (2, 3, 7)
    with pytest.raises((TypeError, ValueError), match=words):
        linear_lora(**given | changed)
