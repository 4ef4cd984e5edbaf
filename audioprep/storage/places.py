"""A place is a local path or a URL of a store that fsspec knows (`s3://`, `gs://`, `hf://`, `https://` …).

Both have the methods of `pathlib`: what is written for one works on the other. A URL has no `fspath`, so that code
which needs a local file says so in its types.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from fsspec.registry import get_filesystem_class, known_implementations
from upath import UPath

from audioprep.errors import UsageError
from audioprep.storage.faults import is_lasting, to_os_error

T = TypeVar("T")
Place = Path | UPath

RETRIES = 6  # with the pauses below: half a minute, which is longer than most stores throttle
HTTP = ("http", "https")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http", "hf": "hub"}


def is_url(text: str) -> bool:
    """Whether `text` names a place that is not local: `scheme://…` of any scheme but `file`."""
    return bool(re.match(r"(?!file:)[a-z][a-z0-9+.-]+://", text, re.IGNORECASE))


def to_place(text: str | Place) -> Place:
    """The place that `text` names; `~` is the home folder.

    Raises:
        UsageError: no such kind of URL, or the package that it needs is not installed.
    """
    if isinstance(text, Path) or not is_url(str(text)):
        return Path(str(text).removeprefix("file://")).expanduser()
    scheme = str(text).partition("://")[0].lower()
    try:
        place = UPath(text, use_listings_cache=False)  # other processes write there too
        _ = place.fs
    except ImportError as error:
        raise _missing(str(text), scheme, error) from error
    except ValueError as error:
        raise UsageError(f"{text}: no store is known for {scheme}://: {error}") from error
    return place


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def name_of(url: str) -> str:
    """The path that the file's name and suffix are in: all of a URL, but of HTTP without `?…` and `#…`."""
    return urlsplit(url).path if scheme_of(url) in HTTP else url


def to_url(text: str) -> UPath:
    """The place that a URL names; see `to_place`. Made anew it works in a process that was forked, too."""
    place = to_place(text)
    assert isinstance(place, UPath)
    return place


@lru_cache
def require_store(scheme: str) -> None:
    """
    Raises:
        UsageError: nothing here reads `scheme://`.
    """
    if scheme not in known_implementations:
        raise UsageError(f"{scheme}://: no store is known for it. Known: s3, gs, hf, https, and what fsspec knows.")
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        raise _missing(f"{scheme}://", scheme, error) from error


def cache_folder() -> Path:
    """Where copies of what lies in stores are kept: $AUDIOPREP_CACHE, or `audioprep` in the user's cache folder."""
    if given := os.environ.get("AUDIOPREP_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "audioprep"


def retried(call: Callable[[], T]) -> T:
    """What `call` gives, asked again with growing pauses where a store is busy, slow or hangs up.

    Raises:
        OSError: at once where another try would not help (not found, no permission), otherwise after half a minute.
    """
    for attempt in range(1, RETRIES + 1):
        try:
            return call()
        except Exception as error:
            meant = to_os_error(error)
            if meant is None:
                raise
            if attempt == RETRIES or is_lasting(meant):
                raise meant from (None if meant is error else error)
            time.sleep(0.5 * 2 ** (attempt - 1))
    raise AssertionError


def _missing(url: str, scheme: str, error: ImportError) -> UsageError:
    extra = f'pip install "audioprep[{_EXTRAS[scheme]}]"' if scheme in _EXTRAS else "install it"
    return UsageError(f"{url}: needs a package that is not here: {error}. Remedy: {extra}.")
