"""Which text files lie beside a recording in a store: told from listings, not by asking for each of them."""

from __future__ import annotations

import logging
import os
import posixpath
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from audioprep.storage.listing import S3, bucket_and_key, list_folder, pages
from audioprep.storage.places import HTTP, scheme_of

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = (".json", ".lyrics", ".txt")


@dataclass(frozen=True, slots=True)
class _Page:
    """The text files of a bucket among its keys behind `after`, up to `last` (None: to the folder's end)."""

    folder: str
    after: str
    last: str | None
    sizes: dict[str, int]


_pages: deque[_Page] = deque(maxlen=16)
_lock = threading.Lock()


def sizes_beside(stem: str) -> dict[str, int | None]:
    """The bytes of each text file whose URL is `stem` and a text's suffix, for those that there are.

    HTTP has no listings: all that there may be are given, without a size.

    Raises:
        OSError: the store does not answer.
    """
    wanted = [stem + suffix for suffix in TEXT_SUFFIXES]
    if scheme_of(stem) in HTTP:
        return dict.fromkeys(wanted)
    with _lock:  # who asks next is mostly told by the same page
        try:
            sizes = _page(stem, wanted).sizes if scheme_of(stem) in S3 else _folder(posixpath.dirname(stem))
        except PermissionError:
            _warn(posixpath.dirname(stem))
            return {}
    return {url: sizes[url] for url in wanted if url in sizes}


def _page(stem: str, wanted: Sequence[str]) -> _Page:
    """A page of the folder's keys on which all of `wanted` would be. Parts ask in the order of keys: few are needed."""
    folder = posixpath.dirname(stem) + "/"
    for page in _pages:
        if page.folder == folder and page.after < wanted[0] and (page.last is None or wanted[-1] <= page.last):
            return page
    bucket, prefix = bucket_and_key(folder)
    root = folder.removesuffix(prefix)
    sizes: dict[str, int] = {}
    last = stem
    for listed in pages(bucket, prefix, stem, after=bucket_and_key(stem)[1]):
        if listed:
            last = root + listed[-1]["Key"]
        urls = ((root + item["Key"], item["Size"]) for item in listed)
        sizes |= {url: size for url, size in urls if os.path.splitext(url)[1] in TEXT_SUFFIXES}
        if last >= wanted[-1]:
            break
    else:
        last = None
    page = _Page(folder, stem, last, sizes)
    _pages.append(page)
    return page


@lru_cache(maxsize=4)
def _folder(folder: str) -> dict[str, int]:
    return {
        found.url: found.size
        for found, is_folder in list_folder(folder)
        if not is_folder and os.path.splitext(found.url)[1] in TEXT_SUFFIXES
    }


@lru_cache(maxsize=256)
def _warn(folder: str) -> None:
    logger.warning("%s: may not be listed: text beside the recordings, if there is some, is not read", folder)
