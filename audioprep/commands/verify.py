"""`audioprep verify`: is a shard set whole, are its values what its description says, and would they be the same again?

An exported folder is checked for what its trainer stumbles over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PositiveInt

from audioprep.commands.base import CommandSettings, Console, Counter, Summary
from audioprep.encoders.base import EncoderSpec
from audioprep.engine.commit import sha256_of
from audioprep.errors import UsageError
from audioprep.shards.columns import is_vector, to_arrays, to_vectors
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.stages.imported import RATE_TOLERANCE
from audioprep.storage.fields import PlaceField
from audioprep.storage.listing import walk_files

Target = Literal["simpletuner", "songbloom", "stable-audio"]


class Settings(CommandSettings):
    """Settings of `audioprep verify`."""

    out: PlaceField = Field(description="Folder or URL of the shard set; with `target`, folder of the export.")
    target: Target | None = Field(None, description="Check an exported folder: stable-audio, simpletuner, songbloom.")
    codes: PositiveInt | None = Field(None, description="songbloom: codes of the model. Default: as exported for.")
    model_config_file: Path | None = Field(None, description="stable-audio: the trainer's model config, to check too.")
    tokenizer: Path | None = Field(None, description="simpletuner: HeartMuLa's tokenizer.json, to count prompts with.")
    batch_size: PositiveInt | None = Field(None, description="simpletuner: rows of a step. Default: as in config.json.")
    reencode: int = Field(0, ge=0, description="Encode so many items again and compare.")
    device: str = Field("auto", description="Of the comparison: auto, cpu, cuda or cuda:N.")
    codec_settings: dict[str, Any] = Field({}, description="Encode with these settings, to see what they change.")


def run(settings: Settings, console: Console) -> Summary:
    """Reads every byte of a shard set and lists what is wrong.

    Raises:
        UsageError: the folder is no shard set.
    """
    if settings.target:
        if not isinstance(settings.out, Path):
            raise UsageError(f"{settings.out}: --for looks at a local folder, as the trainer does: copy it first")
        with console.counter("Verifying") as counter:
            problems = _EXPORTS[settings.target](settings, settings.out, counter)
        return {"out": str(settings.out), "problems": problems}
    dataset = open_dataset(settings.out)
    shards = dataset.shards()
    problems = list(_totals(dataset))
    with console.counter("Verifying") as counter:
        for number, shard in enumerate(shards):
            problems += [f"{shard['path']}: {problem}" for problem in _shard(dataset, shard)]
            counter(number + 1, len(shards))
    summary: Summary = {"out": str(settings.out), "shards": len(shards)}
    if settings.reencode:
        from audioprep.commands.reencode import reencode

        found = reencode(dataset, settings.reencode, settings.device, settings.codec_settings, console)
        summary["reencoded"] = {column: comparison.describe() for column, comparison in found.items()}
        problems += [
            f"{column}: {comparison.difference} where the same encoder should give the same"
            for column, comparison in found.items()
            if comparison.same_settings and comparison.difference
        ]
    return summary | {"problems": problems}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    if settings.target:
        return {"out": str(settings.out), "target": settings.target}
    done = (settings.out / "dataset.json").exists()
    return {
        "out": str(settings.out),
        "shards": len(open_dataset(settings.out).shards()) if done else "unknown yet",
    }


def _simpletuner(settings: Settings, folder: Path, counter: Counter) -> list[str]:
    from audioprep.export.simpletuner_check import check

    return check(
        folder,
        tokenizer=settings.tokenizer,
        batch_size=settings.batch_size,
        on_rows=lambda done: counter(done, None),
    )


def _stable_audio(settings: Settings, folder: Path, counter: Counter) -> list[str]:
    from audioprep.export.stable_audio_check import check

    return check(folder, model_config=settings.model_config_file, on_files=counter)


def _songbloom(settings: Settings, folder: Path, counter: Counter) -> list[str]:
    from audioprep.export.songbloom_check import check

    return check(folder, settings.codes, on_rows=lambda done: counter(done, None))


_EXPORTS: dict[Target, Callable[[Settings, Path, Counter], list[str]]] = {
    "simpletuner": _simpletuner,
    "songbloom": _songbloom,
    "stable-audio": _stable_audio,
}


def _totals(dataset: Dataset) -> Iterator[str]:
    totals = dataset.totals
    if totals["rows"] + totals["failed"] != totals["inputs"]:
        yield "dataset.json: rows and failures do not add up to the inputs"
    failures = dataset.file("failures.parquet")
    # A set that was pulled does not have it: `push` sends it only on request.
    if failures.exists() or (dataset.folder / ".audioprep").exists():
        try:
            rows = pq.read_metadata(failures).num_rows
        except (OSError, pa.ArrowInvalid) as error:
            yield f"failures.parquet: cannot be read: {error}"
        else:
            if rows != totals["failed"]:
                yield f"failures.parquet: {rows} rows, and dataset.json says {totals['failed']}"
    listed = {shard["path"] for shard in dataset.shards()}
    yield from (f"{name}: not in dataset.json" for name in sorted(set(_data_files(dataset)) - listed))


def _data_files(dataset: Dataset) -> Iterator[str]:
    data = dataset.folder / "data"
    if isinstance(data, Path):
        yield from (f"data/{path.name}" for path in data.glob("*"))
    else:
        yield from (f"data/{found.url.rpartition('/')[2]}" for found in walk_files(str(data)))


def _shard(dataset: Dataset, shard: dict[str, Any]) -> Iterator[str]:
    try:
        path = dataset.shard(shard).path
    except UsageError as error:
        yield str(error)
        return
    if not path.is_file():
        yield "missing"
        return
    if sha256_of(path) != shard["sha256"]:
        yield "its sha256 is not the one in dataset.json: it was changed or damaged"
        return
    rows = 0
    try:
        for table in read_tables(dataset, shard):
            rows += len(table)
            yield from _values(dataset, shard, table)
    except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
        yield f"cannot be read: {error}"
        return
    if rows != shard["rows"]:
        yield f"{rows} rows, and dataset.json says {shard['rows']}"


def _values(dataset: Dataset, shard: dict[str, Any], table: pa.Table) -> Iterator[str]:
    types = {field.name: str(field.type) for field in table.schema}
    if types != dataset.columns:
        yield f"its columns are {types}, and dataset.json says {dataset.columns}"
        return
    if table.column("id").null_count or table.column("split").unique().to_pylist() != [shard["split"]]:
        yield "an item without an id, or of another split"
    for column, encoder in dataset.encoders.items():
        if is_vector(table.schema.field(column).type):
            arrays = [to_vectors(table.column(column))]
        else:
            arrays = to_arrays(table.column(column))
            yield from _lengths(dataset, column, [len(array) for array in arrays], table)
        values = np.concatenate(arrays)
        sizes = encoder.get("vocabulary_sizes") or encoder["codebook_size"]  # of words: one for each class
        if sizes is None:
            if not np.isfinite(values).all():
                yield f"{column}: holds values that are not finite"
        elif (values >= np.array(sizes)).any():
            yield f"{column}: holds ids up to {values.max()}, and a codebook has {sizes}"


def _lengths(dataset: Dataset, column: str, lengths: list[int], table: pa.Table) -> Iterator[str]:
    if column == dataset.num_frames_of:
        if lengths != table.column("num_frames").to_pylist():
            yield f"{column}: its lengths are not num_frames"
        return
    spec = EncoderSpec.from_dict(dataset.encoders[column])
    for length, seconds in zip(lengths, table.column("duration").to_pylist(), strict=True):
        expected = spec.num_frames(round(seconds * spec.sample_rate))
        # Rates that do not divide round to a sample more or less; other tools round a file's end as they like.
        if abs(length - expected) > (expected * RATE_TOLERANCE + 2 if spec.settings.get("imported") else 1):
            yield f"{column}: its lengths are not those of the audio"
            return
