"""The rows of a step as flat tensors: which token, at which place of its row, written to which place of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapters import AdapterRows, adapter_rows
from .request import Request
from .scheduler import Work


@dataclass
class Chunk:
    """A row that reads several tokens at once.

    Attributes:
        tokens: where they are among the flat tokens.
        table: the blocks of the row, (pages,) int64, and `end`: how many places of them count.
        mask: (T, end), true where a token may look: at its row up to itself.
    """

    tokens: slice
    table: Tensor
    end: int
    mask: Tensor


@dataclass
class Flat:
    """What a forward reads of its rows: those with one new token first, then the chunks.

    Attributes:
        ids, positions: (N,) int64, each token and its place in its row.
        places: (N,) int64, where its key and value are written, counted through all blocks.
        singles: how many rows have one new token.
        table: (singles, pages) int64, their blocks, short rows filled up with block 0.
        mask: (singles, pages * block_tokens), true where a row may look.
        last: (rows,) int64, the last token of each request in `up_to_date`, which has no token left to be read.
        adapters: the tokens of each adapter.
        rotation: what rotary embeddings need of the positions; filled in by the architecture that has them.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    singles: int
    table: Tensor
    mask: Tensor
    chunks: list[Chunk]
    last: Tensor
    up_to_date: list[Request]
    adapters: list[AdapterRows]
    rotation: tuple[Tensor, Tensor] | None = None

    def linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        """x (N, in) -> (N, out): the layer, and each adapter's update for its own tokens."""
        y = layer(x)
        for rows in self.adapters:
            rows.add_update(layer, x, y)
        return y


def flatten(work: Sequence[Work], block_tokens: int, device: torch.device) -> Flat:
    """The rows one after the other, those with one new token first."""
    work = sorted(work, key=lambda row: row.tokens > 1)  # keeps the order among equals
    singles = [row for row in work if row.tokens == 1]
    ids, positions, places, last, chunks, up_to_date = [], [], [], [], [], []
    for row in work:
        request, start = row.request, len(ids)
        span = range(request.computed, row.end)
        ids += request.ids[span.start : span.stop]
        positions += span
        places += [request.blocks[i // block_tokens] * block_tokens + i % block_tokens for i in span]
        if row.tokens > 1:
            chunks.append(_chunk(row, slice(start, len(ids)), block_tokens, device))
        if row.is_up_to_date:
            up_to_date.append(request)
            last.append(len(ids) - 1)
    numbers = (torch.tensor(n, dtype=torch.long, device=device) for n in (ids, positions, places, last))
    ids, positions, places, last = numbers
    table = _table([_pages(row, block_tokens) for row in singles], device)
    reach = torch.arange(table.shape[1] * block_tokens, device=device)
    mask = reach <= positions[: len(singles), None]  # (singles, S)
    adapters = adapter_rows(work, device)
    return Flat(ids, positions, places, len(singles), table, mask, chunks, last, up_to_date, adapters)


def _pages(row: Work, block_tokens: int) -> list[int]:
    """The blocks that hold the row's tokens up to the end of the step."""
    return row.request.blocks[: -(-row.end // block_tokens)]


def _table(pages: list[list[int]], device: torch.device) -> Tensor:
    """Block tables as one rectangle (rows, pages) int64, short ones filled up with block 0."""
    width = max(map(len, pages), default=0)
    filled = [row + [0] * (width - len(row)) for row in pages]
    return torch.tensor(filled, dtype=torch.long, device=device).view(len(pages), width)


def _chunk(row: Work, tokens: slice, block_tokens: int, device: torch.device) -> Chunk:
    table = torch.tensor(_pages(row, block_tokens), device=device)
    own = torch.arange(row.request.computed, row.end, device=device)
    mask = torch.arange(row.end, device=device) <= own[:, None]  # (T, end)
    return Chunk(tokens, table, row.end, mask)
