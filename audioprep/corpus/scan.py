"""Finds the inputs behind a list of sources: files, folders, manifests, saved data sets.

Scanning looks at names and sizes only; what a file holds is read later, once, by the part that encodes it.
Memory is bounded: entries are sorted in runs on disk and merged (a million files need some tens of MB).
"""

from __future__ import annotations

import heapq
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from audioprep.audio.formats import AUDIO_SUFFIXES
from audioprep.corpus.entry import ENTRY_SCHEMA, Entry, path_to_uri
from audioprep.corpus.exclusions import NOTHING, Exclusions
from audioprep.corpus.manifests import (
    MANIFEST_SUFFIXES,
    is_saved_dataset,
    read_embedded,
    read_manifest,
    read_saved_dataset,
    suffix_of,
)
from audioprep.errors import UsageError
from audioprep.storage.listing import look_up, walk_files
from audioprep.storage.places import is_url, scheme_of
from audioprep.symbolic.read import SCORE_SUFFIXES

logger = logging.getLogger(__name__)

RUN_LENGTH = 20_000  # entries sorted in memory at once
MERGE_BATCH = 256  # entries of each run in memory while merging


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds the inputs of one kind behind a list of sources.

    Attributes:
        what: the inputs are, for messages.
        entries: gives those behind sources, in any order, some perhaps twice.
    """

    what: str
    entries: Callable[[Iterable[str]], Iterator[Entry]]

    def __call__(
        self,
        sources: Iterable[str],
        on_found: Callable[[int], None] | None = None,
        exclude: Exclusions = NOTHING,
        on_excluded: Callable[[str], None] = lambda uri: None,
    ) -> Iterator[Entry]:
        """Gives every input behind `sources`, sorted by uri, each once; those of one uri are numbered.

        Args:
            sources: what the finder takes, as in `scan`.
            on_found: called with the number of inputs found so far, now and then.
            exclude: inputs to leave out.
            on_excluded: called with the uri of each that is left out.

        Raises:
            UsageError: a source does not exist, or is not of the finder's kind.
        """
        excluded = 0
        with tempfile.TemporaryDirectory(prefix="audioprep-scan-") as folder:
            runs = _write_sorted_runs(self.entries(sources), Path(folder), on_found)
            merged = heapq.merge(*(_read_run(run) for run in runs))
            for uri, same_uri in groupby(merged, key=attrgetter("uri")):
                if exclude.match(uri):
                    excluded += 1
                    on_excluded(uri)
                    continue
                distinct = (entry for entry, _ in groupby(same_uri))
                for ordinal, entry in enumerate(distinct):
                    yield replace(entry, ordinal=ordinal)
        if exclude.entries and not excluded:
            logger.warning("none of the paths to exclude is an input: are they relative to another folder?")


def _files_and_tables(suffixes: frozenset[str], sources: Iterable[str]) -> Iterator[Entry]:
    for source in sources:
        if is_url(source):
            yield from _of_store(source, suffixes)
            continue
        path = os.path.abspath(os.path.expanduser(source))
        if not os.path.lexists(path):
            raise UsageError(f"{source}: no such file or folder")
        if is_saved_dataset(path):
            yield from read_saved_dataset(path)
        elif os.path.isdir(path):
            yield from _walk(path, suffixes, ancestors=frozenset())
        elif path.lower().endswith(MANIFEST_SUFFIXES):
            yield from read_manifest(path)
        else:
            yield Entry(path_to_uri(path), size=size_of(path))


def _of_store(url: str, suffixes: frozenset[str]) -> Iterator[Entry]:
    if suffix_of(url) in MANIFEST_SUFFIXES:
        yield from read_manifest(url)
    elif found := look_up(url):
        yield Entry(found.url, size=found.size)
    else:
        for found in walk_files(url):
            suffix = suffix_of(found.url)
            if suffix in suffixes:
                yield Entry(found.url, size=found.size)
            elif suffix == ".parquet" and scheme_of(url) == "hf":  # where the Hub's data sets have their audio
                yield from read_embedded(found.url)


def _walk(folder: str, suffixes: frozenset[str], ancestors: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    """Walks a folder; a link that leads back to one of its own ancestors is not followed."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return
    try:
        listing = os.scandir(folder)
    except OSError as error:
        yield Entry(path_to_uri(folder), problem=f"the folder cannot be listed: {error.strerror}")
        return
    subfolders = []
    with listing:
        for found in listing:
            is_folder = _is_folder(found)
            if os.path.splitext(found.name)[1].lower() in suffixes:
                yield Entry(path_to_uri(found.path), size=0 if is_folder else size_of(found.path))
            if is_folder:
                subfolders.append(found.path)
    for subfolder in subfolders:
        yield from _walk(subfolder, suffixes, ancestors | {identity})


def _is_folder(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir()
    except OSError:  # a link that points at itself: it stays an entry, and fails by name when it is read
        return False


def size_of(path: str) -> int:
    """Bytes of a file; 0 of what is no file, or cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:  # gone or locked: the part that reads it says so, in a failure row
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


scan = Finder("audio files", partial(_files_and_tables, AUDIO_SUFFIXES))
"""Recordings: files; folders (searched recursively, links followed, loops cut); CSV, TSV, JSONL and Parquet manifests
with a column of paths; folders written by `datasets`' `save_to_disk`; URLs of files, manifests and folders."""

scan_scores = Finder("scores or MIDI files", partial(_files_and_tables, SCORE_SUFFIXES))
"""Scores, behind the same sources."""


def _write_sorted_runs(entries: Iterable[Entry], folder: Path, on_found: Callable[[int], None] | None) -> list[Path]:
    runs: list[Path] = []
    run: list[Entry] = []
    found = 0

    def flush() -> None:
        path = folder / f"{len(runs)}.arrow"
        run.sort()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, ENTRY_SCHEMA) as writer:
            for start in range(0, len(run), MERGE_BATCH):
                writer.write_batch(to_batch(run[start : start + MERGE_BATCH]))
        runs.append(path)
        run.clear()

    for entry in entries:
        run.append(entry)
        found += 1
        if on_found and found % 1000 == 0:
            on_found(found)
        if len(run) == RUN_LENGTH:
            flush()
    flush()
    if on_found:
        on_found(found)
    return runs


def _read_run(path: Path) -> Iterator[Entry]:
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from from_batch(batch)


def to_batch(entries: list[Entry]) -> pa.RecordBatch:
    """Entries as an Arrow record batch of `ENTRY_SCHEMA`."""
    return pa.RecordBatch.from_arrays(
        [pa.array([getattr(e, field.name) for e in entries], field.type) for field in ENTRY_SCHEMA],
        schema=ENTRY_SCHEMA,
    )


def from_batch(batch: pa.RecordBatch | pa.Table) -> Iterator[Entry]:
    """The inverse of `to_batch`."""
    columns = [batch.column(field.name).to_pylist() for field in ENTRY_SCHEMA]
    return (Entry(*row) for row in zip(*columns, strict=True))
