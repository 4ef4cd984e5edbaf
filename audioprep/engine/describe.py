"""What is said of a finished shard set: `dataset.json` and `failures.parquet`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.engine.assemble import FAILURES_SCHEMA, ShardFile, ShardSettings, counted_column, failures
from audioprep.engine.commit import atomic_path
from audioprep.engine.layout import Layout
from audioprep.engine.plan import Plan
from audioprep.engine.store import Store
from audioprep.errors import SystemFault
from audioprep.shards.columns import ITEM_COLUMNS
from audioprep.shards.dataset import SCHEMA_VERSION, sums_of
from audioprep.stages.base import Stage


def write_failures(layout: Layout, plan: Plan, stores: tuple[Store, ...]) -> int:
    """Writes `failures.parquet`, and gives the number of its rows."""
    count = 0
    with (
        atomic_path(layout.failures, layout.scratch) as temporary,
        pq.ParquetWriter(temporary, FAILURES_SCHEMA, compression="zstd") as writer,
    ):
        for table in failures(plan, stores):
            count += len(table)
            writer.write_table(table)
    return count


def describe(
    plan: Plan,
    stores: tuple[Store, ...],
    encoders: dict[str, dict[str, Any]],
    shards: ShardSettings,
    files: list[ShardFile],
    failed: int,
) -> dict[str, Any]:
    """The content of `dataset.json`.

    Args:
        plan: all its parts are done in all stores.
        stores: of the stages, in the order of their columns.
        encoders: spec of the encoder behind each column that has one.
        shards: how they are cut.
        files: the shards.
        failed: rows of `failures.parquet`.
    """
    stages = tuple(store.stage for store in stores)
    entries = [asdict(file) for file in files]
    sums = sums_of(entries)
    rows = sums["rows"]
    if rows + failed != plan.num_entries:
        raise SystemFault(f"{rows} rows and {failed} failures are not {plan.num_entries} inputs: please report it")
    return {
        "format": "audioprep",
        "schema_version": SCHEMA_VERSION,
        "storage": shards.format,
        "encoders": _encoders(encoders, plan, stores),
        "num_frames_of": counted_column(stages),
        "columns": _columns(stages),
        "totals": {"inputs": plan.num_entries, "rows": rows, "failed": failed} | sums
        | {"splits": {
            split: sums_of([entry for entry in entries if entry["split"] == split])
            for split in sorted({file.split for file in files})
        }},
        "shards": entries,
        "cut": asdict(shards),
        "settings": {stage.name: stage.settings for stage in stages},
        "fingerprints": {store.stage.name: store.settings_digest for store in stores},
    }  # fmt: skip


def _encoders(encoders: dict[str, dict[str, Any]], plan: Plan, stores: tuple[Store, ...]) -> dict[str, dict[str, Any]]:
    """The encoders' specs, with the smaller batches that some parts were encoded in because memory ran out."""
    for store in stores:
        rows = {rows for part in plan.parts if (rows := store.record(part.number).batch_rows)}
        if rows:
            spec = encoders[store.stage.name] | {"smaller_batches": sorted(rows)}
            encoders = encoders | {store.stage.name: spec}
    return encoders


def _columns(stages: tuple[Stage, ...]) -> dict[str, str]:
    types = {"uri": pa.string()} | {field.name: field.type for stage in stages for field in stage.schema}
    names = (*ITEM_COLUMNS, *(name for name in types if name not in ITEM_COLUMNS))
    return {name: str(types[name]) for name in names}
