"""From a uri to a local file that a decoder can open, and to the hash that is the item's `id`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.errors import SYSTEM_ERRNOS, InputError, Reason, SystemFault
from audioprep.storage.faults import login_remedy, to_os_error
from audioprep.storage.listing import join
from audioprep.storage.places import is_url, name_of, retried, to_url
from audioprep.storage.transfer import Changed, local_copy, open_remote, read_bytes

ID_LENGTH = 32  # hexadecimal digits of the sha256 that name an item: 128 bits

_containers = threading.Lock()  # files of one part are read side by side: a group is fetched by the first of them


@contextlib.contextmanager
def local_file(uri: str) -> Iterator[str]:
    """Gives a local path for `uri`. What a URL names, and audio inside a Parquet or Arrow file, is in a temporary file.

    Raises:
        InputError: the store does not give the file, the container cannot be read or the row holds no audio. A plain
            path is not looked at: whoever opens it says what is wrong with it.
        SystemFault: the disk for temporary files is full.
    """
    if embedded := split_embedded(uri):
        container, row = embedded
        data = _embedded_bytes(uri, container if is_url(container) else uri_to_path(container), row)
        with tempfile.NamedTemporaryFile(prefix="audioprep-") as file:
            file.write(data)
            file.flush()
            yield file.name
    elif is_url(uri):
        with contextlib.ExitStack() as stack:
            try:
                copy = stack.enter_context(local_copy(uri))
            except OSError as error:
                raise_store_error(error, uri)
            yield str(copy)
    else:
        yield uri_to_path(uri)


def raise_store_error(error: OSError, uri: str) -> NoReturn:
    """Raises the InputError or SystemFault that a failed download amounts to.

    Raises:
        InputError: NOT_FOUND, NO_PERMISSION, NOT_A_FILE, CHANGED or UNREADABLE.
        SystemFault: no room for temporary files, or no memory.
    """
    if error.errno in SYSTEM_ERRNOS:
        raise SystemFault(
            f"{uri}: cannot be copied: {error.strerror}. Make room, or name a folder on a larger disk in TMPDIR."
        ) from error
    if isinstance(error, FileNotFoundError):
        raise InputError(Reason.NOT_FOUND, uri, "there is no such file; check the URL or scan again") from error
    if isinstance(error, PermissionError):
        raise InputError(Reason.NO_PERMISSION, uri, f"the store refuses it; {login_remedy(uri)}") from error
    if isinstance(error, IsADirectoryError):
        raise InputError(Reason.NOT_A_FILE, uri, "this is a folder; name the files in it") from error
    if isinstance(error, Changed):
        raise InputError(Reason.CHANGED, uri, "changed while it was read: run again when it is complete") from error
    raise InputError(Reason.UNREADABLE, uri, f"the store does not give it ({error}); try again later") from error


def content_id(path: str) -> str:
    """The item's `id`: the first 128 bits of the sha256 of the file's bytes, in hexadecimal.

    The file is read once, in order; the decoder that follows finds it in the page cache.
    """
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:ID_LENGTH]


def _embedded_bytes(uri: str, container: str, row: int) -> bytes:
    try:
        with _containers:
            if name_of(container).lower().endswith(".parquet"):
                group, place = _locate(_group_lengths(_parquet_footer(container)), row)
                column = _parquet_column(container, group)
            else:
                group, place = _locate(_arrow_batches(container), row)
                column = _arrow_column(container, group)
        value = column[place].as_py()
    except (pa.ArrowInvalid, IndexError) as error:
        raise InputError(Reason.UNREADABLE, uri, f"its container cannot be read: {error}") from error
    except Exception as error:
        meant = to_os_error(error)
        if meant is None:
            raise
        if is_url(container):
            raise_store_error(meant, uri)
        raise InputError(Reason.UNREADABLE, uri, f"its container cannot be read: {error}") from error
    data = value and value.get("bytes")
    if data:
        return data
    if value and value.get("path"):
        with contextlib.suppress(OSError):
            if is_url(container):
                return read_bytes(to_url(join(container, value["path"])))
            return Path(os.path.dirname(container), value["path"]).read_bytes()
    raise InputError(Reason.EMPTY, uri, "the row holds no audio bytes and names no file that exists")


def _locate(lengths: tuple[int, ...], row: int) -> tuple[int, int]:
    """The group that `row` lies in, and its place in it."""
    for group, length in enumerate(lengths):
        if row < length:
            return group, row
        row -= length
    raise IndexError(f"no row {row}")


@lru_cache(maxsize=8)
def _parquet_footer(path: str) -> pq.FileMetaData:
    with _open(path) as source:
        return pq.read_metadata(source)


@lru_cache(maxsize=2)  # the rows of a part lie side by side: a group is read once, not once a row
def _parquet_column(path: str, group: int) -> pa.ChunkedArray:
    footer = _parquet_footer(path)

    def read() -> pa.ChunkedArray:
        with _open(path) as source, pq.ParquetFile(source, metadata=footer, pre_buffer=is_url(path)) as file:
            return file.read_row_group(group, [_audio_column(file.schema_arrow)]).column(0)

    return retried(read) if is_url(path) else read()


def _open(path: str) -> Any:
    """Of a container in a store, only the row groups that are asked for are fetched."""
    return open_remote(path) if is_url(path) else pa.memory_map(path)


def _group_lengths(footer: pq.FileMetaData) -> tuple[int, ...]:
    return tuple(footer.row_group(group).num_rows for group in range(footer.num_row_groups))


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
