"""The bookkeeping of a paged KV cache: which block of token places belongs to whom. Plain numbers, no tensors.

The cache is cut into blocks of a few tokens each (Kwon et al. 2023, PagedAttention). A request holds a list of block
numbers, its block table: token i of it lies in block `table[i // block_tokens]`. A block is in one of three states:

    free      it holds nothing that could be found again
    used      one or more running requests have it in their tables
    cached    nobody uses it, but it is full, and whoever needs the same tokens will find it by its key;
              when free blocks run out, the one that was released longest ago is given away
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import takewhile


def block_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a full block, 32 bytes: equal exactly when these tokens and all that stand before them are equal.

    The first block's parent is the identity of the loaded adapter, 0 for none: keys and values depend on it, too.
    """
    return sha256(parent + array("q", tokens).tobytes()).digest()


class Blocks:
    """Who uses which of `count` blocks of `block_tokens` tokens, and which full ones can be found by their keys."""

    def __init__(self, count: int, block_tokens: int) -> None:
        self.count, self.block_tokens = count, block_tokens
        self.references = [0] * count  # running requests that have the block in their table
        self.keys: list[bytes | None] = [None] * count
        self.by_key: dict[bytes, int] = {}
        self.free = deque(range(count))
        self.cached: OrderedDict[int, None] = OrderedDict()  # the one released longest ago comes first

    @property
    def available(self) -> int:
        """How many blocks could be taken."""
        return len(self.free) + len(self.cached)

    def needed(self, tokens: int) -> int:
        """How many blocks hold so many tokens."""
        return -(-tokens // self.block_tokens)

    def take(self) -> int:
        """A block to write to; the caller has made sure that one is available."""
        if not self.free:
            oldest, _ = self.cached.popitem(last=False)
            del self.by_key[self.keys[oldest]]
            self.keys[oldest] = None
            self.free.append(oldest)
        block = self.free.popleft()
        self.references[block] = 1
        return block

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The blocks with these keys, up to the first key that nobody has registered."""
        return [self.by_key[key] for key in takewhile(self.by_key.__contains__, keys)]

    def share(self, blocks: Iterable[int]) -> None:
        """One more request uses these blocks."""
        for block in blocks:
            self.cached.pop(block, None)
            self.references[block] += 1

    def register(self, block: int, key: bytes) -> None:
        """From now on a full block can be found. Its keys and values must have been computed: no sooner."""
        if key not in self.by_key and self.keys[block] is None:
            self.by_key[key], self.keys[block] = block, key

    def release(self, blocks: Sequence[int]) -> None:
        """A request no longer uses these blocks. The last ones are given away first: they are of use to fewest."""
        for block in reversed(blocks):
            self.references[block] -= 1
            if not self.references[block] and self.keys[block] is None:
                self.free.append(block)
            elif not self.references[block]:
                self.cached[block] = None
