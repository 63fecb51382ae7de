"""The check of Exercise 1.6 takes right caches of any style, and says of wrong ones what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from build_it import check_cache
from build_it.lesson_1 import SPARE_TOKENS
from exercise_answers import right_answers
from kv_cache import GrowingLayer


class StackedInOneTensor:
    """Keys and values in one buffer that grows by 32 tokens at a time."""

    def __init__(self) -> None:
        self.size, self.buffer = 0, None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.stack([keys, values])
        if self.buffer is None:
            self.buffer = new[:, :, :, :0]
        end = self.size + keys.shape[2]
        if end > self.buffer.shape[3]:
            self.buffer = F.pad(self.buffer[:, :, :, : self.size], (0, 0, 0, end + 32 - self.size))
        self.buffer[:, :, :, self.size : end] = new
        self.size = end
        return tuple(self.buffer[:, :, :, :end])


class InPagesOf50:
    """Two buffers whose sizes are rounded up to whole pages of 50 tokens."""

    def __init__(self) -> None:
        self.kept = {}
        self.size = 0

    def append(self, keys: Tensor, values: Tensor) -> list[Tensor]:
        end = self.size + keys.size(2)
        parts = [self._written(name, new, end) for name, new in {"keys": keys, "values": values}.items()]
        self.size = end
        return parts

    def _written(self, name: str, new: Tensor, end: int) -> Tensor:
        old = self.kept.get(name)
        if old is None or old.shape[2] < end:
            rows, heads, _, depth = new.shape
            larger = torch.zeros(rows, heads, -(-end // 50) * 50, depth, dtype=new.dtype, device=new.device)
            if old is not None:
                larger[:, :, : self.size] = old[:, :, : self.size]
            self.kept[name] = old = larger
        old[:, :, self.size : end] = new
        return old[:, :, :end]


class OfTheLibrary(GrowingLayer):
    """The layer of `code/kv_cache.py`, with its own room for 64 tokens."""

    append = GrowingLayer.update


@pytest.mark.parametrize("answer", [StackedInOneTensor, InPagesOf50, OfTheLibrary])
def test_right_caches_of_any_style_are_taken(answer: type) -> None:
    assert check_cache(answer), check_cache(answer)


def test_the_solution_is_taken() -> None:
    result = check_cache(*right_answers("check_cache"))
    assert result, result


class Blank:
    def __init__(self) -> None: ...

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]: ...


@pytest.mark.parametrize("answer", [None, ..., Blank])
def test_a_blank_is_not_attempted(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build_it.lesson_1.shared_course_model", lambda: pytest.fail("a model was loaded"))
    assert check_cache(answer).outcome == "not attempted"


# --- Wrong caches --------------------------------------------------------------------------------------


class OneCopyAtATime:
    """What the lesson's attention does: right, but every token copies all others."""

    def __init__(self) -> None:
        self.keys = self.values = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None:
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class ListOfPieces(OneCopyAtATime):
    def __init__(self) -> None:
        self.pieces = []

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.pieces.append((keys, values))
        return tuple(torch.cat(kind, dim=2) for kind in zip(*self.pieces, strict=True))


class NewTokensOnly(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        super().append(keys, values)
        return keys, values


class NewestFirst(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None:
            keys, values = torch.cat([keys, self.keys], dim=2), torch.cat([values, self.values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class Swapped(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return super().append(keys, values)[::-1]


class AlongTheHeads(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None:
            keys, values = torch.cat([self.keys, keys], dim=1), torch.cat([self.values, values], dim=1)
        self.keys, self.values = keys, values
        return keys, values


class SharedByAll:
    """What it keeps belongs to the class, so the caches of all layers are one."""

    keys = values = None

    def __init__(self) -> None:
        SharedByAll.keys = SharedByAll.values = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if SharedByAll.keys is not None:
            keys, values = torch.cat([SharedByAll.keys, keys], dim=2), torch.cat([SharedByAll.values, values], dim=2)
        SharedByAll.keys, SharedByAll.values = keys, values
        return keys, values


class AlwaysFloat32(InPagesOf50):
    def append(self, keys: Tensor, values: Tensor) -> list[Tensor]:
        return super().append(keys.float(), values.float())


class NewestAtTheEndOfARing(OneCopyAtATime):
    """The older numbers move to the left of one buffer, under the eyes of those who hold it."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            self.keys, self.values, self.size = (F.pad(kind, (0, 0, 105, 0)) for kind in (keys, values)), None, 0
            self.keys, self.values = self.keys
        else:
            for buffer, new in ((self.keys, keys), (self.values, values)):
                buffer.copy_(torch.cat([buffer[:, :, new.shape[2] :], new], dim=2))
        self.size += keys.shape[2]
        return self.keys[:, :, -self.size :], self.values[:, :, -self.size :]


class RoomFor1000(InPagesOf50):
    def _written(self, name: str, new: Tensor, end: int) -> Tensor:
        rows, heads, _, depth = new.shape
        if name not in self.kept:
            self.kept[name] = torch.zeros(rows, heads, 1000, depth, dtype=new.dtype)
        return super()._written(name, new, end)


class TwiceAsMuch(StackedInOneTensor):
    """Each time the room runs out it doubles, which is too much to spare once there are more than 64 tokens."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.size + keys.shape[2]
        if self.buffer is not None and end > self.buffer.shape[3]:
            self.buffer = F.pad(self.buffer, (0, 0, 0, 2 * end - self.buffer.shape[3]))
        return super().append(keys, values)


class StepsOf8(StackedInOneTensor):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.size + keys.shape[2]
        if self.buffer is not None and end > self.buffer.shape[3]:
            self.buffer = F.pad(self.buffer, (0, 0, 0, end + 7 - self.buffer.shape[3]))
        return super().append(keys, values)


class GrowsBy64WhateverComes(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            self.keys, self.values, self.size = keys, values, keys.shape[2]
            return keys, values
        end = self.size + keys.shape[2]
        if end > self.keys.shape[2]:
            self.keys, self.values = F.pad(self.keys, (0, 0, 0, 64)), F.pad(self.values, (0, 0, 0, 64))
        self.keys[:, :, self.size : end] = keys
        self.values[:, :, self.size : end] = values
        self.size = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class RoomFor64AtFirst(OneCopyAtATime):
    """It begins with room for 64 tokens and adds 64 when they are full, which a long prompt does not fit into."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            rows, heads, _, depth = keys.shape
            self.keys, self.values = keys.new_zeros(rows, heads, 64, depth), values.new_zeros(rows, heads, 64, depth)
            self.size = 0
        end = self.size + keys.shape[2]
        if end > self.keys.shape[2]:
            self.keys, self.values = F.pad(self.keys, (0, 0, 0, 64)), F.pad(self.values, (0, 0, 0, 64))
        self.keys[:, :, self.size : end] = keys
        self.values[:, :, self.size : end] = values
        self.size = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class CopiesOfTheRoom(InPagesOf50):
    def append(self, keys: Tensor, values: Tensor) -> list[Tensor]:
        return [kind.clone() for kind in super().append(keys, values)]


class KeysOnly(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> Tensor:
        return super().append(keys, values)[0]


class Misspelt(OneCopyAtATime):
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.keyz, values


class MixesUpManyHeads(InPagesOf50):
    """Right on small tensors; a model has more heads than those, and gets the wrong values of one."""

    def append(self, keys: Tensor, values: Tensor) -> list[Tensor]:
        if keys.shape[1] > 3:
            values = values.roll(1, dims=1)
        return super().append(keys, values)


WRONG: list[tuple[Any, str]] = [
    (OneCopyAtATime, "in new memory 640 times"),
    (ListOfPieces, "in new memory 640 times"),
    (CopiesOfTheRoom, "in new memory 640 times"),
    (StepsOf8, "in new memory 76 times"),
    (NewTokensOnly, "only the new tokens came back"),
    (NewestFirst, "the oldest token has to be the first one"),
    (Swapped, "keys and values have changed places"),
    (AlongTheHeads, "Sizes of tensors must match"),
    (SharedByAll, "share nothing"),
    (AlwaysFloat32, "expected the dtype torch.float16, got torch.float32"),
    (NewestAtTheEndOfARing, "was changed by a later call"),
    (RoomFor1000, "has room for 993 more"),
    (TwiceAsMuch, f"at most {SPARE_TOKENS} are allowed"),
    (GrowsBy64WhateverComes, "your class raised RuntimeError for a single token, then 100 at once, then 3, in line"),
    (RoomFor64AtFirst, "your class raised RuntimeError for a prompt of 200 tokens and a single one, in line"),
    (KeysOnly, "append has to return two tensors"),
    (Misspelt, "(`return self.keyz, values`)"),
    (MixesUpManyHeads, "is not the one that it says without a cache"),
    (OneCopyAtATime(), "expected a class"),
    (lambda keys, values: (keys, values), "expected a class"),
]


@pytest.mark.parametrize(("answer", "words"), WRONG, ids=[getattr(a, "__name__", "object") for a, _ in WRONG])
def test_wrong_caches_are_told_what_is_wrong(answer: Any, words: str) -> None:
    result = check_cache(answer)
    assert result.outcome == "wrong" and words in result.message, result
