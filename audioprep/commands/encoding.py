"""What `audioprep tokenize` and `audioprep encode` share: from settings to one run of the engine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, CorpusSettings, Summary
from audioprep.corpus.lyrics import scan_lyrics
from audioprep.corpus.scan import scan
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import default_column, describe_encoder, prefers_cpu
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.layout import Slice
from audioprep.engine.metrics import measured
from audioprep.engine.run import Engine, Job, Options, preview, recorded_stages, run
from audioprep.engine.store import Check
from audioprep.errors import UsageError
from audioprep.shards.columns import ITEM_COLUMNS
from audioprep.shards.writers import Format
from audioprep.stages.encode import Encode
from audioprep.stages.imported import ImportTokens
from audioprep.stages.phonemes import LyricItems, Phonemize
from audioprep.stages.text import ReadText
from audioprep.storage.fields import PlaceField


class ShardSetSettings(CorpusSettings):
    """Settings of every command that makes a shard set of a corpus."""

    source: list[str] = Field([], description="Files, folders, manifests, saved data sets.")
    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    format: Format = Field("parquet", description="parquet or webdataset.")
    splits: dict[str, float] = Field({"train": 1.0}, description="Share of each split.")
    shard_mb: PositiveInt = Field(512, description="Size of a shard before compression, in MiB.")
    engine: Engine = Field("local", description="local: processes of this machine; ray: actors on a Ray cluster.")
    workers: int = Field(0, ge=0, description="Their number; 0: one a CPU core, or one a GPU.")
    part_size: PositiveInt | None = Field(None, description="Items a part. Default: up to 512.")
    overwrite: bool = Field(False, description="Remove what was made here with other settings.")
    check: Check = Field("size", description="How a resumed run checks what is done: size or sha256.")
    retry_failed: bool = Field(False, description="Try the failed inputs again.")
    isolated: bool = Field(False, description="Decode each file in a process of its own.")
    shard_of: str | None = Field(None, description="Do only the Kth of N slices (K/N), as one of a job array.")
    metrics: Path | None = Field(None, description="File for figures of the run, in Prometheus' text format.")
    tensorboard: Path | None = Field(None, description="Folder for the same figures, as TensorBoard reads them.")

    @property
    def shards(self) -> ShardSettings:
        return ShardSettings(self.format, self.splits, self.shard_mb * 2**20)

    def options(self, device: str) -> Options:
        """How the engine is to run."""
        return Options(
            engine=self.engine,
            workers=self.workers,
            device=device,
            part_size=self.part_size,
            limit=self.limit,
            exclude=self.exclusions(),
            overwrite=self.overwrite,
            check=self.check,
            retry_failed=self.retry_failed,
            isolated=self.isolated,
            slice=Slice.parse(self.shard_of) if self.shard_of else None,
        )


class RunSettings(ShardSetSettings):
    """Settings of every command that runs encoders over a corpus."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")


class EncoderChoice(CommandSettings):
    """One encoder of a run."""

    encoder: str = Field(description="Its name; `audioprep doctor` lists them.")
    weights: str | None = Field(
        None, description="A file or folder, a URL, or a repository of the Hub. Default: its own."
    )
    column: str | None = Field(None, description="Column for what comes out. Default: by encoder.")
    settings: dict[str, Any] = Field({}, description="The encoder's own settings.")

    def stage(self, device: str) -> Encode:
        """
        Raises:
            UsageError: no such encoder, setting or weights, or a column of that name cannot be.
        """
        settings = self.settings if self.weights is None else self.settings | {"weights": _absolute(self.weights)}
        spec = describe_encoder(self.encoder, settings | {"device": device})
        column = check_column(self.column or default_column(self.encoder, spec.kind))
        return Encode(self.encoder, settings, spec, column)


class Choice(Protocol):
    """What says how a column is made."""

    def stage(self, device: str) -> Encode | ImportTokens | Phonemize: ...


def check_column(name: str) -> str:
    """
    Raises:
        UsageError: a column that is computed cannot be called so.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in (*ITEM_COLUMNS, "num_frames"):
        raise UsageError(f"column {name}: choose a name of small letters, digits and _ that no other column has")
    return name


def run_encoders(settings: RunSettings, choices: Sequence[Choice], console: Console) -> Summary:
    """Encodes what is not yet encoded.

    Raises:
        UsageError: see `audioprep.engine.run.run`.
        SystemFault: likewise.
    """
    return run_job(settings, *_job(settings, choices), console)


def plan_encoders(settings: RunSettings, choices: Sequence[Choice], console: Console) -> Summary:
    """Says what `run_encoders` would do, and writes nothing."""
    job, options = _job(settings, choices)
    encoders = {column: spec["name"] for column, spec in job.encoders.items()}
    return {"encoders": encoders} | plan_job(settings, job, options, console)


def run_job(settings: ShardSetSettings, job: Job, options: Options, console: Console) -> Summary:
    """Runs a job, and says what came of it; of a slice that leaves parts to others, how many with `parts_left`.

    Raises:
        UsageError: see `audioprep.engine.run.run`.
        SystemFault: likewise.
    """
    with (
        console.observer() as shown,
        measured(shown, settings.out, settings.metrics, settings.tensorboard) as observer,
    ):
        totals = run(job, options, observer)
    if "parts_left" in totals:
        return {"out": str(settings.out), "shard_of": settings.shard_of} | totals
    return {
        "out": str(settings.out),
        "inputs": totals["inputs"],
        **({"excluded": totals["excluded"]} if settings.exclude else {}),
        "rows": totals["rows"],
        "failed": totals["failed"],
        "failures": str(settings.out / "failures.parquet") if totals["failed"] else "none",
        "hours": totals["seconds"] / 3600,
        "num_frames": totals["num_frames"],
        "splits": {name: split["rows"] for name, split in totals["splits"].items()},
        # Of this run; without work there is nothing to say.
        **{name: totals[name] for name in ("encoder_busy", "bottleneck", "inputs_per_worker_second") if totals[name]},
    }


def plan_job(settings: ShardSetSettings, job: Job, options: Options, console: Console) -> Summary:
    """Says what `run_job` would do, and writes nothing."""
    with console.observer() as observer:
        found = preview(job, options, observer)
    return {
        "out": str(settings.out),
        "inputs": found.inputs,
        **({"excluded": found.excluded} if settings.exclude else {}),
        "new_inputs": found.new_inputs,
        "earlier_parts": found.parts,
        "earlier_parts_done": found.parts_done,
    }


def _job(settings: RunSettings, choices: Sequence[Choice]) -> tuple[Job, Options]:
    device = _device(settings)
    stages = [choice.stage("cpu" if _better_on_cpu(choice, settings) else device) for choice in choices]
    only_phonemes = all(isinstance(stage, Phonemize) for stage in stages)
    overwrite = settings.overwrite and not only_phonemes
    recorded = {} if overwrite else recorded_stages(settings.out)
    lyrics = LyricItems().name in recorded if recorded else only_phonemes
    if lyrics and not only_phonemes:
        raise UsageError(f"{settings.out}: holds lyrics without recordings: choose another --out")
    if any("tokenizer" in stage["origin"] for stage in recorded.values()):
        raise UsageError(f"{settings.out}: holds the tokens of scores: choose another --out")
    names = [stage.column for stage in stages]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two encoders would write the column {repeated.pop()}: give each a `column` of its own")
    stages = [stage for stage in _earlier_stages(recorded) if stage.column not in names] + stages
    job = Job(
        sources=tuple(settings.source),
        out=settings.out,
        stages=(ReadText(), *([LyricItems()] if lyrics else []), *stages),
        encoders={
            stage.column: stage.spec.to_dict() | stage.origin for stage in stages if not isinstance(stage, Phonemize)
        },
        shards=settings.shards,
        find=scan_lyrics if lyrics else scan,
    )
    remade = frozenset(names) if settings.overwrite and only_phonemes else frozenset()
    return job, replace(settings.options(device), overwrite=overwrite, replace=remade)


def _device(settings: RunSettings) -> str:
    if settings.engine == "ray" and settings.device == "auto" and os.environ.get("RAY_ADDRESS"):
        from audioprep.engine.ray_pool import cluster_device

        return cluster_device()  # the machine that the command is given on may have no GPU
    return resolve_device(settings.device)


def _better_on_cpu(choice: Choice, settings: RunSettings) -> bool:
    return settings.device == "auto" and isinstance(choice, EncoderChoice) and prefers_cpu(choice.encoder)


def _earlier_stages(recorded: dict[str, dict[str, Any]]) -> list[Encode | ImportTokens | Phonemize]:
    """What made the columns that a shard set has already: they stay, and what is new in the corpus gets them too."""
    stages: list[Encode | ImportTokens | Phonemize] = []
    for column, stage in recorded.items():
        origin = stage["origin"]
        if "phonemes" in origin:
            stages.append(Phonemize.remade(origin, column))
        elif origin:
            kind = ImportTokens if "tokens" in origin else Encode
            stages.append(kind(**origin, spec=EncoderSpec.from_dict(stage["settings"]["encoder"]), column=column))
    return stages


def _absolute(weights: str) -> str:
    """A local path as an absolute one: a later run, from elsewhere, loads the same file."""
    path = Path(weights).expanduser()
    return str(path.resolve()) if path.exists() else weights
