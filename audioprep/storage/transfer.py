"""Whole files from a store and to it: in ranges side by side, tried again where a connection is torn."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from fsspec.callbacks import Callback
from upath import UPath

from audioprep.storage.places import HTTP, Place, name_of, retried, scheme_of, to_url

RANGE_BYTES = 8 * 2**20
CONNECTIONS = 8

# Others do not all give ranges (HTTP), or ask for more than the range each time (the Hub).
_RANGED = {"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"}


class Changed(OSError):
    """A file of a store is not any more what it was when its reading began."""


def download(source: UPath, target: Path) -> None:
    """Copies a file of a store to a local one, which is there whole or, on an error, perhaps in part.

    Raises:
        Changed: it changed meanwhile.
        OSError: the store does not give it, or there is no room for it.
    """
    fs, path = _store(source)
    if source.protocol in HTTP:  # tells what is wrong only when it is asked for the file itself
        retried(lambda: fs.get_file(path, str(target), callback=_Room(target)))
        return
    before = retried(lambda: fs.info(path))
    if before["type"] == "directory":
        raise IsADirectoryError(errno.EISDIR, f"{source}: is a folder")
    size = before["size"]
    require_room(target, size)
    if source.protocol not in _RANGED:
        retried(lambda: _stream(source, target, size))
        return
    with open(target, "wb") as file, ThreadPoolExecutor(CONNECTIONS) as pool:

        def copy(start: int) -> None:
            end = min(start + RANGE_BYTES, size)
            data = retried(lambda: _whole(fs.cat_file(path, start=start, end=end), end - start))
            os.pwrite(file.fileno(), data, start)

        for _ in pool.map(copy, range(0, size, RANGE_BYTES)):
            pass
    if _state(retried(lambda: fs.info(path))) != _state(before):
        raise Changed(f"{source}: changed while it was read")


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Gives a copy of a file of a store, with its suffix, in the folder for temporary files (TMPDIR); then removes it.

    Raises:
        OSError: see `download`.
    """
    suffix = os.path.splitext(name_of(url))[1][:16]
    with tempfile.NamedTemporaryFile(prefix="audioprep-", suffix=suffix) as file:
        download(to_url(url), Path(file.name))
        yield Path(file.name)


def open_remote(url: str) -> IO[bytes]:
    """A file of a store, of which only the ranges that are read are fetched; of HTTP, a copy.

    Raises:
        OSError: the store does not give it.
    """
    if scheme_of(url) in HTTP:  # not every server gives ranges
        return open(_copied(url).name, "rb")
    fs, path = _store(to_url(url))
    return retried(lambda: fs.open(path, "rb", cache_type="none"))


@lru_cache(maxsize=1)  # as large as it may be; it is removed with the next one
def _copied(url: str) -> Any:
    file = tempfile.NamedTemporaryFile(prefix="audioprep-")  # noqa: SIM115 (as long as it is in the cache)
    download(to_url(url), Path(file.name))
    return file


def read_bytes(source: Place) -> bytes:
    """A small file, as it is now.

    Raises:
        OSError: it cannot be read, or the store does not give it.
    """
    if isinstance(source, Path):
        return source.read_bytes()
    fs, path = _store(source)
    fs.invalidate_cache()  # the Hub's keeps what it has seen
    # s3fs since 2026 else asks for the size first.
    at_once = {"max_concurrency": 1} if hasattr(fs, "_cat_file_concurrent") else {}
    return retried(lambda: fs.cat_file(path, **at_once))


def upload(source: Path, target: UPath) -> None:
    """Copies a local file to a store, where it appears whole or not at all.

    Raises:
        OSError: the store does not take it.
    """
    retried(lambda: target.fs.put_file(str(source), target.path))


def require_room(target: Path, size: int) -> None:
    """
    Raises:
        OSError: ENOSPC, as `size` bytes are more than the disk of `target` has left.
    """
    free = shutil.disk_usage(target.parent).free
    if size > free:
        need = f"{size / 2**30:.2f} GiB are needed in {target.parent}, and {free / 2**30:.2f} GiB are left there"
        raise OSError(errno.ENOSPC, f"No space left on device: {need}")


class _Room(Callback):
    """Looks for room as soon as the size of a file is known."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = target

    def set_size(self, size: int | None) -> None:
        require_room(self._target, size or 0)


def _store(place: UPath) -> tuple[Any, str]:
    """What reads and writes there (its types say less than it does), and the path in it."""
    return place.fs, place.path


def _stream(source: UPath, target: Path, size: int | None) -> None:
    fs, path = _store(source)
    with open(target, "wb") as file, fs.open(path, "rb", block_size=0) as stream:
        shutil.copyfileobj(stream, file, RANGE_BYTES)
    if size is not None and target.stat().st_size != size:
        raise EOFError(f"{target.stat().st_size} bytes instead of {size}: the connection was torn")


def _whole(data: bytes, wanted: int) -> bytes:
    if len(data) != wanted:
        raise EOFError(f"{len(data)} bytes instead of {wanted}: the connection was torn")
    return data


def _state(info: dict[str, Any]) -> list[object]:
    return [info.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified", "generation")]
