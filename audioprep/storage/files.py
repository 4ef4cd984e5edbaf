"""Small files and folders of a place: a store is asked as seldom as can be, and its errors are told as ours."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from upath import UPath

from audioprep.errors import SystemFault, UsageError
from audioprep.storage import transfer
from audioprep.storage.places import Place, retried

T = TypeVar("T")

READ_AT_ONCE = 32  # small files of a store
BATCH = 1024


class State(NamedTuple):
    """What a listing says of a file: two of the same state have the same bytes."""

    bytes: int
    version: str


@contextlib.contextmanager
def errors_told(place: Place) -> Iterator[None]:
    """Tells the errors of a store; a file that is not there stays a `FileNotFoundError`.

    Raises:
        UsageError: the store gives no permission.
        SystemFault: it does not answer, whatever was tried.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except (OSError, EOFError) as error:
        if isinstance(place, Path):
            raise
        if isinstance(error, PermissionError):
            raise UsageError(f"{place}: the store gives no permission: {error}. Check its credentials.") from error
        raise SystemFault(
            f"{place}: the store does not answer as it should: {error or type(error).__name__}. Run the same command "
            "again: it goes on from here."
        ) from error


def asked(place: Place, call: Callable[[], T]) -> T:
    """What `call` gives, tried again; raises as `errors_told` does."""
    with errors_told(place):
        return retried(call)


def read_bytes(place: Place) -> bytes:
    """The bytes of a small file; raises as `errors_told` does."""
    with errors_told(place):
        return transfer.read_bytes(place)


def read_many(places: Iterable[Place]) -> Iterator[tuple[Place, bytes]]:
    """The bytes of small files, in order; of a store, many at once. One that has gone meanwhile is left out."""
    waiting = list(places)
    if not waiting or isinstance(waiting[0], Path):
        found = map(_read_if_there, waiting)
        yield from ((place, data) for place, data in zip(waiting, found, strict=True) if data is not None)
        return
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for start in range(0, len(waiting), BATCH):  # what is read ahead is bounded
            batch = waiting[start : start + BATCH]
            found = pool.map(_read_if_there, batch)
            yield from ((place, data) for place, data in zip(batch, found, strict=True) if data is not None)


def _read_if_there(place: Place) -> bytes | None:
    try:
        return read_bytes(place)
    except FileNotFoundError:
        return None


def listing(folder: Place) -> dict[str, State]:
    """The files in a folder, by name; none where there is no such folder. A store is asked once, a page a thousand."""
    try:
        if isinstance(folder, Path):
            with os.scandir(folder) as entries:
                files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
            return {name: State(stat.st_size, str(stat.st_mtime_ns)) for name, stat in files}
        folder.fs.invalidate_cache(folder.path)
        found = asked(folder, lambda: folder.fs.ls(folder.path, detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    files = [info for info in found if info["type"] == "file"]
    named = {info["name"].rstrip("/").rpartition("/")[2]: info for info in files}
    return {name: State(info["size"], _version(info)) for name, info in sorted(named.items())}


def state_of(place: UPath) -> State:
    """Of a file in a store; raises as `errors_told` does."""
    info = asked(place, lambda: place.fs.info(place.path))
    return State(info["size"] or 0, _version(info))


def folders(folder: Place) -> list[Place]:
    """The folders in a folder; none where there is no such folder."""
    try:
        if isinstance(folder, Path):
            return [path for path in folder.iterdir() if path.is_dir()]
        found = asked(folder, lambda: folder.fs.ls(folder.path, detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory"]


def fetch(place: UPath, target: Path) -> None:
    """Copies a file of a store to a local one; raises as `errors_told` does."""
    with errors_told(place):
        transfer.download(place, target)


def send(source: Path, place: UPath) -> None:
    """Copies a local file to a store, where it appears whole or not at all; raises as `errors_told` does."""
    try:
        with errors_told(place):
            transfer.upload(source, place)
    except FileNotFoundError as error:
        raise UsageError(f"{place}: there is no such bucket ({error}). Make it, or choose another place.") from error


def blocks(place: UPath) -> Iterator[bytes]:
    """The bytes of a file of a store, a few megabytes at a time; raises as `errors_told` does."""
    size = asked(place, lambda: place.fs.info(place.path))["size"]
    for start in range(0, size, transfer.RANGE_BYTES):
        end = min(start + transfer.RANGE_BYTES, size)
        yield _bytes(asked(place, lambda start=start, end=end: place.fs.cat_file(place.path, start=start, end=end)))


def remove(place: Place) -> None:
    """Removes a file, where there is one."""
    with contextlib.suppress(FileNotFoundError):
        if isinstance(place, Path):
            place.unlink()
        else:
            asked(place, lambda: place.fs.rm_file(place.path))


def remove_folder(place: Place) -> None:
    """Removes a folder with all that is in it, where there is one."""
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        asked(place, lambda: place.fs.rm(place.path, recursive=True))


def _bytes(data: bytes | str) -> bytes:
    assert isinstance(data, bytes)
    return data


def _version(info: dict[str, object]) -> str:
    return str(
        next((info[name] for name in ("ETag", "etag", "generation", "mtime", "LastModified") if name in info), "")
    )
