"""Fits a residual vector quantizer: k-means on what the codebooks before left over.

Each codebook is seeded by k-means++ (Arthur and Vassilvitskii 2007) and refined by full passes over the rows
(Lloyd 1982), which on a sample that fits into memory ended lower than mini-batches (Sculley 2010) at the same
cost. A codeword that wins no row of a pass is put on a badly quantized row (after the random restarts of
Jukebox, arXiv 2005.00341).

Shapes: `F` rows, one a token frame, `D` dimensions, `K` codebooks, `N` codewords in each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audioprep.encoders.rvq import half_norms, nearest

_BATCH = 8192
_PASSES = 12
_SEEDING_ROWS_PER_CODEWORD = 8


class Reservoir:
    """A uniform random sample of the rows that went by, in bounded memory (Vitter 1985, algorithm R).

    Args:
        capacity: rows that are kept.
        dim: of a row.
        seed: of the choice. The same rows in the same order give the same sample.
    """

    def __init__(self, capacity: int, dim: int, seed: int) -> None:
        self.seen = 0
        self._kept = np.empty((capacity, dim), np.float32)
        self._random = np.random.default_rng(seed)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Offers rows `[F, dim]`."""
        room = min(max(len(self._kept) - self.seen, 0), len(rows))
        self._kept[self.seen : self.seen + room] = rows[:room]
        late = np.arange(self.seen + room, self.seen + len(rows))
        places = self._random.integers(0, late + 1)
        wins = places < len(self._kept)
        # Where two rows of one call draw the same place, numpy lets the later one win, as it should be.
        self._kept[places[wins]] = rows[room:][wins]
        self.seen += len(rows)

    @property
    def rows(self) -> NDArray[np.float32]:
        """The sample, `[min(seen, capacity), dim]`."""
        return self._kept[: self.seen]


@dataclass(frozen=True, slots=True)
class CodebookReport:
    """How well the frames of the fit are quantized by one codebook and the ones before it.

    Attributes:
        explained_variance: 1 - (energy left over) / (energy of the frames), in [0, 1].
        usage: share of the codewords that at least one frame uses.
        perplexity: exp of the entropy of the ids; `N` where all are used alike.
    """

    explained_variance: float
    usage: float
    perplexity: float


def fit_rvq(
    rows: Tensor,
    *,
    num_codebooks: int,
    codebook_size: int,
    seed: int,
    lost: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, list[CodebookReport]]:
    """Fits codebook by codebook.

    Args:
        rows: float32 `[F, D]`; overwritten with what is left over at the end.
        num_codebooks: `K`.
        codebook_size: `N`, at most `F`.
        seed: of every random choice.
        lost: mean squared length of what each row had already lost, by a projection; only reported.
        progress: called with (codebooks done, `K`).

    Returns:
        Codebooks float16 `[K, N, D]` on the CPU, and one report a codebook. The same rows and seed give
        the same values on one kind of CPU; on CUDA, sums are rounded in varying order.
    """
    generator = torch.Generator().manual_seed(seed)
    energy = _mean_energy(rows) + lost
    books: list[Tensor] = []
    reports: list[CodebookReport] = []
    for k in range(num_codebooks):
        # Rounded before the next one is fitted, which so learns what is really left over.
        book = kmeans(rows, codebook_size, generator).half()
        ids = _quantize(rows, book.float())
        books.append(book.cpu())
        reports.append(_report(ids, codebook_size, (_mean_energy(rows) + lost) / energy))
        if progress is not None:
            progress(k + 1, num_codebooks)
    return torch.stack(books), reports


def kmeans(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Codewords float32 `[size, D]` that lie close to the rows `[F, D]`."""
    centres = _plus_plus(rows, size, generator)
    for step in range(_PASSES):
        sums = torch.zeros_like(centres)
        counts = torch.zeros(size, device=rows.device)
        errors: list[Tensor] = []
        norms = half_norms(centres)
        for part in rows.split(_BATCH):
            ids = nearest(part, centres, norms)
            sums.index_add_(0, ids, part)
            counts += torch.bincount(ids, minlength=size)
            errors.append((part - centres[ids]).square().sum(1))
        used = counts > 0
        centres[used] = sums[used] / counts[used, None]
        unused = (~used).nonzero().flatten()
        if step + 1 < _PASSES and len(unused):
            centres[unused] = rows[_draw(torch.cat(errors), len(unused), generator)]
    return centres


def _plus_plus(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Seeds: each next one is a row, drawn with its squared distance to the seeds so far as its weight."""
    few = torch.randperm(len(rows), generator=generator)[: size * _SEEDING_ROWS_PER_CODEWORD]
    sample = rows[few.to(rows.device)]
    norms = sample.square().sum(dim=1)
    centres = sample.new_empty(size, sample.shape[1])
    centres[0] = sample[0]
    distance = torch.full_like(norms, torch.inf)
    for k in range(1, size):
        last = centres[k - 1]
        now = (norms - 2.0 * (sample @ last) + last.square().sum()).clamp_min_(0.0)
        distance = torch.minimum(distance, now)
        centres[k] = sample[_draw(distance, 1, generator)[0]]
    return centres


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices `[count]`, drawn with the given weights; any index where all weights are zero."""
    edges = weights.double().cumsum(0)
    points = torch.rand(count, generator=generator, dtype=torch.float64).to(weights.device) * edges[-1]
    return torch.searchsorted(edges, points, right=True).clamp_max_(len(weights) - 1)


def _quantize(rows: Tensor, book: Tensor) -> Tensor:
    """Ids `[F]` of the rows, which are overwritten with what is left over."""
    norms = half_norms(book)
    ids = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    for part, result in zip(rows.split(_BATCH), ids.split(_BATCH), strict=True):
        result.copy_(nearest(part, book, norms))
        part -= book[result]
    return ids


def _mean_energy(rows: Tensor) -> float:
    return float(rows.square().sum(dim=1).mean(dtype=torch.float64))


def _report(ids: Tensor, size: int, left_over: float) -> CodebookReport:
    share = torch.bincount(ids, minlength=size).double() / len(ids)
    entropy = -torch.special.xlogy(share, share).sum()
    return CodebookReport(1.0 - left_over, float((share > 0).double().mean()), float(entropy.exp()))
