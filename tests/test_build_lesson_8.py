"""The check of Exercise 8.6 takes right allocators of any style, and says of wrong ones what is wrong."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence

import pytest

from build_it import check_block_allocator, lesson_8
from engine.blocks import Blocks

PLAIN = """
class PrefixBlocks:
    def __init__(self, count, block_tokens):
        self.count, self.block_tokens = count, block_tokens
        self.references = [0] * count
        self.keys = {}
        self.unused = list(range(count))

    @property
    def available(self):
        return len(self.unused)

    def needed(self, tokens):
        return (tokens + self.block_tokens - 1) // self.block_tokens

    def take(self):
        block = self.unused.pop(0)
        self.keys = {key: other for key, other in self.keys.items() if other != block}
        self.references[block] = 1
        return block

    def register(self, block, key):
        if key not in self.keys and block not in self.keys.values():
            self.keys[key] = block

    def find(self, keys):
        found = []
        for key in keys:
            if key not in self.keys:
                break
            found.append(self.keys[key])
        return found

    def share(self, blocks):
        for block in blocks:
            if self.references[block] == 0:
                self.unused.remove(block)
            self.references[block] += 1

    def release(self, blocks):
        for block in reversed(blocks):
            self.references[block] -= 1
            if self.references[block] == 0:
                place = len(self.unused) if block in self.keys.values() else 0
                self.unused.insert(place, block)
"""


def defined(source: str) -> type:
    """The class of this source, whose lines a message can name."""
    names: dict[str, type] = {}
    linecache.cache["<learner>"] = (len(source), None, source.splitlines(keepends=True), "<learner>")
    exec(compile(source, "<learner>", "exec"), names)
    return names["PrefixBlocks"]


def changed(old: str, new: str) -> type:
    """The plain allocator with one piece of its source changed."""
    assert PLAIN.count(old) == 1
    return defined(PLAIN.replace(old, new))


class ByClock:
    """Another style: every block knows when it was released, and `take` looks for the earliest."""

    def __init__(self, count: int, block_tokens: int) -> None:
        self.count, self.block_tokens, self.now = count, block_tokens, 0
        self.references, self.key, self.released = [0] * count, [b""] * count, [0] * count

    @property
    def available(self) -> int:
        return self.references.count(0)

    def needed(self, tokens: int) -> int:
        return sum(1 for _ in range(0, tokens, self.block_tokens))

    def take(self) -> int:
        unused = [block for block in range(self.count) if not self.references[block]]
        block = min(unused, key=lambda number: (self.key[number] != b"", self.released[number]))
        self.references[block], self.key[block] = 1, b""
        return block

    def register(self, block: int, key: bytes) -> None:
        if not self.key[block] and key not in self.key:
            self.key[block] = key

    def find(self, keys: Iterable[bytes]) -> list[int]:
        found = []
        for key in keys:
            if key not in self.key:
                return found
            found.append(self.key.index(key))
        return found

    def share(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self.references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        for block in list(blocks)[::-1]:
            self.now += 1
            self.references[block] -= 1
            self.released[block] = self.now


@pytest.mark.parametrize("answer", [defined(PLAIN), ByClock, Blocks])
def test_right_allocators_of_any_style_are_taken(answer: type) -> None:
    result = check_block_allocator(answer)
    assert result, result
    found, waiting = [int(word) for word in repr(result).split() if word.isdigit()][-2:]
    assert found > 0 and waiting > 0, "the engine is crowded, and prefixes are found there"


WRONG = [
    (lambda count, block_tokens: None, "expected a class"),
    (changed("return len(self.unused)", "return len(self.unused) - 1"), "nobody uses any"),
    (changed("(tokens + self.block_tokens - 1)", "tokens"), "needed gives"),
    (changed("[0] * count", "[1] * count"), "count, block_tokens and references"),
    (changed("self.keys[key] = block", "pass"), "not taken since are not found"),
    (changed("                break\n", "                continue\n"), "behind a key that nobody has registered"),
    (changed("self.unused.pop(0)", "self.unused.pop()"), "released longest ago"),
    (changed("reversed(blocks)", "blocks"), "the last is to be given away first"),
    (changed("place = len(self.unused) if block in self.keys.values() else 0", "place = len(self.unused)"), "without"),
    (changed("self.unused.remove(block)", "pass"), "released last"),
    (changed("self.references[block] = 1", "self.references[block] += 0"), "references is"),
    (
        changed("if self.references[block] == 0:\n                place", "if True:\n                place"),
        "used by nobody",
    ),
    (changed("if other != block}", "if True}"), "given away first"),
    (changed("if key not in self.keys and block not in self.keys.values():", "if True:"), "the key has another block"),
    (changed("self.references[block] += 1", "self.references[block] = 1"), "references does not say"),
    (
        changed("                place = len", "                self.keys = {}\n                place = len"),
        "not found",
    ),
    (changed("return block", "return self.count"), "one after the other"),
    (changed("return found", "return foud"), "in line 32"),
]


@pytest.mark.parametrize(("answer", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_allocators_are_refused_with_what_is_wrong(answer: type, words: str) -> None:
    result = check_block_allocator(answer)
    assert result.outcome == "wrong", result
    assert words in repr(result) and "\n" not in repr(result)


BODIES = {"nothing": "...", "NotImplementedError": "raise NotImplementedError"}


def blank(body: str) -> type:
    """The class as the exercise gives it."""
    methods = (
        "__init__(self, count, block_tokens)",
        "needed(self, tokens)",
        "take(self)",
        "register(self, block, key)",
    )
    methods += ("find(self, keys)", "share(self, blocks)", "release(self, blocks)")
    lines = [f"    def {method}:\n        {body}\n" for method in methods]
    return defined(
        "class PrefixBlocks:\n" + "\n".join([*lines, f"    @property\n    def available(self):\n        {body}"])
    )


@pytest.mark.parametrize("answer", [..., None, *map(blank, BODIES.values())])
def test_a_blank_is_not_attempted_yet_and_loads_no_model(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson_8, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert repr(check_block_allocator(answer)).startswith("not attempted yet")


class Impolite(Blocks):
    """Right on its own, and wrong only where an engine meets it: every block is found once and then forgotten."""

    def __init__(self, count: int, block_tokens: int) -> None:
        super().__init__(count, block_tokens)
        self.in_engine = block_tokens == 16

    def find(self, keys: Iterable[bytes]) -> list[int]:
        return [] if self.in_engine else super().find(keys)


def test_an_allocator_that_finds_nothing_in_the_engine_is_refused() -> None:
    assert "tokens were found instead of" in repr(check_block_allocator(Impolite))
