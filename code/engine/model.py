"""The forward written out over flat tokens: all rows of a step one after the other, prefill and decode mixed.

    row of A, decoding       row of B, decoding       row of C, a chunk of its prompt
    a9                       b5                       c0 c1 c2 c3                        -> 6 tokens, one matrix

Norms, matrix products and activations see one matrix (N, width) of tokens and need not know whose they are: no
padding. The layers are those of a transformers model, whatever they are: plain, packed, quantized, with an adapter.
Only attention asks which tokens belong together. Keys and values lie in pages, the blocks of `blocks.Blocks`.

Shapes: N tokens in the step, R rows, H query heads, G key/value heads, D head size, S places in the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from .architectures import architecture_of
from .flat import Chunk, Flat, flatten
from .request import Request
from .scheduler import Work


class PagedModel:
    """A transformers model with a paged KV cache of its own.

    Args:
        model: GPT-2, Llama, Qwen2 or Qwen3, packed and quantized ones included. It is used, not copied.
        blocks: how many blocks the cache has; block_tokens: tokens per block.

    Raises:
        ValueError: the model is of another architecture.
    """

    def __init__(self, model: PreTrainedModel, blocks: int, block_tokens: int) -> None:
        self.architecture = architecture_of(model)
        self.block_tokens = block_tokens
        shape = (blocks, block_tokens, self.architecture.kv_heads, self.architecture.head_size)
        self.like = {"dtype": self.architecture.norm.weight.dtype, "device": model.device}
        # Zeros, not empty: a place that is masked counts 0 times what it holds, and 0 times NaN is NaN.
        self.pages = [tuple(torch.zeros(shape, **self.like) for _ in "kv") for _ in self.architecture.layers]

    @torch.inference_mode()
    def forward(self, work: Sequence[Work]) -> tuple[list[Request], Tensor]:
        """Read the tokens of these rows, and write their keys and values into their blocks.

        Returns:
            The requests all of whose tokens are read now, and the logits (rows, V) of the token after each.
        """
        flat = flatten(work, self.block_tokens, self.like["device"])
        architecture = self.architecture
        x = architecture.embed(flat)  # (N, width)
        for index, layer in enumerate(architecture.layers):
            q, k, v = architecture.queries_keys_values(layer, x, flat)  # (N, H, D), (N, G, D), (N, G, D)
            attended = self._attend(index, q, k, v, flat)  # (N, H * D)
            x = x + architecture.attention_output(layer, attended, flat)
            x = x + architecture.mlp(layer, x, flat)
        return flat.up_to_date, architecture.head(architecture.norm(x[flat.last]))  # (rows, V)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, flat: Flat) -> Tensor:
        """Write the new keys and values, then let every token look at its own row up to itself."""
        keys, values = self.pages[layer]
        keys.flatten(0, 1)[flat.places] = k  # (blocks * block_tokens, G, D)
        values.flatten(0, 1)[flat.places] = v
        scale = self.architecture.scale(layer)
        parts = []
        if flat.singles:
            parts.append(attend_singles(q[: flat.singles], keys[flat.table], values[flat.table], flat.mask, scale))
        for chunk in flat.chunks:
            parts.append(attend_chunk(q[chunk.tokens], keys[chunk.table], values[chunk.table], chunk, scale))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def attend_singles(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of the rows that have one new token each, all at once.

    The pages of all rows are gathered into one rectangle, as wide as the longest row. (Rows in slots of their own,
    contiguous, would need no gathering but could share no prefix; that alternative would go here.)

    Args:
        q: (R, H, D). keys, values: (R, pages, block_tokens, G, D). mask: (R, S), true where a row may look.

    Returns:
        (R, H * D)
    """
    rows, heads, size = q.shape
    keys, values = keys.flatten(1, 2).transpose(1, 2), values.flatten(1, 2).transpose(1, 2)  # (R, G, S, D)
    # The heads that share a key head become several queries of that one head.
    q = q.view(rows, keys.shape[1], -1, size)  # (R, G, H / G, D)
    y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask[:, None, None], scale=scale)
    return y.reshape(rows, heads * size)


def attend_chunk(q: Tensor, keys: Tensor, values: Tensor, chunk: Chunk, scale: float) -> Tensor:
    """Attention of one row that has several new tokens.

    Args:
        q: (T, H, D). keys, values: (pages, block_tokens, G, D).

    Returns:
        (T, H * D)
    """
    tokens, heads, size = q.shape
    keys, values = (t.flatten(0, 1)[: chunk.end].transpose(0, 1) for t in (keys, values))  # (G, S, D)
    q = q.transpose(0, 1).view(keys.shape[0], -1, tokens, size)  # (G, H / G, T, D)
    y = F.scaled_dot_product_attention(q, keys[:, None], values[:, None], attn_mask=chunk.mask, scale=scale)
    return y.flatten(0, 1).transpose(0, 1).reshape(tokens, heads * size)
