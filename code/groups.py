"""How quantized codes lie in memory: channels and groups that share a scale, pairs of 4-bit codes (Lesson 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from checks import check_dim, check_group_size


def by_channel(t: Tensor, dim: int | None) -> Tensor:
    """(C, N): one row per index along `dim`, or a single row."""
    if dim is None:
        return t.reshape(1, -1)
    check_dim(t, dim)
    return t.movedim(dim, 0).reshape(t.shape[dim], -1)


def split_groups(t: Tensor, dim: int | None, group_size: int | None) -> Tensor:
    """(C, G, n): channels, groups in a channel, values in a group."""
    rows = by_channel(t, dim)
    size = rows.shape[1] if group_size is None else group_size
    check_group_size(size, rows.shape[1])
    return rows.view(rows.shape[0], -1, size)


def join_groups(grouped: Tensor, shape: torch.Size, dim: int | None) -> Tensor:
    """(C, G, n) back to `shape`."""
    if dim is None:
        return grouped.reshape(shape)
    channels_first = [shape[dim], *(size for index, size in enumerate(shape) if index != dim % len(shape))]
    return grouped.reshape(channels_first).movedim(0, dim).contiguous()


def pack_int4(codes: Tensor) -> Tensor:
    """Two 4-bit codes per byte along the last dimension, (..., N) -> (..., ceil(N / 2)) uint8."""
    padded = F.pad(codes, [0, codes.shape[-1] % 2])
    return padded[..., ::2] | (padded[..., 1::2] << 4)


def unpack_int4(packed: Tensor, size: int) -> Tensor:
    """The `size` codes per row that `pack_int4` put in, (..., ceil(N / 2)) -> (..., N) uint8."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)[..., :size]
