"""What must hold of the engine's bookkeeping between two steps, whatever has happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from engine.blocks import Blocks
from engine.scheduler import Scheduler


def check_blocks(blocks: Blocks, tables: Iterable[Sequence[int]]) -> None:
    """Every block is accounted for, given all block tables in use."""
    held = Counter(block for table in tables for block in table)
    assert held == Counter(dict(enumerate(blocks.references))), "references differ from the tables"
    states = [*blocks.free, *blocks.cached, *held]
    assert sorted(states) == list(range(blocks.count)), "free + cached + used blocks are not all blocks"
    assert blocks.by_key == {key: block for block, key in enumerate(blocks.keys) if key is not None}
    assert not any(blocks.keys[block] for block in blocks.free), "a free block can be found"
    assert all(blocks.keys[block] for block in blocks.cached), "a cached block cannot be found"


def check_schedule(scheduler: Scheduler) -> None:
    """Rows, order and blocks of all requests are what they must be."""
    check_blocks(scheduler.blocks, [request.blocks for request in scheduler.running])
    assert len(scheduler.running) <= scheduler.max_rows
    numbers = [request.number for request in (*scheduler.running, *scheduler.waiting.values())]
    assert all(one < next_one for one, next_one in pairwise(numbers)), "somebody overtook"
    assert not any(request.blocks or request.computed for request in scheduler.waiting.values())
    for request in scheduler.running:
        assert request.computed < len(request.ids), "a running request has nothing left to read"
        written_next = request.blocks[request.computed // scheduler.blocks.block_tokens :]
        assert not any(scheduler.blocks.keys[block] for block in written_next), "a block is shared while written"
        assert all(scheduler.blocks.references[block] == 1 for block in written_next)
