"""Writes shards: one Parquet file, or one tar with its index."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.shards.columns import is_array, is_vector, to_values, with_features

Format = Literal["parquet", "webdataset"]
SUFFIX: dict[Format, str] = {"parquet": ".parquet", "webdataset": ".tar"}

ROW_GROUP_ROWS = 512

# Counted in Parquet's 4 bytes a code: on disk, a page of 10-bit codes has a third of it. Larger than pyarrow's own
# sizes, as readers pay for each page.
_CHUNKING = {"min_chunk_size": 2**20, "max_chunk_size": 2**22}


class ShardWriter(Protocol):
    """Takes the tables of one shard in order; equal tables, however cut, give equal bytes."""

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class ParquetWriter:
    """Dictionary pages with zstd reach the entropy of the codes; page boundaries follow the content.

    With content-defined chunking the Hub stores and moves only what changed; the page index lets readers skip.
    Dictionaries of floats would take more space and thrice the time. Splitting the bytes of float32 into streams saves
    a twelfth; DuckDB reads such streams of float32, but not of float16.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = with_features(schema)
        self._waiting: list[pa.Table] = []
        leaves = dict(_leaf(field) for field in schema)
        floats = {leaf: type_ for leaf, type_ in leaves.items() if "." in leaf and pa.types.is_floating(type_)}
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=[leaf for leaf in leaves if leaf not in floats],  # pyright: ignore[reportArgumentType]
            column_encoding={
                leaf: "PLAIN" if type_ == pa.float16() else "BYTE_STREAM_SPLIT" for leaf, type_ in floats.items()
            },
            use_content_defined_chunking=_CHUNKING,  # pyright: ignore[reportArgumentType]  (a bool, or sizes)
            write_page_index=True,
        )

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP_ROWS:
            self._flush(whole_groups_only=True)

    def close(self) -> None:
        self._flush(whole_groups_only=False)
        self._writer.close()

    def _flush(self, whole_groups_only: bool) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks() if self._waiting else None
        if table is None:
            return
        end = len(table) - len(table) % ROW_GROUP_ROWS if whole_groups_only else len(table)
        for start in range(0, end, ROW_GROUP_ROWS):
            group = table.slice(start, min(ROW_GROUP_ROWS, end - start))
            self._writer.write_table(pa.Table.from_arrays(group.columns, schema=self._schema))
        self._waiting = [table.slice(end)] if end < len(table) else []


def _leaf(field: pa.Field) -> tuple[str, pa.DataType]:
    """The path by which Parquet knows the values of a column, and their type."""
    path, type_ = field.name, field.type
    while pa.types.is_nested(type_):
        path, type_ = f"{path}.list.element", type_.value_type
    return path, type_


class TarWriter:
    """A tar as webdataset reads it: an item is `KEY.json` and one `KEY.COLUMN.npy` for each array or vector column.

    `KEY` is the item's id; where an exact copy of a file stands in the same tar, the second is `ID_2`. The index
    says where each array's bytes lie, so that a loader can map the tar into memory and jump.
    """

    def __init__(self, path: Path, index: Path, schema: pa.Schema) -> None:
        self._index_path = index
        self._arrays = [field.name for field in schema if is_array(field.type)]
        self._vectors = [field.name for field in schema if is_vector(field.type)]
        self._scalars = [name for name in schema.names if name not in (*self._arrays, *self._vectors)]
        self._keys: Counter[str] = Counter()
        self._rows: list[dict[str, Any]] = []
        self._file = open(path, "wb")  # noqa: SIM115  closed in `close`
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def write(self, table: pa.Table) -> None:
        arrays = {name: to_values(table.column(name)) for name in (*self._arrays, *self._vectors)}
        for row, scalars in enumerate(table.select(self._scalars).to_pylist()):
            self._keys[scalars["id"]] += 1
            repeat = self._keys[scalars["id"]]
            key = scalars["id"] if repeat == 1 else f"{scalars['id']}_{repeat}"
            text = json.dumps(scalars, ensure_ascii=False, sort_keys=True).encode()
            entry: dict[str, Any] = {"key": key, "json_offset": self._add(f"{key}.json", text)}
            entry["json_size"] = len(text)
            for name, values in arrays.items():
                data = _npy(values[row])
                end = self._add(f"{key}.{name}.npy", data) + len(data)
                entry[f"{name}.offset"] = end - values[row].nbytes
                if name in self._arrays:
                    entry[f"{name}.frames"] = len(values[row])
            self._rows.append(entry)

    def close(self) -> None:
        self._tar.close()
        self._file.close()
        counts = [(f"{name}.offset", pa.int64()) for name in (*self._arrays, *self._vectors)]
        counts += [(f"{name}.frames", pa.int32()) for name in self._arrays]
        schema = pa.schema([("key", pa.string()), ("json_offset", pa.int64()), ("json_size", pa.int64()), *counts])
        pq.write_table(pa.Table.from_pylist(self._rows, schema), self._index_path, compression="zstd")

    def _add(self, name: str, data: bytes) -> int:
        """Adds a member and gives the offset of its first byte. Its header holds nothing of this machine."""
        self._tar.addfile(_member(name, len(data)), io.BytesIO(data))
        return self._file.tell() - len(data) - (-len(data) % tarfile.BLOCKSIZE)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


OpenShard = Callable[[Path, Path, pa.Schema], ShardWriter]

WRITERS: dict[Format, OpenShard] = {
    "parquet": lambda path, index, schema: ParquetWriter(path, schema),
    "webdataset": TarWriter,
}
