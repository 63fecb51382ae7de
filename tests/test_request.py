"""Requests: the answer is the asker's, and what runs is the prompt as it is now."""

from __future__ import annotations

import pytest

from helpers import Request, generate_next_token, init_batch, run_continuous
from request import prepared


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


def test_a_prompt_that_has_changed_is_tokenized_anew(gpt2, tokenizer):
    request = Request("first", 3)
    init_batch([request], tokenizer)
    assert request.prompt_ids == ids(tokenizer, "first")
    request.prompt = "second"
    assert init_batch([request], tokenizer).requests[0].prompt_ids == ids(tokenizer, "second")
    expected = run_continuous([("second", 3)], model=gpt2, tokenizer=tokenizer)[0].output_ids
    assert generate_next_token(init_batch([request], tokenizer), gpt2).requests[0].output_ids == expected[:1]


def test_a_prompt_is_tokenized_anew_by_another_tokenizer(tokenizer):
    class Shifted:
        padding_side, pad_token_id = "left", 0

        def __call__(self, text):
            return {"input_ids": [token + 1 for token in ids(tokenizer, text)]}

    request = Request("abc", 3)
    init_batch([request], tokenizer)
    before = list(request.prompt_ids)
    init_batch([request], Shifted())
    assert request.prompt_ids == [token + 1 for token in before]


def test_nothing_is_changed_when_one_request_is_not_valid(tokenizer):
    good, bad = Request("good", 0), Request("", 3)
    with pytest.raises(ValueError, match="request 1: the prompt is empty"):
        prepared([good, bad], tokenizer)
    assert good.prompt_ids == [] and good.finish_reason is None


def test_a_text_is_tokenized_once_a_run(gpt2, tokenizer):
    calls = []

    class Counting:
        padding_side, pad_token_id = tokenizer.padding_side, tokenizer.pad_token_id

        def __call__(self, text):
            calls.append(text)
            return tokenizer(text)

    run_continuous([("a", 2), ("bb", 2), ("ccc", 2)], 2, model=gpt2, tokenizer=Counting())
    assert sorted(calls) == ["a", "bb", "ccc"]
