"""`audioprep make-dummy`: a synthetic data set, for dry runs of SongBloom's fork and for tests."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.export.songbloom_files import SketchFormat
from audioprep.samples.dummy import make_dummy
from audioprep.shards.split import check_splits


class Settings(CommandSettings):
    """Settings of `audioprep make-dummy`."""

    out: Path = Field(description="A new folder.")
    samples: PositiveInt = Field(4, description="Songs.")
    seconds: float = Field(30.0, gt=0, description="Of a song.")
    prompt_sec: float = Field(10.0, gt=0, description="Of a prompt.")
    sketch_rate: float = Field(25.0, gt=0, description="Sketch tokens a second.")
    codes: PositiveInt = Field(129, description="Codes of the model: sketch tokens are below.")
    sketch_format: SketchFormat = Field("npy", description="npy or pt.")
    splits: dict[str, float] = Field({"train": 1.0}, description="Share of each split.")
    seed: int = Field(0, ge=0, description="Of everything random.")


def run(settings: Settings, console: Console) -> Summary:
    """Writes the data set.

    Raises:
        UsageError: the folder is not empty, or the splits cannot be.
    """
    songs = make_dummy(
        settings.out,
        settings.samples,
        settings.seconds,
        settings.prompt_sec,
        settings.sketch_rate,
        settings.codes,
        check_splits(settings.splits),
        settings.seed,
        settings.sketch_format,
    )
    return {"out": str(settings.out), "songs": songs}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    return {"out": str(settings.out), "samples": settings.samples, "seconds": settings.seconds}
