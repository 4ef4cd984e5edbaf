"""Copies of files of stores that stay on this machine: weights, which every worker and every run reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from upath import UPath

from audioprep.storage.files import fetch, state_of
from audioprep.storage.listing import no_access
from audioprep.storage.places import Place, cache_folder


def kept_file(place: Place) -> Path:
    """The file itself; of one in a store, a copy as it is now.

    Raises:
        UsageError: a store has no such file, or gives no permission.
        SystemFault: it does not answer.
    """
    if isinstance(place, Path):
        return place
    try:
        version = state_of(place)
    except FileNotFoundError as error:
        raise no_access(str(place), error) from error
    return kept_folder(place.parent, version, [place.name]) / place.name


def kept_folder(folder: UPath, version: object, names: Sequence[str]) -> Path:
    """A folder of copies: $AUDIOPREP_CACHE/weights/DIGEST. It may be removed while no program reads it.

    Args:
        folder: of a store.
        version: another one means other files.
        names: of the files to copy.

    Raises:
        see `kept_file`.
    """
    key = hashlib.sha256(f"{folder} {version}".encode()).hexdigest()[:16]
    home = cache_folder() / "weights" / key
    home.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (home / name).is_file():
            with FileLock(home / "lock"):  # workers wait for the one that fetches it
                if not (home / name).is_file():
                    fetch(folder / name, home / "unfinished")
                    os.replace(home / "unfinished", home / name)
    return home
