"""The checks of Lesson 8, inside an engine."""

from __future__ import annotations

from collections.abc import Sequence

from .checking import Function, compare_function, compare_number, exercise


@exercise("flat tokens have no padding, so a long chunk and single tokens can share a forward")
def check_flat_tokens(flat_tokens: int | None, padding_share: float | None) -> None:
    """Exercise 8.1: the tokens of a mixed forward, flat and padded."""
    decoding, chunk = 31, 225
    flat = decoding + chunk
    mistakes = {
        "that is the padded matrix": (decoding + 1) * chunk,
        "the rows that decode read a token each as well": chunk,
        "the row with the chunk reads its chunk only": flat + 1,
    }
    compare_number("flat_tokens", flat_tokens, flat, mistakes)
    cells = (decoding + 1) * chunk
    mistakes = {
        "that is the share that is used": flat / cells,
        "there are 32 rows": 1 - flat / (decoding * chunk),
        "give a share between 0 and 1": 100 * (1 - flat / cells),
        "compare the padding with all cells, not with the tokens": (cells - flat) / flat,
    }
    compare_number("padding_share", padding_share, 1 - flat / cells, mistakes)


def _places_of(table: Sequence[int], block_tokens: int, start: int, count: int) -> list[int]:
    places = []
    for token in range(start, start + count):
        page, inside = divmod(token, block_tokens)
        places.append(table[page] * block_tokens + inside)
    return places


def _places_in_order(table: Sequence[int], block_tokens: int, start: int, count: int) -> list[int]:
    first = table[start // block_tokens] * block_tokens + start % block_tokens
    return list(range(first, first + count))


@exercise("a table makes one text of blocks that lie anywhere, so a cache has no holes that nobody can use")
def check_places_of(function: Function | None) -> None:
    """Exercise 8.2: the places of a request's tokens in the cache."""
    cases = {
        "the example": ([5, 2], 4, 3, 3),
        "the first tokens": ([3, 0, 1], 4, 0, 3),
        "no tokens": ([3, 0], 4, 5, 0),
        "one token of the last block": ([3, 0, 7], 4, 11, 1),
        "a chunk over three blocks": ([9, 4, 6, 1], 3, 2, 6),
        "blocks of one token": ([4, 2, 8], 1, 0, 3),
        "blocks of 16 tokens": ([31, 7, 12], 16, 15, 20),
    }
    mistakes = {
        "the next block of the table need not be the next one of the cache": _places_in_order,
        "count from `start` on": lambda table, size, start, count: _places_of(table, size, 0, count),
        "those are the blocks, not the places": lambda table, size, start, count: [
            place // size for place in _places_of(table, size, start, count)
        ],
        "those are places inside the blocks; a block begins at `block_tokens` times its number": (
            lambda table, size, start, count: [place % size for place in _places_of(table, size, start, count)]
        ),
    }
    compare_function(function, _places_of, cases, mistakes)


def _same(prompt: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts have in common at their beginning."""
    pairs = list(zip(prompt, other, strict=False))
    return next((place for place, (one, two) in enumerate(pairs) if one != two), len(pairs))


def _found_tokens(prompt: Sequence[int], earlier: Sequence[Sequence[int]], block_tokens: int) -> int:
    same = max((_same(prompt, other) for other in earlier), default=0)
    return min(same, len(prompt) - 1) // block_tokens * block_tokens


def _found_with_the_last(prompt: Sequence[int], earlier: Sequence[Sequence[int]], block_tokens: int) -> int:
    return max((_same(prompt, other) for other in earlier), default=0) // block_tokens * block_tokens


def _found_in_parts(prompt: Sequence[int], earlier: Sequence[Sequence[int]], block_tokens: int) -> int:
    return min(max((_same(prompt, other) for other in earlier), default=0), len(prompt) - 1)


def _found_anywhere(prompt: Sequence[int], earlier: Sequence[Sequence[int]], block_tokens: int) -> int:
    def blocks(ids: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(ids[at : at + block_tokens]) for at in range(0, len(ids) - block_tokens + 1, block_tokens)]

    known = {block for other in earlier for block in blocks(other)}
    return block_tokens * sum(block in known for block in blocks(prompt[:-1]))


@exercise("whole blocks are shared, from the beginning up to the first that differs, and the last token is read anyhow")
def check_found_tokens(function: Function | None) -> None:
    """Exercise 8.3: how many tokens of a prompt are found in the cache."""
    cases = {
        "the example": ([1, 2, 3, 4, 5, 6], [[1, 2, 3, 9], [7]], 2),
        "nothing in the cache": ([1, 2, 3], [], 1),
        "nothing in common": ([1, 2, 3], [[4, 2, 3], [5]], 1),
        "the same prompt again": ([1, 2, 3, 4], [[1, 2, 3, 4]], 2),
        "a prompt of one token": ([1], [[1, 2, 3]], 1),
        "a longer earlier prompt": ([1, 2, 3, 4, 5], [[1, 2, 3, 4, 5, 6, 7]], 4),
        "an earlier prompt that goes on": ([1, 2, 3, 4, 5], [[1, 2, 3]], 1),
        "a difference in the middle": ([1, 5, 6, 7], [[1, 2, 6, 7]], 1),
        "the best of several": ([1, 2, 3, 4, 5, 6, 7], [[1, 2, 9], [1, 2, 3, 4, 5, 9], [1, 9]], 2),
        "blocks of three tokens": ([1, 2, 3, 4, 5, 6, 7, 8, 9], [[1, 2, 3, 4, 5, 6, 7, 9]], 3),
        "an equal block behind a different one": ([1, 2, 3, 4, 5], [[9, 2, 3, 4, 5]], 2),
        "less in common than a block": ([1, 2, 3, 4, 5, 6], [[1, 2, 3, 9]], 4),
    }
    mistakes = {
        "the last token of the prompt is always read": _found_with_the_last,
        "whole blocks only are shared": _found_in_parts,
        "look at all earlier prompts, not only at the first": lambda prompt, earlier, size: _found_tokens(
            prompt, earlier[:1], size
        ),
        "look at all earlier prompts, not only at the last": lambda prompt, earlier, size: _found_tokens(
            prompt, earlier[-1:], size
        ),
        "a block can be shared only if all blocks before it are the same": _found_anywhere,
        "those are blocks; give tokens": lambda prompt, earlier, size: _found_tokens(prompt, earlier, size) // size,
        "that is what has to be read": lambda prompt, earlier, size: len(prompt) - _found_tokens(prompt, earlier, size),
    }
    compare_function(function, _found_tokens, cases, mistakes)


def _rows_that_fit(count: int, block_tokens: int, shared: int, own: int) -> int:
    common = shared // block_tokens
    each = (shared + own + block_tokens - 1) // block_tokens - common
    return max(0, count - common) // each


def _rows_by_tokens(count: int, block_tokens: int, shared: int, own: int) -> int:
    return max(0, count * block_tokens - shared) // own


def _rows_without_sharing(count: int, block_tokens: int, shared: int, own: int) -> int:
    return count // -(-(shared + own) // block_tokens)


@exercise("a beginning that all have in common is stored once, so a cache holds more rows than their lengths say")
def check_rows_that_fit(function: Function | None) -> None:
    """Exercise 8.4: how many requests with a common beginning fit into the cache."""
    cases = {
        "the example": (10, 4, 6, 5),
        "nothing shared": (10, 4, 0, 5),
        "a shared part of whole blocks": (20, 4, 8, 6),
        "less shared than a block": (9, 8, 3, 5),
        "a shared part that fills the cache": (3, 4, 12, 1),
        "a shared part larger than the cache": (3, 4, 20, 1),
        "blocks of one token": (50, 1, 10, 7),
        "a book and short questions": (200, 16, 1400, 60),
    }
    mistakes = {
        "the common beginning is stored once": _rows_without_sharing,
        "blocks are handed out as a whole": _rows_by_tokens,
        "a block that is not full cannot be shared": lambda count, size, shared, own: (
            max(0, count - -(-shared // size)) // -(-own // size)
        ),
        "the tokens behind the last full common block need room too": lambda count, size, shared, own: (
            max(0, count - shared // size) // -(-own // size)
        ),
        "the common beginning needs room, once": lambda count, size, shared, own: (
            count // (-(-(shared + own) // size) - shared // size)
        ),
    }
    compare_function(function, _rows_that_fit, cases, mistakes)


@exercise("every further guess counts for less, since all before it must be right, and each makes the forward dearer")
def check_draft_gain(tokens_per_forward: float | None, gain_of_drafts: float | None) -> None:
    """Exercise 8.5: the expected tokens of a forward that checks a draft, and the gain."""
    right, drafted, cost = 0.8, 4, 1.4
    expected = (1 - right ** (drafted + 1)) / (1 - right)
    mistakes = {
        "the forward gives a token of its own besides those that were right": expected - 1,
        "a guess counts only if all before it were right": 1 + drafted * right,
        "after the draft comes one token more": expected - right**drafted,
        "that is the length of the draft and one more; not all are right": drafted + 1,
        "that is the probability that the whole draft is right": right**drafted,
    }
    compare_number("tokens_per_forward", tokens_per_forward, expected, mistakes)
    mistakes = {
        "a forward with a draft takes longer": expected,
        "that is the time of a token; the gain is its inverse": cost / expected,
        "divide by how many times as long the forward takes": expected * cost,
        "how long one forward takes is given; it need not be multiplied by the draft": expected / (cost * drafted),
    }
    compare_number("gain_of_drafts", gain_of_drafts, expected / cost, mistakes)
