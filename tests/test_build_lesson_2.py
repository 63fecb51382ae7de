"""The check of Exercise 2.6 takes right batch steps of any style, and says what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import build_it.lesson_2
from build_it import check_batch_step
from helpers import generate_token_with_past


def padded(rows: list[list[int]], *, right: bool = False, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask of the new tokens, (B, T) each."""
    width = max(len(row) for row in rows)
    ids = [row + [pad_id] * (width - len(row)) if right else [pad_id] * (width - len(row)) + row for row in rows]
    masks = [
        [1] * len(row) + [0] * (width - len(row)) if right else [0] * (width - len(row)) + [1] * len(row)
        for row in rows
    ]
    return torch.tensor(ids), torch.tensor(masks)


# --- Right answers ---------------------------------------------------------------------------------------


def plain(model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
    ids, added = padded(new_tokens)
    mask = torch.cat([attention_mask, added], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    outputs = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    return outputs.logits[:, -1].argmax(dim=-1), mask


def by_tensors(model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
    flipped = [torch.tensor(row[::-1]) for row in new_tokens]
    ids = torch.nn.utils.rnn.pad_sequence(flipped, batch_first=True, padding_value=1).flip(1)
    lengths = torch.tensor([len(row) for row in new_tokens])[:, None]
    columns = torch.arange(ids.shape[1])
    pads = ids.shape[1] - lengths
    mask = torch.cat([attention_mask, (columns >= pads).long()], dim=1)
    positions = attention_mask.sum(dim=1, keepdim=True) + (columns - pads).clamp(min=0)
    logits = model(
        ids, past_key_values=cache, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
    ).logits
    return logits[:, 0].argmax(dim=1), mask


def by_the_library(
    model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any
) -> tuple[Tensor, Tensor]:
    ids, added = padded(new_tokens, pad_id=3)
    mask = torch.cat([attention_mask, added], dim=1)
    next_ids, _ = generate_token_with_past(model, {"input_ids": ids, "attention_mask": mask, "past_key_values": cache})
    return next_ids, mask


@pytest.mark.parametrize("answer", [plain, by_tensors, by_the_library])
def test_right_answers_of_any_style_are_correct(answer: Callable) -> None:
    assert check_batch_step(answer), check_batch_step(answer)


# --- Wrong answers ---------------------------------------------------------------------------------------


def step(change: Callable[..., None] | None = None, answer: Callable | None = None) -> Callable:
    """The plain step with a change to what the model is given, or to what comes back."""

    def wrong(model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any) -> Any:
        ids, added = padded(new_tokens)
        mask = torch.cat([attention_mask, added], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        if change is not None:
            change(given, new_tokens)
        logits = model(**given, use_cache=True).logits
        return (logits[:, -1].argmax(dim=-1), mask) if answer is None else answer(logits, mask, added)

    return wrong


def pad_on_the_right(given: dict[str, Any], new_tokens: list[list[int]]) -> None:
    given["input_ids"], added = padded(new_tokens, right=True)
    given["attention_mask"] = torch.cat([given["attention_mask"][:, : -added.shape[1]], added], dim=1)


def renumber_from_0(given: dict[str, Any], new_tokens: list[list[int]]) -> None:
    width = given["input_ids"].shape[1]
    given["position_ids"] = (given["attention_mask"][:, -width:].cumsum(dim=1) - 1).clamp(min=0)


def number_the_columns(given: dict[str, Any], new_tokens: list[list[int]]) -> None:
    width, all_columns = given["input_ids"].shape[1], given["attention_mask"].shape[1]
    given["position_ids"] = torch.arange(all_columns)[-width:].expand(len(new_tokens), -1)


def number_every_column(given: dict[str, Any], new_tokens: list[list[int]]) -> None:
    given["position_ids"] = (given["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)


def mask_only_what_is_new(given: dict[str, Any], new_tokens: list[list[int]]) -> None:
    given["attention_mask"] = given["attention_mask"][:, -given["input_ids"].shape[1] :]


def mask_by_id(given: dict[str, Any], new_tokens: list[list[int]]) -> None:
    ids = given["input_ids"]
    given["attention_mask"][:, -ids.shape[1] :] = (ids != 8).long()


def row_by_row(model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any) -> Any:
    for row in new_tokens:
        model(torch.tensor([row]))
    return plain(model, new_tokens, attention_mask, cache)


def right_while_rows_are_few(model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any) -> Any:
    next_ids, mask = plain(model, new_tokens, attention_mask, cache)
    return (next_ids.roll(1) if len(new_tokens) > 3 else next_ids), mask


WRONG = {
    "padded on the right": (step(pad_on_the_right), "the pads belong on the left"),
    "no mask": (step(lambda given, _: given.update(attention_mask=None)), "got no attention_mask"),
    "an inverted mask": (
        step(lambda given, _: given.update(attention_mask=1 - given["attention_mask"])),
        "1 at a token and 0 under a pad",
    ),
    "a mask of ones": (
        step(lambda given, _: given.update(attention_mask=torch.ones_like(given["attention_mask"]))),
        "attention mask is not right",
    ),
    "a mask by the id of the pad": (step(mask_by_id), "attention mask is not right"),
    "a mask of the new tokens alone": (step(mask_only_what_is_new), "cover the cached tokens and the new ones"),
    "no positions": (step(lambda given, _: given.update(position_ids=None)), "numbers the columns"),
    "columns for positions": (step(number_the_columns), "a position is wrong"),
    "positions of the cached tokens too": (
        step(number_every_column),
        "for forward 2 of two prompts of 3 and 1 tokens position_ids must have the shape of input_ids, (2, 1)",
    ),
    "positions that start anew": (step(renumber_from_0), "the cached ones included"),
    "no cache": (step(lambda given, _: given.update(past_key_values=None)), "did not get the cache"),
    "a forward for each row": (row_by_row, "one forward serves the whole batch"),
    "the mask of the new tokens": (
        step(answer=lambda logits, mask, added: (logits[:, -1].argmax(-1), added)),
        "the attention mask you return is not right: expected the shape",
    ),
    "a mask for the step to come": (
        step(answer=lambda logits, mask, _: (logits[:, -1].argmax(-1), torch.nn.functional.pad(mask, (0, 1), value=1))),
        "a column too many",
    ),
    "a mask of floats": (
        step(answer=lambda logits, mask, _: (logits[:, -1].argmax(-1), mask.float())),
        "expected the dtype torch.int64",
    ),
    "ids in a column": (
        step(answer=lambda logits, mask, _: (logits[:, -1:].argmax(-1), mask)),
        "one int64 id per row",
    ),
    "ids without the mask": (step(answer=lambda logits, *_: logits[:, -1].argmax(-1)), "expected a tuple"),
    "the token after the first column": (
        step(answer=lambda logits, mask, _: (logits[:, 0].argmax(-1), mask)),
        "is not the one it gets alone",
    ),
    "the least likely token": (
        step(answer=lambda logits, mask, _: (logits[:, -1].argmin(-1), mask)),
        "token 1 after “The rain in Spain falls” is not the one it gets alone",
    ),
    "rows that change places": (right_while_rows_are_few, "is not the one it gets alone"),
    "a misspelt name": (lambda *given: plain(*misspelt), "NameError for two prompts of 3 and 1 tokens"),  # noqa: F821
    "something that is not a function": (3, "expected a function, got 3"),
}


@pytest.mark.parametrize(("answer", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_told_what_is_wrong(answer: Any, words: str) -> None:
    result = check_batch_step(answer)
    assert result.outcome == "wrong" and words in result.message, result


@pytest.mark.parametrize("blank", [None, ..., lambda *given: None, lambda *given: ...])
def test_a_blank_is_not_attempted_and_loads_no_model(blank: Any) -> None:
    with mock.patch.object(build_it.lesson_2, "shared_course_model", side_effect=AssertionError):
        assert check_batch_step(blank).outcome == "not attempted"


def test_the_model_is_left_as_it_was() -> None:
    model = build_it.lesson_2.shared_course_model()[0]
    assert check_batch_step(plain)
    assert not model._forward_pre_hooks


def test_what_the_caller_holds_is_not_shown_to_the_answer() -> None:
    """An answer that pads the lists it was given in place is right: it got copies."""

    def in_place(model: Any, new_tokens: list[list[int]], attention_mask: Tensor, cache: Any) -> Any:
        result = plain(model, [list(row) for row in new_tokens], attention_mask, cache)
        for row in new_tokens:
            row.insert(0, 0)
        return result

    assert check_batch_step(in_place), check_batch_step(in_place)
