"""Finds lyrics behind a list of sources: files of their own, and tables with a column of lyrics."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from audioprep.audio.formats import AUDIO_SUFFIXES
from audioprep.corpus.entry import LYRIC_SUFFIXES, Entry, path_to_uri
from audioprep.corpus.manifests import MANIFEST_SUFFIXES, read_lyric_table, suffix_of
from audioprep.corpus.scan import Finder, size_of
from audioprep.errors import UsageError
from audioprep.storage.listing import look_up, walk_files
from audioprep.storage.places import is_url

_BESIDE = (".lyrics", ".lrc", *AUDIO_SUFFIXES)  # what a `.txt` of the same name is the tags of


def _all_entries(sources: Iterable[str]) -> Iterator[Entry]:
    for source in sources:
        if is_url(source):
            yield from _of_store(source)
            continue
        path = os.path.abspath(os.path.expanduser(source))
        if not os.path.lexists(path):
            raise UsageError(f"{source}: no such file or folder")
        if os.path.isdir(path):
            yield from _walk(path)
        elif path.lower().endswith(MANIFEST_SUFFIXES):
            yield from read_lyric_table(path)
        elif path.lower().endswith(LYRIC_SUFFIXES):
            yield Entry(path_to_uri(path), size=size_of(path))
        else:
            raise _no_lyrics(source)


def _of_store(url: str) -> Iterator[Entry]:
    if suffix_of(url) in MANIFEST_SUFFIXES:
        yield from read_lyric_table(url)
    elif found := look_up(url):
        if suffix_of(url) not in LYRIC_SUFFIXES:
            raise _no_lyrics(url)
        yield Entry(found.url, size=found.size)
    else:
        yield from _walk_store(url)


def _walk_store(folder: str) -> Iterator[Entry]:
    """The names of a large folder do not fit into memory, to tell tags from lyrics: what may be tags waits on disk."""
    with tempfile.TemporaryFile("w+", prefix="audioprep-", encoding="utf-8") as waiting:
        recordings = set[bytes]()
        for found in walk_files(folder):
            suffix = suffix_of(found.url)
            if suffix == ".txt":
                waiting.write(json.dumps(found) + "\n")
            elif suffix in LYRIC_SUFFIXES:
                yield Entry(found.url, size=found.size)
            if suffix in _BESIDE:
                recordings.add(_stem(found.url))
        waiting.seek(0)
        for url, size in map(json.loads, waiting):
            if _stem(url) not in recordings:
                yield Entry(url, size=size)


def _stem(url: str) -> bytes:
    return hashlib.blake2b(os.path.splitext(url)[0].encode(), digest_size=8).digest()


def _no_lyrics(source: str) -> UsageError:
    return UsageError(
        f"{source}: is no file of lyrics ({', '.join(LYRIC_SUFFIXES)}) and no table with them "
        f"({', '.join(MANIFEST_SUFFIXES)})"
    )


def _walk(folder: str) -> Iterator[Entry]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        stems = {Path(name).stem for name in names if Path(name).suffix.lower() in _BESIDE}
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in LYRIC_SUFFIXES and (suffix != ".txt" or Path(name).stem not in stems):
                path = os.path.join(root, name)
                yield Entry(path_to_uri(path), size=size_of(path))


scan_lyrics = Finder("lyrics", _all_entries)
"""Lyrics: files of their own; folders with `.lyrics`, `.lrc` and `.txt` files (of recordings that lie there too, `.txt`
are the tags: they are left out); CSV, TSV, JSONL and Parquet tables with a column `lyrics`."""
