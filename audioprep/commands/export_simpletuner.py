"""`audioprep export simpletuner`: HeartCodec tokens as SimpleTuner reads them to train HeartMuLa."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.corpus.exclusions import read_exclusions
from audioprep.export.heartmula import CHUNK
from audioprep.export.simpletuner import Options, SimpleTunerExport
from audioprep.export.simpletuner_config import LayoutName
from audioprep.export.simpletuner_part import TokenFormat
from audioprep.export.simpletuner_rows import Cutting, Long
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import publishing, require_location, working_path


class Settings(CommandSettings):
    """Settings of `audioprep export simpletuner`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    dest: PlaceField = Field(description="Folder to write to, or its URL.")
    layout: LayoutName = Field("folder", description="folder, inline (for the Hub) or jsonl (a local index).")
    column: str = Field("audio_tokens", description="The column of tokens.")
    split: str = Field("train", description="Which split.")
    tokens: TokenFormat = Field("npy", description="Token files: npy or pt.")
    ending_rows: bool = Field(False, description="End every song with a row of 8193.")
    long: Long = Field("segment", description="Songs that do not fit: segment, segment-all or drop.")
    max_frames: PositiveInt | None = Field(None, description="Frames of a row. Default: as many as fit.")
    cut_multiple: PositiveInt = Field(CHUNK, description="Cuts are at multiples of so many frames.")
    tokenizer: Path | None = Field(None, description="HeartMuLa's tokenizer.json, to count prompts with.")
    tags_column: str = Field("tags", description="Column of the tags.")
    lyrics_column: str = Field("lyrics", description="Column of the lyrics.")
    normalize: bool = Field(True, description="Make tags and lyrics what HeartMuLa knows.")
    batch_size: PositiveInt = Field(1, description="Rows of a step.")
    name: str | None = Field(None, description="What the data set's id begins with. Default: the folder's name.")
    location: str | None = Field(None, description="The folder's absolute path on the trainer's machine.")
    hub: str | None = Field(None, description="inline: the repository that it will be uploaded to.")
    exclude: PlaceField | None = Field(None, description="File with inputs to leave out, a path a line.")
    root: list[Path] = Field([], description="Folders that relative paths are relative to.")
    limit: PositiveInt | None = Field(None, description="Only the first so many songs.")
    overwrite: bool = Field(False, description="Replace what was exported here with other settings.")


def run(settings: Settings, console: Console) -> Summary:
    """Exports what is not yet exported.

    Raises:
        UsageError: see `SimpleTunerExport`.
        SystemFault: the disk is full or broken; the same command goes on later.
    """
    with publishing(settings.dest) as folder, console.counter("Exporting") as counter:
        details = _export(settings, folder).run(settings.overwrite, counter)
    names = (
        "items",
        "excluded",
        "rows",
        "hours",
        "segmented",
        "without_lyrics",
        "lyrics_emptied",
        "left_out",
        "licenses",
    )
    return {
        "dest": str(settings.dest),
        "layout": details["layout"],
        "id": details["id"],
        **{name: details[name] for name in names},
        "bucket_seconds": details["bucket_seconds"] or "one bucket",
        "train_with": details["train_with"],
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    export = _export(settings, working_path(settings.dest))
    if not settings.overwrite:
        export.refuse_other_settings()
    return {"dest": str(settings.dest), "layout": settings.layout, "items": export.items, "long": settings.long}


def _export(settings: Settings, folder: Path) -> SimpleTunerExport:
    if not settings.hub:
        require_location(settings.dest, settings.location)
    options = Options(
        layout=settings.layout,
        cutting=Cutting(settings.long, settings.max_frames, settings.cut_multiple, settings.ending_rows),
        column=settings.column,
        split=settings.split,
        token_format=settings.tokens,
        tags_column=settings.tags_column,
        lyrics_column=settings.lyrics_column,
        normalize=settings.normalize,
        tokenizer=settings.tokenizer,
        batch_size=settings.batch_size,
        name=settings.name,
        location=settings.location,
        hub=settings.hub,
        exclusions=read_exclusions(settings.exclude, settings.root),
        limit=settings.limit,
    )
    return SimpleTunerExport(settings.out, folder, options)
