"""Files that are there whole or not at all.

A commit is: unique temporary name, write, fsync, rename, fsync of the folder; to a store, one upload, which such a
place takes whole or not at all. Temporary files lie in one local folder of their own, so that no reader's glob ever
meets one and a crashed run's leftovers are easy to sweep.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audioprep.errors import SYSTEM_ERRNOS, SystemFault
from audioprep.storage.files import blocks, errors_told, read_bytes
from audioprep.storage.places import Place
from audioprep.storage.transfer import upload

_DISK_ERRNOS = SYSTEM_ERRNOS | {errno.EROFS, errno.EIO}


@contextlib.contextmanager
def atomic_path(target: Place, scratch: Path) -> Iterator[Path]:
    """Gives a temporary path in `scratch`; on success it becomes `target`, on failure it is removed.

    Raises:
        SystemFault: the disk is full or broken, or the store does not answer; what was committed before stays.
        UsageError: the store gives no permission.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = scratch / f"{uuid.uuid4().hex}-{target.name}"
    try:
        yield temporary
        if isinstance(target, Path):
            _sync(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
            _sync(target.parent)
        else:
            with errors_told(target):
                upload(temporary, target)
    except OSError as error:
        if error.errno in _DISK_ERRNOS:
            raise SystemFault(
                f"{target}: cannot be written: {error.strerror}. Make room (or choose another --out) and run the "
                "same command again: it goes on from here."
            ) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_text(target: Place, text: str, scratch: Path) -> None:
    """Commits a small text file."""
    with atomic_path(target, scratch) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Place, value: object, scratch: Path) -> None:
    """Commits a small JSON file; keys keep their order."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n", scratch)


def read_json(path: Place) -> dict[str, Any] | None:
    """The JSON object in `path`; None where the file is missing or torn (by an earlier crash of the disk)."""
    try:
        return parse_json(read_bytes(path))
    except FileNotFoundError:
        return None


def parse_json(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`; None where there is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def sha256_of(path: Place) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    if isinstance(path, Path):
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    found = hashlib.sha256()
    for block in blocks(path):
        found.update(block)
    return found.hexdigest()


def digest(value: object) -> str:
    """sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
