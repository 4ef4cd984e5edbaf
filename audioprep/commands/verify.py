"""`audioprep verify`: is a shard set whole, and are its values what its description says?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.engine.commit import sha256_of
from audioprep.shards.columns import is_array, to_arrays
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables


class Settings(CommandSettings):
    """Settings of `audioprep verify`."""

    out: Path = Field(description="Folder of the shard set.")


def run(settings: Settings, console: Console) -> Summary:
    """Reads every byte of a shard set and lists what is wrong.

    Raises:
        UsageError: the folder is no shard set.
    """
    dataset = open_dataset(settings.out)
    shards = dataset.shards()
    problems = list(_totals(dataset))
    with console.counter("Verifying") as counter:
        for number, shard in enumerate(shards):
            problems += [f"{shard['path']}: {problem}" for problem in _shard(dataset, shard)]
            counter(number + 1, len(shards))
    return {"out": str(settings.out), "shards": len(shards), "problems": problems}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    done = (settings.out / "dataset.json").exists()
    return {
        "out": str(settings.out),
        "shards": len(open_dataset(settings.out).shards()) if done else "unknown yet",
    }


def _totals(dataset: Dataset) -> Iterator[str]:
    totals = dataset.totals
    if totals["rows"] + totals["failed"] != totals["inputs"]:
        yield "dataset.json: rows and failures do not add up to the inputs"
    failures = dataset.folder / "failures.parquet"
    try:
        rows = pq.read_metadata(failures).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        yield f"failures.parquet: cannot be read: {error}"
    else:
        if rows != totals["failed"]:
            yield f"failures.parquet: {rows} rows, and dataset.json says {totals['failed']}"
    listed = {shard["path"] for shard in dataset.shards()}
    for path in sorted((dataset.folder / "data").glob("*")):
        if (name := path.relative_to(dataset.folder).as_posix()) not in listed:
            yield f"{name}: not in dataset.json"


def _shard(dataset: Dataset, shard: dict[str, Any]) -> Iterator[str]:
    path = dataset.folder / shard["path"]
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
    for field in table.schema:
        if not is_array(field.type):
            continue
        arrays = to_arrays(table.column(field.name))
        if [len(array) for array in arrays] != table.column("num_frames").to_pylist():
            yield f"{field.name}: its lengths are not num_frames"
        size = dataset.encoders[field.name]["codebook_size"]
        if (largest := np.concatenate(arrays).max(initial=0)) >= size:
            yield f"{field.name}: holds the id {largest}, and a codebook has {size}"
