"""What the checks of all lessons share: the result, the comparison with a reference, and the hints.

A check is a function that raises `Wrong` where it finds fault, decorated with `exercise`:

    @exercise("what a right answer has taught")
    def check_positions(function):
        cases = {"the example": (7, 3), "no new token": (5, 0)}
        mistakes = {"the last token is never sent": lambda prompt, new: prompt + new}
        compare_function(function, reference, cases, mistakes)

The hint of a mistake is given only when this mistake, and no other in the list, explains the answer.
"""

from __future__ import annotations

import copy
import inspect
import linecache
import math
import numbers
import reprlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

RELATIVE, ABSOLUTE = 1e-4, 1e-5  # two right ways to add up the same floats may differ by this much

Function = Callable[..., Any]


@dataclass(frozen=True, repr=False)
class Result:
    """What a check has found. In a condition it is true only when the answer is correct."""

    outcome: Literal["correct", "wrong", "not attempted", "not checked"]
    message: str

    def __repr__(self) -> str:
        return self.message

    def __bool__(self) -> bool:
        return self.outcome == "correct"


class NotAttempted(Exception):
    """The answer is still blank; the text, if there is any, says which part of it."""


class Wrong(Exception):
    """The answer is wrong; the text tells the learner what is wrong with it."""


def exercise(learned: str) -> Callable[[Function], Callable[..., Result]]:
    """Make a check of a function that raises `Wrong` or `NotAttempted` where it finds fault.

    A right answer is greeted with `learned`, and with the remark that the function returns, if it returns one.
    Any other error that the function raises is a mistake of this project, and the check says so.
    """

    def decorate(examine: Function) -> Callable[..., Result]:
        names = list(inspect.signature(examine).parameters)

        @wraps(examine)
        def check(*answers: Any) -> Result:
            try:
                if len(answers) != len(names):
                    raise Wrong(f"this check takes {' and '.join(names)}")
                if all(is_blank(answer) for answer in answers):
                    raise NotAttempted
                remark = examine(*answers)
            except NotAttempted as reason:
                return Result("not attempted", f"not attempted yet: {reason}" if str(reason) else "not attempted yet")
            except Wrong as complaint:
                return Result("wrong", f"not yet right: {complaint}")
            except Exception as error:
                return Result("not checked", f"not checked: {_confession(error)}")
            return Result("correct", f"correct: {learned}" + (f"; {remark}" if remark else ""))

        return check

    return decorate


def _confession(error: Exception) -> str:
    """The sentence that blames this project for an error, with the line of ours that it comes from."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    place = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}"
    return f"this is a bug in our check, not in your answer ({type(error).__name__} in {place}); please report it"


def _is_ours(filename: str) -> bool:
    return Path(filename).parent in (Path(__file__).parent, Path(__file__).parent.parent / "build_it")


def is_blank(answer: Any) -> bool:
    """Whether this is what a blank holds before anybody has written into it."""
    return answer is None or answer is Ellipsis


def short(value: Any) -> str:
    """The value on one line, with the middle of a long one left out."""
    return " ".join(reprlib.repr(value).split())


@contextmanager
def looking_at_the_answer() -> Iterator[None]:
    """Blame the answer for errors raised inside: to look at a value can mean to run code of the learner's."""
    try:
        yield
    except (Wrong, NotAttempted):
        raise
    except Exception as error:
        raise Wrong(f"the answer cannot be compared with a right one ({type(error).__name__})") from error


# --- Comparing an answer with the right one ------------------------------------------------------------


def compare_number(name: str, answer: Any, expected: float, mistakes: Mapping[str, float]) -> None:
    """Complain unless the blank called `name` was filled with the expected number.

    `mistakes` maps each explanation to the number that this mistake leads to.
    """
    if is_blank(answer):
        raise NotAttempted(f"{name} is still blank")
    complaint = difference(answer, expected)
    if complaint is not None:
        hints = [why for why, wrong in mistakes.items() if difference(answer, wrong) is None]
        raise Wrong(f"{name}: {hints[0] if len(hints) == 1 else complaint}")


def compare_function(
    function: Any, reference: Function, cases: Mapping[str, tuple], mistakes: Mapping[str, Function]
) -> None:
    """Complain unless the function returns what the reference returns, in every case.

    Args:
        cases: the arguments of each call, under the name that a message gives to this call.
        mistakes: maps each explanation to a function that makes this mistake.
    """
    praise = ""
    for name, arguments in cases.items():
        result = call(function, name, arguments, blank_is_wrong=bool(praise))
        complaint = difference(result, _call_ours(reference, arguments))
        if complaint is not None:
            raise Wrong(f"{praise}wrong for {name}: {_hint(function, reference, cases, mistakes) or complaint}")
        praise = f"right for {name}, "


def _hint(
    function: Function, reference: Function, cases: Mapping[str, tuple], mistakes: Mapping[str, Function]
) -> str | None:
    """The explanation of the one mistake that explains the answer; `None` if none does, or more than one."""
    answers = [_call_quietly(function, arguments) for arguments in cases.values()]
    rights = [_call_ours(reference, arguments) for arguments in cases.values()]
    hints = [
        why
        for why, mistaken in mistakes.items()
        if _explains([_call_ours(mistaken, arguments) for arguments in cases.values()], answers, rights)
    ]
    return hints[0] if len(hints) == 1 else None


def _explains(mistaken: list, answers: list, rights: list) -> bool:
    """Whether a mistake with these results explains these answers.

    Up to the first wrong answer the two must agree. After it an answer may also be right, since a person who
    makes the mistake may still have taken care of other cases, or missing, where the function raised an error.
    """
    found_wrong = False
    for expected, answer, right in zip(mistaken, answers, rights, strict=True):
        is_right = not is_blank(answer) and difference(answer, right) is None
        may_differ = found_wrong and (is_right or is_blank(answer))
        if not may_differ and difference(answer, expected) is not None:
            return False
        found_wrong = found_wrong or not is_right
    return True


def _call_quietly(function: Function, arguments: tuple) -> Any:
    try:
        return function(*copy.deepcopy(arguments))
    except Exception:
        return None


def _call_ours(function: Function, arguments: tuple) -> Any:
    return function(*copy.deepcopy(arguments))


def call(function: Any, case: str, arguments: tuple, *, blank_is_wrong: bool = False) -> Any:
    """What the learner's function returns for a copy of the arguments; its errors become complaints."""
    if not callable(function):
        raise Wrong(f"expected a function, got {short(function)}")
    arguments = copy.deepcopy(arguments)
    with running(function, case):
        result = function(*arguments)
    if is_blank(result) and not blank_is_wrong:
        raise NotAttempted("the function returns nothing")
    return result


@contextmanager
def running(answer: Any, case: str) -> Iterator[None]:
    """Turn errors raised inside into complaints about the learner's function or class that was run for this case."""
    try:
        yield
    except (Wrong, NotAttempted):
        raise
    except Exception as error:
        # Torch raises NotImplementedError as well, for operations that a dtype does not have.
        if isinstance(error, NotImplementedError) and "not implemented for" not in str(error):
            raise NotAttempted from error
        kind = "class" if inspect.isclass(answer) else "function"
        text = (str(error).strip() or "it came without a message").splitlines()[0]
        line = _line_of(error, answer)
        raise Wrong(f"your {kind} raised {type(error).__name__} for {case}{line}: {text}") from error


def _line_of(error: Exception, function: Function) -> str:
    """Where the learner's function raised the error, such as ", in line 3 (`return totl`)".

    The line is the last one that ran in the file of the function. In a notebook every cell is a file of its own.
    """
    file = _file_of(function)
    lines = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    if not lines:
        return ""
    text = linecache.getline(file, lines[-1]).strip()
    return f", in line {lines[-1]}" + (f" (`{text}`)" if text else "")


def _file_of(answer: Any) -> str | None:
    """The file or cell that a function, or the first method of a class, was written in; `None` where there is none."""
    functions = vars(answer).values() if inspect.isclass(answer) else [answer]
    codes = [getattr(getattr(function, "__wrapped__", function), "__code__", None) for function in functions]
    return next((code.co_filename for code in codes if code is not None), None)


# --- Differences in words ------------------------------------------------------------------------------


def difference(actual: Any, expected: Any) -> str | None:
    """What is wrong with a value, in words that do not give away the expected one; `None` if nothing is wrong."""
    with looking_at_the_answer():
        return _difference(actual, expected)


def _difference(actual: Any, expected: Any) -> str | None:
    if isinstance(expected, Tensor):
        return _tensor_difference(actual, expected)
    if isinstance(expected, (list, tuple)):
        return _sequence_difference(actual, expected)
    return _number_difference(actual, expected)


def _number_difference(actual: Any, expected: float) -> str | None:
    if isinstance(actual, bool) or not isinstance(actual, numbers.Real):
        advice = "; .item() turns a tensor of one value into a number" if isinstance(actual, Tensor) else ""
        return f"expected a number, got {short(actual)} ({type(actual).__name__}){advice}"
    if isinstance(expected, int):
        if not math.isfinite(actual) or actual != int(actual):
            return f"expected a whole number, got {actual:g}"
        is_right = actual == expected
    else:
        both_nan = math.isnan(actual) and math.isnan(expected)  # only a mistake leads to NaN, never a reference
        is_right = both_nan or math.isclose(actual, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if is_right:
        return None
    direction = "" if math.isnan(actual) else f", it is too {'large' if actual > expected else 'small'}"
    shown = str(actual) if isinstance(actual, numbers.Integral) else f"{actual:.6g}"
    return f"{shown} is not right{direction}"


def _sequence_difference(actual: Any, expected: Sequence) -> str | None:
    kind = type(expected).__name__
    if not isinstance(actual, (list, tuple)):
        return f"expected a {kind}, got {short(actual)} ({type(actual).__name__})"
    if len(actual) != len(expected):
        return f"expected a {kind} of length {len(expected)}, got one of length {len(actual)}"
    for index, (item, expected_item) in enumerate(zip(actual, expected, strict=True)):
        complaint = _difference(item, expected_item)
        if complaint is not None:
            return f"item {index} of the {kind}: {complaint}"
    return None


def _tensor_difference(actual: Any, expected: Tensor) -> str | None:
    if not isinstance(actual, Tensor):
        return f"expected a tensor, got {short(actual)} ({type(actual).__name__})"
    if actual.layout != torch.strided or actual.device != expected.device:
        return f"expected an ordinary tensor on the {expected.device}, got {actual.layout} on {actual.device}"
    if actual.shape != expected.shape:
        return f"expected the shape {tuple(expected.shape)}, got {tuple(actual.shape)}"
    if actual.dtype != expected.dtype:
        return f"expected the dtype {expected.dtype}, got {actual.dtype}"
    if expected.is_floating_point():
        # Only a mistake leads to NaN, never a reference.
        is_right = torch.isclose(actual.detach(), expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    else:
        is_right = actual == expected
    if is_right.all():
        return None
    place = tuple((~is_right).nonzero()[0].tolist())
    count, first = int((~is_right).sum()), actual[place].item()
    return f"{count} of {is_right.numel()} values are wrong; the first of them is {first:.6g}, at index {place}"


# --- Inputs for the cases ------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Tensor:
    """The same normally distributed float32 numbers at every call; the learner's random state is left alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
