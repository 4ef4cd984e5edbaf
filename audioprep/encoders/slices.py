"""Applies convolutions to a long sequence piece by piece."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_slices(layers: nn.Module, x: Tensor, *, size: int, context: int, down: int = 1, up: int = 1) -> Tensor:
    """What `layers(x)` gives, computed for `size` time steps after `size`, with `context` more on either side.

    `down` time steps in give `up` out; `size` and `context` are multiples of `down`.
    """
    length = x.shape[-1]
    parts = []
    for start in range(0, length, size):
        end = min(start + size, length)
        first, last = max(0, start - context), min(end + context, length)
        part = layers(x[..., first:last])
        parts.append(part[..., (start - first) // down * up : (end - first) // down * up])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
