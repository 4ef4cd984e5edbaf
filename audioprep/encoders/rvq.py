"""Residual vector quantization: each codebook quantizes what the ones before it left over.

Shapes: `F` frames, `D` dimensions, `K` codebooks, `N` codewords in each.
"""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(rows: Tensor, codewords: Tensor, half_norms: Tensor) -> Tensor:
    """Index of the nearest codeword by Euclidean distance; of equally near ones the lowest index.

    `|x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2)`: a matrix product and an addition are all that is left.

    Args:
        rows: float32 `[F, D]`.
        codewords: float32 `[N, D]`.
        half_norms: `|c|^2 / 2` of every codeword, `[N]`.

    Returns:
        int64 `[F]`.
    """
    return torch.addmm(half_norms, rows, codewords.T, alpha=-1.0).argmin(dim=1)


def half_norms(codewords: Tensor) -> Tensor:
    """`|c|^2 / 2` of codewords `[..., N, D]`, as `nearest` takes it."""
    return codewords.square().sum(dim=-1).mul_(0.5)


class ResidualVQ:
    """A stack of codebooks `[K, N, D]`."""

    def __init__(self, codebooks: Tensor) -> None:
        self.codebooks = codebooks.contiguous()
        self._half_norms = half_norms(self.codebooks)

    @torch.inference_mode()
    def encode(self, rows: Tensor) -> Tensor:
        """Quantizes rows `[F, D]`; they are overwritten with what is left over.

        Returns:
            Ids int64 `[F, K]`.
        """
        ids = torch.empty(rows.shape[0], len(self.codebooks), dtype=torch.int64, device=rows.device)
        for k, (codewords, norms) in enumerate(zip(self.codebooks, self._half_norms, strict=True)):
            ids[:, k] = nearest(rows, codewords, norms)
            rows -= codewords.index_select(0, ids[:, k])
        return ids

    @torch.inference_mode()
    def decode(self, ids: Tensor) -> Tensor:
        """The sum of the codewords with the ids `[F, k]`, `k <= K`: float32 `[F, D]`."""
        return torch.stack([book[ids[:, k]] for k, book in enumerate(self.codebooks[: ids.shape[1]])]).sum(0)
