"""All pairs of recordings that are alike: exact, block by block, in memory that a block bounds.

The work is cut into pairs of blocks: each gives one file, so that a killed search goes on, and no more than two blocks
are in memory. What comes near the threshold in a matrix product is computed once more in float64, so that the rounding
of the product, which depends on device and threads, decides nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.histograms import Histograms
from audioprep.engine.commit import atomic_path

if TYPE_CHECKING:
    import torch

PAIR = np.dtype([("one", "<i8"), ("other", "<i8"), ("similarity", "<f8")])
BLOCK_BYTES = 2**28  # of a block's vectors on a CPU
_CARDS_SHARE = 4  # on a GPU a block has this part of its memory
_TILES = {"cpu": 2048, "cuda": 16384}  # rows and columns of one product
_DTYPES = {"cpu": "float32", "cuda": "float16"}


def similar_pairs(
    ones: Histograms,
    others: Histograms | None,
    threshold: float,
    folder: Path,
    device: str,
    on_block: Callable[[int, int], None],
    block: int | None = None,
) -> NDArray[np.void]:
    """Finds the pairs whose similarity is at least `threshold`; goes on where an earlier call was killed.

    Args:
        ones: recordings.
        others: those that they are compared with; None: with each other.
        threshold: between 0 and 1.
        folder: for what is found in each pair of blocks, of just these arguments.
        device: where products are computed: cpu or cuda.
        on_block: called with the number of pairs of blocks done and of all.
        block: recordings of a block. None: so many that their vectors take 256 MiB, or a quarter of a GPU's memory.

    Returns:
        `PAIR`, by `one`, then `other`; of a pair among `ones`, `one` is the smaller.
    """
    size = block or _block_rows(device, ones.bins)
    right_of = ones if others is None else others
    search = _Search(ones, right_of, threshold, device, others is None)
    pairs = [
        (start, right)
        for start in range(0, len(ones), size)
        for right in range(start if others is None else 0, len(right_of), size)
    ]
    found: list[NDArray[np.void]] = [np.empty(0, PAIR)]
    for number, (start, right) in enumerate(pairs, start=1):
        path = folder / f"{size}-{start:09d}-{right:09d}.npy"
        if not path.exists():
            near = search.between(range(start, min(start + size, len(ones))), range(right, right + size))
            with atomic_path(path, folder / "scratch") as temporary, temporary.open("wb") as file:
                np.save(file, near)
        found.append(np.load(path))
        on_block(number, len(pairs))
    return np.sort(np.concatenate(found), order=["one", "other"])


def lowest_product(threshold: float, bins: int, longest: float, dtype: str) -> float:
    """What the product of two vectors may come out as, at least, if their similarity is `threshold`.

    No entry is negative, so that errors of entries and of sums are relative to the whole: a half `eps` of `dtype` for
    each of the two vectors and for the result; of float32 for the steps in which entries are made; and one `eps` of
    float32, in whatever order, for each of the `bins` sums (Higham, Accuracy and Stability of Numerical Algorithms,
    section 4.2; a whole one, as tensor cores cut off). Only entries below the smallest normal number are off by an
    absolute half `eps` of that; their sum over a vector is at most its length times the root of `bins`. All of it
    is taken twice, which is more than all products of errors.

    Args:
        threshold: of the similarity.
        bins: `D`.
        longest: length of the longest vector.
        dtype: of vectors and product.
    """
    import torch

    here, float32 = torch.finfo(getattr(torch, dtype)), torch.finfo(torch.float32)
    relative = 3 * here.eps + 2 * (bins + 6) * float32.eps
    absolute = 2 * here.eps * here.tiny * math.sqrt(bins) * longest
    return threshold * (1 - relative) - absolute


class _Search:
    """What is alike between two blocks; keeps the vectors of the block that came last on the left."""

    def __init__(self, ones: Histograms, others: Histograms, threshold: float, device: str, one_corpus: bool) -> None:
        self._ones, self._others, self._threshold = ones, others, threshold
        self._device, self._one_corpus = device, one_corpus
        self._left: tuple[int, torch.Tensor] | None = None

    def between(self, rows: range, columns: range) -> NDArray[np.void]:
        """The similar pairs of a recording of `rows` and one of `columns`, as `PAIR`."""
        if self._left is None or self._left[0] != rows.start:
            self._left = None  # before the next one takes as much memory
            self._left = rows.start, self._vectors(self._ones, rows)
        left = self._left[1]
        columns = range(columns.start, min(columns.stop, len(self._others)))
        itself = self._one_corpus and rows.start == columns.start
        right = left if itself else self._vectors(self._others, columns)
        found: list[NDArray[np.void]] = [np.empty(0, PAIR)]
        for near in self._near(left, right, itself):
            near += np.array([rows.start, columns.start])
            found.append(self._exact(near[near[:, 0] < near[:, 1]] if itself else near))
        return np.concatenate(found)

    def _vectors(self, of: Histograms, rows: range) -> torch.Tensor:
        return of.vectors(rows.start, rows.stop, self._device, _DTYPES[self._kind])

    @property
    def _kind(self) -> str:
        return self._device.partition(":")[0]

    def _near(self, left: torch.Tensor, right: torch.Tensor, itself: bool) -> Iterator[NDArray[np.int64]]:
        """Places `[n, 2]` whose product may be one of the threshold or more."""
        longest = max(self._ones.longest, self._others.longest)
        lowest = lowest_product(self._threshold, self._ones.bins, longest, _DTYPES[self._kind])
        size = _TILES[self._kind]
        with _whole_sums():
            for row in range(0, len(left), size):
                for column in range(row if itself else 0, len(right), size):
                    near = (left[row : row + size] @ right[column : column + size].T >= lowest).nonzero()
                    if len(near):
                        yield near.cpu().numpy() + np.array([row, column])

    def _exact(self, near: NDArray[np.int64]) -> NDArray[np.void]:
        """Those of pairs `[n, 2]` that are as similar as they have to be.

        A sum over all bins, each in its place: it is the same number whichever of the two comes first.
        """
        found: list[tuple[int, int, float]] = []
        at, left = -1, np.empty(0)
        for one, other in near.tolist():
            if one != at:
                at, left = one, self._ones.row(one)
            similarity = float((left * self._others.row(other)).sum())
            if similarity >= self._threshold:
                found.append((one, other, similarity))
        return np.array(found, PAIR)


def _block_rows(device: str, bins: int) -> int:
    """Recordings whose vectors fill a block."""
    if device == "cpu":
        return max(1, BLOCK_BYTES // (4 * bins))
    import torch

    return max(1, torch.cuda.mem_get_info(device)[1] // _CARDS_SHARE // (2 * bins))


@contextlib.contextmanager
def _whole_sums() -> Iterator[None]:
    """Parts of a sum are added in float32 on a GPU, too: by default torch lets them be rounded to float16."""
    import torch

    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_reduced_precision_reduction
    settings.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_fp16_reduced_precision_reduction = before
