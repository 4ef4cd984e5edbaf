"""From a uri to a local file that a decoder can open, and to the hash that is the item's `id`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.errors import InputError, Reason

ID_LENGTH = 32  # hexadecimal digits of the sha256 that name an item: 128 bits


@contextlib.contextmanager
def local_file(uri: str) -> Iterator[str]:
    """Gives a local path for `uri`. Audio inside a Parquet or Arrow file is written to a temporary file.

    Raises:
        InputError: the container cannot be read or the row holds no audio. A plain path is not looked at:
            whoever opens it says what is wrong with it.
    """
    embedded = split_embedded(uri)
    if embedded is None:
        yield uri_to_path(uri)
        return
    container, row = embedded
    data = _embedded_bytes(uri, uri_to_path(container), row)
    with tempfile.NamedTemporaryFile(prefix="audioprep-") as file:
        file.write(data)
        file.flush()
        yield file.name


def content_id(path: str) -> str:
    """The item's `id`: the first 128 bits of the sha256 of the file's bytes, in hexadecimal.

    The file is read once, in order; the decoder that follows finds it in the page cache.
    """
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:ID_LENGTH]


def _embedded_bytes(uri: str, container: str, row: int) -> bytes:
    try:
        if container.endswith(".parquet"):
            group, place = _locate(_parquet_groups(container), row)
            value = _parquet_column(container, group)[place].as_py()
        else:
            group, place = _locate(_arrow_batches(container), row)
            value = _arrow_column(container, group)[place].as_py()
    except (OSError, pa.ArrowInvalid, IndexError) as error:
        raise InputError(Reason.UNREADABLE, uri, f"its container cannot be read: {error}") from error
    data = value and value.get("bytes")
    if data:
        return data
    if value and value.get("path"):
        path = os.path.join(os.path.dirname(container), value["path"])
        with contextlib.suppress(OSError):
            return Path(path).read_bytes()
    raise InputError(Reason.EMPTY, uri, "the row holds no audio bytes and names no file that exists")


def _locate(lengths: tuple[int, ...], row: int) -> tuple[int, int]:
    """The group that `row` lies in, and its place in it."""
    for group, length in enumerate(lengths):
        if row < length:
            return group, row
        row -= length
    raise IndexError(f"no row {row}")


@lru_cache(maxsize=8)
def _parquet_groups(path: str) -> tuple[int, ...]:
    metadata = pq.read_metadata(path)
    return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


@lru_cache(maxsize=2)  # the rows of a part lie side by side: a group is read once, not once a row
def _parquet_column(path: str, group: int) -> pa.ChunkedArray:
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read_row_group(group, [_audio_column(file.schema_arrow)]).column(0)


@lru_cache(maxsize=8)
def _arrow_batches(path: str) -> tuple[int, ...]:
    with pa.memory_map(path) as source, pa.ipc.open_stream(source) as reader:
        return tuple(len(batch) for batch in reader)


@lru_cache(maxsize=2)
def _arrow_column(path: str, group: int) -> pa.Array:
    with pa.memory_map(path) as source, pa.ipc.open_stream(source) as reader:
        for _ in range(group):
            reader.read_next_batch()
        batch = reader.read_next_batch()
        return batch.column(_audio_column(batch.schema))


def _audio_column(schema: pa.Schema) -> str:
    return next(f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)
