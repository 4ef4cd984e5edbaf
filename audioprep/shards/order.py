"""The order of an epoch: a pure function of the settings, the epoch and the sizes of the blocks.

A *block* is what can be read in one go: a row group of a Parquet file, a run of items of a tar. Blocks are
shuffled and gathered into *windows* of at least `buffer_size` rows; the rows of a window are shuffled, sorted by
length where `bucket` is set, and cut into batches. The rows left over by a window begin the next one. So there is
one sequence of batches for everybody, and a position in it is one integer. Ranks and workers take every n-th
batch of this sequence; no order depends on how many of them there are.

A window is computed when it is asked for, in arrays, so the memory does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

_BLOCKS, _ROWS, _BATCHES, _CROPS = range(4)  # what a stream of random numbers is for


@dataclass(frozen=True, slots=True)
class OrderSettings:
    """What an order depends on, beside the data and the epoch."""

    batch_size: int
    buffer_size: int
    shuffle: bool
    bucket: bool
    drop_last: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive batches of one epoch.

    Attributes:
        first: number of the first batch in the epoch.
        rows: the rows of all its batches, one after the other; a row's number counts through the whole split.
        batch_size: rows of each batch; only the last batch of an epoch can have fewer.
    """

    first: int
    rows: Rows
    batch_size: int

    @property
    def stop(self) -> int:
        """Number of the first batch after this window."""
        return self.first + -(-len(self.rows) // self.batch_size)

    def batch(self, number: int) -> Rows:
        """The rows of batch `number` of the epoch."""
        begin = (number - self.first) * self.batch_size
        return self.rows[begin : begin + self.batch_size]


class EpochOrder:
    """The sequence of batches of one epoch.

    Args:
        block_rows: int64 `[N]`, rows of each block of the split.
        settings: how to order them.
        epoch: each gives another order, if `settings.shuffle`.
        lengths: gives the lengths of rows, by which `settings.bucket` sorts.
    """

    def __init__(
        self,
        block_rows: Rows,
        settings: OrderSettings,
        epoch: int,
        lengths: Callable[[Rows], NDArray[np.integer]],
    ) -> None:
        self._settings = settings
        self._epoch = epoch
        self._lengths = lengths
        self._block_rows = block_rows
        self._block_starts = np.cumsum(block_rows) - block_rows
        self._blocks = np.arange(len(block_rows))
        if settings.shuffle:
            self._blocks = _permutation(len(block_rows), settings.seed, epoch, _BLOCKS)
        ends = np.cumsum(block_rows[self._blocks])
        self._bounds = _window_bounds(ends, max(settings.buffer_size, settings.batch_size))
        self._rows_before = np.concatenate([[0], ends])[self._bounds]

    @property
    def num_windows(self) -> int:
        return len(self._bounds) - 1

    @property
    def num_batches(self) -> int:
        return num_batches(int(self._rows_before[-1]), self._settings)

    def window_of(self, batch: int) -> int:
        """The window in which batch number `batch` is."""
        full = self._rows_before[1:] // self._settings.batch_size
        return min(int(np.searchsorted(full, batch, side="right")), self.num_windows - 1)

    def window(self, index: int) -> Window:
        """Computes one window, without those before it."""
        size = self._settings.batch_size
        first, carried = divmod(int(self._rows_before[index]), size)
        rows = self._fresh(index)
        if carried:
            # All but the last window have at least one batch of rows: what is left over is the previous one's own.
            rows = np.concatenate([self._fresh(index - 1)[-carried:], rows])
        full = len(rows) // size * size
        rest = rows[full:] if index == self.num_windows - 1 and not self._settings.drop_last else rows[:0]
        rows = rows[:full]
        if self._settings.bucket:
            rows = self._bucketed(rows, index)
            rest = rest[np.argsort(self._lengths(rest), kind="stable")]
        return Window(first, np.concatenate([rows, rest]), size)

    def _fresh(self, index: int) -> Rows:
        """The rows of a window's own blocks, in the order in which they are put into batches."""
        blocks = self._blocks[self._bounds[index] : self._bounds[index + 1]]
        counts = self._block_rows[blocks]
        shifts = self._block_starts[blocks] - (np.cumsum(counts) - counts)
        rows = np.arange(counts.sum()) + np.repeat(shifts, counts)
        if self._settings.shuffle:
            rows = rows[_permutation(len(rows), self._settings.seed, self._epoch, _ROWS, index)]
        return rows

    def _bucketed(self, rows: Rows, index: int) -> Rows:
        """Sorts by length, so that a batch has little padding, and shuffles whole batches."""
        rows = rows[np.argsort(self._lengths(rows), kind="stable")]
        if not self._settings.shuffle:
            return rows
        batches = rows.reshape(-1, self._settings.batch_size)
        return batches[_permutation(len(batches), self._settings.seed, self._epoch, _BATCHES, index)].ravel()


def num_batches(rows: int, settings: OrderSettings) -> int:
    """Batches of an epoch over `rows` rows."""
    full, rest = divmod(rows, settings.batch_size)
    return full + (rest > 0 and not settings.drop_last)


@lru_cache(maxsize=4096)
def crop_places(rows: int, seed: int, epoch: int, block: int) -> NDArray[np.float64]:
    """For each row of a block a place in `[0, 1)` at which it is cropped: float64 `[rows]`."""
    return np.multiply(_random(rows, seed, epoch, _CROPS, block) >> np.uint64(11), 2.0**-53, dtype=np.float64)


def _window_bounds(ends: Rows, at_least: int) -> list[int]:
    """Cuts blocks, which end at rows `ends`, into windows of `at_least` rows; the last one can have fewer."""
    bounds = [0]
    while bounds[-1] < len(ends):
        before = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(min(int(np.searchsorted(ends, before + at_least)) + 1, len(ends)))
    return bounds


def _permutation(size: int, *key: int) -> Rows:
    return np.argsort(_random(size, *key), kind="stable")


def _random(size: int, *key: int) -> NDArray[np.uint64]:
    # NumPy keeps the raw bits of PCG64 as they are from version to version, but not what `Generator` makes of
    # them (NEP 19): a state that was saved must find its order again after an upgrade.
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(size)
