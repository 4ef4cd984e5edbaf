"""The tables of a data set for HeartMuLa, read as SimpleTuner's two metadata backends read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.export.simpletuner_songs import Song

# What it takes for audio.
AUDIO = (
    ".wav", ".wave", ".flac", ".mp3", ".mp4a", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aiff", ".aif",
    ".aifc", ".alac", ".mp4", ".mpeg", ".mpg", ".mkv", ".webm",
)  # fmt: skip
AUDIO_ONLY = (
    "holds audio, so that `datasets` reads no table but metadata.jsonl or data/train-*.parquet; name yours so, or take "
    "the audio away"
)
_SECONDS = ("audio_duration", "duration", "duration_seconds")
_TAGS = ("tags", "prompt")

Row = dict[str, Any]


class Table:
    """A data set of `datasets`: an entry of type `huggingface`.

    Args:
        entry: of `multidatabackend.json`.
        folder: in which it lies, which is looked at where the entry names a repository of the Hub.

    Attributes:
        unread: when all rows are read, what is wrong with the table: a file or a row, and what.
    """

    def __init__(self, entry: dict[str, Any], folder: Path) -> None:
        self.unread: list[tuple[str, str]] = []
        self._entry = entry
        self._block: dict[str, Any] = entry.get("huggingface") or {}
        self._name = entry.get("dataset_name") or self._block.get("dataset_name") or ""
        here = os.path.isabs(self._name) or Path(self._name).exists()
        self._folder = Path(self._name) if here else folder

    def wrong(self) -> Iterator[str]:
        """What is wrong with the entry."""
        for name in ("metadata_backend", "caption_strategy"):
            if self._entry.get(name, "huggingface") != "huggingface":
                yield f"its {name} is {self._entry.get(name)}, and only huggingface reads tags and tokens; set it"
        if "config" in self._entry:
            yield "its block `config` is ignored; write it under `huggingface`, or name the columns tags and lyrics"
        if self._entry.get("streaming") or self._block.get("streaming"):
            yield "it is streamed, and streams have no buckets; take that out"
        if not self._name:
            yield "it has no dataset_name; give the folder, or the repository of the Hub"
        elif not self._folder.is_dir():
            yield f"its dataset_name {self._name} is not there. Was it moved? Export again, or mend the path"

    def songs(self) -> Iterator[Song]:
        """The rows, in the order in which SimpleTuner numbers them."""
        number = 0
        for path in self._files() if self._name else []:
            columns: set[str] = set()
            for row in read_rows(path, self.unread):
                columns.update(row)
                yield self._song(row, number)
                number += 1
            if not columns.intersection(_TAGS):
                self.unread.append((path.name, f"has no column tags, but {_listed(columns)}; name the style so"))
            if not columns.intersection(lyrics := self._lyrics_columns()):
                self.unread.append(
                    (path.name, f"has no column {lyrics[0]}, but {_listed(columns)}; name the lyrics so")
                )
        if not number:
            self.unread.append((str(self._folder), "has no table with rows (.parquet, .jsonl); export again"))

    def _song(self, row: Row, number: int) -> Song:
        lyrics = [row[name] for name in self._lyrics_columns() if row.get(name) is not None]
        return Song(
            name=f"row {number}" + (f" ({row['id']})" if row.get("id") else ""),
            key=f"{number}.wav",
            tags=next((row[name] for name in _TAGS if row.get(name)), None),
            lyrics=lyrics[0] if lyrics else None,
            tokens=row.get("audio_tokens"),
            path=row.get("audio_tokens_path"),
            seconds=next((row[name] for name in _SECONDS if row.get(name)), None),
        )

    def _lyrics_columns(self) -> list[str]:
        return list(dict.fromkeys(["lyrics", self._block.get("lyrics_column", "lyrics"), "norm_lyrics"]))

    def _files(self) -> list[Path]:
        """What `datasets` would read of the split: the files named for it; beside audio `metadata.*`; else all."""
        split = self._entry.get("split") or "train"
        if named := self._found(f"data/{split}-*.parquet"):
            return named
        if any(path.suffix.lower() in AUDIO for path in self._folder.rglob("*")):
            if not (described := self._found("metadata.jsonl") or self._found("metadata.parquet")):
                self.unread.append((str(self._folder), AUDIO_ONLY))
            return described
        return self._found("**/*.parquet") or self._found("**/*.jsonl")

    def _found(self, pattern: str) -> list[Path]:
        return sorted(path for path in self._folder.glob(pattern) if ".audioprep" not in path.parts)


class Index:
    """An index of local files: an entry of type `local`.

    Args:
        entry: of `multidatabackend.json`.

    Attributes:
        unread: when all rows are read, what is wrong with the table: a file or a row, and what.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        self.unread: list[tuple[str, str]] = []
        self._entry = entry
        self._block: dict[str, Any] = entry.get("parquet") or {}
        self._path = Path(self._block.get("path") or "")
        self._root = entry.get("instance_data_dir") or ""
        self._inexact = not self._block.get("identifier_includes_extension")

    def wrong(self) -> Iterator[str]:
        """What is wrong with the entry."""
        backend = self._entry.get("metadata_backend") or "discovery"
        if backend != "parquet":
            yield f"its metadata_backend is {backend}, which reads no tags and no tokens; use an index (parquet)"
            return
        if self._entry.get("caption_strategy", "parquet") != "parquet":
            yield "its caption_strategy is not parquet, so that it looks for a text file of each row; set it"
        for name in ("path", "filename_column", "caption_column", "lyrics_column"):
            if not self._block.get(name):
                yield f"its block `parquet` has no {name}; add it"
        if self._block.get("path") and not self._path.is_file():
            yield f"its index {self._path} is not there. Was it moved? Export again, or mend the path"
        if not self._root:
            yield "it has no instance_data_dir, in which it looks for audio files; add it"
        elif not os.path.isabs(self._root):
            yield "its instance_data_dir is relative, so that no file is found in the index; make it absolute"

    def songs(self) -> Iterator[Song]:
        """The rows."""
        if self._entry.get("metadata_backend") != "parquet" or not self._path.is_file():
            return
        files = self._audio_files()
        columns: set[str] = set()
        seen: set[str] = set()
        for row in read_rows(self._path, self.unread):
            columns.update(row)
            filename = str(row.get(self._block.get("filename_column", "")) or f"row {len(seen)}")
            if filename in seen:
                self.unread.append((filename, "is in the index twice, of which the first is read; remove the second"))
            if filename not in files:
                self.unread.append(
                    (filename, "has no audio file under instance_data_dir, so that it is left out; add one")
                )
            if self._path.suffix == ".parquet" and row.get("audio_tokens") is not None:
                self.unread.append(
                    (
                        filename,
                        "has its tokens in a local .parquet, from which they are not read; use audio_tokens_path",
                    )
                )
            seen.add(filename)
            yield self._song(row, filename, files.get(filename, ""))
        for name in ("filename_column", "caption_column", "lyrics_column"):
            if (column := self._block.get(name)) and column not in columns:
                what = (
                    f"has no column {column}, which the entry has as {name}, but {_listed(columns)}; mend one of them"
                )
                self.unread.append((self._path.name, what))
        if not seen:
            self.unread.append((self._path.name, "has no rows; export again"))

    def _song(self, row: Row, filename: str, path: str) -> Song:
        def value(column: str) -> Any:
            return row.get(self._block.get(column) or "")

        seconds = next(
            (found for found in (value("audio_duration_column"), *map(row.get, _SECONDS[1:])) if found), None
        )
        samples, rate = value("audio_num_samples_column"), value("audio_sample_rate_column")
        return Song(
            name=filename,
            key=path,
            tags=value("caption_column"),
            lyrics=value("lyrics_column"),
            tokens=row.get("audio_tokens"),
            path=row.get("audio_tokens_path"),
            seconds=seconds or (samples / rate if samples and rate else None),
        )

    def _audio_files(self) -> dict[str, str]:
        """The audio files, by what an index calls them."""
        found: dict[str, str] = {}
        for parent, _, names in os.walk(self._root, followlinks=True):
            for name in names:
                if name.lower().endswith(AUDIO):
                    path = os.path.abspath(os.path.join(parent, name))
                    inside = os.path.relpath(path, self._root)
                    found[os.path.splitext(name)[0] if self._inexact else inside] = path
        return found


def read_rows(path: Path, unread: list[tuple[str, str]]) -> Iterator[Row]:
    """The rows of a table, as far as they can be read; `unread` then gets what stands in the way.

    Args:
        path: `.parquet`, `.jsonl` or `.json`.
        unread: files, and what is wrong with them.
    """
    try:
        for row in _any_rows(path):
            if not isinstance(row, dict):
                raise ValueError("one of its rows is no JSON object")
            yield row
    except (OSError, ValueError, pa.ArrowException) as error:
        unread.append((path.name, f"cannot be read to its end: {error}; write it again"))


def _any_rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(16):
                yield from batch.to_pylist()
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    else:
        yield from json.loads(path.read_text(encoding="utf-8"))


def _listed(columns: set[str]) -> str:
    return ", ".join(sorted(columns)) or "none"
