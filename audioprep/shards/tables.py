"""Reads a shard back as Arrow tables, whichever way it is stored."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.shards.columns import array_type, plain_table, to_table, vector_type
from audioprep.shards.dataset import Dataset

_ROWS = 512


def read_tables(dataset: Dataset, shard: dict[str, Any], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Gives the rows of one shard, some hundred at a time, in the columns and order of `dataset.json`.

    Args:
        dataset: the shard set.
        shard: one of its shards.
        columns: only these.

    Raises:
        UsageError: a shard of a store cannot be fetched.
        ValueError: a tar that is not as audioprep writes it.
        OSError, pyarrow.ArrowInvalid: the file cannot be read.
    """
    path = dataset.shard(shard).path
    if dataset.storage == "parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                yield plain_table(pa.Table.from_batches([batch]))
        return
    rows: list[dict[str, Any]] = []
    with tarfile.open(path) as tar:
        for row in _tar_rows(tar):
            rows.append(row)
            if len(rows) == _ROWS:
                yield _selected(to_table(rows, _schema(dataset, rows[0])), columns)
                rows = []
    if rows:
        yield _selected(to_table(rows, _schema(dataset, rows[0])), columns)


def _selected(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return table if columns is None else table.select(list(columns))


def _tar_rows(tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {}
    current = ""
    for member in tar:
        key, _, column = member.name.partition(".")
        file = tar.extractfile(member)
        if file is None:
            raise ValueError(f"{member.name} is no file")
        if key != current and row:
            yield row
            row = {}
        current = key
        if column == "json":
            row |= json.load(file)
        else:
            row[column.removesuffix(".npy")] = np.load(io.BytesIO(file.read()), allow_pickle=False)
    if row:
        yield row


def _schema(dataset: Dataset, row: dict[str, Any]) -> pa.Schema:
    return pa.schema([(name, _type(row[name], kind)) for name, kind in dataset.columns.items()])


def _type(value: Any, kind: str) -> pa.DataType:
    """The type that a value has, whatever `dataset.json` says of it, where it is an array or a vector."""
    if not isinstance(value, np.ndarray):
        return pa.type_for_alias(kind)
    make = array_type if value.ndim == 2 else vector_type
    return make(pa.from_numpy_dtype(value.dtype), value.shape[-1])
