"""The plan: a corpus cut into parts, on disk, and only ever added to.

One Parquet file a generation (a scan that found something new), one row group a part. Old parts stay what they
were when files are added, so what was computed for them stays valid.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

import pyarrow.parquet as pq

from audioprep.corpus.entry import ENTRY_SCHEMA, Entry
from audioprep.corpus.scan import from_batch, to_batch
from audioprep.engine.commit import atomic_path
from audioprep.storage.files import State, fetch, listing
from audioprep.storage.places import Place

logger = logging.getLogger(__name__)

MAX_PART_SIZE = 512
MAX_PART_BYTES = 2**30  # a part is what a crash loses: of long files it holds fewer
PARTS_OF_A_SMALL_CORPUS = 32  # so that a few hundred files still occupy several workers


@dataclass(frozen=True, slots=True)
class Generation:
    """One file of the plan.

    Attributes:
        place: where it lies.
        copy: the same on this machine: of a store, a copy that is fetched where it is not yet there.
        state: of the file.
    """

    place: Place
    copy: Path
    state: State

    def path(self) -> Path:
        """The local file."""
        if not isinstance(self.place, Path) and not self.copy.exists():
            with atomic_path(self.copy, self.copy.parent) as temporary:
                fetch(self.place, temporary)
        return self.copy

    def open(self) -> pq.ParquetFile:
        """The local file, opened; what it says of its row groups is parsed once a process."""
        return pq.ParquetFile(self.path(), metadata=_metadata(self))


@lru_cache(maxsize=4)
def _metadata(generation: Generation) -> pq.FileMetaData:
    return pq.read_metadata(generation.path())


@dataclass(frozen=True, slots=True)
class Part:
    """A fixed slice of the corpus: the unit of work, of retry, of commit and of distribution."""

    number: int
    file: Generation
    row_group: int
    rows: int

    def entries(self) -> list[Entry]:
        """Reads the part's entries, in order."""
        with self.file.open() as file:
            return list(from_batch(file.read_row_group(self.row_group)))


class Plan:
    """All parts of an output folder, in the order in which they were planned.

    Args:
        folder: of the plan.
        scratch: local folder: for unfinished files, and for copies of what a store has.
    """

    def __init__(self, folder: Place, scratch: Path) -> None:
        self._folder = folder
        self._scratch = scratch
        self._generations = [
            Generation(folder / name, self._copy(name, state), state)
            for name, state in sorted(listing(folder).items())
            if name.endswith(".parquet")
        ]
        self.parts: list[Part] = []
        for generation in self._generations:
            metadata = _metadata(generation)
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                self.parts.append(Part(len(self.parts), generation, group, rows))

    def _copy(self, name: str, state: State) -> Path:
        if isinstance(self._folder, Path):
            return self._folder / name
        return self._scratch / f"plan-{sha256(repr(state).encode()).hexdigest()[:16]}-{name}"

    @property
    def num_entries(self) -> int:
        return sum(part.rows for part in self.parts)

    def new_entries(self, scanned: Iterable[Entry]) -> Iterator[Entry]:
        """Those of `scanned` (sorted) that no part holds yet. Streams: memory does not grow with the plan.

        Files whose size is another than when they were planned are counted, and told in the log.
        """
        known = heapq.merge(*(_keys(generation) for generation in self._generations))
        current = next(known, None)
        changed = 0
        for entry in scanned:
            key = (entry.uri, entry.ordinal)
            while current is not None and current[:2] < key:
                current = next(known, None)
            if current is None or current[:2] != key:
                yield entry
            elif current[2] != entry.size:
                changed += 1
        if changed:
            logger.warning("%d inputs have changed since they were planned; --overwrite does all of them anew", changed)

    def extend(self, new: Iterable[Entry], part_size: int | None = None) -> Plan:
        """Writes new entries as one more generation and gives the longer plan.

        Args:
            new: sorted entries that no part holds; where there are none, the plan stays as it is.
            part_size: entries a part; by default 512, fewer where the corpus is small.
        """
        # The size depends on the corpus alone, never on the number of workers. What is held here is bounded.
        head = list(islice(new, MAX_PART_SIZE * PARTS_OF_A_SMALL_CORPUS))
        if not head:
            return self
        size = part_size or min(MAX_PART_SIZE, -(-len(head) // PARTS_OF_A_SMALL_CORPUS))
        target = self._folder / f"{len(self._generations):05d}.parquet"
        with (
            atomic_path(target, self._scratch) as temporary,
            pq.ParquetWriter(temporary, ENTRY_SCHEMA, compression="zstd") as writer,
        ):
            for part in cut(chain(head, new), size):
                writer.write_batch(to_batch(part))
        return Plan(self._folder, self._scratch)


def cut(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Cuts entries into parts of at most `size` entries and, but for a single larger file, of 1 GiB."""
    part: list[Entry] = []
    part_bytes = 0
    for entry in entries:
        if part and (len(part) == size or part_bytes + entry.size > MAX_PART_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(entry)
        part_bytes += entry.size
    if part:
        yield part


def _keys(generation: Generation) -> Iterator[tuple[str, int, int]]:
    with generation.open() as file:
        for batch in file.iter_batches(1024, columns=["uri", "ordinal", "size"]):
            yield from zip(*(batch[name].to_pylist() for name in ("uri", "ordinal", "size")), strict=True)
