"""`audioprep export stable-audio`: latents as the trainers of Stable Audio read them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.corpus.exclusions import read_exclusions
from audioprep.errors import UsageError
from audioprep.export.crops import CropPlan, Mode, Tail
from audioprep.export.stable_audio import Dtype, LayoutName, Options, Short, StableAudioExport
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import publishing, require_location, working_path

# Settings that mean nothing with other crops.
_ONLY: dict[str, Mode] = {"crop_hop": "grid", "tail": "grid", "crops_per_track": "random", "seed": "random"}


class Settings(CommandSettings):
    """Settings of `audioprep export stable-audio`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    dest: PlaceField = Field(description="Folder to write to, or its URL.")
    layout: LayoutName = Field("sat", description="sat: stable-audio-tools; sa3: stable-audio-3.")
    column: str = Field("latents", description="The column of latents.")
    split: str = Field("train", description="Which split.")
    crops: Mode | None = Field(None, description="whole, grid or random. Default: grid for sat, whole for sa3.")
    crop_frames: PositiveInt | None = Field(None, description="Frames of a crop.")
    crop_hop: PositiveInt | None = Field(None, description="grid: frames from one crop to the next. Default: as long.")
    tail: Tail = Field("align", description="grid: of what is left at the end: align, pad or drop.")
    crops_per_track: PositiveInt = Field(1, description="random: crops of each track.")
    seed: int = Field(0, ge=0, description="random: of the places.")
    short: Short = Field("pad", description="Tracks shorter than a crop: pad (with silence) or drop.")
    silence: Path | None = Field(None, description="Latents of silence (.npy). Default: the encoder makes them.")
    dtype: Dtype = Field("float16", description="float16 or float32.")
    prompt_column: str | None = Field(None, description="Column of the prompts. Default: prompt, else tags.")
    default_prompt: str = Field("", description="Prompt of tracks that have none.")
    exclude: PlaceField | None = Field(None, description="File with inputs to leave out, a path a line.")
    root: list[Path] = Field([], description="Folders that relative paths are relative to.")
    limit: PositiveInt | None = Field(None, description="Only the first so many tracks.")
    location: str | None = Field(None, description="The folder's path on the trainer's machine. Default: DEST.")
    overwrite: bool = Field(False, description="Replace what was exported here with other settings.")


def run(settings: Settings, console: Console) -> Summary:
    """Exports what is not yet exported.

    Raises:
        UsageError: see `StableAudioExport`; or settings that do not go together.
        SystemFault: the disk is full or broken; the same command goes on later.
    """
    with publishing(settings.dest) as folder, console.counter("Exporting") as counter:
        details = _export(settings, folder).run(settings.overwrite, counter)
    names = ("layout", "items", "files", "hours", "excluded", "too_short", "padded", "without_prompt", "licenses")
    frames = {"shortest": details["shortest"], "longest": details["longest"]}
    return {
        "dest": str(settings.dest),
        **{name: details[name] for name in names},
        "frames_a_file": frames,
        "train_with": details["train_with"],
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    export = _export(settings, working_path(settings.dest))
    if not settings.overwrite:
        export.refuse_other_settings()
    return {
        "dest": str(settings.dest),
        "layout": settings.layout,
        "items": export.items,
        "crops": _crops(settings).mode,
    }


def _export(settings: Settings, folder: Path) -> StableAudioExport:
    require_location(settings.dest, settings.location)
    options = Options(
        layout=settings.layout,
        plan=_crops(settings),
        short=settings.short,
        column=settings.column,
        split=settings.split,
        dtype=settings.dtype,
        prompt_column=settings.prompt_column,
        default_prompt=settings.default_prompt,
        exclusions=read_exclusions(settings.exclude, settings.root),
        limit=settings.limit,
        silence=settings.silence,
        location=settings.location,
    )
    return StableAudioExport(settings.out, folder, options)


def _crops(settings: Settings) -> CropPlan:
    """
    Raises:
        UsageError: the settings of the crops do not go together.
    """
    mode = settings.crops or ("grid" if settings.layout == "sat" else "whole")
    for name, only in _ONLY.items():
        if mode != only and getattr(settings, name) != Settings.model_fields[name].default:
            raise UsageError(f"--{name.replace('_', '-')}: goes with --crops {only}, and not with {mode}")
    if settings.crop_frames is None and (mode != "whole" or settings.layout == "sat"):
        raise UsageError(
            "--crop-frames: say how many frames the trainer shall see at once: sample_size in its model's config, "
            "divided by the samples a frame (for stable-audio-open-1.0 it is 1024, which is 47.6 s)"
        )
    return CropPlan(
        mode, settings.crop_frames, settings.crop_hop, settings.tail, settings.crops_per_track, settings.seed
    )
