"""A place is a local path or a URL of a store that fsspec knows (`s3://`, `gs://`, `hf://`, `https://` …).

Both have the methods of `pathlib`: what is written for one works on the other. A URL has no `fspath`, so that code
which needs a local file says so in its types.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from upath import UPath

from audioprep.errors import UsageError

T = TypeVar("T")
Place = Path | UPath

RETRIES = 6  # with the pauses below: half a minute, which is longer than most stores throttle
_LASTING = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests", "urllib3"}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http", "hf": "codecs"}


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
        extra = f'pip install "audioprep[{_EXTRAS[scheme]}]"' if scheme in _EXTRAS else "install it"
        raise UsageError(f"{text}: needs a package that is not here: {error}. Remedy: {extra}.") from error
    except ValueError as error:
        raise UsageError(f"{text}: no store is known for {scheme}://: {error}") from error
    return place


def retried(call: Callable[[], T]) -> T:
    """What `call` gives, asked again with growing pauses where a store is busy, slow or hangs up.

    Raises:
        OSError: at once where another try would not help (not found, no permission), otherwise after half a minute.
    """
    for attempt in range(1, RETRIES + 1):
        try:
            return call()
        except Exception as error:
            told = _as_os_error(error)
            if isinstance(told, _LASTING) or attempt == RETRIES:
                raise told from error
            time.sleep(0.5 * 2 ** (attempt - 1))
    raise AssertionError


def _as_os_error(error: Exception) -> OSError | EOFError:
    """An error of a store's library, which knows classes of its own; what is no error of a store is raised again."""
    if isinstance(error, OSError | EOFError):
        return error
    if type(error).__module__.partition(".")[0] not in _LIBRARIES:
        raise error
    if type(error).__name__ == "ParamValidationError":  # no bucket can be called so
        return FileNotFoundError(str(error))
    return PermissionError(str(error)) if "Credential" in type(error).__name__ else OSError(str(error))
