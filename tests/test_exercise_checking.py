"""What the checks share: messages with the line of an error, hints that fit, and our own bugs called ours."""

from __future__ import annotations

import copy
import linecache
import math
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch

from exercise_answers import CALCULATIONS, CHECKS, COMPARED, Anatomy, anatomy, module_of, numbers_of, right_answers
from exercises.checking import Result, compare_function, difference, exercise


def test_result_is_true_only_when_correct() -> None:
    outcomes = ("correct", "wrong", "not attempted", "not checked")
    assert [bool(Result(outcome, "")) for outcome in outcomes] == [True, False, False, False]


# --- Errors of the learner -----------------------------------------------------------------------------


def cell(source: str, name: str) -> Callable[..., Any]:
    """The function that a notebook's cell with this source defines, the way IPython makes it known."""
    source = textwrap.dedent(source)
    filename = f"<a cell with {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), names)
    return names[name]


def test_an_error_is_reported_with_its_line() -> None:
    answer = cell(
        """
        def decode_floor_ms(weight_bytes, kv_bytes_per_token, lengths, bytes_per_s):
            total = weight_bytes + kv_bytes_per_token * sum(lengths)
            return 1000 * totl / bytes_per_s
        """,
        "decode_floor_ms",
    )
    assert repr(CHECKS["check_decode_floor"](answer)) == (
        "not yet right: your function raised NameError for the example, in line 4 "
        "(`return 1000 * totl / bytes_per_s`): name 'totl' is not defined"
    )


def test_the_line_is_the_learners_even_if_the_error_comes_from_a_library() -> None:
    answer = cell("def tempered(logits, temperatures):\n    return torch.softmax(logits)\n", "tempered")
    answer.__globals__["torch"] = torch
    assert "TypeError" in repr(CHECKS["check_tempered"](answer))
    assert "in line 2 (`return torch.softmax(logits)`): " in repr(CHECKS["check_tempered"](answer))


def test_the_line_is_the_innermost_one_of_the_cell() -> None:
    source = """
        def size(rows):
            return rows.length

        def batch_sizes(lengths, max_cells):
            return size(lengths)
        """
    message = repr(CHECKS["check_batch_sizes"](cell(source, "batch_sizes")))
    assert "raised AttributeError for the example, in line 3 (`return rows.length`)" in message


def test_an_error_before_the_first_line_has_none() -> None:
    message = repr(CHECKS["check_batch_sizes"](lambda lengths: lengths))
    assert "raised TypeError for the example: " in message and ", in line" not in message


def test_a_function_that_is_not_python_has_no_line() -> None:
    assert "raised TypeError for the example: " in repr(CHECKS["check_batch_sizes"](len))


# --- Errors of ours ------------------------------------------------------------------------------------


def broken(*arguments: Any) -> Any:
    raise KeyError("a bug")


@pytest.mark.parametrize("name", ["_floor_ms", "compare_function"])
def test_a_bug_in_a_check_is_called_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of("check_decode_floor"), name, broken)
    for answer in (right_answers("check_decode_floor")[0], lambda *given: 0.0):
        result = CHECKS["check_decode_floor"](answer)
        assert result.outcome == "not checked"
        assert repr(result).startswith("not checked: this is a bug in our check, not in your answer (KeyError in ")
        assert repr(result).endswith("); please report it")


def test_a_bug_in_a_mistake_is_called_ours() -> None:
    @exercise("")
    def check(function: Callable) -> None:
        compare_function(function, lambda: 1, {"the example": ()}, {"a mistake of ours": broken})

    assert check(lambda: 1)
    assert check(lambda: 2).outcome == "not checked"


def test_the_place_of_a_bug_is_in_our_files() -> None:
    @exercise("")
    def check(function: Callable) -> None:
        difference(1, 1)
        raise KeyError

    assert "checking.py, line " in repr(check(len))


class Treacherous(torch.Tensor):
    """A value whose comparison raises an error."""

    @classmethod
    def __torch_function__(cls, *arguments: Any) -> Any:
        raise KeyError("looked at")


def test_an_error_while_the_answer_is_compared_is_the_answers() -> None:
    value = torch.zeros(1, 2).as_subclass(Treacherous)
    assert repr(CHECKS["check_tempered"](lambda *given: value)) == (
        "not yet right: the answer cannot be compared with a right one (KeyError)"
    )
    assert "cannot be compared" in repr(CHECKS["check_admission_order"](lambda *given: UncountableList([1])))


class UncountableList(list):
    def __iter__(self) -> Any:
        raise KeyError


def test_too_few_answers_are_not_a_bug_of_ours() -> None:
    assert repr(CHECKS["check_kv_cache"](1)) == (
        "not yet right: this check takes llama_bytes_per_token and llama_users"
    )


# --- Hints ---------------------------------------------------------------------------------------------

MISTAKES = [(name, why) for name in COMPARED for why in anatomy(name).mistakes]
MISCOUNTS = [(name, blank, why) for name in CALCULATIONS for blank, _, known in numbers_of(name) for why in known]


@pytest.mark.parametrize(("name", "why"), MISTAKES)
def test_every_known_mistake_gets_its_own_hint(name: str, why: str) -> None:
    message = repr(CHECKS[name](anatomy(name).mistakes[why]))
    assert message.startswith("not yet right: ") and message.endswith(f": {why}")


@pytest.mark.parametrize(("name", "blank", "why"), MISCOUNTS)
def test_every_known_miscount_gets_its_own_hint(name: str, blank: str, why: str) -> None:
    blanks = [each for each, _, _ in numbers_of(name)]
    place = blanks.index(blank)
    answers = list(right_answers(name))
    answers[place] = numbers_of(name)[place][2][why]
    assert repr(CHECKS[name](*answers)) == f"not yet right: {blank}: {why}"


def results(check: Anatomy, function: Callable[..., Any]) -> list[Any]:
    return [function(*copy.deepcopy(arguments)) for arguments in check.cases.values()]


@pytest.mark.parametrize("name", COMPARED)
def test_mistakes_differ_where_the_hint_is_given(name: str) -> None:
    """On the first case that a mistake gets wrong, no mistake that is still possible there gives the same."""
    check = anatomy(name)
    right = results(check, check.reference)
    given = {why: results(check, mistaken) for why, mistaken in check.mistakes.items()}
    for why, found in given.items():
        first = next(case for case, value in enumerate(found) if difference(value, right[case]) is not None)
        same = [
            other
            for other, values in given.items()
            if all(difference(found[case], values[case]) is None for case in range(first + 1))
        ]
        assert same == [why]


def hint_for(answer: Callable, mistakes: dict[str, Callable]) -> str:
    @exercise("")
    def check(function: Callable) -> None:
        compare_function(function, lambda x: 10 * x, {"one": (1,), "two": (2,), "three": (3,)}, mistakes)

    return repr(check(answer))


def test_a_hint_that_two_mistakes_share_is_not_given() -> None:
    doubled = {"first": lambda x: 20 * x, "second": lambda x: 20 * x}
    assert hint_for(lambda x: 20 * x, doubled) == "not yet right: wrong for one: 20 is not right, it is too large"


def test_a_mistake_that_fits_once_by_chance_is_no_hint() -> None:
    mistakes = {"doubled": lambda x: 20 * x}
    assert "doubled" in hint_for(lambda x: 20 * x, mistakes)
    assert "doubled" not in hint_for(lambda x: 10 * x + 10, mistakes)
    assert "doubled" not in hint_for(lambda x: 10 * x if x < 2 else 20 * x, mistakes)


def test_a_mistake_may_be_made_in_some_of_the_later_cases_only() -> None:
    mistakes = {"doubled": lambda x: 20 * x}
    assert "doubled" in hint_for(lambda x: 20 * x if x < 3 else 10 * x, mistakes)
    assert "doubled" in hint_for(lambda x: 20 * x if x < 3 else broken(), mistakes)


def test_a_mistake_that_leads_to_nan_is_recognized() -> None:
    assert hint_for(lambda x: math.nan, {"not a number": lambda x: math.nan}).endswith("not a number")
