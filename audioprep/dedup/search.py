"""All pairs of recordings whose fingerprints have music in common, in parts that any number of processes work on.

A part is a slice of recordings, looked up in a block of references. What a part gives depends on nothing else, and is
kept in a file of its own: a killed search goes on, and the number of processes changes nothing.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.dedup.extracts import ABOUT, extract_shards
from audioprep.dedup.matching import Match, find
from audioprep.dedup.prints import CODEBOOKS, Index, Prints
from audioprep.engine.commit import atomic_path
from audioprep.errors import SystemFault
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import Dataset

MATCH = np.dtype([("one", "<i8"), ("other", "<i8"), *((field, "<f8") for field in Match._fields)])
"""A `Match` of the recording `one` with the reference `other`."""

_VERSION = 1  # of what is kept in files
_BLOCK = 2**22  # frames of an index: six days of music, some 200 MB
_SLICE = 2**18  # frames that are looked up in a part
_SCHEMA = pa.schema([*ABOUT.items(), ("sound", pa.string()), ("words", pa.list_(pa.uint16()))])
_LEAST_SOUND = 4  # frames that are not silent, in which two recordings are not equal by chance


class Library:
    """The fingerprints of a corpus, in files; what is asked for is read.

    Args:
        paths: of `extract_prints`.

    Attributes:
        paths: the same.
        frames: of each recording, int64 `[n]`.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
        self._starts = np.cumsum([0, *map(len, self._tables)])
        lengths = [np.diff(_words(table).offsets.to_numpy()) for table in self._tables if len(table)]
        self.frames = np.concatenate([np.empty(0, np.int64), *lengths]).astype(np.int64) // CODEBOOKS

    def column(self, name: str) -> list[Any]:
        """A column of plain values, of all recordings."""
        return [value for table in self._tables for value in table.column(name).to_pylist()]

    def prints(self, recordings: range) -> Prints:
        """Those of some recordings that follow each other."""
        parts = []
        for table, start in zip(self._tables, self._starts, strict=False):
            inside = range(max(recordings.start - start, 0), min(recordings.stop - start, len(table)))
            if inside:
                offsets = _words(table).offsets.to_numpy()[inside.start : inside.stop + 1]
                parts.append(_words(table).values.to_numpy()[offsets[0] : offsets[-1]].reshape(-1, CODEBOOKS))
        lengths = self.frames[recordings.start : recordings.stop]
        words = np.concatenate([np.empty((0, CODEBOOKS), np.uint16), *parts])
        return Prints(words, np.concatenate([[0], np.cumsum(lengths)]))

    def blocks(self, frames: int) -> list[range]:
        """Cuts the recordings into ranges of about so many frames."""
        numbers = (np.cumsum(self.frames) - self.frames) // frames
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        return [range(first, last) for first, last in zip(cuts, cuts[1:], strict=False) if last > first]


def extract_prints(dataset: Dataset, column: str, folder: Path, on_shards: Callable[[int, int], None]) -> list[Path]:
    """Writes the fingerprints of a shard set to files; see `extract_shards`."""

    def words_of(table: pa.Table) -> list[dict[str, Any]]:
        return [{"sound": _sound(words), "words": words.ravel()} for words in to_arrays(table.column(column))]

    return extract_shards(dataset, column, _SCHEMA, words_of, _VERSION, folder, on_shards)


def _sound(words: NDArray[np.uint16]) -> str:
    """A hash of words `[frames, codebooks]`; empty where they say next to nothing."""
    if np.count_nonzero(words[:, 0]) < _LEAST_SOUND:
        return ""
    return hashlib.sha256(np.ascontiguousarray(words).tobytes()).hexdigest()


class _Part(NamedTuple):
    """A slice of recordings and the block of references in which they are looked up, and the file for what is found."""

    ones: tuple[Path, ...]
    others: tuple[Path, ...]
    one_corpus: bool
    rows: range
    references: range
    path: Path


def find_matches(
    ones: Library, others: Library | None, folder: Path, workers: int, on_part: Callable[[int, int], None]
) -> NDArray[np.void]:
    """Finds all pairs that have music in common; goes on where an earlier call was killed.

    Args:
        ones: recordings.
        others: those that they are looked for in; None: each other.
        folder: for what is found, of these recordings.
        workers: processes.
        on_part: called with the number of parts done and of all.

    Returns:
        `MATCH`, by `one`, then `other`; of a pair among `ones`, `one` is the smaller.

    Raises:
        SystemFault: a process was ended from outside, or the disk is full or broken.
    """
    references = ones if others is None else others
    parts = [
        _Part(ones.paths, references.paths, others is None, rows, block, folder / _name(rows, block))
        for block in references.blocks(_BLOCK)
        for rows in ones.blocks(_SLICE)
        if others is not None or rows.start < block.stop
    ]
    left = [part for part in parts if not part.path.exists()]
    for done, _ in enumerate(_run(left, workers), start=1 + len(parts) - len(left)):
        on_part(done, len(parts))
    found = [np.load(part.path) for part in parts]
    return np.sort(np.concatenate([np.empty(0, MATCH), *found]), order=["one", "other"])


def confirm_pairs(
    pairs: NDArray[np.void], ones: Library, others: Library, on_pair: Callable[[int, int], None]
) -> NDArray[np.void]:
    """Compares only those two that a pair names.

    Args:
        pairs: with the fields `one` and `other`.
        ones: recordings.
        others: the references.
        on_pair: called with the number of pairs done and of all.

    Returns:
        `MATCH` of those that have music in common.
    """
    found: list[tuple[float, ...]] = []
    for number, (one, other) in enumerate(zip(pairs["one"].tolist(), pairs["other"].tolist(), strict=True), start=1):
        reference = others.prints(range(other, other + 1))
        words = ones.prints(range(one, one + 1))[0]
        found += [(one, other, *match) for match in find(words, reference, Index(reference)).values()]
        on_pair(number, len(pairs))
    return np.array(found, MATCH)


def _name(rows: range, block: range) -> str:
    return f"{_VERSION}-{rows.start:09d}-{rows.stop:09d}-{block.start:09d}-{block.stop:09d}.npy"


def _run(parts: list[_Part], workers: int) -> Iterator[None]:
    processes = min(workers or os.cpu_count() or 1, len(parts))
    if processes < 2:
        yield from map(_search, parts)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        yield from pool.map(_search, parts)
    except BrokenProcessPool as error:
        raise SystemFault(
            "a process that compares fingerprints was ended from outside, by a lack of memory for instance. "
            "The same command goes on where it stopped; with --workers 1 it takes less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _search(part: _Part) -> None:
    ones, (references, index) = _library(part.ones), _index(part.others, part.references)
    recordings, found = ones.prints(part.rows), []
    for place, one in enumerate(part.rows):
        after = one - part.references.start if part.one_corpus else -1
        for number, match in find(recordings[place], references, index, after).items():
            found.append((one, part.references.start + number, *match))
    with atomic_path(part.path, part.path.parent / "scratch") as temporary, temporary.open("wb") as file:
        np.save(file, np.array(found, MATCH))


@lru_cache(2)
def _library(paths: tuple[Path, ...]) -> Library:
    return Library(paths)


@lru_cache(1)
def _index(paths: tuple[Path, ...], recordings: range) -> tuple[Prints, Index]:
    prints = _library(paths).prints(recordings)
    return prints, Index(prints)


def _words(table: pa.Table) -> pa.ListArray:
    return table.column("words").chunk(0)
