"""The forward written out over flat tokens: all rows of a step one after the other, prefill and decode mixed.

    row of A, decoding       row of B, decoding       row of C, a chunk of its prompt
    a9                       b5                       c0 c1 c2 c3                        -> 6 tokens, one matrix

Norms, matrix products and activations see one matrix (N, width) of tokens and need not know whose they are: no
padding. The layers are those of a transformers model, whatever they are: plain, packed, quantized, with an adapter.
Only attention asks which tokens belong together. Keys and values lie in pages, the blocks of `blocks.Blocks`.

N tokens in the step, R rows, H query heads, G key/value heads of size D, S places in the longest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from .adapters import adapted, grouped
from .architectures import architecture_of
from .request import Request
from .scheduler import Work


class Chunk(NamedTuple):
    """A row with T > 1 new tokens: where they are, the row's blocks (pages,), and where each may look (T, places)."""

    tokens: slice
    table: Tensor
    mask: Tensor


class Flat:
    """What a forward reads of its rows: those with one new token first, `singles` of them, then the chunks.

    Attributes:
        ids, positions, places: (N,) int64: each token, its place in its row, and its place in the whole cache.
        last: (rows,) int64, the last token of each request in `up_to_date`, which has no token left to be read.
        table: (singles, pages) int64, the blocks of the singles, short rows filled up with block 0.
        mask: (singles, S), true where a row may look.
        adapters: the tokens of each adapter.
        rotation: what rotary embeddings make of the positions; set by the architecture that has them.
    """

    rotation: Sequence[Tensor] = ()

    def __init__(self, work: Sequence[Work], block_tokens: int, device: torch.device) -> None:
        def numbers(values: Iterable[Any]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.long, device=device)

        work = sorted(work, key=lambda row: row.tokens > 1)  # keeps the order among equals
        tokens = [(row.request, i) for row in work for i in range(row.request.computed, row.end)]
        self.ids, self.positions = numbers(r.ids[i] for r, i in tokens), numbers(i for _, i in tokens)
        self.places = numbers(r.blocks[i // block_tokens] * block_tokens + i % block_tokens for r, i in tokens)
        ends = list(accumulate(row.tokens for row in work))
        self.last = numbers(end - 1 for row, end in zip(work, ends, strict=True) if row.is_up_to_date)
        self.up_to_date = [row.request for row in work if row.is_up_to_date]
        self.adapters = grouped(work, device)

        pages = [row.request.blocks[: -(-row.end // block_tokens)] for row in work]
        self.singles = sum(row.tokens == 1 for row in work)
        width = max(map(len, pages[: self.singles]), default=0)
        filled = (blocks + [0] * (width - len(blocks)) for blocks in pages[: self.singles])
        self.table = numbers(filled).view(self.singles, width)
        order = torch.arange(max(width * block_tokens, *(row.end for row in work)), device=device)
        self.mask = order[: width * block_tokens] <= self.positions[: self.singles, None]
        self.chunks = [
            Chunk(
                slice(end - row.tokens, end),
                numbers(blocks),
                order[: row.end] <= order[row.request.computed : row.end, None],
            )
            for row, end, blocks in list(zip(work, ends, pages, strict=True))[self.singles :]
        ]

    def linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        """x (N, in) -> (N, out), with every token's own adapter."""
        return adapted(layer, x, self.adapters)


class PagedModel:
    """A transformers model with a KV cache of so many blocks of `block_tokens` tokens. The model is used, not copied.

    Raises:
        ValueError: the model is of another architecture than GPT-2, Llama, Qwen2 or Qwen3.
    """

    def __init__(self, model: PreTrainedModel, blocks: int, block_tokens: int) -> None:
        self.architecture, self.block_tokens = architecture_of(model), block_tokens
        self.like = {"dtype": self.architecture.norm.weight.dtype, "device": model.device}
        shape = (blocks, block_tokens, self.architecture.kv_heads, self.architecture.head_size)
        # Zeros, not empty: a place that is masked counts 0 times what it holds, and 0 times NaN is NaN.
        self.pages = [tuple(torch.zeros(shape, **self.like) for _ in "kv") for _ in self.architecture.layers]

    @torch.inference_mode()
    def forward(self, work: Sequence[Work]) -> tuple[list[Request], Tensor]:
        """Read the tokens of these rows, and write their keys and values into their blocks.

        Returns:
            The requests all of whose tokens are read now, and the logits (rows, V) of the token after each.
        """
        flat, architecture = Flat(work, self.block_tokens, self.like["device"]), self.architecture
        x = architecture.embed(flat)  # (N, width)
        for index, layer in enumerate(architecture.layers):
            q, k, v = architecture.queries_keys_values(layer, x, flat)  # (N, H, D), (N, G, D), (N, G, D)
            attended = self._attend(index, q, k, v, flat)  # (N, H * D)
            x = x + architecture.attention_output(layer, attended, flat)
            x = x + architecture.mlp(layer, x, flat)
        return flat.up_to_date, architecture.head(architecture.norm(x[flat.last]))  # (rows, V)

    def _attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, flat: Flat) -> Tensor:
        """Write the new keys and values, then let every token look at its own row up to itself."""
        keys, values = self.pages[index]
        keys.flatten(0, 1)[flat.places] = k  # (blocks * block_tokens, G, D)
        values.flatten(0, 1)[flat.places] = v
        scale, parts = self.architecture.scales[index], []
        if flat.singles:
            parts.append(attend_singles(q[: flat.singles], keys[flat.table], values[flat.table], flat.mask, scale))
        for chunk in flat.chunks:
            parts.append(attend_chunk(q[chunk.tokens], keys[chunk.table], values[chunk.table], chunk.mask, scale))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def attend_singles(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of the rows that have one new token each, all at once; (R, H * D).

    The pages of all rows are gathered into one rectangle, as wide as the longest row. (Rows in slots of their own,
    contiguous, would need no gathering but could share no prefix; that alternative would go here.)

    Args:
        q: (R, H, D). keys, values: (R, pages, block_tokens, G, D). mask: (R, S), true where a row may look.
    """
    rows, heads, size = q.shape
    keys, values = (pages.flatten(1, 2).transpose(1, 2) for pages in (keys, values))  # (R, G, S, D)
    # The heads that share a key head become several queries of that one head.
    q = q.reshape(rows, keys.shape[1], -1, size)  # (R, G, H / G, D)
    y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask[:, None, None], scale=scale)
    return y.reshape(rows, heads * size)


def attend_chunk(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of one row that has T new tokens; (T, H * D).

    Args:
        q: (T, H, D). keys, values: (pages, block_tokens, G, D). mask: (T, places), true where a token may look.
    """
    tokens, heads, size = q.shape
    keys, values = (pages.flatten(0, 1)[: mask.shape[1]].transpose(0, 1) for pages in (keys, values))  # (G, S, D)
    q = q.transpose(0, 1).reshape(keys.shape[0], -1, tokens, size)  # (G, H / G, T, D)
    y = F.scaled_dot_product_attention(q, keys[:, None], values[:, None], attn_mask=mask, scale=scale)
    return y.flatten(0, 1).transpose(0, 1).reshape(tokens, heads * size)
