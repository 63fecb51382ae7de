"""What Lesson 6 writes out: three ways to compute many adapters, its forecasts, and its cache of adapters."""

from __future__ import annotations

import ast
import itertools
import random
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lessons
from conftest import tiny_model
from engine import Engine, Sampling
from exercise_answers import lesson_path, solved
from utils import LoraLayer, add_lora, linear_lora, lora_state_dict


def core() -> dict[str, Any]:
    """The functions and classes that the lesson defines, without running anything else of it."""
    names: dict[str, Any] = {"torch": torch, "nn": nn, "deque": deque, "Engine": Engine, "Sampling": Sampling}
    names["VOICES"] = list("pwtv")
    for cell in lessons.code_cells(lessons.read_notebook(lesson_path(6))):
        nodes = [node for node in ast.parse(cell.source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        exec(compile(ast.Module(nodes, type_ignores=[]), "Lesson 6", "exec"), names)
    return names


CORE = core()


def layers_of(ranks: list[int], base: nn.Linear) -> list[LoraLayer]:
    layers = [LoraLayer(base, r=rank, alpha=3.0) for rank in ranks]
    for layer in layers:
        nn.init.normal_(layer.lora_b)
    return layers


def factors_of(layers: list[LoraLayer]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """In the course's layout, (in, r) and (r, out), the scaling in the second."""
    return [q.lora_a.detach().T for q in layers], [q.scaling * q.lora_b.detach().T for q in layers]


CHOSEN = [[0], [1, 1, 1], [2, 0, 1, 0, 2], [0, 1, 2]]


@pytest.mark.parametrize("way", ["loop_over_rows", "linear_lora", "sum_of_groups", "the library's"])
@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
@torch.no_grad()
def test_every_way_gives_each_row_what_one_layer_gives_it(way: str, chosen: list[int]) -> None:
    base = nn.Linear(6, 4)
    layers = layers_of([2, 2, 2], base)
    loras_a, loras_b = map(torch.stack, factors_of(layers))
    x, indices = torch.randn(len(chosen), 3, 6), torch.tensor(chosen)
    expected = torch.stack([layers[k](row) - base(row) for k, row in zip(chosen, x, strict=True)])
    function = linear_lora if way == "the library's" else CORE[way]
    update = function(x, loras_a, loras_b, CORE["grouped"](indices) if way == "sum_of_groups" else indices)
    torch.testing.assert_close(update, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_groups_need_no_common_rank() -> None:
    base = nn.Linear(6, 4)
    layers, chosen = layers_of([1, 4, 2], base), [1, 0, 2, 1]
    x = torch.randn(4, 2, 6)
    update = CORE["sum_of_groups"](x, *factors_of(layers), CORE["grouped"](torch.tensor(chosen)))
    expected = torch.stack([layers[k](row) - base(row) for k, row in zip(chosen, x, strict=True)])
    torch.testing.assert_close(update, expected, atol=1e-5, rtol=1e-5)


def test_groups_hold_every_row_once_with_its_adapter() -> None:
    indices = torch.tensor([3, 0, 3, 1, 0])
    groups = CORE["grouped"](indices)
    assert sorted(row for _, rows in groups for row in rows.tolist()) == [0, 1, 2, 3, 4]
    assert all(set(indices[rows].tolist()) == {k} for k, rows in groups)


@pytest.mark.parametrize("seed", range(5))
def test_forwards_are_forecast_as_the_engine_needs_them(seed: int) -> None:
    chance = random.Random(seed)
    arrivals = sorted(chance.randrange(8) for _ in range(9))
    arriving = [(max(0, arrival - arrivals[0]), None, chance.randint(1, 9)) for arrival in arrivals]
    engine, waiting, forwards = Engine(tiny_model("llama"), None, max_rows=3), deque(arriving), 0
    while waiting or engine.requests:
        while waiting and waiting[0][0] <= forwards:
            engine.add([1, 2, 3], Sampling(waiting.popleft()[2], ignore_eos=True))
        assert engine.requests, "nobody is there to be served, which the lesson's forecast leaves out"
        engine.step()
        forwards += 1
    assert forwards == CORE["forwards_needed"](arriving, 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four adapters of a tiny model, which take the places of the lesson's voices."""
    states = {}
    for seed, name in enumerate("pwtv"):
        torch.manual_seed(seed)
        states[tmp_path / name] = lora_state_dict(add_lora(tiny_model("llama").float(), r=2))
    load = Engine.load_adapter
    monkeypatch.setattr(Engine, "load_adapter", lambda self, name, source: load(self, name, states[source]))
    return tmp_path


@pytest.fixture
def cache_class(folder: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.setitem(CORE["AdapterCache"].ready.__globals__, "FOLDER", folder)
    return CORE["AdapterCache"]


@pytest.mark.parametrize("room", [1, 2, 3, 4])
def test_the_cache_loads_as_often_as_the_exercise_counts(cache_class: type, room: int) -> None:
    wanted = random.Random(room).choices("pwtv", weights=[5, 3, 2, 1], k=60)
    cache = cache_class(Engine(tiny_model("llama").float(), None), room)
    for name in wanted:
        assert cache.ready(name)
        cache.engine.add([1, 2], Sampling(1), adapter=name)
        cache.engine.run()
        assert sorted(cache.recent) == sorted(cache.engine.adapters) and len(cache.recent) <= room
    assert cache.loads == solved()["adapter_loads"](wanted, room)


def test_an_adapter_in_use_stays(cache_class: type) -> None:
    cache = cache_class(Engine(tiny_model("llama").float(), None), room=2)
    for name in "pw":
        assert cache.ready(name)
        cache.engine.add([1, 2], Sampling(3), adapter=name)
    assert not cache.ready("t") and sorted(cache.engine.adapters) == ["p", "w"]
    assert cache.ready("p"), "whoever has the adapter of a running request may start"
    cache.engine.run()
    assert cache.ready("t") and sorted(cache.engine.adapters) == ["p", "t"], "w was used least recently"


def test_the_hit_rate_of_the_formula_is_that_of_a_long_run() -> None:
    popular = [0.5, 0.25, 0.15, 0.1]
    share = sum(p * (p + sum(q * q / (1 - p) for i, q in enumerate(popular) if i != j)) for j, p in enumerate(popular))
    wanted = random.Random(1).choices("pwtv", weights=popular, k=20_000)
    hits = len(wanted) - solved()["adapter_loads"](wanted, 2)
    assert hits / len(wanted) == pytest.approx(share, abs=0.01)


def test_with_equal_popularity_a_request_finds_its_adapter_as_often_as_there_is_room() -> None:
    """What the note's worked example and its assignment come to."""
    for count, room in itertools.product((4, 5), (2, 3)):
        wanted = random.Random(count).choices(range(count), k=20_000)
        hits = len(wanted) - solved()["adapter_loads"](wanted, room)
        assert hits / len(wanted) == pytest.approx(room / count, abs=0.015)
