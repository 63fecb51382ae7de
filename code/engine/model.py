"""The forward written out over flat tokens: all rows of a step one after the other, prefill and decode mixed.

    row of A, decoding       row of B, decoding       row of C, a chunk of its prompt
    a9                       b5                       c0 c1 c2 c3                        -> 6 tokens, one matrix

Norms, matrix products and activations see one matrix (N, width) of tokens and need not know whose they are: no
padding. The layers are those of a transformers model, whatever they are: plain, packed, quantized, with an adapter.
Only attention asks which tokens belong together. Keys and values lie in pages, the blocks of `blocks.Blocks`.

N tokens in the step, R rows, H query heads, G key/value heads of size D, S places in the longest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from .adapters import grouped
from .architectures import architecture_of
from .request import Request
from .scheduler import Work


class Part(NamedTuple):
    """R rows with T new tokens each."""

    tokens: slice  # where they are among all
    table: Tensor  # (R, pages) int64, the rows' blocks, short rows filled up with block 0
    mask: Tensor  # (R, T, S), 0 where a token may look, at its own row up to itself, and -infinity elsewhere


class Flat:
    """What a forward reads of its rows, sorted by how many tokens are new: rows with equally many are one part.

    `ids`, `positions` and `places` (N,) int64 are each token, its place in its row, and its place in the whole cache;
    `last` (rows,) is the last token of each request in `up_to_date`, of which no token is left to be read.
    """

    rotation: Sequence[Tensor] = ()  # what rotary embeddings make of the positions, set by the architecture

    def __init__(self, work: Sequence[Work], block_tokens: int, like: Mapping[str, Any]) -> None:
        def numbers(values: Iterable[Any]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.long, device=like["device"])

        def part(rows: list[Work], start: int) -> Part:
            pages = [row.request.blocks[: -(-row.end // block_tokens)] for row in rows]
            width = max(map(len, pages))
            table = numbers(blocks + [0] * (width - len(blocks)) for blocks in pages)
            tokens = slice(start, start + len(rows) * rows[0].tokens)
            own = self.positions[tokens].view(len(rows), -1, 1)  # (R, T, 1)
            hidden = torch.arange(width * block_tokens, device=like["device"]) > own  # (R, T, S)
            return Part(tokens, table, torch.zeros(hidden.shape, **like).masked_fill_(hidden, -torch.inf))

        work = sorted(work, key=attrgetter("tokens"))
        groups = [list(rows) for _, rows in groupby(work, key=attrgetter("tokens"))]
        tokens = [(row.request, i) for row in work for i in range(row.request.computed, row.end)]
        self.ids, self.positions = numbers(r.ids[i] for r, i in tokens), numbers(i for _, i in tokens)
        self.places = numbers(r.blocks[i // block_tokens] * block_tokens + i % block_tokens for r, i in tokens)
        ends = zip(work, accumulate(row.tokens for row in work), strict=True)
        last = {row.request: end - 1 for row, end in ends if row.end == len(row.request.ids)}
        self.up_to_date, self.last = list(last), numbers(last.values())
        starts = accumulate((sum(row.tokens for row in rows) for rows in groups[:-1]), initial=0)
        self.parts = [part(rows, start) for rows, start in zip(groups, starts, strict=True)]
        self.adapters = grouped(work, like["device"])

    def linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        """x (N, in) -> (N, out): the layer, and each adapter's update for its own tokens."""
        y = layer(x)
        for adapter, tokens in self.adapters:
            if layer in adapter.weights:
                a, b = adapter.weights[layer]
                y.index_add_(0, tokens, (x[tokens] @ a.T) @ b.T)  # (n, out)
        return y


class PagedModel:
    """A transformers model with a KV cache of so many blocks of `block_tokens` tokens. The model is used, not copied.

    Raises ValueError if it is of another architecture than GPT-2, Llama, Qwen2 and Qwen3.
    """

    def __init__(self, model: PreTrainedModel, blocks: int, block_tokens: int) -> None:
        self.architecture, self.block_tokens = architecture_of(model), block_tokens
        self.like = {"dtype": self.architecture.norm.weight.dtype, "device": model.device}
        self.exact = dict(self.like)  # what attention computes in: on the CPU it is slow in less than float32
        if model.device.type == "cpu":
            self.exact["dtype"] = torch.promote_types(self.like["dtype"], torch.float32)
        shape = (blocks, block_tokens, self.architecture.kv_heads, self.architecture.head_size)
        self.room = [torch.empty(0, shape[1] * shape[2] * shape[3], **self.like) for _ in "kv"]  # for gathered blocks
        # Zeros, not empty: a place that is masked counts 0 times what it holds, and 0 times NaN is NaN.
        self.pages = [tuple(torch.zeros(shape, **self.like) for _ in "kv") for _ in self.architecture.layers]

    @torch.inference_mode()
    def forward(self, work: Sequence[Work]) -> tuple[list[Request], Tensor]:
        """Read the tokens of these rows, and write their keys and values into their blocks.

        Returns:
            The requests all of whose tokens are read now, and the logits (rows, V) of the token after each.
        """
        flat, architecture = Flat(work, self.block_tokens, self.exact), self.architecture
        x = architecture.embed(flat)  # (N, width)
        for index, layer in enumerate(architecture.layers):
            q, k, v = architecture.queries_keys_values(layer, x, flat)  # (N, H, D), (N, G, D), (N, G, D)
            attended = self._attend(index, q, k, v, flat)  # (N, H * D)
            x = x + architecture.attention_output(layer, attended, flat)
            x = x + architecture.mlp(layer, x, flat)
        return flat.up_to_date, architecture.head(architecture.norm(x[flat.last]))  # (rows, V)

    def _attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, flat: Flat) -> Tensor:
        """Write the new keys and values, then let every token look at its own row up to itself."""
        for pages, new in zip(self.pages[index], (k, v), strict=True):
            pages.view(-1, new[0].numel()).index_copy_(0, flat.places, new.flatten(1))  # (blocks * block_tokens, G * D)
        scale = self.architecture.scales[index]
        blocks = max(part.table.numel() for part in flat.parts)
        if blocks > len(self.room[0]):
            self.room = [room.new_empty(blocks + blocks // 4, room.shape[1]) for room in self.room]
        gathered = (self._gather(index, part.table.flatten()) for part in flat.parts)
        attended = [attend(q[part.tokens], *kv, part, scale) for part, kv in zip(flat.parts, gathered, strict=True)]
        return torch.cat(attended) if len(attended) > 1 else attended[0]

    def _gather(self, index: int, table: Tensor) -> list[Tensor]:
        """Copies of these blocks' keys and values, whole blocks at once; the next ones use the same memory again.

        New memory at every call would cost more than the copying: the system hands it out page by page.
        """
        pages, n = (pages.flatten(1) for pages in self.pages[index]), len(table)
        return [torch.index_select(all_, 0, table, out=room[:n]) for all_, room in zip(pages, self.room, strict=True)]


def attend(q: Tensor, keys: Tensor, values: Tensor, part: Part, scale: float) -> Tensor:
    """Attention of a part's R rows with T new tokens each, q (R * T, H, D) -> (R * T, H * D).

    `keys` and `values` (blocks, block_tokens * G * D) are the rows' pages, gathered one row after the other, each row
    as wide as the longest. (Rows in slots of their own, contiguous, would need no gathering, but could share no prefix;
    `make engine` times both.)
    """
    (rows, tokens, places), (_, heads, size) = part.mask.shape, q.shape
    kv = (blocks.to(part.mask.dtype).view(rows, places, -1, size) for blocks in (keys, values))
    keys, values = (t.transpose(1, 2) for t in kv)  # (R, G, S, D)
    groups = keys.shape[1]
    shared = heads // groups  # H / G query heads look at the same key head: further rows of one query matrix
    dtype, q = q.dtype, q.to(part.mask.dtype)
    q = q.view(rows, tokens, groups, shared, size).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (R, G, H / G * T, D)
    mask = part.mask[:, None, None].expand(-1, -1, shared, -1, -1).flatten(2, 3)  # (R, 1, H / G * T, S)
    y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scale)
    return y.unflatten(2, (shared, tokens)).permute(0, 3, 1, 2, 4).reshape(rows * tokens, heads * size).to(dtype)
