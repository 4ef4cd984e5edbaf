"""All pairs of recordings that are alike: exact, block by block, in memory that a block bounds.

A block of recordings is multiplied with itself and with each that follows. What comes near the threshold is computed
once more in float64, so that the rounding of a matrix product, which depends on device and threads, decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.histograms import Histograms
from audioprep.engine.commit import atomic_path

PAIR = np.dtype([("one", "<i8"), ("other", "<i8"), ("similarity", "<f8")])
BLOCK = 2048
_MARGIN = 1e-3  # of a product in float32, by which it may be wrong


def similar_pairs(
    ones: Histograms,
    others: Histograms | None,
    threshold: float,
    folder: Path,
    device: str,
    on_block: Callable[[int, int], None],
    block: int = BLOCK,
) -> NDArray[np.void]:
    """Finds the pairs whose similarity is at least `threshold`; goes on where an earlier call was killed.

    Args:
        ones: recordings.
        others: those that they are compared with; None: with each other.
        threshold: between 0 and 1.
        folder: for what is found of each block, of just these arguments.
        device: where products are computed: cpu or cuda.
        on_block: called with the number of blocks done and of all.
        block: recordings of a block.

    Returns:
        `PAIR`, by `one`, then `other`; of a pair among `ones`, `one` is the smaller.
    """
    starts = range(0, len(ones), block)
    found: list[NDArray[np.void]] = [np.empty(0, PAIR)]
    for number, start in enumerate(starts):
        path = folder / f"{start:012d}.npy"
        if not path.exists():
            pairs = _of_block(ones, others, start, threshold, device, block)
            with atomic_path(path, folder / "scratch") as temporary, temporary.open("wb") as file:
                np.save(file, pairs)
        found.append(np.load(path))
        on_block(number + 1, len(starts))
    return np.sort(np.concatenate(found), order=["one", "other"])


def _of_block(
    ones: Histograms, others: Histograms | None, start: int, threshold: float, device: str, block: int
) -> NDArray[np.void]:
    import torch

    stop = min(start + block, len(ones))
    right_of = ones if others is None else others

    def vectors(of: Histograms, first: int, last: int) -> torch.Tensor:
        return torch.from_numpy(of.vectors(first, last)).to(device)

    left = vectors(ones, start, stop)
    found: list[tuple[int, int, float]] = []
    for first in range(start if others is None else 0, len(right_of), block):
        last = min(first + block, len(right_of))
        right = left if others is None and first == start else vectors(right_of, first, last)
        near = (left @ right.T >= threshold - _MARGIN).nonzero().cpu().numpy() + np.array([start, first])
        for one, other in near.tolist():
            if others is not None or one < other:
                similarity = _similarity(ones, right_of, one, other)
                if similarity >= threshold:
                    found.append((one, other, similarity))
    return np.array(found, PAIR)


def _similarity(ones: Histograms, others: Histograms, one: int, other: int) -> float:
    bins, shares = ones.row(one)
    other_bins, other_shares = others.row(other)
    _, here, there = np.intersect1d(bins, other_bins, assume_unique=True, return_indices=True)
    return float(shares[here] @ other_shares[there])
