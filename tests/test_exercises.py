"""Every check takes the solution, never raises, and agrees with what the project's own code does."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from conftest import tiny_model
from exercise_answers import (
    CALCULATIONS,
    CHECKS,
    FUNCTIONS,
    PARAMETERS,
    module_of,
    right_answers,
    solved,
)
from helpers import (
    Request,
    init_batch,
    run_continuous,
    run_static,
)
from measure import Trace
from utils import LoraLayer, add_lora, linear_lora

# ---------------------------------------------------------------------------------------------------
# The solutions


@pytest.mark.parametrize("name", CHECKS)
def test_check_takes_the_solution(name: str) -> None:
    before = torch.random.get_rng_state()
    result = CHECKS[name](*right_answers(name))
    assert result, result
    assert repr(result) == result.message and result.message.startswith("correct: ")
    assert torch.equal(torch.random.get_rng_state(), before), "the learner's random numbers are the learner's"


@pytest.mark.parametrize("name", CHECKS)
def test_check_says_what_it_is_for(name: str) -> None:
    assert re.match(r"Exercise [1-8]\.[1-5]: ", CHECKS[name].__doc__)


# ---------------------------------------------------------------------------------------------------
# Blanks


def blank(*arguments: Any) -> None: ...


def unfinished(*arguments: Any) -> None:
    raise NotImplementedError("to do")


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("value", [None, ...])
def test_blank_is_not_attempted(name: str, value: Any) -> None:
    result = CHECKS[name](*[value] * len(PARAMETERS[name]))
    assert (result.outcome, repr(result), bool(result)) == ("not attempted", "not attempted yet", False)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("function", [blank, unfinished, lambda *arguments: ...])
def test_function_that_does_nothing_is_not_attempted(name: str, function: Callable) -> None:
    result = CHECKS[name](function)
    assert result.outcome == "not attempted"
    assert repr(result).startswith("not attempted yet")


@pytest.mark.parametrize("name", CALCULATIONS)
def test_half_an_answer_is_not_attempted(name: str) -> None:
    first, *others = right_answers(name)
    result = CHECKS[name](first, *[None] * len(others))
    assert repr(result) == f"not attempted yet: {PARAMETERS[name][1]} is still blank"


# ---------------------------------------------------------------------------------------------------
# Nonsense


def endless(*arguments: Any) -> Any:
    return endless(*arguments)


TWO_LINES = "first line\nsecond line"


def fails(*arguments: Any) -> Any:
    raise ValueError(TWO_LINES)


class Odd:
    """An answer that cannot even be printed."""

    def __repr__(self) -> str:
        raise ValueError

    def __eq__(self, other: object) -> bool:
        raise ValueError


VALUES = [
    "text",
    b"text",
    True,
    math.nan,
    math.inf,
    10**400,
    2j,
    [],
    ["a", None],
    {},
    (None, None),
    np.zeros(3),
    torch.tensor(math.nan),
    torch.zeros(0),
    torch.zeros(2, 2, dtype=torch.float16),
    torch.zeros(1, 2, dtype=torch.complex64),
    torch.zeros(1, 2, device="meta"),
    torch.zeros(1, 2).to_sparse(),
    (torch.zeros(1, 3), "text"),
    nn.Linear(2, 2),
    Odd(),
    print,
]


@pytest.mark.parametrize("name", CHECKS)
def test_nonsense_is_wrong_and_does_not_raise(name: str) -> None:
    for value in VALUES:
        if name in CALCULATIONS:
            for place, right in enumerate(right_answers(name)):
                answers = [*right_answers(name)[:place], value, *[right] * (len(PARAMETERS[name]) - place - 1)]
                assert CHECKS[name](*answers).outcome == "wrong", value
        else:
            assert CHECKS[name](lambda *arguments, value=value: value).outcome == "wrong", type(value)
            if not callable(value):
                assert "expected a function" in repr(CHECKS[name](value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_of_the_learner_is_reported(name: str) -> None:
    assert "your function raised ValueError for " in repr(CHECKS[name](fails))
    assert "second line" not in repr(CHECKS[name](fails))
    assert "raised TypeError" in repr(CHECKS[name](lambda: 1))
    assert "raised RecursionError" in repr(CHECKS[name](endless))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forgotten_branch_is_wrong(name: str) -> None:
    """Right once, and nothing afterwards: that was an attempt."""
    calls = iter([right_answers(name)[0]])
    result = CHECKS[name](lambda *arguments: next(calls, blank)(*arguments))
    assert result.outcome == "wrong"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_that_scribbles_on_its_arguments_fools_nobody(name: str) -> None:
    def scribbling(*arguments: Any) -> Any:
        result = copy.deepcopy(right_answers(name)[0](*arguments))
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                argument.zero_()
            elif isinstance(argument, list):
                argument.clear()
        return result

    assert CHECKS[name](scribbling)


@pytest.mark.parametrize("value", [np.int64(27), np.float64(27.0), 27.0])
def test_whole_number_of_any_type_is_taken(value: Any) -> None:
    assert CHECKS["check_kv_cache"](131072, value)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda order: list(np.array(order))])
def test_order_of_any_type_is_taken(kind: Callable) -> None:
    assert CHECKS["check_admission_order"](lambda *given: kind(solved()["admission_order"](*given)))


# ---------------------------------------------------------------------------------------------------
# The solutions say what the project's own code does


def serve(budgets: list[int], slots: int, run: Callable) -> Trace:
    trace = Trace()
    run([Request([1, 2], budget, ignore_eos=True) for budget in budgets], slots, model=tiny_model("gpt2"), trace=trace)
    return trace


def test_forwards_by_hand_are_those_of_a_run() -> None:
    static, continuous = (serve([5, 1, 2, 4, 1], 3, run) for run in (run_static, run_continuous))
    assert right_answers("check_forward_counts") == (
        static.forwards,
        continuous.forwards,
        pytest.approx(continuous.slot_utilization),
    )


@pytest.mark.parametrize("budgets", [[5, 1, 2, 4, 1], [3] * 7, [12 if i % 4 == 0 else 2 for i in range(16)]])
def test_simulated_admission_is_that_of_a_run(budgets: list[int]) -> None:
    trace = serve(budgets, 4, run_continuous)
    first, last = module_of("check_admission_order")._serve(budgets, range(len(budgets)), 4)
    steps = [[step for step, row in enumerate(trace.rows, 1) if i in row.gained] for i in range(len(budgets))]
    assert (first, last) == ([row[0] for row in steps], [row[-1] for row in steps])


def test_prompts_in_one_row_get_the_logits_that_they_get_alone() -> None:
    model, prompts = tiny_model("gpt2"), [[3, 4, 5], [7], [1, 2, 3, 4]]
    positions, may_look = solved()["one_row"]([len(prompt) for prompt in prompts])
    forbidden = torch.zeros(may_look.shape).masked_fill(~may_look, -math.inf)[None, None]  # (1, 1, N, N)
    row = torch.tensor([sum(prompts, [])])  # (1, N)
    with torch.inference_mode():
        together = model(input_ids=row, attention_mask=forbidden, position_ids=positions[None]).logits[0]
        alone = [model(input_ids=torch.tensor([prompt])).logits[0] for prompt in prompts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_no_batch_has_more_cells_than_it_may() -> None:
    lengths, max_cells = [3, 9, 1, 1, 4, 20, 2, 2, 2], 12
    sizes = solved()["batch_sizes"](lengths, max_cells)
    assert sum(sizes) == len(lengths)
    for last, size in zip(np.cumsum(sizes), sizes, strict=True):
        batch = init_batch([Request([1] * length, 2) for length in lengths[last - size : last]])
        assert size == 1 or batch.input_ids.numel() <= max_cells


def test_trained_parameters_are_those_of_the_library() -> None:
    trained = 0
    for rank, target in ((4, "c_attn"), (2, "c_fc")):
        with torch.device("meta"):
            model = add_lora(GPT2LMHeadModel(GPT2Config()), r=rank, targets=[target])
        trained += sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert right_answers("check_trainable_parameters") == (trained, 8 * trained)


@pytest.mark.parametrize("base", [nn.Linear(6, 4), Conv1D(4, 6), Conv1D(5, 5)], ids=["linear", "conv1d", "square"])
def test_merging_is_that_of_the_library(base: nn.Module) -> None:
    layers = [LoraLayer(base, r=2, alpha=3.0), LoraLayer(base, r=3, alpha=1.0)]
    for layer in layers:
        nn.init.normal_(layer.lora_b)
    adapters = [(layer.lora_a.detach(), layer.lora_b.detach(), layer.scaling) for layer in layers]
    ours = solved()["merged_weight"](base, adapters)
    for layer in layers:
        layer.merge()
    torch.testing.assert_close(ours, base.weight.detach())


def test_dora_is_that_of_peft() -> None:
    config = peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["0"])
    torch.manual_seed(0)
    weight = nn.Linear(7, 4, bias=False)
    original = weight.weight.detach().clone()
    model = peft.get_peft_model(nn.Sequential(weight), config)
    layer = model.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude.detach(), original.norm(dim=1))
    with torch.no_grad():
        b.normal_()
        magnitude.mul_(1.5)
        x = torch.randn(2, 7)
        ours = solved()["dora_weight"](original, a, b, magnitude, 5.0)
        torch.testing.assert_close(model(x), x @ ours.T)


def test_adapter_updates_are_those_of_one_layer_each() -> None:
    layers = [LoraLayer(nn.Linear(6, 4), r=2, alpha=alpha) for alpha in (2.0, 4.0, 1.0)]
    for layer in layers:
        nn.init.normal_(layer.lora_b)
    x, adapter = torch.randn(4, 3, 6), torch.tensor([2, -1, 0, 1])
    a, b = (torch.stack([getattr(layer, part).detach() for layer in layers]) for part in ("lora_a", "lora_b"))
    ours = solved()["adapter_updates"](x, a, b, torch.tensor([layer.scaling for layer in layers]), adapter)
    for row, index in enumerate(adapter.tolist()):
        expected = layers[index](x[row]) - layers[index].base_layer(x[row]) if index >= 0 else torch.zeros(3, 4)
        torch.testing.assert_close(ours[row], expected.detach())


def test_the_bytes_of_an_adapter_are_those_of_the_library() -> None:
    with torch.device("meta"):
        block = nn.ModuleDict({name: nn.Linear(4096, 4096, dtype=torch.float16) for name in "qkvo"})
        adapted = add_lora(block, r=16, targets=list("qkvo"))
    trained = sum(p.nbytes for p in adapted.parameters() if p.requires_grad)
    assert right_answers("check_room_for_adapters") == (32 * trained, 10**10 // (32 * trained))


def test_stacks_of_different_ranks_are_what_linear_lora_takes() -> None:
    base = nn.Linear(6, 4)
    layers = [LoraLayer(base, r=rank, alpha=3.0) for rank in (1, 3, 2)]
    for layer in layers:
        nn.init.normal_(layer.lora_b)
    stacks = solved()["stacked_loras"]([(q.lora_a.detach(), q.lora_b.detach(), q.scaling) for q in layers])
    x, chosen = torch.randn(4, 2, 6), [2, 0, 1, 1]
    with torch.no_grad():
        ours = base(x) + linear_lora(x, *stacks, torch.tensor(chosen))
        expected = torch.stack([layers[index](row) for index, row in zip(chosen, x, strict=True)])
    torch.testing.assert_close(ours, expected)


def test_rounding_error_of_groups_is_half_a_step_at_most() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    codes, scale = solved()["grouped_int4"](weight, 16)
    steps = scale.repeat_interleave(16, dim=1)
    assert ((codes * steps - weight).abs() <= steps / 2 * 1.0001).all()
    assert codes.min() >= -7 and codes.max() <= 7
