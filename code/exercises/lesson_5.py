"""The checks of Lesson 5, low-rank adaptation."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .checking import Function, Wrong, call, compare_function, compare_number, exercise, normal


@exercise("about a fifth of a percent of GPT-2's parameters is trained, and only they need optimizer memory")
def check_trainable_parameters(lora_parameters: int | None, lora_adam_bytes: int | None) -> None:
    """Exercise 5.1: trainable parameters and optimizer memory of LoRA on two layers of each of GPT-2's blocks."""
    blocks, width = 12, 768
    attention, mlp = width + 3 * width, width + 4 * width  # in + out of c_attn and of c_fc
    expected = blocks * (4 * attention + 2 * mlp)
    mistakes = {
        "that is one block; GPT-2 small has more": expected // blocks,
        "c_attn makes queries, keys and values together: it is wider on the way out": blocks * (8 * width + 2 * mlp),
        "one pair of factors serves queries, keys and values together": blocks * (3 * 8 * width + 2 * mlp),
        "that is c_attn alone": blocks * 4 * attention,
        "that is c_fc alone": blocks * 2 * mlp,
        "each layer has a rank of its own": blocks * 4 * (attention + mlp),
        "the two ranks are exchanged": blocks * (2 * attention + 4 * mlp),
        "that is A alone": blocks * (4 + 2) * width,
        "that is B alone": blocks * (4 * 3 + 2 * 4) * width,
        "those are the frozen weights": blocks * (3 + 4) * width**2,
    }
    compare_number("lora_parameters", lora_parameters, expected, mistakes)
    mistakes = {
        "Adam keeps two numbers for every trainable parameter": 4 * expected,
        "those are numbers; a float32 number takes 4 bytes": 2 * expected,
        "count what the optimizer keeps, not the parameters themselves": 12 * expected,
        "count two numbers for each parameter, of 4 bytes each": 16 * expected,
    }
    compare_number("lora_adam_bytes", lora_adam_bytes, 8 * expected, mistakes)


def _smallest_rank(update: Tensor, tolerance: float) -> int:
    u, s, v = torch.linalg.svd(update.double(), full_matrices=False)
    for rank in range(len(s) + 1):
        error = update - u[:, :rank] * s[:rank] @ v[:rank]
        if error.norm() <= tolerance * update.norm():
            break
    return rank


def _smallest_rank_by_tail(update: Tensor, tolerance: float, power: int) -> int:
    """The rank that leaves at most `tolerance` of the sum of the singular values to this power."""
    s = torch.linalg.svdvals(update.double()) ** power
    return next(rank for rank in range(len(s) + 1) if s[rank:].sum() <= tolerance * s.sum())


def _with_singular_values(values: list[float], out_features: int, in_features: int) -> Tensor:
    left = torch.linalg.qr(normal(out_features, len(values), seed=1).double()).Q
    right = torch.linalg.qr(normal(in_features, len(values), seed=2).double()).Q
    return (left * torch.tensor(values, dtype=torch.float64) @ right.T).float()


@exercise("the singular values tell how much of an update every further rank can hold")
def check_smallest_rank(function: Function | None) -> None:
    """Exercise 5.2: the smallest rank that holds an update."""
    halving = [2.0**-index for index in range(12)]
    cases = {
        "the example": (torch.diag(torch.tensor([0.12, 0.04, 0.03, 0.0])), 0.3),
        "an update of rank 3": (_with_singular_values([5.0, 3.0, 1.0], 24, 16), 0.01),
        "singular values that halve": (_with_singular_values(halving, 16, 40), 0.1),
        "a large matrix of small values": (_with_singular_values([0.03, 0.02, 0.02, 0.02], 30, 30), 0.5),
        "a tolerance above 1": (_with_singular_values([5.0, 3.0, 1.0], 24, 16), 1.5),
        "an update that only the full rank holds": (normal(4, 6), 0.001),
        "a zero matrix": (torch.zeros(5, 7), 0.1),
    }
    mistakes = {
        "that is the rank itself; a tolerance allows less": lambda update, _: int(torch.linalg.matrix_rank(update)),
        "the tolerance is on the norm: the square root of the sum of squares, not the sum": lambda update, tolerance: (
            _smallest_rank_by_tail(update, tolerance, power=1)
        ),
        "that compares squared norms; take the square root": lambda update, tolerance: _smallest_rank_by_tail(
            update, tolerance, power=2
        ),
        "the tolerance is relative to the norm of the whole update": lambda update, tolerance: int(
            (torch.linalg.svdvals(update) > tolerance).sum()
        ),
        "a rank leaves out all singular values after its own, not only the next one": lambda update, tolerance: int(
            (torch.linalg.svdvals(update) > tolerance * update.norm()).sum()
        ),
    }
    compare_function(function, _smallest_rank, cases, mistakes)


Adapters = list[tuple[Tensor, Tensor, float]]  # for each adapter a (r, in), b (out, r) and its scaling


def _merged_weight(layer: nn.Module, adapters: Adapters) -> Tensor:
    weight = layer.weight.detach().clone()
    for a, b, scaling in adapters:
        update = scaling * torch.einsum("or,ri->oi", b, a)  # (out, in)
        weight += update.T if isinstance(layer, Conv1D) else update
    return weight


def _merged_by_shape(layer: nn.Module, adapters: Adapters) -> Tensor:
    updates = [scaling * b @ a for a, b, scaling in adapters]
    fitting = [update if update.shape == layer.weight.shape else update.T for update in updates]
    return sum(fitting, layer.weight.detach())


def _merged_in_one_product(layer: nn.Module, adapters: Adapters) -> Tensor:
    """The mistake of adding up the factors before they are multiplied; missing ranks count as zeros."""
    if not adapters:
        return layer.weight.detach()
    rank = max(len(a) for a, _, _ in adapters)
    a = sum(nn.functional.pad(a, (0, 0, 0, rank - len(a))) for a, _, _ in adapters)
    b = sum(scaling * nn.functional.pad(b, (0, rank - b.shape[1])) for _, b, scaling in adapters)
    return _merged_weight(layer, [(a, b, 1.0)])


def _layer_case(kind: type, in_features: int, out_features: int, scalings: Mapping[int, float]) -> tuple:
    """A layer of this kind with random weights, and adapters of these ranks and scalings."""
    if kind is nn.Linear:
        layer, shape = nn.Linear(in_features, out_features), (out_features, in_features)
    else:
        layer, shape = Conv1D(out_features, in_features), (in_features, out_features)
    layer.weight = nn.Parameter(normal(*shape))
    adapters = [
        (normal(rank, in_features, seed=2 * rank), normal(out_features, rank, seed=2 * rank + 1), scaling)
        for rank, scaling in scalings.items()
    ]
    return layer, adapters


@exercise("products are added up, never the factors; and a Conv1D keeps its weight as (in, out), square or not")
def check_merged_weight(function: Function | None) -> None:
    """Exercise 5.3: several low-rank updates merged into a layer of either kind."""
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        example = nn.Linear(2, 1)
        example.weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
        first = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0]]), 2.0
        second = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0]]), 0.5
        cases = {
            "the example": (example, [first, second]),
            "an nn.Linear": _layer_case(nn.Linear, 6, 4, {2: 0.5}),
            "a Conv1D": _layer_case(Conv1D, 6, 4, {2: 2.0, 3: 0.5}),
            "a square nn.Linear": _layer_case(nn.Linear, 5, 5, {1: 2.0, 3: 0.5, 2: 1.5}),
            "a square Conv1D": _layer_case(Conv1D, 5, 5, {3: 0.5}),
            "no adapters": _layer_case(Conv1D, 3, 4, {}),
        }
    mistakes = {
        "each adapter has a scaling of its own": lambda layer, adapters: _merged_weight(
            layer, [(a, b, 1.0) for a, b, _ in adapters]
        ),
        "add the layer's own weight": lambda layer, adapters: _merged_weight(layer, adapters) - layer.weight,
        "add the layer's own weight once": lambda layer, adapters: (
            _merged_weight(layer, adapters) + (len(adapters) - 1) * layer.weight.detach()
        ),
        "a Conv1D keeps its weight as (in, out), square or not": _merged_by_shape,
        "return the weight as the layer keeps it": lambda *given: _merged_weight(*given).T,
        "that is the first adapter alone": lambda layer, adapters: _merged_weight(layer, adapters[:1]),
        "that is the last adapter alone": lambda layer, adapters: _merged_weight(layer, adapters[-1:]),
        "multiply the factors of each adapter before you add anything up": _merged_in_one_product,
    }
    compare_function(function, _merged_weight, cases, mistakes)
    for name, (layer, *others) in copy.deepcopy(cases).items():
        before = layer.weight.detach().clone()
        call(lambda *given, layer=layer: function(layer, *given), name, tuple(others))
        if not torch.equal(layer.weight, before):
            raise Wrong("the result is right, but the layer was changed; return a new tensor")


def _row_norms(weight: Tensor) -> Tensor:
    return torch.stack([row.square().sum().sqrt() for row in weight])[:, None]  # (out, 1)


def _dora_weight(
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    magnitude: Tensor,
    alpha: float,
    *,
    power: float = 0.5,
    norm_of: Function = _row_norms,
) -> Tensor:
    turned = weight + alpha / len(a) ** power * (b @ a)  # (out, in)
    return magnitude[:, None] * turned / norm_of(turned)


def _adapter_case(out_features: int, in_features: int, rank: int, alpha: float) -> tuple:
    a, b = normal(rank, in_features, seed=1), normal(out_features, rank, seed=2)
    return normal(out_features, in_features), a, b, normal(out_features, seed=3).abs() + 0.5, alpha


@exercise("LoRA turns the rows of a weight, and one number for each row sets its length")
def check_dora_weight(function: Function | None) -> None:
    """Exercise 5.4: the weight of a DoRA layer with rsLoRA's scaling."""
    weight, a, b, _, alpha = _adapter_case(6, 4, 2, 3.0)
    example = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]]), torch.ones(1, 1), torch.tensor([10.0]), 1.0
    cases = {
        "the example": example,
        "a fresh adapter": (weight, a, torch.zeros_like(b), weight.norm(dim=1), alpha),
        "rank 1": _adapter_case(6, 4, 1, 3.0),
        "rank 4": _adapter_case(8, 12, 4, 3.0),
        "a square weight": _adapter_case(7, 7, 3, 2.0),
    }
    mistakes = {
        "the scaling is alpha / r; rsLoRA divides by the square root of r": lambda *given: _dora_weight(
            *given, power=1.0
        ),
        "divide alpha by the square root of the rank": lambda *given: _dora_weight(*given, power=0.0),
        "the scaling is missing": lambda weight, a, b, magnitude, alpha: _dora_weight(
            weight, a, b, magnitude, len(a) ** 0.5
        ),
        "divide by the new norm, not by the old one": lambda weight, *given: _dora_weight(
            weight, *given, norm_of=lambda _: _row_norms(weight)
        ),
        "the rank is the number of rows of a": lambda weight, a, b, magnitude, alpha: _dora_weight(
            weight, a, b, magnitude, alpha * (len(a) / len(b)) ** 0.5
        ),
        "only the rank stands under the root, not alpha": lambda weight, a, b, magnitude, alpha: _dora_weight(
            weight, a, b, magnitude, alpha**0.5
        ),
        "take the norm of each row, that is of each output": lambda *given: _dora_weight(
            *given, norm_of=lambda turned: turned.norm(dim=0)
        ),
        "that divides by the norm of the whole matrix; each row has a norm of its own": lambda *given: _dora_weight(
            *given, norm_of=lambda turned: turned.norm()
        ),
        "the rows have length 1; multiply by the magnitude": lambda weight, a, b, magnitude, alpha: _dora_weight(
            weight, a, b, torch.ones_like(magnitude), alpha
        ),
    }
    compare_function(function, _dora_weight, cases, mistakes)


def _adapter_updates(x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, adapter: Tensor) -> Tensor:
    rows = [
        torch.zeros(x.shape[1], b.shape[1]) if index < 0 else scaling[index] * (row @ a[index].T @ b[index].T)
        for row, index in zip(x, adapter.tolist(), strict=True)
    ]
    return torch.stack(rows)  # (B, T, out)


@exercise("requests of different customers share one batch, and a row without an adapter gets the base model's answer")
def check_adapter_updates(function: Function | None) -> None:
    """Exercise 5.5: the updates of a batch in which every row has its own adapter."""
    adapters, rank, in_features, out_features = 3, 2, 6, 4
    a, b = normal(adapters, rank, in_features, seed=1), normal(adapters, out_features, rank, seed=2)
    scaling = torch.tensor([1.0, 2.0, 0.5])

    def case(tokens: int, chosen: list[int]) -> tuple:
        return normal(len(chosen), tokens, in_features), a, b, scaling, torch.tensor(chosen)

    cases = {
        "one adapter for all rows": case(1, [0, 0, 0]),
        "an adapter for every row": case(1, [2, 0, 1]),
        "several tokens per row": case(5, [1, 1, 2, 0]),
        "rows without an adapter": case(3, [-1, 2, -1, 0]),
        "no row with an adapter": case(2, [-1, -1]),
    }
    mistakes = {
        "-1 picked the last adapter; such a row gets zeros": lambda x, a, b, scaling, adapter: _adapter_updates(
            x, a, b, scaling, adapter % len(a)
        ),
        "a row without an adapter got the first adapter; it gets zeros": lambda x, a, b, scaling, adapter: (
            _adapter_updates(x, a, b, scaling, adapter.clamp(min=0))
        ),
        "every adapter has its own scaling": lambda x, a, b, scaling, adapter: _adapter_updates(
            x, a, b, torch.ones_like(scaling), adapter
        ),
        "every row got the first row's adapter": lambda x, a, b, scaling, adapter: _adapter_updates(
            x, a, b, scaling, adapter[:1].expand_as(adapter)
        ),
    }
    compare_function(function, _adapter_updates, cases, mistakes)
