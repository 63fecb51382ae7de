"""What Lesson 8 writes out: what a prompt finds, guesses from the text, and who is served when."""

from __future__ import annotations

import ast
import random
from itertools import accumulate
from os.path import commonprefix
from typing import Any

import pytest
import torch
from transformers import DynamicCache

import lessons
from conftest import tiny_model
from engine import Engine, Sampling
from engine.blocks import Blocks
from exercise_answers import lesson_path, solved
from helpers import generate_tokens

MODEL = tiny_model("llama")


def core() -> dict[str, Any]:
    """The functions and classes that the lesson defines, without running anything else of it."""
    names: dict[str, Any] = {"torch": torch, "DynamicCache": DynamicCache, "commonprefix": commonprefix}
    names |= {"Engine": Engine, "Sampling": Sampling, "Blocks": Blocks, "model": MODEL, "tokenizer": None}
    for cell in lessons.code_cells(lessons.read_notebook(lesson_path(8))):
        nodes = [node for node in ast.parse(cell.source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        exec(compile(ast.Module(nodes, type_ignores=[]), "Lesson 8", "exec"), names)
    return names


CORE = core()


@pytest.mark.parametrize(
    ("ids", "n", "k", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], 2, 2, [3, 4]),
        ([1, 2, 3, 1, 2, 4, 1, 2], 2, 3, [4, 1, 2]),
        ([1, 2, 3, 4], 2, 2, []),
        ([5, 5, 5], 1, 4, [5]),
        ([1, 2, 3, 1, 2], 2, 0, []),
        ([1], 3, 2, []),
        ([1, 2], 3, 2, []),
    ],
)
def test_a_proposal_is_what_followed_the_latest_earlier_place(ids: list, n: int, k: int, expected: list) -> None:
    assert CORE["proposal"](ids, n, k) == expected


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_guesses_change_no_token(n: int, k: int) -> None:
    rng = random.Random(f"{n} {k}")
    for budget in (1, 2, 17):
        prompt = [rng.randrange(3, 9) for _ in range(12)]
        expected = list(generate_tokens(MODEL, prompt, budget))
        ids, forwards = CORE["speculate"](prompt, CORE["Checker"](prompt), budget, n, k)
        assert ids == expected
        assert sum(right + 1 for _, right in forwards) == budget
        assert all(right <= drafted <= k for drafted, right in forwards)


def test_a_checker_can_be_used_again_for_the_same_text() -> None:
    prompt = [3, 4, 5, 3, 4, 5, 3]
    check = CORE["Checker"](prompt)
    once, again = (CORE["speculate"](prompt, check, 9, 1, 4) for _ in range(2))
    assert once == again


def test_a_replay_of_the_models_own_answer_takes_as_many_forwards_as_the_model() -> None:
    prompt = [3, 4, 5, 6, 3, 4, 5, 6, 3, 4]
    answer, forwards = CORE["speculate"](prompt, CORE["Checker"](prompt), 80, 1, 4)
    assert CORE["replayed"]([(prompt, answer)], 1, 4) == forwards
    assert any(right for _, right in forwards), "no guess was ever right: the test says nothing"


def test_what_a_prompt_finds_is_what_the_engine_finds() -> None:
    rng = random.Random(0)
    engine, earlier = CORE["new_engine"](), []
    for _ in range(30):
        base = rng.choice([list(range(3, 60)), list(range(3, 40))])
        prompt = base[: rng.randrange(1, len(base))] + [rng.randrange(3, 5) for _ in range(rng.randrange(3))]
        expected = CORE["shared_tokens"](prompt, earlier)
        assert expected == solved()["found_tokens"](prompt, earlier, 16)
        engine.add(prompt, Sampling(1, ignore_eos=True))
        (request,) = engine.run()
        assert request.cached_tokens == expected
        earlier.append(prompt)


def test_an_engine_that_shares_nothing_finds_nothing() -> None:
    engine = CORE["new_engine"](sharing=False)
    for _ in range(2):
        engine.add(list(range(3, 60)), Sampling(1, ignore_eos=True))
        (request,) = engine.run()
        assert request.cached_tokens == 0


@pytest.mark.parametrize("budgets", [[5, 1, 2, 4, 1], [3] * 7, [12 if k % 4 == 0 else 2 for k in range(16)], [9]])
def test_rows_are_free_when_the_forecast_says(budgets: list[int]) -> None:
    engine = CORE["new_engine"](max_rows=4)
    steps = CORE["watched"](engine)
    for k, budget in enumerate(budgets):
        engine.add([3, 4 + k], Sampling(budget, ignore_eos=True))
    engine.run()
    in_steps = [[step for step, rows in enumerate(steps, 1) if k in rows] for k in range(len(budgets))]
    first, last = CORE["first_and_last"](budgets, 4)
    assert first == [numbers[0] for numbers in in_steps]
    assert last == [numbers[-1] for numbers in in_steps]


def test_a_preemption_is_a_request_that_is_missing_between_two_forwards() -> None:
    everybody = dict.fromkeys(range(4), 1)
    without_3 = dict.fromkeys(range(3), 1)
    assert CORE["preemptions"]([everybody, everybody, without_3]) == 0
    assert CORE["preemptions"]([everybody, without_3, everybody]) == 1


@pytest.mark.parametrize("prompt_tokens", [1, 15, 16, 17, 40])
def test_chunks_are_those_that_the_engine_reads(prompt_tokens: int) -> None:
    engine = CORE["new_engine"](step_tokens=16)
    steps = CORE["watched"](engine)
    engine.add(list(range(3, 3 + prompt_tokens)), Sampling(1, ignore_eos=True))
    engine.run()
    read = [rows[0] for rows in steps]
    assert CORE["chunks"](prompt_tokens, 16) == list(zip(read, accumulate(read), strict=True))
