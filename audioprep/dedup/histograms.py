"""Recordings as histograms of their tokens: how often each code occurs, wherever in time.

Two cuts of one recording have about the same histogram, as have two encodings of it. The counts of each shard are kept
in a file of their own, sparse, from which vectors are made block by block: memory does not grow with the corpus.

Shapes: `n` recordings, `F` frames, `K` codebooks of `N` codes, `D` bins of a histogram.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.errors import UsageError

Mode = Literal["per_codebook", "joint", "first_k", "bigram"]

_BIGRAM_BITS = 14
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("uri", pa.string()),
        ("split", pa.string()),
        ("seconds", pa.float64()),
        ("bytes", pa.int64()),
        ("frames", pa.int32()),
        ("bins", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int32())),
    ]
)


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
            # Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
            hashed = pairs.astype(np.uint64) * np.uint64(11400714819323198485)
            codes = (hashed >> np.uint64(64 - _BIGRAM_BITS)).astype(np.int64)
        elif self.mode != "joint":
            codes = codes[:, : self.per_frame] + np.arange(self.per_frame) * self.size
        bins, counts = np.unique(codes, return_counts=True)
        return bins.astype(np.int32), counts.astype(np.int32)


class Histograms:
    """The counts of all recordings of some files, in their order.

    Args:
        paths: files of `SCHEMA`, as `write` makes them.
        binning: by which they were counted.
        corrected: see `vectors`.
        weights: of the bins, float64 `[D]`; None: all count alike.

    Attributes:
        content: plain values that decide about all vectors.
    """

    def __init__(
        self, paths: Sequence[Path], binning: Binning, corrected: bool, weights: NDArray[np.float64] | None = None
    ) -> None:
        names = [path.name for path in paths]
        self.content = [names, corrected, None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest()]
        self._tables = [_mapped(path) for path in paths]
        self._starts = np.cumsum([0, *map(len, self._tables)])
        self._binning = binning
        self._corrected = corrected
        self._weights = np.ones(binning.bins) if weights is None else weights

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, name: str) -> list[Any]:
        """A column of plain values, of all recordings."""
        return [value for table in self._tables for value in table.column(name).to_pylist()]

    def vectors(self, first: int, last: int) -> NDArray[np.float32]:
        """Recordings `first` to `last` as float32 `[n, D]`, whose products are the similarity of two recordings.

        That is the cosine of their histograms. A histogram of few frames is one of chance, too, which makes two
        excerpts of one recording less alike the shorter they are; `corrected` divides by the length that the histogram
        would have without chance, were its frames independent: of two excerpts the expected similarity is then 1.
        """
        out = np.zeros((last - first, self._binning.bins), np.float32)
        for number in range(first, last):
            bins, shares = self.row(number)
            out[number - first, bins] = shares
        return out

    def row(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """One recording's vector: the bins in which it is not zero, ascending, and its values there."""
        bins, counts = self._counts(number)
        weights = self._weights[bins]
        shares = counts / max(counts.sum(), 1)
        square = float((weights * shares) @ (weights * shares))
        frames = int(counts.sum()) // self._binning.per_frame
        if self._corrected and frames > 1:
            by_chance = float(weights**2 @ shares) / self._binning.per_frame
            square = max((frames * square - by_chance) / (frames - 1), square / frames)
        return bins, weights * shares / np.sqrt(max(square, 1e-30))

    def _counts(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        table, place = self._tables[number], int(row - self._starts[number])
        bins, counts = (table.column(name).chunk(0)[place].values.to_numpy() for name in ("bins", "counts"))
        return bins, counts


def inverse_document_frequencies(paths: Sequence[Path], binning: Binning) -> NDArray[np.float64]:
    """What occurs in few recordings counts for more (Spärck Jones 1972): float64 `[D]`.

    `ln((1 + n) / (1 + d)) + 1`, where `d` of the `n` recordings have the bin.
    """
    seen, recordings = np.zeros(binning.bins), 0
    for table in map(_mapped, paths):
        recordings += len(table)
        for chunk in table.column("bins").chunks:
            seen += np.bincount(chunk.flatten().to_numpy(), minlength=len(seen))
    return np.log((1 + recordings) / (1 + seen)) + 1


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes rows of `SCHEMA` as one Arrow file."""
    table = pa.Table.from_pylist(rows, SCHEMA).combine_chunks()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(table)


def _mapped(path: Path) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path}: cannot be read ({error}); delete it, and run the same command again") from error
    return table
