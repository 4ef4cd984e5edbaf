"""`audioprep export emopia`: compound words as EMOPIA's trainer reads them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.errors import UsageError
from audioprep.export.emopia import EmopiaExport, Names, Options
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import publishing, working_path
from audioprep.symbolic.augment import changes


class Settings(CommandSettings):
    """Settings of `audioprep export emopia`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    dest: PlaceField = Field(description="Folder to write to, or its URL.")
    names: Names = Field("emopia", description="Names of the files: emopia, or train (as emotune has them).")
    prefix: str | None = Field(None, pattern=r"\w+", description="What the files' names begin with. Default: names.")
    column: str = Field("midi_tokens", description="The column of words.")
    split: str = Field("train", description="Which split.")
    vocabulary: str = Field("fitted", description="fitted, published, full, or a JSON file of your own.")
    transpose: list[int] = Field([], description="Semitones of further copies.")
    tempo: list[float] = Field([], description="Factors of the tempo of further copies.")
    velocity: list[int] = Field([], description="What further copies are louder by.")
    limit: PositiveInt | None = Field(None, description="Only the first so many songs.")
    overwrite: bool = Field(False, description="Replace what was exported here with other settings.")


def run(settings: Settings, console: Console) -> Summary:
    """Exports a split.

    Raises:
        UsageError: see `EmopiaExport`.
        SystemFault: the disk is full or broken.
    """
    with publishing(settings.dest) as folder, console.counter("Exporting") as counter:
        return {"dest": str(settings.dest)} | _export(settings, folder).run(settings.overwrite, counter)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    export = _export(settings, working_path(settings.dest))
    if not settings.overwrite:
        export.refuse_other_settings()
    return {"dest": str(settings.dest), "items": export.items, "copies": len(_options(settings).changes)}


def _export(settings: Settings, folder: Path) -> EmopiaExport:
    return EmopiaExport(settings.out, folder, _options(settings))


def _options(settings: Settings) -> Options:
    if any(not 0.25 <= factor <= 4 for factor in settings.tempo):
        raise UsageError("--tempo: factors lie between 0.25 and 4")
    return Options(
        names=settings.names,
        prefix=settings.prefix or settings.names,
        column=settings.column,
        split=settings.split,
        vocabulary=settings.vocabulary,
        changes=tuple(changes(settings.transpose, settings.tempo, settings.velocity)),
        limit=settings.limit,
    )
