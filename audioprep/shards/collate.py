"""Makes a batch of rows of different lengths: padded arrays, masks, tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray


def pad_frames(
    rows: Sequence[NDArray[np.generic]], pad_id: int = 0, dtype: DTypeLike | None = None
) -> NDArray[np.generic]:
    """Puts rows `[F_i, K]` into one array `[B, max F_i, K]`, with padding behind each.

    Args:
        rows: at least one, all of one type and width.
        pad_id: the value of padding of integers; that of floats is 0.
        dtype: of the result; None for that of the rows, or int64 where it cannot hold `pad_id`.
    """
    first = rows[0]
    if first.dtype.kind == "f":
        pad_id = 0
    if dtype is None:
        dtype = first.dtype if np.can_cast(np.min_scalar_type(pad_id), first.dtype) else np.int64
    out = np.empty((len(rows), max(map(len, rows)), *first.shape[1:]), dtype)
    for padded, row in zip(out, rows, strict=True):
        padded[: len(row)] = row
        padded[len(row) :] = pad_id
    return out


def to_tensors(
    padded: NDArray[np.generic], lengths: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch `[B, F, K]` (int64, or the floats that it is), its mask bool `[B, F]`, its lengths int64 `[B]`."""
    # NumPy, as torch would wake its OpenMP threads for each of these: on busy cores they spin for longer than this.
    mask = np.arange(padded.shape[1]) < lengths[:, None]
    values = padded if padded.dtype.kind == "f" else padded.astype(np.int64, copy=False)
    return torch.from_numpy(values), torch.from_numpy(mask), torch.from_numpy(lengths)
