"""The KV cache grows, is selected and is merged as transformers' own cache would be, without its copies."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.cache_utils import DynamicLayer

from helpers import generate_next_token, generate_token_with_past, init_batch, run_continuous, stack_rows
from kv_cache import SPARE_COLUMNS, GrowingLayer, cache_of, merge_caches, select_cache

# --- The cache ---------------------------------------------------------------------------------------


def test_a_step_writes_into_a_spare_column_and_copies_nothing(gpt2):
    batch = generate_next_token(init_batch([([1, 2], 60), ([3], 60)]), gpt2)
    places = set()
    for _ in range(50):
        batch = generate_next_token(batch, gpt2)
        places.add(batch.past_key_values.layers[0].keys.data_ptr())
    assert len(places) == 1


def grown(layer: GrowingLayer, steps: int, seed: int = 0) -> GrowingLayer:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        layer.update(*torch.randn(2, 3, 2, 1, 4, generator=generator))
    return layer


@pytest.mark.parametrize("steps", [1, 64, 65, 66, 200])
def test_a_growing_layer_holds_what_a_dynamic_layer_holds(steps):
    ours, theirs = grown(GrowingLayer(), steps), grown(DynamicLayer(), steps)
    assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    assert ours.get_seq_length() == steps


def keep_rows(layer: DynamicLayer, rows: slice, columns: slice = slice(None)) -> None:
    """What somebody does who wants fewer rows: the new keys begin at the same address as the old ones."""
    layer.keys, layer.values = layer.keys[rows, :, columns], layer.values[rows, :, columns]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.batch_select_indices(torch.tensor([2, 0])),
        lambda layer: layer.reorder_cache(torch.tensor([1, 0, 2])),
        lambda layer: layer.batch_repeat_interleave(2),
        lambda layer: layer.crop(-2),
        lambda layer: layer.reset(),
        lambda layer: keep_rows(layer, slice(1)),
        lambda layer: keep_rows(layer, slice(None), columns=slice(3)),
        lambda layer: None,
    ],
)
def test_a_growing_layer_goes_on_after_any_change_as_a_dynamic_one_does(change):
    layers = [grown(kind(), 5) for kind in (GrowingLayer, DynamicLayer)]
    for layer in layers:
        change(layer)
        rows = 3 if not layer.is_initialized else layer.keys.shape[0]
        for seed in (1, 2):
            layer.update(*torch.randn(2, rows, 2, 1, 4, generator=torch.Generator().manual_seed(seed)))
    ours, theirs = layers
    assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_a_deep_copy_of_a_cache_has_buffers_of_its_own():
    first = grown(GrowingLayer(), 5)
    second = copy.deepcopy(first)
    grown(first, 3, seed=1), grown(second, 3, seed=2)
    assert torch.equal(first.keys[:, :, :5], second.keys[:, :, :5])
    assert not torch.equal(first.keys[:, :, 5:], second.keys[:, :, 5:])


def test_a_cache_made_by_us_can_be_used_outside_of_inference_mode(gpt2):
    _, cache = generate_token_with_past(gpt2, {"input_ids": torch.tensor([[1, 2, 3]])})
    with torch.no_grad():
        logits = gpt2(input_ids=torch.tensor([[4]]), past_key_values=cache).logits
        assert torch.allclose(logits, gpt2(input_ids=torch.tensor([[1, 2, 3, 4]])).logits[:, -1:])


def test_two_shallow_copies_that_both_go_on_do_not_write_over_each_other():
    first = grown(GrowingLayer(), 5)
    second = copy.copy(first)
    expected = [torch.cat([first.keys, grown(GrowingLayer(), 3, seed).keys], dim=2) for seed in (1, 2)]
    grown(first, 3, seed=1), grown(second, 3, seed=2)
    assert torch.equal(first.keys, expected[0]) and torch.equal(second.keys, expected[1])


def two_caches() -> list:
    """Of two layers; two rows of 5 columns, three rows of 3."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 5, 8), (3, 4, 3, 8)]
    return [cache_of([tuple(torch.randn(2, *shape, generator=generator)) for _ in range(2)]) for shape in shapes]


def test_merged_caches_hold_the_stacked_rows_and_have_spare_columns():
    wide, narrow = two_caches()
    for first, second in ((wide, narrow), (narrow, wide), (wide, wide)):
        merged = merge_caches(first, second)
        for layer, one, two in zip(merged.layers, first.layers, second.layers, strict=True):
            assert torch.equal(layer.keys, stack_rows(one.keys, two.keys, dim=2))
            assert torch.equal(layer.values, stack_rows(one.values, two.values, dim=2))
            place = layer.keys.data_ptr()
            grown_keys, _ = layer.update(*torch.ones(2, len(layer.keys), 4, SPARE_COLUMNS, 8))
            assert grown_keys.data_ptr() == place  # nothing was copied


def test_a_selection_holds_copies_of_its_rows_and_has_spare_columns():
    wide, _ = two_caches()
    chosen = select_cache(wide, [1], 2)
    for layer, original in zip(chosen.layers, wide.layers, strict=True):
        assert torch.equal(layer.keys, original.keys[[1], :, 2:])
        assert torch.equal(layer.values, original.values[[1], :, 2:])
        place, before = layer.keys.data_ptr(), original.keys.clone()
        layer.keys.zero_()
        assert torch.equal(original.keys, before)
        assert layer.update(*torch.ones(2, 1, 4, 1, 8))[0].data_ptr() == place
    assert select_cache(None, [0], 0) is None


def test_a_cache_made_with_gradients_on_can_be_selected(gpt2):
    cache = gpt2(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    assert cache.layers[0].keys.requires_grad
    assert torch.equal(select_cache(cache, [0], 1).layers[0].keys, cache.layers[0].keys[:, :, 1:])


# --- Models of every kind ---------------------------------------------------------------------------

FINE = ([1, 2], 3)


def unsupported_models() -> dict:
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "sliding window": lambda: MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=4)),
        "recurrent": lambda: MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1)),
        "alibi": lambda: BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)),
        "encoder": lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2)
        ),
    }


@pytest.mark.parametrize(
    ("kind", "reason"),
    {
        "sliding window": "its cache has DynamicSlidingWindowLayer layers",
        "recurrent": "it keeps a recurrent state instead of keys and values",
        "alibi": "it takes no position_ids",
        "encoder": "it has an encoder",
    }.items(),
)
def test_models_that_cannot_be_batched_are_refused(kind, reason):
    model = unsupported_models()[kind]().eval()
    with pytest.raises(ValueError, match=f"{type(model).__name__} cannot be batched here: .*{reason}"):
        run_continuous([FINE], model=model)
