"""What SimpleTuner would stumble over, or spoil in silence, in a data set for HeartMuLa."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from audioprep.engine.commit import read_json
from audioprep.export.heartmula import PromptLength
from audioprep.export.simpletuner_config import BACKEND, CONFIG, DEFAULT_INTERVAL, DETAILS, small_buckets
from audioprep.export.simpletuner_songs import Song, texts_wrong, tokens_wrong
from audioprep.export.simpletuner_tables import Index, Table

_NAMED = 50  # rows that one problem names


def check(
    folder: Path,
    *,
    tokenizer: Path | None = None,
    batch_size: int | None = None,
    on_rows: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Reads all data sets of a `multidatabackend.json` as SimpleTuner would, and says what is wrong with them.

    Args:
        folder: with the `multidatabackend.json`, made by an export or by hand.
        tokenizer: HeartMuLa's, to count prompts with; None for an upper bound.
        batch_size: rows of a step; None for what `config.json` says.
        on_rows: called with the number of rows checked.

    Returns:
        The problems, each with the rows that have it and its remedy; none where all is well.

    Raises:
        UsageError: the tokenizer cannot be read.
    """
    problems = _Problems()
    prompt_length = PromptLength(tokenizer)
    done = 0
    for entry in _entries(folder, problems):
        data_set = _DataSet(folder, entry, problems)
        seconds: list[float | None] = []
        for song in data_set.songs():
            data_set.check_song(song, prompt_length)
            seconds.append(song.seconds)
            done += 1
            on_rows(done)
        data_set.check_buckets(seconds, batch_size or _batch_size(folder, entry))
    if (folder / ".audioprep" / "export.json").is_file() and not (folder / DETAILS).is_file():
        problems.add(str(folder), "the export is not finished; run the same command again, to its end")
    return problems.listed()


class _Problems:
    """What is wrong, and with which rows or entries."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, what: str) -> None:
        self._names.setdefault(what, []).append(name)

    def listed(self) -> list[str]:
        return [f"{self._enumerated(names)}: {what}" for what, names in self._names.items()]

    @staticmethod
    def _enumerated(names: list[str]) -> str:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more


def _entries(folder: Path, problems: _Problems) -> list[dict[str, Any]]:
    """The entries that are trained on."""
    try:
        entries = json.loads((folder / BACKEND).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.add(str(folder / BACKEND), "is not there, or is no JSON list of data sets; export again")
        return []
    entries = [entry for entry in entries if not (entry.get("disabled") or entry.get("disable"))]
    for id_, count in Counter(entry.get("id") for entry in entries).items():
        if not id_ or count > 1:
            problems.add(BACKEND, f"{count} entries have the id {id_ or '(none)'}; each needs one of its own")
    for entry in entries:
        if entry.get("dataset_type", "image") == "image":
            problems.add(str(entry.get("id")), "its dataset_type is not audio, so it looks for images; set it")
    songs = [entry for entry in entries if entry.get("dataset_type", "image") in ("audio", "image")]
    if not songs:
        problems.add(BACKEND, "has no entry of dataset_type audio; export again")
    return songs


def _batch_size(folder: Path, entry: dict[str, Any]) -> int:
    """Rows of a step on one GPU."""
    config = read_json(folder / CONFIG) or {}
    own = entry.get("train_batch_size") or config.get("train_batch_size") or 1
    return int(own) * int(config.get("gradient_accumulation_steps") or 1)


class _DataSet:
    """One entry of `multidatabackend.json`, and the rows that SimpleTuner would find."""

    def __init__(self, folder: Path, entry: dict[str, Any], problems: _Problems) -> None:
        self._folder = folder
        self._entry = entry
        self._problems = problems
        self._id = str(entry.get("id"))
        self._kind = entry.get("type", "local")
        self._root: str | None = entry.get("instance_data_dir") or None
        self._kept = self._kept_rows()

    def songs(self) -> Iterator[Song]:
        """The rows; what is wrong with the entry and its table is told on the way."""
        if self._root and not Path(self._root).is_dir():
            self._add(f"its instance_data_dir {self._root} is not there. Was it moved? Export again, or mend the path")
        if self._kind not in ("local", "huggingface"):
            self._add(f"its type is {self._kind}, which carries no tokens; use huggingface, or local with an index")
            return
        table = Index(self._entry) if self._kind == "local" else Table(self._entry, self._folder)
        for what in table.wrong():
            self._add(what)
        yield from table.songs()
        for name, what in table.unread:
            self._problems.add(name, what)

    def check_song(self, song: Song, prompt_length: PromptLength) -> None:
        """Checks one row."""
        local = self._kind == "local"
        for what in (*texts_wrong(song, local=local), *tokens_wrong(song, self._root, prompt_length)):
            self._problems.add(song.name, what)
        kept = self._kept.get(song.key)
        if kept and kept != (song.tags, song.lyrics, song.path, song.tokens):
            self._problems.add(
                song.name,
                f"is otherwise in what SimpleTuner has kept under the id {self._id} and never reads again; give the "
                "entry another id, or remove its aspect_ratio_bucket_* files",
            )

    def check_buckets(self, seconds: list[float | None], batch_size: int) -> None:
        """Checks that every bucket has enough rows for a step."""
        interval = (self._entry.get("audio") or {}).get("duration_interval") or DEFAULT_INTERVAL
        repeated = seconds * (int(self._entry.get("repeats") or 0) + 1)
        for bucket, rows in small_buckets(repeated, interval, batch_size).items():
            which = "without a duration" if bucket < 0 else f"of {bucket:g} s"
            self._add(
                f"the bucket of rows {which} has {rows}, and a step takes {batch_size}: training does not start; "
                "export again with --batch-size, or change audio.duration_interval"
            )

    def _kept_rows(self) -> dict[str, tuple[Any, ...]]:
        """Tags, lyrics, token file and inline tokens of each row that earlier runs of SimpleTuner have kept."""
        config = read_json(self._folder / CONFIG) or {}
        cache = Path(config.get("cache_dir") or Path(config.get("output_dir") or "", "cache"), "huggingface", self._id)
        rows: dict[str, dict[str, Any]] = {}
        for root in (self._root, cache / "huggingface_metadata" / self._id):
            if root:
                rows |= read_json(Path(root, f"aspect_ratio_bucket_metadata_{self._id}.json")) or {}
        names = ("lyrics", "audio_tokens_path", "audio_tokens")
        return {key: (row.get("tags") or row.get("prompt"), *map(row.get, names)) for key, row in rows.items()}

    def _add(self, what: str) -> None:
        self._problems.add(self._id, what)
