"""Finds lyrics behind a list of sources: files of their own, and tables with a column of lyrics."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from audioprep.audio.formats import AUDIO_SUFFIXES
from audioprep.corpus.entry import LYRIC_SUFFIXES, Entry, path_to_uri
from audioprep.corpus.manifests import MANIFEST_SUFFIXES, read_lyric_table
from audioprep.corpus.scan import Finder, size_of
from audioprep.errors import UsageError


def _all_entries(sources: Iterable[str]) -> Iterator[Entry]:
    for source in sources:
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
            raise UsageError(
                f"{source}: is no file of lyrics ({', '.join(LYRIC_SUFFIXES)}) and no table with them "
                f"({', '.join(MANIFEST_SUFFIXES)})"
            )


def _walk(folder: str) -> Iterator[Entry]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        stems = {Path(name).stem for name in names if Path(name).suffix.lower() in (".lyrics", ".lrc", *AUDIO_SUFFIXES)}
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in LYRIC_SUFFIXES and (suffix != ".txt" or Path(name).stem not in stems):
                path = os.path.join(root, name)
                yield Entry(path_to_uri(path), size=size_of(path))


scan_lyrics = Finder("lyrics", _all_entries)
"""Lyrics: files of their own; folders with `.lyrics`, `.lrc` and `.txt` files (of recordings that lie there too, `.txt`
are the tags: they are left out); CSV, TSV, JSONL and Parquet tables with a column `lyrics`."""
