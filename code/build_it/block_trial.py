"""Requests that come and go at random, with a learner's block allocator and ours side by side (Exercise 8.6)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

from engine.blocks import Blocks, block_key
from exercises.checking import NotAttempted, Wrong, is_blank, short

NOBODY = bytes(32)  # the key before the first block's
ROUNDS = 60  # requests that come and go in each trial


def value_of(blocks: Any, name: str, *arguments: Any) -> Any:
    """What a method returns, or a property is; nothing means that it has not been written yet."""
    value = getattr(blocks, name)
    value = value(*arguments) if callable(value) else value
    if is_blank(value):
        raise NotAttempted(f"{name} returns nothing")
    return value


@dataclass
class Row:
    """A running request: its block tables, theirs and ours, and the keys of the blocks that were not found."""

    theirs: list[int]
    ours: list[int]
    keys: dict[int, bytes]  # by place in the table, of full blocks that are not registered yet


class Trial:
    """The learner's blocks and ours, which requests use in the same way; block numbers may differ."""

    def __init__(self, blocks_class: type, count: int, block_tokens: int, seed: int) -> None:
        self.theirs, self.ours = blocks_class(count, block_tokens), Blocks(count, block_tokens)
        self.random, self.size = Random(seed), block_tokens
        self.rows: list[Row] = []
        self.content: dict[int, bytes] = {}  # the key with which one of their blocks can be found

    def run(self) -> None:
        """Let requests come, compute their blocks, and go; two may compute the same before one has registered it."""
        for _ in range(ROUNDS):
            self._begin([self.random.randrange(2) for _ in range(self.random.randrange(1, 6 * self.size))])
            self._check()
            for row in self.rows:
                if self.random.random() < 0.5:
                    self._register(row)
            while self.rows and self.random.random() < 0.5:
                row = self.rows.pop(self.random.randrange(len(self.rows)))
                self.theirs.release(row.theirs)
                self.ours.release(row.ours)
                self._check()

    def _begin(self, ids: list[int]) -> None:
        """A request with this prompt: find, share, take. Without room, it goes away."""
        keys = [NOBODY]
        for start in range(0, len(ids) - self.size + 1, self.size):
            keys.append(block_key(keys[-1], ids[start : start + self.size]))
        found, right = self._find(keys[1:]), self.ours.find(keys[1:])
        revived = sum(not self.ours.references[block] for block in right)
        missing = self.ours.needed(len(ids)) - len(right)
        if missing > self.ours.available - revived:
            return
        self.theirs.share(found)
        self.ours.share(right)
        row = Row(found, right, {place: keys[place + 1] for place in range(len(right), len(keys) - 1)})
        self.rows.append(row)
        for _ in range(missing):
            row.theirs.append(self._take())
            row.ours.append(self.ours.take())

    def _register(self, row: Row) -> None:
        """The full blocks of a row have been computed."""
        for place, key in row.keys.items():
            self.theirs.register(row.theirs[place], key)
            self.ours.register(row.ours[place], key)
            if self.ours.by_key.get(key) == row.ours[place]:
                self.content[row.theirs[place]] = key
        row.keys = {}

    def _find(self, keys: list[bytes]) -> list[int]:
        """What their `find` gives, if it is right."""
        found, right = list(value_of(self.theirs, "find", keys)), self.ours.find(keys)
        if len(found) != len(right):
            raise Wrong(f"find gives {len(found)} blocks, where {len(right)} keys in a row are known")
        if [self.content.get(block) for block in found] != keys[: len(found)]:
            raise Wrong(
                "find gives a block that holds something else: it was taken since, or the key has another block"
            )
        return found

    def _take(self) -> int:
        """What their `take` gives, if nobody uses it."""
        block = value_of(self.theirs, "take")
        if block not in range(self.theirs.count) or any(block in row.theirs for row in self.rows):
            raise Wrong(f"take gives {short(block)}, which somebody uses or which is no block of the cache")
        self.content.pop(block, None)
        return block

    def _check(self) -> None:
        """Complain unless every block is accounted for."""
        held = Counter(block for row in self.rows for block in row.theirs)
        if list(self.theirs.references) != [held[block] for block in range(self.theirs.count)]:
            raise Wrong("references does not say how many requests use each block")
        if (available := value_of(self.theirs, "available")) != self.ours.available:
            raise Wrong(f"available is {short(available)}, but {self.ours.available} blocks are used by nobody")
