"""Every way of generating gives the tokens that `model.generate` gives for one request alone."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

import helpers
from conftest import CONTEXT, VOCABULARY, random_requests, reference
from helpers import (
    Batch,
    Request,
    filter_batch,
    forward,
    generate_batch,
    generate_next_token,
    generate_token,
    generate_token_with_past,
    generate_tokens,
    init_batch,
    merge_batches,
    positions_from_mask,
    run_continuous,
    run_static,
)

RUNS = pytest.mark.parametrize("run", [run_static, run_continuous])


def outputs(served: list[Request]) -> list[list[int]]:
    return [request.output_ids for request in served]


# --- One sequence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("budget", [0, 1, 2, 12])
def test_generate_tokens_equals_generate(model, use_cache, budget):
    prompt = [5, 100, 7, 42]
    expected = reference(model, Request(prompt, budget))
    assert len(expected) == budget
    assert list(generate_tokens(model, prompt, budget, use_cache=use_cache)) == expected
    assert list(generate_tokens(model, torch.tensor([prompt]), budget, use_cache=use_cache)) == expected


def test_generate_tokens_stops_after_eos(model):
    prompt = [5, 100, 7, 42]
    free = list(generate_tokens(model, prompt, 12))
    eos = free[4]
    assert list(generate_tokens(model, prompt, 12, eos_token_id=eos)) == free[: free.index(eos) + 1]
    assert list(generate_tokens(model, prompt, 12, eos_token_id=[eos])) == free[: free.index(eos) + 1]


def test_cached_logits_equal_uncached_for_any_split(model):
    ids = torch.randint(VOCABULARY, (1, 15), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits[:, -1]
    for split in (1, 7, 14):
        _, cache = generate_token_with_past(model, {"input_ids": ids[:, :split]})
        with torch.no_grad():
            positions = torch.arange(split, 15)[None]
            parts = model(input_ids=ids[:, split:], past_key_values=cache, position_ids=positions).logits[:, -1]
        assert (whole - parts).abs().max() <= 1e-10


def test_generate_token_takes_a_padded_batch(model):
    inputs = {
        "input_ids": torch.tensor([[9, 9, 3, 4], [5, 6, 7, 8]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
    }
    together = generate_token(model, inputs)
    cached, _ = generate_token_with_past(model, inputs)
    alone = [generate_token(model, {"input_ids": torch.tensor([row])}).item() for row in ([3, 4], [5, 6, 7, 8])]
    assert together.tolist() == cached.tolist() == alone
    assert alone[0] != alone[1]


def test_only_the_last_positions_logits_are_computed(gpt2):
    assert forward(gpt2, {"input_ids": torch.ones(2, 9, dtype=torch.long)}, use_cache=False).logits.shape == (
        2,
        1,
        VOCABULARY,
    )


# --- Static and continuous runs ----------------------------------------------------------------------


@RUNS
def test_progress_is_shown_only_when_asked_for_and_leaves_nothing_behind(run, gpt2, capsys, monkeypatch):
    ends = []

    class Watched(helpers.tqdm):
        def close(self):
            ends.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(helpers, "tqdm", Watched)
    requests = [Request([1, 2, 3], budget) for budget in (3, 0, 1, 5)]  # the second wants nothing
    run(requests, 2, model=gpt2)
    assert capsys.readouterr().err == ""
    run(requests, 2, model=gpt2, progress=True)
    shown = capsys.readouterr().err
    assert "requests" in shown and "/3" in shown
    assert shown.rpartition("\r")[0].rpartition("\r")[2].strip() == ""  # the line was wiped
    assert ends[-1] == (3, 3)


@RUNS
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_runs_equal_generate(model, run, batch_size):
    requests = random_requests(13)
    served = run(requests, batch_size, model=model)
    assert outputs(served) == [reference(model, request) for request in requests]
    assert [len(ids) for ids in outputs(served)] == [request.max_tokens for request in requests]
    assert len({tuple(ids) for ids in outputs(served)}) > 6  # not all the same answer
    assert all(request.finish_reason == "length" for request in served)


@RUNS
def test_runs_stop_at_eos_like_generate(model, run, with_eos):
    requests = random_requests(13, seed=1)
    eos = with_eos(model, requests)
    served = run(requests, 3, model=model)
    assert outputs(served) == [reference(model, request) for request in requests]
    stopped = [request for request in served if request.finish_reason == "eos"]
    assert stopped and all(request.output_ids[-1] == eos for request in stopped)
    assert any(len(request.output_ids) < request.max_tokens for request in stopped)


@RUNS
def test_ignore_eos_goes_on_to_the_budget(gpt2, run, with_eos):
    requests = random_requests(13, seed=1)
    eos = with_eos(gpt2, requests)
    for request in requests:
        request.ignore_eos = True
    served = run(requests, 3, model=gpt2)
    assert outputs(served) == [reference(gpt2, request) for request in requests]
    assert any(eos in ids[:-1] for ids in outputs(served))


@RUNS
def test_runs_leave_the_requests_alone_and_repeat(gpt2, run):
    requests = random_requests(9)
    before = [Request(list(r.prompt), r.max_tokens) for r in requests]
    first, second = run(requests, 4, model=gpt2), run(requests, 4, model=gpt2)
    assert requests == before
    assert outputs(first) == outputs(second)
    assert [request.prompt for request in first] == [request.prompt for request in requests]


@RUNS
def test_tuples_are_requests(gpt2, run):
    requests = random_requests(6)
    tuples = [(request.prompt, request.max_tokens) for request in requests]
    assert outputs(run(tuples, 2, model=gpt2)) == outputs(run(requests, 2, model=gpt2))


@RUNS
def test_requests_that_fill_the_context_ride_along_safely(gpt2, run):
    """A finished row with a long prompt stays in a static batch beyond the context, unharmed."""
    long = Request([1] * (CONTEXT - 2), 2)
    short = Request([2, 3], 40)
    served = run([long, short], 2, model=gpt2)
    assert outputs(served) == [reference(gpt2, long), reference(gpt2, short)]


# --- Batches -----------------------------------------------------------------------------------------


def decoded(batch: Batch, model, steps: int) -> Batch:
    for _ in range(steps):
        batch = generate_next_token(batch, model)
    return batch


def test_init_batch_pads_on_the_left():
    batch = init_batch([([7], 5), ([1, 2, 3], 5)])
    assert batch.input_ids.tolist()[1] == [1, 2, 3]
    assert batch.input_ids.tolist()[0][-1] == 7
    assert batch.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert batch.position_ids.tolist() == [[1, 1, 0], [0, 1, 2]]
    assert batch.attention_mask.dtype == batch.input_ids.dtype == batch.position_ids.dtype == torch.int64
    assert len(batch) == 2 and batch["input_ids"] is batch.input_ids


def test_positions_of_a_mask():
    assert positions_from_mask(torch.tensor([[0, 1, 1, 1]])).tolist() == [[1, 0, 1, 2]]


@pytest.mark.parametrize("pad_id", [0, 17, 256])
def test_the_pad_token_is_never_seen(model, pad_id):
    requests = [Request([3], 6), Request([4, 5, 6, 7], 6)]
    batch = init_batch(requests)
    batch.input_ids[batch.attention_mask == 0] = pad_id
    decoded(batch, model, 6)
    assert outputs(requests) == [reference(model, request) for request in requests]


def test_a_row_is_the_same_whatever_its_neighbours(model):
    target = [11, 22, 33]
    answers = []
    for neighbours in ([], [[1] * 9], [[2, 3], [4] * 12, [5]]):
        request = Request(target, 7)
        decoded(init_batch([*((prompt, 7) for prompt in neighbours), request]), model, 7)
        answers.append(request.output_ids)
    assert answers[0] == answers[1] == answers[2] == reference(model, Request(target, 7))


def test_mask_width_is_cached_plus_new_at_every_step(model):
    batch = init_batch([([1, 2, 3], 5), ([4], 5)])
    for step in range(5):
        cached = batch.past_key_values.get_seq_length() if batch.past_key_values else 0
        assert batch.attention_mask.shape == (2, cached + batch.input_ids.shape[1])
        assert batch.attention_mask.dtype == torch.int64
        batch = generate_next_token(batch, model)
        assert batch.past_key_values.get_seq_length() == 3 + step


def test_merge_then_filter_restores_both(model):
    def started(prompts: list[list[int]], steps: int) -> Batch:
        return decoded(init_batch([(prompt, 9) for prompt in prompts]), model, steps)

    first, second = started([[1, 2, 3, 4, 5], [6]], 3), started([[7, 8], [9, 10]], 1)
    merged = merge_batches(first, second)
    assert merged.attention_mask.shape == (4, 8) and len(merged) == 4
    for batch, rows in ((first, slice(0, 2)), (second, slice(2, 4))):
        for request in merged.requests:
            request.finish_reason = None if request in batch.requests else "length"
        restored, removed = filter_batch(merged)
        assert removed == [row for row in range(4) if row not in range(4)[rows]]
        assert restored.requests == batch.requests
        for name in ("input_ids", "attention_mask", "position_ids"):
            assert torch.equal(restored[name], batch[name])
        for ours, theirs in zip(restored.past_key_values.layers, batch.past_key_values.layers, strict=True):
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_filter_without_finished_rows_copies_nothing(gpt2):
    batch = decoded(init_batch([([1, 2], 5), ([3], 5)]), gpt2, 1)
    same, removed = filter_batch(batch)
    assert same is batch and removed == []


def test_filter_before_prefill(gpt2):
    batch, removed = filter_batch(init_batch([([1, 2, 3], 0), ([4], 5)]))
    assert removed == [0]
    assert batch.input_ids.tolist() == [[4]] and batch.attention_mask.tolist() == [[1]]


def test_an_emptied_batch_leaves_no_width_behind(gpt2):
    old = decoded(init_batch([([1] * 30, 2)]), gpt2, 2)
    emptied, removed = filter_batch(old)
    assert removed == [0] and len(emptied) == 0 and emptied["input_ids"].size(0) == 0
    newcomers = decoded(init_batch([([1, 2], 5)]), gpt2, 1)
    assert merge_batches(emptied, newcomers) is newcomers
    assert merge_batches(newcomers, emptied) is newcomers
    assert generate_next_token(emptied, gpt2) is emptied


def test_filter_trims_the_width_to_the_longest_live_row(gpt2):
    batch = decoded(init_batch([([1] * 20, 2), ([2, 3], 9)]), gpt2, 2)
    assert batch.attention_mask.shape[1] == 22
    live, removed = filter_batch(batch)
    assert removed == [0]
    assert live.attention_mask.tolist() == [[1] * 4]  # two prompt tokens and two generated
    assert live.past_key_values.get_seq_length() == 3


def test_a_finished_row_gains_nothing_more(gpt2):
    requests = [Request([1, 2], 1), Request([3], 4)]
    decoded(init_batch(requests), gpt2, 4)
    assert outputs(requests) == [reference(gpt2, request) for request in requests]


def test_a_used_up_batch_is_refused(gpt2):
    batch = init_batch([([1, 2], 5)])
    after_prefill = generate_next_token(batch, gpt2)
    with pytest.raises(ValueError, match="already has 1 output token"):
        generate_next_token(batch, gpt2)
    generate_next_token(after_prefill, gpt2)
    with pytest.raises(ValueError, match="consumed"):
        generate_next_token(after_prefill, gpt2)


# --- Text at the edges -------------------------------------------------------------------------------


def test_generate_batch_equals_one_at_a_time(gpt2, tokenizer):
    prompts = ["a", "The quick brown", "Zwei Füße"]
    together = generate_batch(gpt2, tokenizer, prompts, 6)
    assert together == [generate_batch(gpt2, tokenizer, [prompt], 6)[0] for prompt in prompts]
    assert len(set(together)) == 3
    assert generate_batch(gpt2, tokenizer, [], 6) == []


def test_prompts_as_text_and_as_ids_agree(gpt2, tokenizer):
    text = "Guten Tag"
    [as_text] = run_continuous([(text, 5)], model=gpt2, tokenizer=tokenizer)
    [as_ids] = run_continuous([(tokenizer(text)["input_ids"], 5)], model=gpt2)
    assert as_text.output_ids == as_ids.output_ids
    assert as_text.prompt == text and as_text.prompt_ids == tokenizer(text)["input_ids"]


def test_a_model_wrapped_by_peft_is_served(gpt2):
    requests = random_requests(7)
    wanted = [reference(gpt2, request) for request in requests]
    wrapped = get_peft_model(gpt2, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    assert outputs(run_continuous(requests, 3, model=wrapped)) == wanted
