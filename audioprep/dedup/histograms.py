"""Recordings as histograms of their tokens: how often each code occurs, wherever in time.

Two cuts of one recording have about the same histogram, as have two encodings of it. The counts of each shard are kept
in a file of their own, sparse, from which vectors are made block by block: memory does not grow with the corpus.

Shapes: `n` recordings, `F` frames, `K` codebooks of `N` codes, `D` bins of a histogram.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.dedup.extracts import ABOUT
from audioprep.dedup.hashing import fibonacci_hash
from audioprep.errors import UsageError

if TYPE_CHECKING:
    import torch

Mode = Literal["per_codebook", "joint", "first_k", "bigram"]

_BIGRAM_BITS = 14
_ROWS = 256  # recordings made dense at a time
_LEAST_DIFFERENT = 8  # frames, without which a recording says nothing of itself
SCHEMA = pa.schema(
    [*ABOUT.items(), ("frames", pa.int32()), ("bins", pa.list_(pa.int32())), ("counts", pa.list_(pa.int32()))]
)
"""Of the files of counts: frames that were counted, bins that occur, ascending, and how often."""


@dataclass(frozen=True, slots=True)
class Binning:
    """Which bin a token falls into.

    Attributes:
        mode: `per_codebook`: each code of each codebook is a bin; `joint`: codebooks are not told apart; `first_k`: as
            `per_codebook`, of the first codebooks alone; `bigram`: pairs of codes of the first codebook that follow
            each other, hashed.
        codebooks: `K`, of the tokens.
        size: `N`.
        first: codebooks that `first_k` takes.
    """

    mode: Mode
    codebooks: int
    size: int
    first: int = 2

    @property
    def per_frame(self) -> int:
        """Codebooks that have bins of their own."""
        return {"per_codebook": self.codebooks, "first_k": min(self.first, self.codebooks)}.get(self.mode, 1)

    @property
    def bins(self) -> int:
        """`D`."""
        return 2**_BIGRAM_BITS if self.mode == "bigram" else self.per_frame * self.size

    def count(self, tokens: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The bins that occur in tokens `[F, K]`, ascending, and how often."""
        codes = tokens.astype(np.int64)
        if self.mode == "bigram":
            pairs = codes[:-1, 0] * self.size + codes[1:, 0]
            codes = (fibonacci_hash(pairs) >> np.uint64(64 - _BIGRAM_BITS)).astype(np.int64)
        elif self.mode != "joint":
            codes = codes[:, : self.per_frame] + np.arange(self.per_frame) * self.size
        bins, counts = np.unique(codes, return_counts=True)
        return bins.astype(np.int32), counts.astype(np.int32)


def moving(tokens: NDArray[np.integer], longest: int) -> NDArray[np.integer]:
    """Tokens `[F, K]` without what stands still: digital silence and test tones, which different recordings share.

    Of frames that are equal to each other in all codebooks the first `longest` in a row count. A recording of fewer
    than 8 different frames has none left: its histogram would say nothing of it.
    """
    changes = np.concatenate([[True], (tokens[1:] != tokens[:-1]).any(axis=1)])[: len(tokens)]
    if len(np.unique(tokens[changes], axis=0)) < _LEAST_DIFFERENT:
        return tokens[:0]
    age = np.arange(len(tokens)) - np.flatnonzero(changes)[np.cumsum(changes) - 1]
    return tokens[age < longest]


class Histograms:
    """The counts of all recordings of some files, in their order.

    Args:
        paths: files of counts, as `audioprep.dedup.counting` makes them.
        binning: by which they were counted.
        corrected: see `vectors`.
        weights: of the bins, float64 `[D]`, none negative; None: all count alike.

    Attributes:
        content: plain values that decide about all vectors.
        bins: `D`.
    """

    def __init__(
        self, paths: Sequence[Path], binning: Binning, corrected: bool, weights: NDArray[np.float64] | None = None
    ) -> None:
        names = [path.name for path in paths]
        self.content = [names, corrected, None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest()]
        self.bins = binning.bins
        self._files = [_CountsFile(path) for path in paths]
        self._starts = np.cumsum([0, *(len(file) for file in self._files)])
        self._per_frame = binning.per_frame
        self._corrected = corrected
        self._weights = np.ones(binning.bins) if weights is None else weights

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, name: str) -> list[Any]:
        """A column of plain values, of all recordings."""
        return [value for file in self._files for value in file.table.column(name).to_pylist()]

    def vectors(self, first: int, last: int, device: str = "cpu", dtype: str = "float32") -> torch.Tensor:
        """Recordings `first` to `last` as `[n, D]`, whose products are the similarity of two recordings.

        That is the cosine of their histograms. A histogram of few frames is one of chance, too, which makes two
        excerpts of one recording less alike the shorter they are; `corrected` divides by the length that the histogram
        would have without chance, were its frames independent: of two excerpts the expected similarity is then 1.

        Args:
            first: number of a recording.
            last: number of the one behind the last.
            device: where they are made.
            dtype: float32 or float16, to which each entry is rounded; before that, three times to float32.
        """
        import torch

        out, done = torch.empty(last - first, self.bins, dtype=getattr(torch, dtype), device=device), 0
        weights, scales = self._weights.astype(np.float32), self._lengths[0].astype(np.float32)
        for counts in self.counts(first, last):
            dense = np.zeros((len(counts), self.bins), np.float32)
            # Row by row: a scatter of many rows at once is slower, for its indices.
            for row, (bins, values) in zip(dense, counts.rows(), strict=True):
                row[bins] = values
            dense *= weights
            dense *= scales[first : first + len(counts), None]
            out[done : done + len(counts)] = torch.from_numpy(dense)
            first, done = first + len(counts), done + len(counts)
        return out

    def row(self, number: int) -> NDArray[np.float64]:
        """One recording's vector `[D]`, in full precision."""
        (counts,) = self.counts(number, number + 1)
        out = np.zeros(self.bins)
        out[counts.bins] = counts.counts * self._weights[counts.bins] * self._lengths[0][number]
        return out

    @property
    def longest(self) -> float:
        """Length of the longest vector: 1, and more only where that is corrected."""
        return float(self._lengths[1].max(initial=0))

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        """By what the weighted counts of each recording are multiplied, and the length that its vector then has."""
        found = (self._lengths_of(*row) for counts in self.counts(0, len(self)) for row in counts.rows())
        return np.array(list(found), np.float64).reshape(-1, 2).T

    def _lengths_of(self, bins: NDArray[np.int32], counts: NDArray[np.int32]) -> tuple[float, float]:
        weights, total = self._weights[bins], max(int(counts.sum()), 1)
        weighted = weights * counts
        expected = square = max(float((weighted * weighted).sum()) / total**2, 1e-30)
        frames = total // self._per_frame
        if self._corrected and frames > 1:
            by_chance = float((weights * weighted).sum()) / total / self._per_frame
            expected = max((frames * square - by_chance) / (frames - 1), square / frames)
        return 1 / (total * math.sqrt(expected)), math.sqrt(square / expected)

    def counts(self, first: int, last: int) -> Iterator[_Counts]:
        """The counts of recordings `first` to `last`, of few at a time."""
        while first < last:
            number = int(np.searchsorted(self._starts, first, side="right")) - 1
            stop, start = min(last, int(self._starts[number + 1]), first + _ROWS), int(self._starts[number])
            with self._files[number].reading(first - start, stop - start) as counts:
                yield counts
            first = stop


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of several recordings: that of number `i` are those from `offsets[i]` to `offsets[i + 1]`."""

    offsets: NDArray[np.int64]
    bins: NDArray[np.int32]
    counts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The bins and the counts of each recording."""
        for begin, end in pairwise(self.offsets.tolist()):
            yield self.bins[begin:end], self.counts[begin:end]


class _CountsFile:
    """A file of `SCHEMA`, mapped into memory.

    Attributes:
        table: what is in it.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.table = pa.ipc.open_file(pa.py_buffer(self._mapped)).read_all()
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({error}); delete it, and run the same command again") from error
        bins, counts = (_whole(self.table.column(name)) for name in ("bins", "counts"))
        self._offsets = bins.offsets.to_numpy().astype(np.int64)
        self._bins, self._values = bins.values.to_numpy(), counts.values.to_numpy()

    def __len__(self) -> int:
        return len(self.table)

    @contextlib.contextmanager
    def reading(self, first: int, last: int) -> Iterator[_Counts]:
        """The counts of some recordings. Afterwards their pages no longer count as this process's memory."""
        begin, end = self._offsets[first], self._offsets[last]
        yield _Counts(self._offsets[first : last + 1] - begin, self._bins[begin:end], self._values[begin:end])
        self._mapped.madvise(mmap.MADV_DONTNEED)


def _whole(column: pa.ChunkedArray) -> pa.ListArray:
    """A column as one array; not a copy of it, but for a file without rows, which has no chunk."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def inverse_document_frequencies(paths: Sequence[Path], binning: Binning) -> NDArray[np.float64]:
    """What occurs in few recordings counts for more (Spärck Jones 1972): float64 `[D]`.

    `ln((1 + n) / (1 + d)) + 1`, where `d` of the `n` recordings have the bin.
    """
    histograms = Histograms(paths, binning, corrected=False)
    seen = np.zeros(binning.bins)
    for counts in histograms.counts(0, len(histograms)):
        seen += np.bincount(counts.bins, minlength=len(seen))
    return np.log((1 + len(histograms)) / (1 + seen)) + 1
