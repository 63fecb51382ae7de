"""The laws that hold for any input, searched for counterexamples by hypothesis.

Models are tiny, random and in float64, so that rounding cannot flip a greedy choice. Every test checks
that its example was not vacuous, or that examples of the interesting kind were among those drawn.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, CONTEXT, VOCABULARY, reference, tiny_model
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_measure import simulated_forwards
from torch import nn

from helpers import (
    Request,
    filter_batch,
    generate_next_token,
    generate_token_with_past,
    init_batch,
    merge_batches,
    run_continuous,
    run_static,
)
from measure import Trace
from utils import LoraLayer, dequantize, pack_int4, quantize, unpack_int4

settings.register_profile("companion", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("companion")

EVERY_ARCHITECTURE = pytest.mark.parametrize("architecture", ARCHITECTURES)
PROMPTS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12)
REQUESTS = st.lists(st.builds(Request, PROMPTS, st.integers(0, 20), ignore_eos=st.booleans()), min_size=1, max_size=9)


@lru_cache(maxsize=8)
def shared_model(architecture: str) -> nn.Module:
    return tiny_model(architecture)


@lru_cache(maxsize=4096)
def solo(architecture: str, prompt: tuple[int, ...], budget: int, eos: int | None) -> list[int]:
    """What `model.generate` gives for the prompt alone, cut at `eos` as generate would."""
    model = shared_model(architecture)
    model.generation_config.eos_token_id = None
    ids = reference(model, Request(list(prompt), budget))
    return ids[: ids.index(eos) + 1] if eos in ids else ids


def expected(architecture: str, request: Request, eos: int | None) -> list[int]:
    return solo(architecture, tuple(request.prompt), request.max_tokens, None if request.ignore_eos else eos)


@EVERY_ARCHITECTURE
@settings(max_examples=15)
@given(requests=REQUESTS, slots=st.integers(1, 8), data=st.data())
def test_any_schedule_gives_every_request_its_solo_tokens(architecture, requests, slots, data):
    model = shared_model(architecture)
    plain = [solo(architecture, tuple(r.prompt), r.max_tokens, None) for r in requests]
    eos = data.draw(st.sampled_from([None, *sorted({token for ids in plain for token in ids})]), label="eos")
    wanted = [expected(architecture, request, eos) for request in requests]
    model.generation_config.eos_token_id = eos
    trace = Trace()
    continuous = run_continuous(requests, slots, model=model, trace=trace)
    assert [request.output_ids for request in continuous] == wanted
    assert [r.output_ids for r in run_static(requests, slots, model=model)] == wanted
    assert [request.prompt for request in continuous] == [request.prompt for request in requests]
    assert all(request.finished for request in continuous)
    lengths = [len(ids) for ids in wanted]
    assert trace.tokens == sum(lengths)
    assert max((len(row.requests) for row in trace.rows), default=0) <= slots
    assert trace.forwards == simulated_forwards([n for n in lengths if n], slots)


@EVERY_ARCHITECTURE
@settings(max_examples=10)
@given(prompts=st.lists(PROMPTS, min_size=2, max_size=5, unique_by=tuple), pad_id=st.integers(0, VOCABULARY - 1))
def test_a_row_does_not_depend_on_its_neighbours_or_the_pad(architecture, prompts, pad_id):
    model = shared_model(architecture)
    model.generation_config.eos_token_id = None
    for order in (prompts, prompts[::-1]):
        requests = [Request(prompt, 6) for prompt in order]
        batch = init_batch(requests)
        batch.input_ids[batch.attention_mask == 0] = pad_id
        for _ in range(6):
            batch = generate_next_token(batch, model)
        assert [request.output_ids for request in requests] == [
            solo(architecture, tuple(prompt), 6, None) for prompt in order
        ]


@EVERY_ARCHITECTURE
@settings(max_examples=10)
@given(ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=30), data=st.data())
def test_any_split_into_prefill_and_decode_gives_the_same_logits(architecture, ids, data):
    model, row = shared_model(architecture), torch.tensor([ids])
    split = data.draw(st.integers(1, len(ids) - 1), label="split")
    _, cache = generate_token_with_past(model, {"input_ids": row[:, :split]})
    positions = torch.arange(split, len(ids))[None]
    with torch.no_grad():
        parts = model(input_ids=row[:, split:], past_key_values=cache, position_ids=positions).logits[:, -1]
        whole = model(input_ids=row, use_cache=False).logits[:, -1]
    assert (parts - whole).abs().max() <= 1e-10


@EVERY_ARCHITECTURE
@settings(max_examples=10)
@given(
    first=st.lists(PROMPTS, min_size=1, max_size=3),
    second=st.lists(PROMPTS, min_size=1, max_size=3),
    steps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_filter_undoes_merge(architecture, first, second, steps):
    model = shared_model(architecture)
    model.generation_config.eos_token_id = None
    batches = []
    for prompts, count in zip((first, second), steps, strict=True):
        batch = init_batch([(prompt, 20) for prompt in prompts])
        for _ in range(count):
            batch = generate_next_token(batch, model)
        batches.append(batch)
    merged = merge_batches(*batches)
    assert merged.attention_mask.shape[1] == max(batch.attention_mask.shape[1] for batch in batches)
    for batch in batches:
        for request in merged.requests:
            request.finish_reason = None if any(request is mine for mine in batch.requests) else "length"
        restored, removed = filter_batch(merged)
        assert len(removed) == len(merged) - len(batch) > 0
        for name in ("input_ids", "attention_mask", "position_ids"):
            assert torch.equal(restored[name], batch[name])
        for ours, theirs in zip(restored.past_key_values.layers, batch.past_key_values.layers, strict=True):
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


@settings(max_examples=25)
@given(budgets=st.lists(st.integers(0, 20), min_size=1, max_size=20), slots=st.integers(1, 8))
def test_width_is_that_of_the_longest_live_row(budgets, slots):
    model = shared_model("gpt2")
    model.generation_config.eos_token_id = None
    requests = [Request([1] * (1 + 3 * index % 11), budget) for index, budget in enumerate(budgets)]
    trace = Trace()
    run_continuous(requests, slots, model=model, trace=trace)
    done = [0] * len(requests)
    for row in trace.rows:
        lengths = [len(requests[index].prompt) + done[index] for index in row.requests]
        assert row.width == max(lengths) <= CONTEXT
        assert row.padded_tokens == sum(row.width - length for length in lengths)
        for index in row.gained:
            done[index] += 1
    assert done == budgets


# --- Quantization ------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 8), st.sampled_from([4, 12, 24]))
OPTIONS = st.fixed_dictionaries(
    {
        "bits": st.integers(2, 8),
        "dim": st.sampled_from([None, 0]),
        "group_size": st.sampled_from([None, 1, 2, 4]),
    }
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Normal values of any scale and offset, with outliers, zeros and constants among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(SHAPES)
    values = rng.standard_normal(shape) * 10.0 ** draw(st.integers(-6, 6)) * draw(st.sampled_from([0, 1, 1, 1]))
    values += 10.0 ** draw(st.integers(-6, 6)) * draw(st.sampled_from([-1, 0, 0, 1]))
    values[rng.random(shape) < draw(st.sampled_from([0, 0.2]))] = 0
    return torch.tensor(values, dtype=draw(st.sampled_from([torch.float32, torch.float64])))


def step_of_each_value(codes: torch.Tensor, state) -> torch.Tensor:
    """The scale that belongs to every value, in the values' shape."""
    channels, groups, _ = state.scale.shape
    return state.scale.expand(channels, groups, codes.numel() // (channels * groups)).reshape(codes.shape)


@settings(max_examples=200)
@given(t=tensors(), options=OPTIONS)
def test_rounding_moves_a_value_at_most_half_a_step(t, options):
    codes, state = quantize(t, **options)
    restored = dequantize(codes, state)
    step = step_of_each_value(codes, state)
    slack = 4 * torch.finfo(t.dtype).eps * t.abs().max()
    assert ((t - restored).abs() <= step / 2 * (1 + 1e-5) + slack).all()
    assert int(codes.max()) <= 2 ** options["bits"] - 1
    assert (restored[t == 0] == 0).all()
    again = dequantize(*quantize(restored, **options))
    assert torch.allclose(again, restored, rtol=1e-5, atol=float(slack))


@settings(max_examples=50)
@given(
    value=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    bits=st.integers(2, 8),
    shape=SHAPES,
)
def test_a_constant_comes_back_exactly(value, bits, shape):
    t = torch.full(shape, value)
    assert torch.equal(dequantize(*quantize(t, bits=bits)), t)


@settings(max_examples=50)
@given(t=tensors())
def test_finer_scales_are_no_worse(t):
    worst = [(dequantize(*quantize(t, **options)) - t).abs().max() for options in ({}, {"dim": 0})]
    assert worst[1] <= quantize(t)[1].scale.max() / 2 * (1 + 1e-5) + 4 * torch.finfo(t.dtype).eps * t.abs().max()


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 33), st.integers(0, 2**32 - 1))
def test_four_bit_codes_survive_packing(rows, width, seed):
    codes = torch.randint(16, (rows, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(unpack_int4(pack_int4(codes), width), codes)


# --- LoRA --------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 12),
    alpha=st.floats(0.1, 64),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_an_adapter_is_its_matrix_and_merging_undoes_itself(inputs, outputs, alpha, seed, data):
    r = data.draw(st.integers(1, min(inputs, outputs)), label="r")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = nn.Linear(inputs, outputs).double()
        x = torch.randn(5, inputs, dtype=torch.float64)
        plain, weight = base(x).detach(), base.weight.detach().clone()
        layer = LoraLayer(base, r, alpha)
        assert torch.equal(layer(x), plain)
        layer.lora_b.data.normal_()
    adapted = layer(x).detach()
    assume(layer.delta().abs().max() > 1e-3)
    assert not torch.equal(adapted, plain)
    assert torch.allclose(adapted, plain + x @ layer.delta().T, atol=1e-9)
    layer.merge()
    assert torch.allclose(layer(x), adapted, atol=1e-6) and not torch.equal(base.weight, weight)
    layer.unmerge()
    assert torch.allclose(base.weight, weight, atol=1e-6)
