"""Whole files from a store and to it: in ranges side by side, tried again where a connection is torn."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from upath import UPath

from audioprep.storage.places import retried

RANGE_BYTES = 8 * 2**20
CONNECTIONS = 8


def download(source: UPath, target: Path) -> None:
    """Copies a file of a store to a local one, which is there whole or, on an error, perhaps in part.

    Raises:
        OSError: the store does not give it, or it changed meanwhile.
    """
    fs, path = source.fs, source.path
    before = retried(lambda: fs.info(path))
    if before["type"] == "directory":
        raise IsADirectoryError(f"{source}: is a folder")
    size = before["size"]
    if size is None:  # a server of HTTP may not say
        target.write_bytes(retried(lambda: fs.cat_file(path)))
        return
    with open(target, "wb") as file, ThreadPoolExecutor(CONNECTIONS) as pool:

        def copy(start: int) -> None:
            end = min(start + RANGE_BYTES, size)
            data = retried(lambda: _whole(fs.cat_file(path, start=start, end=end), end - start))
            os.pwrite(file.fileno(), data, start)

        for _ in pool.map(copy, range(0, size, RANGE_BYTES)):
            pass
    fs.invalidate_cache(path)
    if _state(retried(lambda: fs.info(path))) != _state(before):
        raise OSError(f"{source}: changed while it was read")


def upload(source: Path, target: UPath) -> None:
    """Copies a local file to a store, where it appears whole or not at all.

    Raises:
        OSError: the store does not take it.
    """
    retried(lambda: target.fs.put_file(str(source), target.path))


def _whole(data: bytes, wanted: int) -> bytes:
    if len(data) != wanted:
        raise EOFError(f"{len(data)} bytes instead of {wanted}: the connection was torn")
    return data


def _state(info: dict[str, object]) -> list[object]:
    return [info.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified", "generation")]
