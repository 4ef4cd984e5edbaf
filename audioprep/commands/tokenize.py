"""`audioprep tokenize`: audio of any format to token shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import describe_encoder
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.run import Job, Options, preview
from audioprep.engine.run import run as run_job
from audioprep.engine.store import Check
from audioprep.shards.writers import Format
from audioprep.stages.text import ReadText
from audioprep.stages.tokenize import Tokenize


class Settings(CommandSettings):
    """Settings of `audioprep tokenize`."""

    source: list[str] = Field(min_length=1, description="Files, folders, manifests, saved data sets.")
    out: Path = Field(description="Folder of the shard set.")
    codec: str = Field("mel-rvq", description="Name of the encoder.")
    weights: Path | None = Field(None, description="The encoder's weights. Default: its own.")
    num_codebooks: PositiveInt | None = Field(None, description="Use only the first so many codebooks.")
    codec_settings: dict[str, Any] = Field({}, description="The encoder's own settings.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    format: Format = Field("parquet", description="parquet or webdataset.")
    splits: dict[str, float] = Field({"train": 1.0}, description="Share of each split.")
    shard_mb: PositiveInt = Field(512, description="Size of a shard before compression, in MiB.")
    workers: int = Field(0, ge=0, description="Processes; 0: one a CPU core, or one a GPU.")
    part_size: PositiveInt | None = Field(None, description="Items a part. Default: up to 512.")
    limit: PositiveInt | None = Field(None, description="Only the first so many inputs.")
    overwrite: bool = Field(False, description="Remove what was made here with other settings.")
    check: Check = Field("size", description="How a resumed run checks what is done: size or sha256.")
    retry_failed: bool = Field(False, description="Try the failed inputs again.")
    isolated: bool = Field(False, description="Decode each file in a process of its own.")


def run(settings: Settings, console: Console) -> Summary:
    """Tokenizes what is not yet tokenized.

    Raises:
        UsageError: see `audioprep.engine.run.run`.
        SystemFault: likewise.
    """
    job, options = _job(settings)
    with console.observer() as observer:
        totals = run_job(job, options, observer)
    return {
        "out": str(settings.out),
        "inputs": totals["inputs"],
        "rows": totals["rows"],
        "failed": totals["failed"],
        "failures": str(settings.out / "failures.parquet") if totals["failed"] else "none",
        "hours": totals["seconds"] / 3600,
        "num_frames": totals["num_frames"],
        "splits": {name: split["rows"] for name, split in totals["splits"].items()},
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    job, options = _job(settings)
    with console.observer() as observer:
        found = preview(job, options, observer)
    return {
        "out": str(settings.out),
        "codec": settings.codec,
        "inputs": found.inputs,
        "new_inputs": found.new_inputs,
        "earlier_parts": found.parts,
        "earlier_parts_done": found.parts_done,
    }


def _job(settings: Settings) -> tuple[Job, Options]:
    device = resolve_device(settings.device)
    codec_settings = _codec_settings(settings)
    spec = describe_encoder(settings.codec, codec_settings | {"device": device})
    stage = Tokenize(settings.codec, codec_settings, spec)
    job = Job(
        sources=tuple(settings.source),
        out=settings.out,
        stages=(ReadText(), stage),
        encoders={stage.column: spec.to_dict()},
        shards=ShardSettings(settings.format, settings.splits, settings.shard_mb * 2**20),
    )
    options = Options(
        workers=settings.workers,
        device=device,
        part_size=settings.part_size,
        limit=settings.limit,
        overwrite=settings.overwrite,
        check=settings.check,
        retry_failed=settings.retry_failed,
        isolated=settings.isolated,
    )
    return job, options


def _codec_settings(settings: Settings) -> dict[str, Any]:
    wanted = {"weights": settings.weights and str(settings.weights), "num_codebooks": settings.num_codebooks}
    return settings.codec_settings | {name: value for name, value in wanted.items() if value is not None}
