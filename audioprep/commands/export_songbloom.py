"""`audioprep export songbloom`: lyrics, prompts, sketches and latents as the Japanese fork of SongBloom reads them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.errors import UsageError
from audioprep.export.songbloom import Options, SketchFormat, SongBloomExport
from audioprep.export.songbloom_align import BLOCK, Policy
from audioprep.shards.dataset import open_dataset
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import publishing, require_location, working_path

PUBLISHED_CODES = 129  # of the published checkpoint: 130 rows, the last for the beginning
_EMBEDDING = "skeleton_emb.weight"


class Settings(CommandSettings):
    """Settings of `audioprep export songbloom`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    dest: PlaceField = Field(description="Folder to write to, or its URL.")
    model: Path | None = Field(None, description="Checkpoint that will be trained: says how many codes there may be.")
    codes: PositiveInt | None = Field(None, description="Codes of the model. Default: the checkpoint's, else 129.")
    sketch_column: str = Field("sketch_tokens", description="The column of sketch tokens.")
    latents_column: str | None = Field(None, description="The column of latents. Default: latents, if there are any.")
    cache: bool = Field(True, description="Write the trainer's cache of latents, where there are any.")
    lyrics_column: str = Field("lyrics", description="The column of lyrics, or of phonemes in SongBloom's layout.")
    seconds_per_tag: Literal[1, 5] = Field(1, description="That [intro] [inst] [outro] stand for.")
    infer_sections: bool = Field(False, description="Guess sections that nothing in the lyrics says.")
    align: Policy = Field("trim", description="Sketch and latents of other lengths: trim, pad or error.")
    block: PositiveInt = Field(BLOCK, description="Lengths are multiples of so many frames.")
    max_seconds: float = Field(150.0, gt=0, description="That the model makes at most: 150 or 240.")
    prompt_sec: float | None = Field(None, gt=0, description="Of the prompts. Default: what the items say, else 10.")
    prompt_start: float = Field(0.0, ge=0, description="Where in the song prompts begin, in seconds.")
    sketch_format: SketchFormat = Field("npy", description="npy or pt.")
    verify_lengths: bool = Field(False, description="Only say how the lengths agree; write nothing.")
    verify_lengths_max: PositiveInt | None = Field(None, description="Compare only the first so many songs.")
    require_length_match: bool = Field(False, description="Stop where lengths differ, before anything is written.")
    location: str | None = Field(None, description="The folder's path on the trainer's machine. Default: DEST.")
    overwrite: bool = Field(False, description="Replace what was exported here with other settings.")


def run(settings: Settings, console: Console) -> Summary:
    """Exports what is not yet exported.

    Raises:
        UsageError: see `SongBloomExport`; or the checkpoint is none of SongBloom's.
        SystemFault: the disk is full or broken; the same command goes on later.
    """
    if settings.verify_lengths:
        export = _export(settings, working_path(settings.dest))
        return {"out": str(settings.out), **asdict(export.check(settings.verify_lengths_max))}
    with publishing(settings.dest) as folder, console.counter("Exporting") as counter:
        details = _export(settings, folder).run(settings.overwrite, counter)
    names = ("songs", "left_out", "hours", "codes", "cache", "train_with")
    return {"dest": str(settings.dest), **{name: details[name] for name in names}}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    export = _export(settings, working_path(settings.dest))
    if not settings.overwrite:
        export.refuse_other_settings()
    return {"dest": str(settings.dest), "items": export.items}


def _export(settings: Settings, folder: Path) -> SongBloomExport:
    require_location(settings.dest, settings.location)
    latents = settings.latents_column
    if latents is None and "latents" in open_dataset(settings.out).encoders:
        latents = "latents"
    options = Options(
        codes=codes_of(settings.model, settings.codes),
        sketch=settings.sketch_column,
        latents=latents if settings.cache else None,
        lyrics=settings.lyrics_column,
        seconds_per_tag=settings.seconds_per_tag,
        infer_sections=settings.infer_sections,
        align=settings.align,
        block=settings.block,
        max_seconds=settings.max_seconds,
        prompt_seconds=settings.prompt_sec,
        prompt_start=settings.prompt_start,
        sketch_format=settings.sketch_format,
        require_length_match=settings.require_length_match,
        location=settings.location,
    )
    return SongBloomExport(settings.out, folder, options)


def codes_of(model: Path | None, codes: int | None) -> int:
    """How many codes a sketch may have: as many as the model's embedding has rows, less one.

    Raises:
        UsageError: the checkpoint is none of SongBloom's, or `codes` says something else.
    """
    if model is None:
        return codes or PUBLISHED_CODES
    from audioprep.encoders.checkpoints import load_tensors

    tensors = load_tensors(model)
    tensors = tensors.get("state_dict", tensors)
    rows = next((len(tensor) for name, tensor in tensors.items() if name.endswith(_EMBEDDING)), None)
    if rows is None:
        raise UsageError(f"{model}: has no {_EMBEDDING}, so it is no checkpoint of SongBloom; give its own")
    if codes and codes != rows - 1:
        raise UsageError(f"--codes {codes}: {model} has {rows} rows, for {rows - 1} codes; leave --codes out")
    return rows - 1
