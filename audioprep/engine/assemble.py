"""Puts shards together from what the stages computed.

Consecutive parts form a group of about one shard's size, and a group gives one file a split. A group depends on
its parts alone: when a corpus grows, all groups but the last one stay as they are, byte for byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from audioprep.engine.commit import atomic_path, digest, parse_json, sha256_of, write_json
from audioprep.engine.layout import Layout
from audioprep.engine.plan import Part, Plan
from audioprep.engine.store import Check, Record, Store
from audioprep.shards.columns import ITEM_COLUMNS, is_array
from audioprep.shards.split import choose_split
from audioprep.shards.writers import SUFFIX, WRITERS, Format, ShardWriter
from audioprep.stages.base import Stage
from audioprep.storage.files import State, listing, read_many, remove, remove_folder

AHEAD = 4  # parts whose columns are fetched while one is put together
FAILURES_SCHEMA = pa.schema([(name, pa.string()) for name in ("uri", "stage", "error", "message")])


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """How shards are cut; changing it recomputes nothing but the shards.

    Attributes:
        format: Parquet files, or tars for webdataset.
        splits: share of each split.
        shard_bytes: of the columns in memory; a file is smaller, as it is compressed.
    """

    format: Format = "parquet"
    splits: dict[str, float] = field(default_factory=lambda: {"train": 1.0})
    shard_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One file of the shard set. `array_column: frames` are counted in `num_frames`."""

    path: str
    split: str
    rows: int
    seconds: float
    num_frames: int
    bytes: int
    sha256: str


def assemble(
    layout: Layout,
    plan: Plan,
    stores: tuple[Store, ...],
    settings: ShardSettings,
    check: Check,
    on_group: Callable[[int, int], None],
) -> list[ShardFile]:
    """Writes what is missing of the shards, removes what no group gives, and says what is there now.

    Args:
        layout: of the output folder; its lock is held.
        plan: all its parts are done in all stores.
        stores: of the stages, in the order of their columns.
        settings: how shards are cut.
        check: how a shard that is there is compared with its record: by size or sha256.
        on_group: called with the number of groups done and of all groups.
    """
    groups = list(_groups(plan, stores, settings.shard_bytes))
    files: list[ShardFile] = []
    there = listing(layout.data)
    records = read_many(layout.shards / name for name in listing(layout.shards))
    known = {place.name: parse_json(data) for place, data in records}
    for number, (parts, inputs) in enumerate(groups):
        record_path = layout.shards / f"{number:05d}.json"
        wanted = digest({"inputs": inputs, "format": settings.format, "splits": list(settings.splits.items())})
        record = known.get(record_path.name)
        if record is None or record["digest"] != wanted or not _all_there(layout, there, record, check):
            written = _write_group(layout, number, parts, stores, settings)
            record = {"digest": wanted, "files": [asdict(file) for file in written]}
            write_json(record_path, record, layout.scratch)
        files += [ShardFile(**file) for file in record["files"]]
        on_group(number + 1, len(groups))
    _remove_others(layout, {Path(file.path).name for file in files}, len(groups))
    return files


def counted_column(stages: Iterable[Stage]) -> str | None:
    """The column whose frames `num_frames` counts: the first that is an array."""
    return next((field.name for stage in stages for field in stage.schema if is_array(field.type)), None)


def failures(plan: Plan, stores: tuple[Store, ...]) -> Iterator[pa.Table]:
    """The rows of `failures.parquet`, a table for each part that has some; an item's first failure counts."""
    for part in plan.parts:
        first: dict[int, dict[str, Any]] = {}
        for store in stores:
            for failure in store.record(part.number).failures:
                first.setdefault(failure["row"], failure | {"stage": store.stage.name})
        if first:
            entries = part.entries()
            rows = [first[row] | {"uri": entries[row].uri} for row in sorted(first)]
            yield pa.Table.from_pylist(rows, FAILURES_SCHEMA)


def _groups(plan: Plan, stores: tuple[Store, ...], target: int) -> Iterator[tuple[list[Part], list[str]]]:
    """Cuts the plan into groups; with each come the sha256s of all that it is made from."""
    parts: list[Part] = []
    inputs: list[str] = []
    size = 0
    for part in plan.parts:
        records: list[Record] = [store.record(part.number) for store in stores]
        parts.append(part)
        inputs += [text for record in records for text in (record.inputs, record.sha256)]
        size += sum(record.array_bytes for record in records)
        if size >= target:
            yield parts, inputs
            parts, inputs, size = [], [], 0
    if parts:
        yield parts, inputs


def _all_there(layout: Layout, there: dict[str, State], record: dict[str, Any], check: Check) -> bool:
    return all(
        (name := Path(file["path"]).name) in there
        and there[name].bytes == file["bytes"]
        and (check == "size" or sha256_of(layout.data / name) == file["sha256"])
        for file in record["files"]
    )


def _write_group(
    layout: Layout, number: int, parts: list[Part], stores: tuple[Store, ...], settings: ShardSettings
) -> list[ShardFile]:
    drafts: dict[str, _Draft] = {}
    # The files are renamed into place, in order, when the stack unwinds; on an error none of them is.
    with contextlib.ExitStack() as commits:
        for part, tables in _read_ahead(parts, stores):
            table = _join(part, tables, stores, settings.splits)
            of_rows = table.column("split").to_numpy()
            for split in sorted(set(of_rows)):
                if split not in drafts:
                    drafts[split] = _open_draft(commits, layout, f"{split}-{number:05d}", split, settings.format)
                drafts[split].add(table.filter(pa.array(of_rows == split)))
        return [drafts[split].finish() for split in sorted(drafts)]


def _read_ahead(parts: list[Part], stores: tuple[Store, ...]) -> Iterator[tuple[Part, list[pa.Table]]]:
    """Parts with the columns of all stages; of what lies in a store, the next parts are fetched meanwhile."""
    with ThreadPoolExecutor(AHEAD * len(stores)) as pool:
        fetched = [[(store, pool.submit(store.fetch, part.number)) for store in stores] for part in parts[:AHEAD]]
        for place, part in enumerate(parts):
            if place + AHEAD < len(parts):
                fetched.append([(store, pool.submit(store.fetch, parts[place + AHEAD].number)) for store in stores])
            yield part, [store.read(part.number, path.result()) for store, path in fetched[place]]


class _Draft:
    """A shard that is being written."""

    def __init__(self, path: Path, name: str, split: str, open_writer: Callable[[pa.Schema], ShardWriter]):
        self._path = path
        self._name = name
        self._split = split
        self._open = open_writer
        self._writer: ShardWriter | None = None
        self._rows = 0
        self._frames = 0
        self._seconds = 0.0

    def add(self, table: pa.Table) -> None:
        self._writer = self._writer or self._open(table.schema)
        self._writer.write(table)
        self._rows += len(table)
        self._frames += int(table.column("num_frames").to_numpy().sum())
        self._seconds += float(table.column("duration").to_numpy().sum())

    def finish(self) -> ShardFile:
        assert self._writer
        self._writer.close()
        size, sha256 = self._path.stat().st_size, sha256_of(self._path)
        return ShardFile(self._name, self._split, self._rows, self._seconds, self._frames, size, sha256)


def _open_draft(commits: contextlib.ExitStack, layout: Layout, stem: str, split: str, format: Format) -> _Draft:
    target = layout.data / f"{stem}{SUFFIX[format]}"
    path = commits.enter_context(atomic_path(target, layout.scratch))
    index = Path()
    if format == "webdataset":
        index = commits.enter_context(atomic_path(layout.index / f"{stem}.parquet", layout.scratch))
    return _Draft(path, f"data/{target.name}", split, lambda schema: WRITERS[format](path, index, schema))


def _join(part: Part, tables: list[pa.Table], stores: tuple[Store, ...], splits: dict[str, float]) -> pa.Table:
    """The items of a part that every stage has kept, with the columns of all of them."""
    rows = tables[0].column("row").to_numpy()
    for table in tables[1:]:
        rows = np.intersect1d(rows, table.column("row").to_numpy(), assume_unique=True)
    entries = part.entries()
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"uri": pa.array([entries[row].uri for row in rows], pa.string())}
    counted = counted_column([store.stage for store in stores])
    for table in tables:
        table = table.take(np.searchsorted(table.column("row").to_numpy(), rows)).drop_columns("row")
        # What several stages found out of an item is taken from the first; the frames are those of one column.
        for name, column in zip(table.column_names, table.columns, strict=True):
            columns.setdefault(name, column)
        if counted in table.column_names:
            columns["num_frames"] = table.column("num_frames")
    # Excerpts of one song go into one split: where it is known which, that counts, and not the excerpt.
    songs = columns["song"].to_pylist() if "song" in columns else [None] * len(rows)
    chosen = zip(columns["id"].to_pylist(), songs, columns["split"].to_pylist(), strict=True)
    columns["split"] = pa.array(
        [choose_split(item if song is None else digest(song), wanted, splits) for item, song, wanted in chosen],
        pa.string(),
    )
    added = [name for name in columns if name not in ITEM_COLUMNS]
    return pa.table({name: columns[name] for name in (*ITEM_COLUMNS, *added)})


def _remove_others(layout: Layout, wanted: set[str], groups: int) -> None:
    """Removes shards of an earlier cut (another format, other splits), and their records."""
    indexes = {f"{Path(name).stem}.parquet" for name in wanted if name.endswith(".tar")}
    records = {f"{number:05d}.json" for number in range(groups)}
    for folder, keep in ((layout.data, wanted), (layout.index, indexes), (layout.shards, records)):
        for name in listing(folder):
            if name not in keep:
                remove(folder / name)
    if not indexes:
        remove_folder(layout.index)
