"""From the shards of a corpus to Arrow files of what is compared, one a shard, which are kept for the next run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.engine.commit import atomic_path, digest
from audioprep.shards.dataset import Dataset
from audioprep.shards.tables import read_tables

ABOUT = {"id": pa.string(), "uri": pa.string(), "split": pa.string(), "seconds": pa.float64(), "bytes": pa.int64()}
"""What every file says of a recording: `bytes` of its file, 0 where that is not known."""
_COLUMNS = ("id", "uri", "split", "duration")


def extract_shards(
    dataset: Dataset,
    column: str,
    schema: pa.Schema,
    values_of: Callable[[pa.Table], Sequence[dict[str, Any]]],
    what: object,
    folder: Path,
    on_shards: Callable[[int, int], None],
) -> list[Path]:
    """Makes a file of each shard; those of an earlier run, of the same shards, are taken over.

    Args:
        dataset: the shard set.
        column: that is read.
        schema: of the files: `ABOUT`, then what `values_of` gives.
        values_of: gives the further values of each row of a table.
        what: plain values that decide about them, beside the shard.
        folder: for the files.
        on_shards: called with the number of shards done and of all.

    Returns:
        The files, in the order of the shards.
    """
    shards = dataset.shards()
    paths: list[Path] = []
    for number, shard in enumerate(shards, start=1):
        path = folder / f"{Path(shard['path']).stem}-{digest([shard['sha256'], column, what])[:16]}.arrow"
        if not path.exists():
            tables = read_tables(dataset, shard, [*_COLUMNS, column])
            rows = [row for table in tables for row in map(dict.__or__, _about(table), values_of(table))]
            with atomic_path(path, folder / "scratch") as temporary:
                write(rows, schema, temporary)
        paths.append(path)
        on_shards(number, len(shards))
    return paths


def write(rows: list[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    """Writes rows as one Arrow file of one batch."""
    table = pa.Table.from_pylist(rows, schema).combine_chunks()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(table)


def _about(table: pa.Table) -> list[dict[str, Any]]:
    plain = zip(*(table.column(name).to_pylist() for name in _COLUMNS), strict=True)
    return [dict(zip(ABOUT, (*row, _size(row[1])), strict=True)) for row in plain]


def _size(uri: str) -> int:
    """Bytes of a recording's file; 0 where it is not there any more, or lies inside another file."""
    try:
        return 0 if split_embedded(uri) else os.path.getsize(uri_to_path(uri))
    except OSError:
        return 0
