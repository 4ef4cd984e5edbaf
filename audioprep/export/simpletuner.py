"""HeartCodec tokens as SimpleTuner reads them, to train HeartMuLa.

`folder` (tokens in files of their own) and `inline` (tokens in the Parquet file) are data sets of `datasets`, `jsonl`
is SimpleTuner's index of local files. What it expects was read from SimpleTuner 4.10.1 and tried with it
(`helpers/metadata/backends/{huggingface,parquet}.py`, `helpers/models/heartmula/model.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow.parquet as pq

from audioprep.corpus.exclusions import Exclusions
from audioprep.encoders.base import EncoderSpec
from audioprep.engine.commit import digest, read_json, sha256_of
from audioprep.errors import UsageError, nearest
from audioprep.export.base import Destination
from audioprep.export.heartmula import CODEBOOK_SIZE, CODEBOOKS, FRAME_RATE, PromptLength
from audioprep.export.simpletuner_config import (
    BACKEND,
    CONFIG,
    DATA,
    DETAILS,
    INDEX,
    LayoutName,
    backend,
    choose_interval,
    trainer_config,
)
from audioprep.export.simpletuner_part import ROWS, Counts, Part, TokenFormat, schema_of
from audioprep.export.simpletuner_rows import Cutting, Rows
from audioprep.export.source import ShardItems, Source
from audioprep.shards.columns import is_array, type_named
from audioprep.shards.dataset import Dataset
from audioprep.storage.places import Place

LEFT_OUT = "left_out.jsonl"
# What is made from one shard: its token files, placeholders of audio files, and its part of the table.
_MADE = re.compile(r"(tokens|audio)/\w+-\d{5,}/[^/]+\.(npy|pt|wav)|\.audioprep/parts/[^/]+")


@dataclass(frozen=True, slots=True)
class Options:
    """What is exported, and how.

    Attributes:
        layout: `folder`, `inline` or `jsonl`.
        cutting: what becomes of long songs.
        column: the tokens.
        split: of the shard set.
        token_format: of the token files: `npy` (int16), or `pt` (a LongTensor, as its loader of MiniMax wants it).
        tags_column: what the model is conditioned on.
        lyrics_column: what is sung; songs without are instrumentals.
        normalize: make texts what HeartMuLa knows (`audioprep.text.heartmula`).
        tokenizer: HeartMuLa's, to count prompts with; None for an upper bound.
        batch_size: rows of a step: of a batch, times the GPUs, times the steps of gradient accumulation.
        name: the data set's id begins with it; None for the folder's name.
        location: the absolute path at which the trainer finds the folder; None for where it is.
        hub: the repository that `inline` will be uploaded to, for the trainer to read it from there.
        exclusions: inputs to leave out.
        limit: only the first so many items.
    """

    layout: LayoutName = "folder"
    cutting: Cutting = field(default_factory=Cutting)
    column: str = "audio_tokens"
    split: str = "train"
    token_format: TokenFormat = "npy"
    tags_column: str = "tags"
    lyrics_column: str = "lyrics"
    normalize: bool = True
    tokenizer: Path | None = None
    batch_size: int = 1
    name: str | None = None
    location: str | None = None
    hub: str | None = None
    exclusions: Exclusions = field(default_factory=Exclusions)
    limit: int | None = None


class SimpleTunerExport:
    """The export of one split of a shard set.

    Args:
        out: the shard set.
        folder: of the export.
        options: what is exported, and how.

    Raises:
        UsageError: no such shard set, split or column, tokens that HeartMuLa does not read, or options that do not go
            together.
    """

    def __init__(self, out: Place, folder: Path, options: Options) -> None:
        self.folder = folder.resolve()
        self._options = options
        self._location = (options.location or str(self.folder)).rstrip("/")
        if not self._location.startswith("/"):
            raise UsageError(f"--location {options.location}: give an absolute path; others hold in one folder only")
        if options.hub and options.layout != "inline":
            raise UsageError(f"--hub: goes with --layout inline, and not with {options.layout}, whose tokens are files")
        self._source = Source(out, options.split, options.limit)
        self._encoder = _encoder(self._source.dataset, options.column)
        self._columns = _columns(self._source.dataset, options)
        self._rows = Rows(options.cutting, PromptLength(options.tokenizer), options.normalize)
        extras = (DATA, INDEX, BACKEND, CONFIG, DETAILS, LEFT_OUT)
        self._destination = Destination(self.folder, self._settings(out), extras, _MADE)

    @property
    def items(self) -> int:
        """Items that are looked at."""
        return self._source.items

    def refuse_other_settings(self) -> None:
        """See `Destination.refuse_other_settings`."""
        self._destination.refuse_other_settings()

    def run(self, overwrite: bool, on_items: Callable[[int, int], None]) -> dict[str, Any]:
        """Exports what is not yet exported, and gives what `details.json` says.

        Args:
            overwrite: start anew where something else was exported.
            on_items: called with the number of items done and of all items.

        Raises:
            UsageError: the folder is another's, or too few rows for one step are left.
            SystemFault: the disk is full or broken; the same call goes on later.
        """
        with self._destination.writing(overwrite):
            return self._finish([self._shard(shard) for shard in self._source.shards(self._columns, on_items)])

    def _shard(self, shard: ShardItems) -> dict[str, Any]:
        """Writes the rows of a shard, where that is not done, and gives its record."""
        record = self._destination.record(shard.name, shard.digest)
        if record:
            return record
        self._destination.reopen()
        options = self._options
        part = Part(shard.name, options.layout, options.token_format, self._destination)
        with part.writing():
            for item in shard.items:
                part.counts.items += 1
                if options.exclusions.match(item["uri"]):
                    part.counts.excluded += 1
                    continue
                tags, lyrics = (item.get(column) or "" for column in (options.tags_column, options.lyrics_column))
                part.add(item, self._rows.of(tags, lyrics, item[options.column], item["duration"]))
        found = asdict(part.counts) | {"content": part.content.hexdigest()}
        return self._destination.commit(shard.name, shard.digest, part.files, found)

    def _settings(self, out: Place) -> dict[str, Any]:
        """All that decides what is made from a shard; the rest is in files that every run writes."""
        options = self._options
        return {
            "format": "simpletuner",
            "version": 1,
            "source": str(out.resolve()),
            "encoder": self._encoder,
            "cutting": asdict(options.cutting),
            "tokenizer": sha256_of(options.tokenizer) if options.tokenizer else None,
            "exclude": digest(sorted(options.exclusions.entries)) if options.exclusions.entries else None,
            "roots": " ".join(options.exclusions.roots),
        } | {
            name: getattr(options, name)
            for name in ("layout", "split", "column", "token_format", "tags_column", "lyrics_column", "normalize")
        }

    def _finish(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes what describes the whole."""
        options, destination = self._options, self._destination
        counts = Counts()
        contents = [record["counts"].pop("content") for record in records]
        for record in records:
            counts.add(Counts(**record["counts"]))
        self._refuse_too_few(counts)
        files = [name for record in records for name in record["files"]]
        parts = [self.folder / name for name in files if name.endswith(".parquet")]
        durations = [pq.read_table(part, columns=["duration"])["duration"].to_pylist() for part in parts]
        interval = choose_interval([seconds for part in durations for seconds in part], options.batch_size)
        entry = backend(options.layout, options.hub or self._location, interval)
        # SimpleTuner never looks again at what it once read under an id, so that another content needs another id.
        name = re.sub(r"[^\w-]+", "-", options.name or self.folder.name)
        entry = {"id": f"{name}-{digest([entry, contents])[:12]}"} | entry
        details = {
            "format": "simpletuner",
            "layout": options.layout,
            "id": entry["id"],
            "hours": counts.frames / FRAME_RATE / 3600,
            **asdict(counts),
            "batch_size": options.batch_size,
            "bucket_seconds": interval,
            "train_with": f"simpletuner train env={quote(f'{self._location}/{CONFIG}')}",
            "cutting": asdict(options.cutting),
            "encoder": self._encoder,
        }
        if read_json(self.folder / DETAILS) != details:
            destination.reopen()
            destination.remove_others(files)
        write = self._write_index if options.layout == "jsonl" else self._write_table
        write(parts, timed=interval is not None)
        left_out = [self.folder / name for name in files if name.endswith(".jsonl")]
        destination.put(LEFT_OUT, b"".join(path.read_bytes() for path in left_out))
        self._put_json(BACKEND, [entry])
        self._put_json(CONFIG, trainer_config(self._location, options.batch_size))
        self._put_json(DETAILS, details)
        return details

    def _refuse_too_few(self, counts: Counts) -> None:
        if counts.rows >= self._options.batch_size:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.left_out.items()) or "none"
        raise UsageError(
            f"{self.folder}: of {counts.items} items {counts.rows} rows are left, and a step takes "
            f"{self._options.batch_size}. Left out: {reasons}; excluded: {counts.excluded}. Mend the texts, or try "
            "another --long, --exclude, or a smaller --batch-size."
        )

    def _write_table(self, parts: list[Path], timed: bool) -> None:
        """One Parquet file of all parts; without durations, all rows are one bucket."""
        schema = schema_of(self._options.layout)
        columns = [name for name in schema.names if timed or name != "duration"]
        with self._destination.new(DATA) as path, ExitStack() as stack:
            writer = stack.enter_context(pq.ParquetWriter(path, schema.empty_table().select(columns).schema))
            for part in parts:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches(ROWS, columns=columns):
                        writer.write_batch(batch.select(columns))

    def _write_index(self, parts: list[Path], timed: bool) -> None:
        """The index of local files, with all for which SimpleTuner would otherwise open them."""
        with self._destination.new(INDEX) as path, path.open("w", encoding="ascii") as file:
            for part in parts:
                for row in pq.read_table(part).to_pylist():
                    stem = row["audio_tokens_path"].removeprefix("tokens/").rpartition(".")[0]
                    row |= {"filename": f"audio/{stem}.wav", "sample_rate": 48000, "num_samples": 0, "channels": 2}
                    row["lyrics"] = row["lyrics"] or " "  # an empty text counts as none; this one is stripped later
                    if not timed:
                        del row["duration"]
                    file.write(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")

    def _put_json(self, name: str, value: Any) -> None:
        self._destination.put(name, (json.dumps(value, indent=2) + "\n").encode("ascii"))


def _encoder(dataset: Dataset, column: str) -> dict[str, Any] | None:
    """The entry in `dataset.json` of the encoder that made a column; None for tokens that were imported without.

    Raises:
        UsageError: there is no such column, or it holds no tokens that HeartMuLa reads.
    """
    arrays = [name for name, kind in dataset.columns.items() if is_array(type_named(kind))]
    if column not in arrays:
        there = f"There are: {', '.join(arrays)}." if arrays else "Add one: `audioprep tokenize --codec heartcodec …`."
        raise UsageError(f"{dataset.folder}: has no tokens in a column {column}.{nearest(column, arrays)} {there}")
    width = type_named(dataset.columns[column]).value_type.list_size
    encoder = dataset.encoders.get(column)
    spec = EncoderSpec.from_dict(encoder) if encoder else None
    found = (width, spec.codebook_size, spec.frame_rate) if spec else (width, CODEBOOK_SIZE, FRAME_RATE)
    if found != (CODEBOOKS, CODEBOOK_SIZE, FRAME_RATE):
        raise UsageError(
            f"{dataset.folder}: {column} has {found[0]} codebooks of {found[1]} and {found[2]:g} frames a second; "
            f"HeartMuLa reads {CODEBOOKS} of {CODEBOOK_SIZE} and {FRAME_RATE:g}. Use `tokenize --codec heartcodec`."
        )
    return encoder


def _columns(dataset: Dataset, options: Options) -> list[str]:
    """The columns that are read.

    Raises:
        UsageError: a column of texts is named that is not there.
    """
    texts = [name for name, kind in dataset.columns.items() if kind == "string"]
    for name, default in ((options.tags_column, None), (options.lyrics_column, "lyrics")):
        if name not in texts and name != default:
            there = f"{nearest(name, texts)} There are: {', '.join(texts)}."
            raise UsageError(f"{dataset.folder}: has no text in a column {name}.{there}")
    wanted = ("id", "uri", "duration", "license", "source", options.tags_column, options.lyrics_column, options.column)
    return [name for name in dict.fromkeys(wanted) if name in dataset.columns]
