"""Latents as stable-audio-tools (layout `sat`) and stable-audio-3 (layout `sa3`) read them.

For each piece of an item NAME.npy, `[D, N]`, and beside it NAME.json with what the trainer conditions on.
`filelist.txt` names all of them, so that the trainer need not search and has one order on every machine. What upstream
expects was read from stable-audio-tools 0.0.19 (`data/dataset.py`, `pre_encode.py`) and from stable-audio-3 as of May
2026 (`data/dataset.py`, `scripts/pre_encode_dataset.py`).
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audioprep.corpus.exclusions import Exclusions
from audioprep.encoders.base import EncoderSpec
from audioprep.engine.commit import digest
from audioprep.errors import UsageError, nearest
from audioprep.export.base import Destination
from audioprep.export.crops import CropPlan, Piece
from audioprep.export.silence import read_silence, silence_of
from audioprep.export.source import Item, ShardItems, Source
from audioprep.shards.dataset import Dataset
from audioprep.storage.places import Place

logger = logging.getLogger(__name__)

LayoutName = Literal["sat", "sa3"]
Short = Literal["pad", "drop"]
Dtype = Literal["float16", "float32"]

FILELIST, CONFIG, DETAILS, SILENCE = "filelist.txt", "dataset_config.json", "details.json", "silence.npy"
EXCLUDED = "exclude_paths.txt"
# Sample rate, samples a frame and channels of latents that the published models of a layout are for.
PUBLISHED: dict[LayoutName, tuple[int, int, int]] = {"sat": (44100, 2048, 64), "sa3": (44100, 4096, 256)}
# What is made from one shard begins with its name, be it a folder or a file.
_MADE = re.compile(r"\w+-\d{5,}(/|_)[^/]*\.(npy|json)")
_SILENT_SAMPLES = 12_582_912  # 285 s at 44.1 kHz, as upstream's; its loader repeats them where it needs more
_LONGEST_SECONDS = 380.0  # of a clip, by default, in stable-audio-3's training


@dataclass(frozen=True, slots=True)
class Options:
    """What is exported, and how.

    Attributes:
        layout: `sat` or `sa3`.
        plan: how items are cut.
        short: what becomes of a piece with fewer frames than `plan.frames`. `pad`: it is filled up with the latents of
            silence (for `sa3` by the trainer); `drop`: it is left out.
        column: the latents.
        split: of the shard set.
        dtype: of the files.
        prompt_column: the prompts; None for `prompt`, and `tags` where that is empty.
        default_prompt: for items without one.
        exclusions: inputs to leave out.
        limit: only the first so many items.
        silence: a file with the latents of silence, in place of the encoder.
        location: the folder where the trainers find the export; None where it is written.
    """

    layout: LayoutName
    plan: CropPlan
    short: Short = "pad"
    column: str = "latents"
    split: str = "train"
    dtype: Dtype = "float16"
    prompt_column: str | None = None
    default_prompt: str = ""
    exclusions: Exclusions = field(default_factory=Exclusions)
    limit: int | None = None
    silence: Path | None = None
    location: str | None = None


@dataclass
class Counts:
    """What became of the items of a shard, or of all; `frames` without padding, `shortest` and `longest` with it."""

    items: int = 0
    excluded: int = 0
    too_short: int = 0
    without_prompt: int = 0
    files: int = 0
    padded: int = 0
    frames: int = 0
    shortest: int = 0
    longest: int = 0
    licenses: dict[str, int] = field(default_factory=dict)

    def add_file(self, own: int, frames: int) -> None:
        """A file with `frames` frames, of which the first `own` are not padding."""
        self.files += 1
        self.frames += own
        self.padded += own < frames
        self.shortest, self.longest = min(self.shortest or frames, frames), max(self.longest, frames)

    def add(self, other: Counts) -> None:
        for name in ("items", "excluded", "too_short", "without_prompt", "files", "padded", "frames"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        lengths = [length for length in (self.shortest, other.shortest) if length]
        self.shortest, self.longest = min(lengths, default=0), max(self.longest, other.longest)
        self.licenses = dict(sorted((Counter(self.licenses) + Counter(other.licenses)).items()))


class StableAudioExport:
    """The export of one split of a shard set.

    Args:
        out: the shard set.
        folder: of the export.
        options: what is exported, and how.

    Raises:
        UsageError: no such shard set, split or column, or a folder from which the trainers cannot read.
    """

    def __init__(self, out: Place, folder: Path, options: Options) -> None:
        self.folder = folder.resolve()
        if ".npy" in str(self.folder):
            raise UsageError(f"{self.folder}: the trainers replace `.npy` wherever it is in a path; name it otherwise")
        self._location = Path(options.location or self.folder)  # where the trainer finds it
        self._options = options
        self._source = Source(out, options.split, options.limit)
        self._encoder = _encoder(self._source.dataset, options.column)
        self._spec = EncoderSpec.from_dict(self._encoder)
        self._prompts, self._columns = _columns(self._source.dataset, options)
        extras = (FILELIST, CONFIG, DETAILS, SILENCE, EXCLUDED)
        self._destination = Destination(self.folder, self._settings(out), extras, _MADE)
        self._silence: NDArray[np.float32] | None = None

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
            UsageError: the folder is another's, nothing is left to export, or there is no silence to pad with.
            SystemFault: the disk is full or broken; the same call goes on later.
        """
        self._say_if_unusual()
        with self._destination.writing(overwrite):
            if self._options.layout == "sa3":  # whether it can be had is better known before the rest is written
                self._silent_frames(_SILENT_SAMPLES // self._spec.hop_length)
            files: list[str] = []
            counts = Counts()
            for shard in self._source.shards(self._columns, on_items):
                record = self._shard(shard)
                files += record["files"]
                counts.add(Counts(**record["counts"]))
            self._refuse_nothing(counts)
            return self._finish(files, counts)

    def _shard(self, shard: ShardItems) -> dict[str, Any]:
        """Writes the items of a shard, where that is not done, and gives its record."""
        record = self._destination.record(shard.name, shard.digest)
        if record:
            return record
        self._destination.reopen()
        separator = "/" if self._options.layout == "sat" else "_"
        files: list[str] = []
        counts = Counts()
        seen: Counter[str] = Counter()
        for item in shard.items:
            seen[item["id"]] += 1
            copy = f"_{seen[item['id']]}" if seen[item["id"]] > 1 else ""
            names = self._item(item, f"{shard.name}{separator}{item['id']}{copy}", counts)
            files += [f"{name}{suffix}" for name in names for suffix in (".npy", ".json")]
        return self._destination.commit(shard.name, shard.digest, files, asdict(counts))

    def _item(self, item: Item, name: str, counts: Counts) -> list[str]:
        """Writes the pieces of one item and gives their names."""
        options = self._options
        counts.items += 1
        if options.exclusions.match(item["uri"]):
            counts.excluded += 1
            return []
        least = (options.plan.frames or 0) if options.short == "drop" else 0
        pieces = options.plan.pieces(item["id"], len(item[options.column]))
        pieces = [piece for piece in pieces if piece.stop - piece.start >= least]
        if not pieces:
            counts.too_short += 1
            return []
        prompt = next((item[column] for column in self._prompts if item[column]), options.default_prompt)
        counts.without_prompt += not prompt
        license = item.get("license") or "not stated"
        counts.licenses[license] = counts.licenses.get(license, 0) + 1
        whole = options.plan.mode == "whole"
        names = [name if whole else f"{name}-{piece.start:06d}" for piece in pieces]
        for name, piece in zip(names, pieces, strict=True):
            self._piece(name, item, piece, prompt, counts)
        return names

    def _piece(self, name: str, item: Item, piece: Piece, prompt: str, counts: Counts) -> None:
        all_latents = item[self._options.column]
        latents = all_latents[piece.start : piece.stop]
        own, size = len(latents), self._options.plan.frames or 0
        if own < size and self._options.layout == "sat":
            # The silence that follows at this place, as if the item had been encoded with zeros behind it.
            latents = np.concatenate([latents, self._silent_frames(size)[own:]])
        frames = len(latents)
        counts.add_file(own, frames)
        span = max(len(all_latents), frames)
        sidecar = {
            "path": item["uri"],
            "relpath": self._relative(item["uri"]),
            "timestamps": [piece.start / span, min(1.0, (piece.start + frames) / span)],
            # Whole seconds, as the published models were trained with; the second value is of the whole item.
            "seconds_start": piece.start * self._spec.hop_length // self._spec.sample_rate,
            "seconds_total": math.ceil(item["duration"]),
            "padding_mask": [1] * own + [0] * (frames - own),
            "sample_rate": self._spec.sample_rate,
            "prompt": prompt,
            "id": item["id"],
        }
        sidecar |= {column: item[column] for column in ("license", "source") if item.get(column)}
        self._put_array(f"{name}.npy", latents.T)
        # ASCII, as the trainers read it in the encoding of their locale.
        self._destination.put(f"{name}.json", json.dumps(sidecar).encode("ascii"))

    def _put_array(self, name: str, array: NDArray[np.generic], dtype: str = "") -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, dtype or self._options.dtype), allow_pickle=False)
        self._destination.put(name, buffer.getvalue())

    def _relative(self, uri: str) -> str:
        """The input's path as seen from the root that it is in, or its name."""
        roots = [root for root in self._options.exclusions.roots if uri.startswith(root + os.sep)]
        return os.path.relpath(uri, roots[0]) if roots else os.path.basename(uri)

    def _silent_frames(self, frames: int) -> NDArray[np.float32]:
        """The latents of silence `[frames, D]` of this export; they are made once, and kept for later runs."""
        if self._silence is None:
            given, kept = self._options.silence, self._destination.private / "silence"
            stored: NDArray[np.float32] | None = np.load(kept) if kept.is_file() else None
            if given:
                least = frames if self._options.layout == "sat" else 1
                latents = read_silence(given, self._encoder["dim"], least)[:frames]
            else:
                latents = silence_of(self._encoder, frames) if stored is None else stored
            if stored is None:
                self._put_array(".audioprep/silence", latents, "float32")
            elif not np.array_equal(latents, stored):
                raise UsageError(f"{given}: is not the silence used so far in {self.folder}; start anew: --overwrite")
            self._silence = latents
        return self._silence

    def _refuse_nothing(self, counts: Counts) -> None:
        if not counts.files:
            raise UsageError(
                f"{self.folder}: nothing is left to export: of {self.items} items {counts.excluded} are excluded and "
                f"{counts.too_short} too short. Use --short pad, fewer --crop-frames, or another --exclude."
            )
        if self._options.exclusions.entries and not counts.excluded:
            logger.warning("none of the paths to exclude is an input of this split: is --root the right folder?")

    def _say_if_unusual(self) -> None:
        here = (self._spec.sample_rate, self._spec.hop_length, self._spec.dim)
        if here != (usual := PUBLISHED[self._options.layout]):
            text = "{} Hz, {} samples a frame, {} channels"
            logger.warning(
                f"the latents have {text.format(*here)}; the published models of the layout {self._options.layout} "
                f"are for {text.format(*usual)}, so they train only a model made for them"
            )

    def _settings(self, out: Place) -> dict[str, Any]:
        """All that decides what comes out."""
        options = self._options
        return {
            "format": "stable-audio",
            "version": 1,
            "source": str(out.resolve()),
            "encoder": self._spec.to_dict(),
            "crops": asdict(options.plan),
            "exclude": digest(sorted(options.exclusions.entries)) if options.exclusions.entries else None,
            "roots": " ".join(options.exclusions.roots),
        } | {
            name: getattr(options, name)
            for name in ("layout", "split", "column", "short", "dtype", "prompt_column", "default_prompt")
        }

    def _finish(self, files: list[str], counts: Counts) -> dict[str, Any]:
        """Writes what describes the whole."""
        options, spec = self._options, self._spec
        listed = "".join(f"{name}\n" for name in files if name.endswith(".npy")).encode()
        there = self.folder / FILELIST
        if not there.is_file() or there.read_bytes() != listed:  # what was made from shards that are gone or changed
            self._destination.reopen()
            self._destination.remove_others(files)
        self._destination.put(FILELIST, listed)
        if options.layout == "sat":
            config = {
                "dataset_type": "pre_encoded",
                "datasets": [{"id": self.folder.name, "path": str(self._location)}],
                "latent_crop_length": options.plan.frames,
                "random_crop": options.plan.mode == "whole",
                "drop_last": False,
            }
            if options.exclusions.entries:
                # For the fork, which opens it from wherever it is started; others pass over it.
                lines = "".join(f"{entry}\n" for entry in sorted(options.exclusions.entries))
                self._destination.put(EXCLUDED, lines.encode())
                config["exclude_paths_file"] = str(self._location / EXCLUDED)
            self._put_json(CONFIG, config)
        else:
            silence = self._silent_frames(_SILENT_SAMPLES // spec.hop_length)
            self._put_array(SILENCE, silence[None].transpose(0, 2, 1))
        details = {
            "format": "stable-audio",
            "layout": options.layout,
            "sample_rate": spec.sample_rate,
            "downsampling_ratio": spec.hop_length,
            "latent_dim": spec.dim,
            "dtype": options.dtype,
            "hours": counts.frames * spec.hop_length / spec.sample_rate / 3600,
            **asdict(counts),
            "train_with": self._train_with(counts),
            "crops": asdict(options.plan),
            "short": options.short,
            "encoder": spec.to_dict(),
        }
        self._put_json(DETAILS, details)
        return details

    def _train_with(self, counts: Counts) -> str:
        if self._options.layout == "sat":
            return f"python train.py --dataset-config {quote(str(self._location / CONFIG))} --model-config MODEL.json"
        seconds = counts.longest * self._spec.hop_length / self._spec.sample_rate
        # Rounded up: the trainer makes whole frames of it, and rounds down.
        duration = min(_LONGEST_SECONDS, math.ceil(seconds * 100) / 100)
        folder = quote(str(self._location))
        # The latents of both autoencoders have the same shape: the trainer cannot tell.
        model = "small-music-base" if self._encoder.get("encoder") == "same-s" else "medium-base"
        return f"python scripts/train_lora.py --encoded_dir {folder} --duration {duration:g} --model {model}"

    def _put_json(self, name: str, value: dict[str, Any]) -> None:
        self._destination.put(name, (json.dumps(value, indent=2) + "\n").encode("ascii"))


def _encoder(dataset: Dataset, column: str) -> dict[str, Any]:
    """The entry in `dataset.json` of the encoder that made a column of latents.

    Raises:
        UsageError: there is no such column, or it holds something else.
    """
    latents = [name for name, encoder in dataset.encoders.items() if encoder.get("kind") == "latents"]
    if column not in latents:
        there = f"There are: {', '.join(latents)}." if latents else "Add one: `audioprep encode --encoder vae|same …`."
        raise UsageError(f"{dataset.folder}: has no latents in a column {column}.{nearest(column, latents)} {there}")
    return dataset.encoders[column]


def _columns(dataset: Dataset, options: Options) -> tuple[list[str], list[str]]:
    """The columns in which a prompt is looked for, and all that are read."""
    known = dataset.columns
    if options.prompt_column and known.get(options.prompt_column) != "string":
        texts = [name for name, kind in known.items() if kind == "string"]
        hint = nearest(options.prompt_column, texts)
        raise UsageError(
            f"{dataset.folder}: has no text in a column {options.prompt_column}.{hint} There are: {', '.join(texts)}."
        )
    wanted = [options.prompt_column] if options.prompt_column else ["prompt", "tags"]
    prompts = [name for name in wanted if name in known]
    columns = ("id", "uri", "duration", "license", "source", *prompts, options.column)
    return prompts, [name for name in dict.fromkeys(columns) if name in known]
