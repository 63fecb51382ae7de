"""Features combined the way people combine them: every pair of choices occurs together in some row of a table.

Each row builds a model with its choices, serves requests with it in the row's way, and holds it to the laws
that still apply: in float32 and float64 every answer is the one that the request gets alone; in bfloat16, where
kernels change with the batch, the logits stay near those of the same build in float32; and whatever the row does
a second time gives the same again and leaves the caller's model and requests as they were.
"""

from __future__ import annotations

import copy
import itertools
import threading
from dataclasses import dataclass, fields

import pytest
import torch
from torch import nn

from conftest import ARCHITECTURES, random_requests, tiny_model
from helpers import Request, forward, generate_tokens, run_continuous, run_static
from utils import (
    add_lora,
    load_lora,
    lora_state_dict,
    merge_lora,
    pack_model,
    packed_layers,
    quantize_model,
    unmerge_lora,
)

pytestmark = pytest.mark.filterwarnings("ignore:pack_model left")

CHOICES = {
    "architecture": ARCHITECTURES,
    "dtype": (torch.float32, torch.bfloat16, torch.float64),
    "quantized": ("no", "8 bits", "4 bits in groups", "8 bits, head too"),
    "converted": ("before it is quantized", "after it is quantized"),
    "adapter": ("no", "fresh", "trained", "merged", "merged and unmerged", "swapped"),
    "packed": (False, True),
    "served": (run_static, run_continuous),
    "again": ("a second call", "a deep copy", "a slice of the requests", "two callers at once"),
}


@dataclass(frozen=True)
class Row:
    """One choice of each kind."""

    architecture: str
    dtype: torch.dtype
    quantized: str
    converted: str
    adapter: str
    packed: bool
    served: object
    again: str

    def __str__(self) -> str:
        values = (getattr(self, field.name) for field in fields(self))
        return ", ".join(str(getattr(value, "__name__", value)).removeprefix("torch.") for value in values)


def pairwise_rows() -> list[Row]:
    """Rows that contain every pair of choices of different kinds; each new row adds as many pairs as it can."""
    everything = list(itertools.product(*CHOICES.values()))[::7]  # a sample to choose from; the test below checks it
    missing = {pair for row in itertools.product(*CHOICES.values()) for pair in pairs(row)}
    rows = []
    while missing:
        best = max(everything, key=lambda row: len(pairs(row) & missing))
        gained = pairs(best) & missing
        if not gained:
            everything = list(itertools.product(*CHOICES.values()))
            continue
        missing -= gained
        rows.append(Row(*best))
    return rows


def pairs(row: tuple) -> set[tuple]:
    return set(itertools.combinations(enumerate(row), 2))


ROWS = pairwise_rows()


def test_every_pair_of_choices_occurs():
    wanted = {pair for row in itertools.product(*CHOICES.values()) for pair in pairs(row)}
    there = {pair for row in ROWS for pair in pairs(tuple(getattr(row, field.name) for field in fields(row)))}
    assert there == wanted
    assert len(ROWS) < 60


def quantized(model: nn.Module, how: str) -> nn.Module:
    options = {
        "8 bits": {},
        "4 bits in groups": {"bits": 4, "group_size": 16},
        "8 bits, head too": {"quantize_head": True},
    }
    return model if how == "no" else quantize_model(model, **options[how])


def based(row: Row, dtype: torch.dtype) -> nn.Module:
    """The base model, quantized and converted in the row's order."""
    model = tiny_model(row.architecture).float()
    if row.converted == "before it is quantized":
        return quantized(model.to(dtype), row.quantized)
    return quantized(model, row.quantized).to(dtype)


def train(model: nn.Module, seed: int) -> None:
    """Stand-in for training: factors that change the answers."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) * 0.2


def adapted(model: nn.Module, how: str) -> nn.Module:
    """The model with the row's adapter."""
    if how == "no":
        return model
    add_lora(model, 2, alpha=4, targets=("c_attn", "q_proj", "v_proj", "query_key_value", "c_proj", "down_proj"))
    if how == "fresh":
        return model
    train(model, seed=1)
    if how == "swapped":
        first = lora_state_dict(model)
        train(model, seed=2)
        load_lora(model, first)
    if how.startswith("merged"):
        merge_lora(model)
    if how == "merged and unmerged":
        unmerge_lora(model)
    return model


def built(row: Row, dtype: torch.dtype) -> nn.Module:
    model = adapted(based(row, dtype), row.adapter)
    return pack_model(model) if row.packed else model


def cannot_merge(row: Row) -> bool:
    return row.quantized != "no" and row.adapter.startswith("merged")


def logits(model: nn.Module, ids: list[int]) -> torch.Tensor:
    return forward(model, {"input_ids": torch.tensor([ids])}, use_cache=False).logits[0, -1].double()


def answers(served: list[Request]) -> list[list[int]]:
    return [request.output_ids for request in served]


def served_again(row: Row, model: nn.Module, requests: list[Request]) -> list[list[int]] | None:
    """What the row's second use of the same model gives; None where it has nothing to be compared with."""
    if row.again == "two callers at once":
        found: list = [None, None]

        def call(place: int) -> None:
            found[place] = answers(row.served(requests, 3, model=model))

        threads = [threading.Thread(target=call, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] == found[1]
        return found[0]
    if row.again == "a deep copy":
        model = copy.deepcopy(model)
    return answers(row.served(requests, 3, model=model))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_combined_features_keep_their_laws(row):
    if cannot_merge(row):
        with pytest.raises(ValueError, match="quantized base has no float weight to merge into"):
            built(row, row.dtype)
        return
    original = adapted(based(row, row.dtype), row.adapter)
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    model = pack_model(original) if row.packed else original
    requests = random_requests(7)
    asked = copy.deepcopy(requests)
    first = answers(row.served(requests, 3, model=model))
    assert [len(tokens) for tokens in first] == [request.max_tokens for request in requests]
    assert len({tuple(tokens) for tokens in first}) > 3
    if row.dtype == torch.bfloat16:
        exact, found = logits(built(row, torch.float32), [5, 100, 7, 42]), logits(model, [5, 100, 7, 42])
        assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    else:
        alone = [list(generate_tokens(model, r.prompt, r.max_tokens, use_cache=False)) for r in requests]
        assert first == alone
    if row.again == "a slice of the requests" and row.dtype != torch.bfloat16:
        assert answers(row.served(requests[1::2], 2, model=model)) == first[1::2]
    assert served_again(row, model, requests) == first
    assert requests == asked
    after = original.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_say_packed_are_packed(dtype):
    """Otherwise half of the table would be run twice without packing."""
    assert packed_layers(pack_model(quantize_model(tiny_model("gpt2").to(dtype))))
    assert packed_layers(pack_model(tiny_model("llama").to(dtype)))
