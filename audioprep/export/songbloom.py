"""Lyrics, prompts, sketch tokens and latents as the Japanese fork of SongBloom trains on.

`SPLIT.jsonl` has a song a line: `idx`, `audio_path`, `lyrics`, `prompt_wav`, `sketch_path`. Prompts are wav of 48 kHz
stereo. `cache/IDX.pt` is what the fork would compute and keep itself: with `--use-cache --cache-dir DEST/cache` it
encodes nothing. Read from the fork's `docs/training_data_format.md`, `training/dataset.py` and `training/sketch.py`,
as of January 2026.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from audioprep.audio import open_audio
from audioprep.corpus.content import local_file
from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.encoders.base import EncoderSpec
from audioprep.errors import InputError, UsageError, nearest
from audioprep.export.base import Destination
from audioprep.export.songbloom_align import BLOCK, FRAME_RATE, Policy, aligned_frames, fitted
from audioprep.export.songbloom_files import PROMPT_RATE, SketchFormat, cache_bytes, sketch_bytes, wav_bytes
from audioprep.export.source import Item, ShardItems, Source
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.storage.places import Place
from audioprep.text.song_structure import song_structure
from audioprep.text.songbloom import write

DETAILS, LEFT_OUT = "details.json", "left_out.jsonl"
_MADE = re.compile(r"(sketch|prompts|cache|parts)/\w+-\d{5,}[^/]*\.(npy|pt|wav|jsonl)|\w+\.jsonl")


@dataclass(frozen=True, slots=True)
class Options:
    """What is exported, and how.

    Attributes:
        codes: of the model: sketch tokens are 0 … codes - 1.
        sketch: the column of sketch tokens.
        latents: the column of latents; None: no cache, and lengths are those of the audio.
        lyrics: the column of lyrics. One that `g2p --layout songbloom` wrote is taken as it is.
        seconds_per_tag: of tags without singing.
        infer_sections: guess sections that nothing in the lyrics says.
        align: what is done where sketch and latents differ in length.
        block: frames; lengths are multiples of it.
        max_seconds: that the model makes at most.
        prompt_seconds: of the prompts; None for what the item says, else 10.
        prompt_start: seconds into the song.
        sketch_format: of the files.
        require_length_match: stop before anything is written where lengths differ.
        location: the folder where the trainer finds the export; None where it is written.
    """

    codes: int = 129
    sketch: str = "sketch_tokens"
    latents: str | None = None
    lyrics: str = "lyrics"
    seconds_per_tag: int = 1
    infer_sections: bool = False
    align: Policy = "trim"
    block: int = BLOCK
    max_seconds: float = 150.0
    prompt_seconds: float | None = None
    prompt_start: float = 0.0
    sketch_format: SketchFormat = "npy"
    require_length_match: bool = False
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Lengths:
    """How the lengths of sketches and latents agree, before they are aligned."""

    checked: int
    different: int
    largest_difference: int
    worst: str


class SongBloomExport:
    """The export of all splits of a shard set.

    Args:
        out: the shard set.
        folder: of the export.
        options: what is exported, and how.

    Raises:
        UsageError: no such shard set or column; or sketch and latents have other rates.
    """

    def __init__(self, out: Place, folder: Path, options: Options) -> None:
        self.folder = folder.resolve()
        self._location = Path(options.location or self.folder)  # where the trainer finds it
        self._options = options
        self._dataset = open_dataset(out)
        self._splits = list(dict.fromkeys(shard["split"] for shard in self._dataset.shards()))
        self._sources = {split: Source(out, split, None) for split in self._splits}
        self._check_columns()
        extras = (DETAILS, LEFT_OUT, *(f"{split}.jsonl" for split in self._splits))
        self._destination = Destination(self.folder, self._settings(out), extras, _MADE)

    @property
    def items(self) -> int:
        return sum(source.items for source in self._sources.values())

    def refuse_other_settings(self) -> None:
        """See `Destination.refuse_other_settings`."""
        self._destination.refuse_other_settings()

    def check(self, most: int | None = None) -> Lengths:
        """Reads all codes, and compares the lengths of the first `most` songs; writes nothing.

        Raises:
            UsageError: a code that the model has no row for; or with `require_length_match` lengths that differ.
        """
        options = self._options
        largest, where, checked, different, worst = -1, "", 0, 0, (0, "")
        for source in self._sources.values():
            for shard in source.shards(self._columns(), lambda done, total: None):
                for item in shard.items:
                    codes = item[options.sketch]
                    if len(codes) and int(codes.max()) > largest:
                        largest, where = int(codes.max()), item["uri"]
                    if most is None or checked < most:
                        difference = abs(len(codes) - self._latent_frames(item))
                        checked, different = checked + 1, different + (difference > 0)
                        worst = max(worst, (difference, item["uri"]))
        if largest >= options.codes:
            raise UsageError(
                f"{where}: has the sketch token {largest}, and the model knows 0 to {options.codes - 1}: training "
                "would fail, or never learn. Fit a codebook of its size (audioprep fit muq-vq --codebook-size "
                f"{options.codes}) and tokenize with it; or give the model that is trained by --model or --codes."
            )
        if different and options.require_length_match:
            raise UsageError(
                f"{worst[1]}: sketch and latents differ by {worst[0]} frames, as those of {different} of {checked} "
                "songs do; leave --require-length-match out to align them (--align trim or pad)"
            )
        return Lengths(checked, different, *worst)

    def run(self, overwrite: bool, on_items: Callable[[int, int], None]) -> dict[str, Any]:
        """Exports what is not yet exported, and gives what `details.json` says.

        Args:
            overwrite: start anew where something else was exported.
            on_items: called with the number of items done and of all items.

        Raises:
            UsageError: see `check`; or the folder is another's, or nothing is left to export.
            SystemFault: the disk is full or broken; the same call goes on later.
        """
        self.check()
        with self._destination.writing(overwrite):
            records: dict[str, list[dict[str, Any]]] = {}
            done = 0
            for split, source in self._sources.items():
                report = lambda n, _, done=done: on_items(done + n, self.items)  # noqa: E731
                records[split] = [self._shard(shard) for shard in source.shards(self._columns(), report)]
                done += source.items
            return self._finish(records)

    def _shard(self, shard: ShardItems) -> dict[str, Any]:
        record = self._destination.record(shard.name, shard.digest)
        if record:
            return record
        self._destination.reopen()
        rows, files, left_out = list[str](), list[str](), list[dict[str, str]]()
        seconds, seen = 0.0, Counter[str]()
        for item in shard.items:
            seen[item["id"]] += 1
            copy = f"_{seen[item['id']]}" if seen[item["id"]] > 1 else ""
            try:
                row, written, frames = self._item(item, f"{shard.name}_{item['id']}{copy}")
            except (InputError, ValueError) as error:
                said = error.detail if isinstance(error, InputError) else str(error)
                left_out.append({"uri": item["uri"], "why": said})
                continue
            rows.append(json.dumps(row, ensure_ascii=False))
            files += written
            seconds += frames / FRAME_RATE
        part = f"parts/{shard.name}.jsonl"
        self._destination.put(part, "".join(f"{row}\n" for row in rows).encode())
        counts = {"songs": len(rows), "seconds": seconds, "left_out": left_out}
        return self._destination.commit(shard.name, shard.digest, [*files, part], counts)

    def _item(self, item: Item, idx: str) -> tuple[dict[str, Any], list[str], int]:
        """Writes the files of one song; gives its row, their names, and the frames.

        Raises:
            InputError: the recording cannot be read.
            ValueError: no lyrics for SongBloom, another length, or shorter than a block.
        """
        options = self._options
        if split_embedded(item["uri"]):
            raise ValueError("lies inside a table, and the trainer reads files: save it as a file of its own")
        lyrics, sections = self._lyrics(item)
        sketch = np.asarray(item[options.sketch])[:, 0].astype(np.int64)
        longest = int(options.max_seconds * FRAME_RATE)
        frames = aligned_frames(len(sketch), self._latent_frames(item), options.align, options.block, longest)
        if not frames:
            raise ValueError(f"has {len(sketch)} frames, less than a block of {options.block}; --align pad fills it up")
        sketch = fitted(sketch, frames)
        names = [f"prompts/{idx}.wav", f"sketch/{idx}.{options.sketch_format}"]
        self._destination.put(names[0], self._prompt(item))
        self._destination.put(names[1], sketch_bytes(sketch, options.sketch_format))
        if options.latents:
            latents = fitted(np.asarray(item[options.latents], np.float32), frames)
            names.append(f"cache/{idx}.pt")
            self._destination.put(names[2], cache_bytes(lyrics, latents, sketch))
        row = {
            "idx": idx,
            "audio_path": uri_to_path(item["uri"]),
            "lyrics": lyrics,
            "prompt_wav": str(self._location / names[0]),
            "sketch_path": str(self._location / names[1]),
            "duration": item["duration"],
            "sections": sections,
        }
        return row | {name: item[name] for name in ("license", "source") if item.get(name)}, names, frames

    def _lyrics(self, item: Item) -> tuple[str, str]:
        """The lyrics, and whether their sections are `given`, `timed` or `inferred`."""
        options = self._options
        lyrics = item[options.lyrics] or ""
        if not lyrics.strip():
            raise ValueError("has no lyrics")
        if (column := f"{options.lyrics}_sections") in item:
            return lyrics, item[column]
        structure = song_structure(lyrics, options.seconds_per_tag, item["duration"], options.infer_sections)
        wrong = next((finding for finding in structure.findings if finding.fixed is None), None)
        if wrong or not structure.sections:
            said = f"line {wrong.line}: {wrong.rule}: {wrong.text}" if wrong else "no section"
            hint = "" if options.infer_sections else "; --infer-sections guesses what nothing says"
            raise ValueError(f"has no lyrics for SongBloom: {said}{hint}")
        return write(structure.sections), structure.origin

    def _latent_frames(self, item: Item) -> int:
        if self._options.latents:
            return len(item[self._options.latents])
        return math.ceil(round(item["duration"] * FRAME_RATE, 6))

    def _prompt(self, item: Item) -> bytes:
        """A piece of the recording as 16-bit wav; with silence after it where the recording is shorter."""
        options = self._options
        said = json.loads(item["metadata"]).get("prompt_seconds") if item.get("metadata") else None
        length = round((options.prompt_seconds or said or 10.0) * PROMPT_RATE)
        begin = round(options.prompt_start * PROMPT_RATE)
        samples = np.zeros((2, length), np.float32)
        place = 0
        with (
            local_file(item["uri"]) as path,
            open_audio(path, sample_rate=PROMPT_RATE, channels=2) as stream,
        ):
            for block in stream:
                first, last = max(place, begin), min(place + block.shape[1], begin + length)
                if first < last:
                    samples[:, first - begin : last - begin] = block[:, first - place : last - place]
                place += block.shape[1]
                if place >= begin + length:
                    break
        return wav_bytes(samples)

    def _columns(self) -> list[str]:
        options, known = self._options, self._dataset.columns
        names = (
            "id",
            "uri",
            "duration",
            "license",
            "source",
            "metadata",
            options.lyrics,
            f"{options.lyrics}_sections",
            options.sketch,
        )
        return [name for name in (*names, *filter(None, [options.latents])) if name in known]

    def _check_columns(self) -> None:
        options, dataset = self._options, self._dataset
        sketch = _spec(dataset, options.sketch, "tokens", "tokenize … --codec muq-vq")
        if sketch.num_codebooks != 1:
            raise UsageError(f"{options.sketch}: has {sketch.num_codebooks} codebooks, and a sketch one; see muq-vq")
        if options.lyrics not in dataset.columns:
            hint = nearest(options.lyrics, dataset.columns)
            raise UsageError(f"{dataset.folder}: has no column {options.lyrics} with lyrics.{hint}")
        specs = {options.sketch: sketch}
        if options.latents:
            specs[options.latents] = _spec(dataset, options.latents, "latents", "encode … --encoder vae")
        for column, spec in specs.items():
            if spec.frame_rate != FRAME_RATE:
                raise UsageError(f"{column}: has {spec.frame_rate:g} frames a second, and SongBloom {FRAME_RATE}")

    def _settings(self, out: Place) -> dict[str, Any]:
        encoders = self._dataset.encoders
        columns = [name for name in (self._options.sketch, self._options.latents) if name]
        return {"format": "songbloom", "version": 1, "source": str(out.resolve()), "options": asdict(self._options)} | {
            "encoders": {name: EncoderSpec.from_dict(encoders[name]).to_dict() for name in columns}
        }

    def _finish(self, records: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        made = [name for shards in records.values() for record in shards for name in record["files"]]
        counts = {split: sum(record["counts"]["songs"] for record in shards) for split, shards in records.items()}
        left_out = [entry for shards in records.values() for record in shards for entry in record["counts"]["left_out"]]
        if not sum(counts.values()):
            raise UsageError(f"{self.folder}: no song is left to export; of the first: {left_out[0]['why']}")
        tables = [f"{split}.jsonl" for split in records]
        self._destination.remove_others([*made, *tables, LEFT_OUT])
        for split, shards in records.items():
            parts = [name for record in shards for name in record["files"] if name.startswith("parts/")]
            self._destination.put(f"{split}.jsonl", b"".join((self.folder / part).read_bytes() for part in parts))
        listed = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in left_out)
        self._destination.put(LEFT_OUT, listed.encode())
        seconds = sum(record["counts"]["seconds"] for shards in records.values() for record in shards)
        details = {
            "format": "songbloom",
            "songs": counts,
            "left_out": len(left_out),
            "hours": seconds / 3600,
            "codes": self._options.codes,
            "block": self._options.block,
            "max_seconds": self._options.max_seconds,
            "cache": bool(self._options.latents),
            "train_with": self._train_with(tables),
        }
        self._destination.put(DETAILS, (json.dumps(details, indent=2, ensure_ascii=False) + "\n").encode())
        return details

    def _train_with(self, tables: list[str]) -> str:
        train = next((name for name in tables if name.startswith("train")), tables[0])
        words = ["python train_japanese.py --data-jsonl", quote(str(self._location / train))]
        if others := [name for name in tables if name != train]:
            words += ["--val-jsonl", quote(str(self._location / others[0]))]
        if self._options.latents:
            words += ["--use-cache --cache-dir", quote(str(self._location / "cache"))]
        return " ".join(words)


def _spec(dataset: Dataset, column: str, kind: str, remedy: str) -> EncoderSpec:
    there = [name for name, encoder in dataset.encoders.items() if encoder.get("kind") == kind]
    if column not in there:
        listed = f"There are: {', '.join(there)}." if there else f"Add one: audioprep {remedy}."
        raise UsageError(f"{dataset.folder}: has no {kind} in a column {column}.{nearest(column, there)} {listed}")
    return EncoderSpec.from_dict(dataset.encoders[column])
