"""The files that EMOPIA's trainer (`main_cp.py`) reads, and those of the trainers that came of it.

PREFIX_data.npz            x, y, mask, seq_len, num_groups; songs by descending length
DICTIONARY.pkl             (event2word, word2event); written, and never read
PREFIX_fn2idx_map.json     names of the songs
PREFIX_data_idx.npz        which songs are of which emotion

The pickle holds nothing but tuples, dicts, integers and texts.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audioprep.corpus.entry import uri_to_path
from audioprep.errors import UsageError
from audioprep.export.base import Destination
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import open_dataset
from audioprep.shards.tables import read_tables
from audioprep.storage.places import Place
from audioprep.symbolic.augment import Change
from audioprep.symbolic.vocabulary import Classes, full_vocabulary, mapping, published_vocabulary

LENGTH = 1024  # words of a row
GROUP = 512
_EMOTION = 7  # its class
_NEAREST = ("tempo", "velocity")  # classes whose values are numbers of a scale

Names = Literal["emopia", "train"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the export is to be.

    Attributes:
        names: `emopia`: as above; `train`: `train_data.npz train_dictionary.pkl train_idx.npz`, as emotune has them.
        prefix: of the files.
        column: of the words.
        split: which is exported. The vocabulary is that of all, so that the exports of several splits agree.
        vocabulary: `fitted`: what occurs, `published`, `full`; or a JSON file of an own one, `{class: [values]}`.
        changes: of the copies; the first is the song itself.
        limit: only the first so many items.
    """

    names: Names = "emopia"
    prefix: str = "emopia"
    column: str = "midi_tokens"
    split: str = "train"
    vocabulary: str = "fitted"
    changes: tuple[Change, ...] = (Change(),)
    limit: int | None = None

    @property
    def files(self) -> dict[str, str]:
        """Names of the files, by what is in them."""
        seed = self.names == "train"
        return {
            "data": f"{self.prefix}_data.npz",
            "dictionary": f"{self.prefix}_dictionary.pkl" if seed else "dictionary.pkl",
            "names": f"{self.prefix}_fn2idx_map.json",
            "classes": f"{self.prefix}_idx.npz" if seed else f"{self.prefix}_data_idx.npz",
        }


@dataclass
class Songs:
    """What is exported.

    Attributes:
        words: uint8 `[F, D]` of each song, ids in the full vocabulary, at most 1,022 of them and without the EOS that
            ends a whole song.
        names: of the songs.
        lengths: of the songs before they were cut, with their EOS.
        left_out: how many copies were not made, and why.
    """

    words: list[NDArray[np.uint8]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    truncated: int = 0
    left_out: Tally[str] = field(default_factory=Tally)


class EmopiaExport:
    """One split of a shard set as EMOPIA's files.

    Args:
        out: the shard set.
        dest: folder to write to.
        options: what the export is to be.

    Raises:
        UsageError: no such shard set, split, column or vocabulary, or other tokens than emopia-cp's.
    """

    def __init__(self, out: Place, dest: Path, options: Options) -> None:
        self._dataset = open_dataset(out)
        self._options = options
        spec = self._dataset.encoders.get(options.column)
        if spec is None or spec["name"] != "emopia-cp":
            raise UsageError(f"{out}: {options.column} is no column of emopia-cp; make it with `audioprep midi`")
        self._with_key = spec["num_codebooks"] == 9
        self._full = full_vocabulary(self._with_key)
        self._given = self._given_vocabulary()
        self.items = min(sum(shard["rows"] for shard in self._dataset.shards(options.split)), options.limit or 10**12)
        settings = {"format": "emopia", "out": str(out.resolve())} | _plain(options)
        self._destination = Destination(dest, settings, options.files.values(), re.compile(r"(?!)"))

    def refuse_other_settings(self) -> None:
        """
        Raises:
            UsageError: see `Destination.refuse_other_settings`.
        """
        self._destination.refuse_other_settings()

    def run(self, overwrite: bool, on_items: Callable[[int, int], None]) -> dict[str, Any]:
        """Writes the files.

        Raises:
            UsageError: the folder was made by something else or with other settings, or nothing can be exported.
            SystemFault: the disk is full or broken.
        """
        with self._destination.writing(overwrite):
            self._destination.reopen()
            vocabulary = self._given or self._fitted_vocabulary()
            to_wanted = _numbers_to_nearest(self._full, vocabulary)
            songs = self._songs(to_wanted, on_items)
            if not songs.words:
                raise UsageError(f"{self._dataset.folder}: no item of {self._options.split} fits into the vocabulary")
            order = sorted(range(len(songs.words)), key=lambda n: -_steps(songs.words[n]))
            self._write(songs, order, to_wanted, vocabulary)
        return {
            "songs": len(order),
            "truncated": songs.truncated,
            "left_out": dict(songs.left_out),
            "class_sizes": {name: len(values) for name, values in vocabulary.items()},
            "files": list(self._options.files.values()),
        }

    def _given_vocabulary(self) -> Classes | None:
        match self._options.vocabulary:
            case "fitted":
                return None
            case "full":
                return self._full
            case "published":
                return published_vocabulary(self._with_key)
            case path:
                return _read_vocabulary(Path(path), self._full)

    def _fitted_vocabulary(self) -> Classes:
        """What occurs, in any split, as upstream fits its dictionary."""
        seen = [np.zeros(len(values), bool) for values in self._full.values()]
        for _, words, of_split in self._items(None):
            for change in self._options.changes if of_split else (Change(),):
                for table, column, marks in zip(change.tables(self._with_key), words.T, seen, strict=True):
                    found = table[np.unique(column)]
                    marks[found[found >= 0]] = True
        return {
            name: tuple(value for value, is_seen in zip(values, marks, strict=True) if is_seen)
            for (name, values), marks in zip(self._full.items(), seen, strict=True)
        }

    def _items(self, split: str | None) -> Iterator[tuple[str, NDArray[np.uint8], bool]]:
        """Name and words of the items, and whether they are of the split that is exported."""
        for shard in self._dataset.shards(split):
            for table in read_tables(self._dataset, shard):
                uris = table.column("uri").to_pylist()
                for uri, words in zip(uris, to_arrays(table.column(self._options.column)), strict=True):
                    yield Path(uri_to_path(uri)).name.split(".")[0], words, shard["split"] == self._options.split

    def _songs(self, to_wanted: list[NDArray[np.int64]], on_items: Callable[[int, int], None]) -> Songs:
        songs, known = Songs(), Tally[str]()
        for done, (name, words, _) in enumerate(self._items(self._options.split), start=1):
            if done > self.items:
                break
            known[name] += 1
            name = name if known[name] == 1 else f"{name}_{known[name]}"
            for change in self._options.changes:
                moved = [table[column] for table, column in
                         zip(change.tables(self._with_key), words.T, strict=True)]  # fmt: skip
                if any((column < 0).any() for column in moved):
                    songs.left_out["moved out of the pitches"] += 1
                    continue
                if lacking := [class_name for class_name, table, column in zip(self._full, to_wanted, moved,
                               strict=True) if (table[column] < 0).any()]:  # fmt: skip
                    songs.left_out[f"{lacking[0]} not in the vocabulary"] += 1
                    continue
                songs.truncated += len(words) >= LENGTH - 2
                songs.words.append(np.stack(moved, axis=1).astype(np.uint8)[: LENGTH - 2])
                songs.names.append(name + change.suffix)
            on_items(done, self.items)
        return songs

    def _write(self, songs: Songs, order: list[int], to_wanted: list[NDArray[np.int64]], vocabulary: Classes) -> None:
        files, new = self._options.files, self._destination.new
        end = np.array([vocabulary[name].index("EOS") if name == "type" else vocabulary[name].index(0)
                        for name in vocabulary])  # fmt: skip

        def rows(first: int) -> Iterator[NDArray[np.int64]]:
            """Songs from their word `first` on, filled up with EOS: x from 0, and y from 1."""
            for number in order:
                words = songs.words[number]
                row = np.tile(end, (LENGTH, 1))
                part = words[first : first + _steps(words)]
                row[: len(part)] = np.stack([table[column] for table, column in
                                             zip(to_wanted, part.T, strict=True)], axis=1)  # fmt: skip
                yield row

        steps = np.array([_steps(songs.words[number]) for number in order])
        shape = (len(order), LENGTH)
        with new(files["data"]) as path, zipfile.ZipFile(path, "w", allowZip64=True) as archive:
            for name, first in (("x", 0), ("y", 1)):
                _write_rows(archive, name, (*shape, len(vocabulary)), np.dtype(np.int64), rows(first))
            masks = ((np.arange(LENGTH) < count).astype(np.float64) for count in steps)
            _write_rows(archive, "mask", shape, np.dtype(np.float64), masks)
            _write_rows(archive, "seq_len", steps.shape, steps.dtype, iter([steps]))
            groups = -(-steps // GROUP)
            _write_rows(archive, "num_groups", groups.shape, groups.dtype, iter([groups]))
        with new(files["dictionary"]) as path:
            path.write_bytes(pickle.dumps(dictionary(vocabulary), protocol=4))
        names = [songs.names[number] for number in order]
        with new(files["names"]) as path:
            numbers = {name: number for number, name in enumerate(names)}
            path.write_text(json.dumps({"fn2idx": numbers, "idx2fn": dict(enumerate(names))}, ensure_ascii=False))
        emotions = np.array([songs.words[number][0, _EMOTION] for number in order])
        classes: dict[str, Any] = {f"cls_{number}_idx": np.flatnonzero(emotions == number) for number in range(1, 5)}
        with new(files["classes"]) as path, path.open("wb") as file:
            np.savez(file, **classes)


def dictionary(vocabulary: Classes) -> tuple[dict[str, dict[Any, int]], dict[str, dict[int, Any]]]:
    """The pair that upstream pickles: ids by value, and values by id, of each class."""
    to_word = {name: {value: id_ for id_, value in enumerate(values)} for name, values in vocabulary.items()}
    to_event = {name: dict(enumerate(values)) for name, values in vocabulary.items()}
    return to_word, to_event


def _steps(words: NDArray[np.uint8]) -> int:
    """Words that have one after them: the length of x."""
    return len(words) - 1


def _numbers_to_nearest(full: Classes, wanted: Classes) -> list[NDArray[np.int64]]:
    """As `mapping`, but tempos and velocities that a vocabulary lacks become the nearest that it has."""
    tables = mapping(full, wanted)
    for (name, values), table in zip(full.items(), tables, strict=True):
        if name in _NEAREST:
            there = [value for value in wanted[name] if _number(value) is not None]
            for id_ in np.flatnonzero(table < 0):
                number = _number(values[id_])
                if number is not None and there:
                    best = min(there, key=lambda value, number=number: abs((_number(value) or 0) - number))
                    table[id_] = wanted[name].index(best)
    return tables


def _number(value: int | str) -> int | None:
    text = str(value).rpartition("_")[2]
    return int(text) if isinstance(value, str) and text.isdigit() else None


def _read_vocabulary(path: Path, full: Classes) -> Classes:
    """
    Raises:
        UsageError: it is no JSON object of lists with these classes, or lacks what every song has.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        classes = {name: tuple(found[name]) for name in full}
        if any(0 not in values for name, values in classes.items() if name != "type"):
            raise ValueError("a class without 0")
        if lacking := set(full["type"]) - set(classes["type"]):
            raise ValueError(f"no type {', '.join(map(str, lacking))}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--vocabulary {path}: {error!r}. It is fitted, published, full, or a JSON file with a list of values for "
            f"each of {', '.join(full)}"
        ) from error
    return classes


def _write_rows(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype, rows: Iterator[NDArray[Any]]
) -> None:
    """Writes an array of a .npz row by row: all of it at once would be some gigabytes."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(np.ascontiguousarray(row, dtype).tobytes())


def _plain(options: Options) -> dict[str, Any]:
    return {
        "names": options.names,
        "prefix": options.prefix,
        "column": options.column,
        "split": options.split,
        "vocabulary": options.vocabulary,
        "copies": [change.suffix for change in options.changes],
        "limit": options.limit,
    }
