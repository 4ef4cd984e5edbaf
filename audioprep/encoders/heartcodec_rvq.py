"""HeartCodec's residual quantizer, which rounds as the package vector-quantize-pytorch does (its `ResidualVQ`).

A near tie is decided by the last bit of a distance, so distances are computed by the same steps. Names of layers are
those of the published checkpoint. Shapes: `B` windows, `F` frames, `D` dimensions, `K` codebooks of `N` codewords.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LEAST = 1e-8  # squared distance


class ResidualQuantizer(nn.Module):
    """
    Args:
        config: `dim`, `codebook_dim`, `codebook_size`, `num_quantizers`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim, narrow = config["dim"], config["codebook_dim"]
        self.project_in = nn.Linear(dim, narrow) if dim != narrow else nn.Identity()
        self.project_out = nn.Linear(narrow, dim) if dim != narrow else nn.Identity()
        layers = (_Layer(config["codebook_size"], narrow) for _ in range(config["num_quantizers"]))
        self.layers = nn.ModuleList(layers)

    def encode(self, rows: Tensor, num_codebooks: int) -> Tensor:
        """Ids of rows float32 `[B, F, D]` in the first `K` codebooks: int64 `[B, F, K]`.

        The layout of the rows in memory, too, decides how their projection is rounded.
        """
        left = self.project_in(rows).flatten(0, 1)
        ids = []
        for layer in list(self.layers)[:num_codebooks]:
            codewords = layer.get_buffer("_codebook.embed")[0]
            products = torch.einsum("fd,nd->fn", left, codewords).mul_(-2)
            squares = left.square().sum(-1)[:, None] + codewords.square().sum(-1)
            ids.append(products.add_(squares).clamp_(min=_LEAST).sqrt_().argmin(dim=-1))
            left = left - codewords[ids[-1]]
        return torch.stack(ids, dim=-1).unflatten(0, rows.shape[:2])

    def decode(self, ids: Tensor) -> Tensor:
        """The sum of the codewords with the ids `[..., k]`, `k <= K`, widened: float32 `[..., D]`."""
        books = [layer.get_buffer("_codebook.embed")[0] for layer in self.layers][: ids.shape[-1]]
        found = [codewords[one] for codewords, one in zip(books, ids.unbind(-1), strict=True)]
        return self.project_out(torch.stack(found).sum(0))


class _Layer(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self._codebook = _Codebook(size, dim)


class _Codebook(nn.Module):
    """`embed` is the codebook; the others are statistics of its training."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("initted", torch.empty((), dtype=torch.bool))
        self.register_buffer("cluster_size", torch.empty(1, size))
        self.register_buffer("embed_avg", torch.empty(1, size, dim))
        self.register_buffer("embed", torch.empty(1, size, dim))
