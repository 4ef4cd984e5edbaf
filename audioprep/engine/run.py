"""One run: scan, plan, work, assemble. The same call again goes on where the last one ended."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.corpus.entry import Entry
from audioprep.corpus.exclusions import NOTHING, Exclusions
from audioprep.corpus.scan import Finder, scan
from audioprep.engine.assemble import (
    FAILURES_SCHEMA,
    ShardFile,
    ShardSettings,
    assemble,
    counted_column,
    failures,
)
from audioprep.engine.commit import atomic_path, read_json, sweep, write_json, write_text
from audioprep.engine.layout import Layout
from audioprep.engine.metrics import Meter
from audioprep.engine.plan import Plan
from audioprep.engine.pool import Pool
from audioprep.engine.store import Check, Store
from audioprep.engine.worker import Progress, Task
from audioprep.errors import Reason, SystemFault, UsageError
from audioprep.shards.columns import ITEM_COLUMNS
from audioprep.shards.dataset import SCHEMA_VERSION, data_card
from audioprep.shards.split import check_splits
from audioprep.stages.base import Resources, Stage

if TYPE_CHECKING:
    from audioprep.engine.ray_pool import RayPool

Engine = Literal["local", "ray"]
# So many inputs that cannot be read, without one that can between them: the disk or the mount has gone.
UNREADABLE_IN_A_ROW = 2000
_UNREADABLE = {Reason.NOT_FOUND, Reason.NO_PERMISSION, Reason.UNREADABLE}


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made: these settings decide what the bytes are.

    Attributes:
        sources: files, folders, manifests; none: no more than what is planned already.
        out: the output folder.
        stages: what is computed for each item; the first gives the text, the last is what progress counts.
        encoders: spec of the encoder behind each column that has one, for `dataset.json`.
        shards: how the result is cut.
        find: finds the inputs behind the sources.
    """

    sources: tuple[str, ...]
    out: Path
    stages: tuple[Stage, ...]
    encoders: dict[str, dict[str, Any]]
    shards: ShardSettings = field(default_factory=ShardSettings)
    find: Finder = scan


@dataclass(frozen=True, slots=True)
class Options:
    """How it is made: none of these changes a byte, but for `limit`, `exclude` and `part_size`, which shape the plan.

    Attributes:
        engine: `local`: worker processes on this machine; `ray`: actors on a Ray cluster.
        workers: their number; 0: one a CPU core, or one a GPU where a stage uses it.
        device: `cpu`, `cuda` or `cuda:N`.
        part_size: items a part; None: up to 512.
        limit: only the first so many inputs.
        exclude: inputs that are not planned; those planned by an earlier run stay.
        overwrite: remove what an earlier run with other settings left.
        replace: stages whose column is made anew where its settings were others; all other columns stay.
        check: how a resumed run checks what is done.
        retry_failed: redo the parts in which an item has failed.
        isolated: decode each file in a process of its own, for files of unknown origin.
    """

    engine: Engine = "local"
    workers: int = 0
    device: str = "cpu"
    part_size: int | None = None
    limit: int | None = None
    exclude: Exclusions = NOTHING
    overwrite: bool = False
    replace: frozenset[str] = frozenset()
    check: Check = "size"
    retry_failed: bool = False
    isolated: bool = False


class Observer(Protocol):
    """Is told how a run goes on; shows it to a person, or does not."""

    def scanning(self, found: int) -> None: ...

    def planned(self, entries: int, parts: int, parts_done: int, entries_done: int) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def part_done(self, entries: int, failed: int) -> None: ...

    def workers(self, now: int, redone: int) -> None:
        """How many workers there are, and how many parts have been given out again because one was lost."""

    def assembling(self, done: int, groups: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do."""

    inputs: int
    excluded: int
    new_inputs: int
    parts: int
    parts_done: int


def preview(job: Job, options: Options, observer: Observer) -> Preview:
    """Scans and compares with what is there, and writes nothing.

    Raises:
        UsageError: as `run` does.
    """
    layout = Layout(job.out)
    if not options.overwrite:
        _refuse_changed_settings(layout, job.stages, options.replace)
    plan = Plan(layout.plan)
    stores = _stores(layout, job.stages)
    done = 0 if options.overwrite else sum(not _missing(stores, plan, n, options) for n in range(len(plan.parts)))
    inputs = 0
    excluded: list[str] = []

    def counted() -> Iterator[Any]:
        nonlocal inputs
        for entry in _scanned(job, options, observer, excluded):
            inputs += 1
            yield entry

    new = sum(1 for _ in plan.new_entries(counted()))
    return Preview(inputs, len(excluded), new, len(plan.parts), done)


def run(job: Job, options: Options, observer: Observer) -> dict[str, Any]:
    """Does what is not yet done of a job, and gives the totals of its shard set.

    Raises:
        UsageError: the settings are wrong, or others than those that `out` was made with.
        SystemFault: the disk is full, a device is broken; the same call goes on later.
        KeyboardInterrupt: what was committed stays.
    """
    check_splits(job.shards.splits)
    if options.engine == "ray":  # the current folder of another machine is another
        job = replace(job, out=job.out.absolute())
    layout = Layout(job.out)
    with layout.lock():
        if options.overwrite:
            layout.clear()
        _refuse_changed_settings(layout, job.stages, options.replace)
        sweep(layout.scratch)
        excluded: list[str] = []
        found = _scanned(job, options, observer, excluded)
        plan = Plan(layout.plan)
        plan = plan.extend(plan.new_entries(found), layout.scratch, options.part_size)
        if not plan.parts:
            sources = ", ".join(job.sources) or f"{job.out}: no source is given, and nothing is there"
            raise UsageError(f"{sources}: no {job.find.what} found. See `audioprep --help`.")
        write_json(layout.run, _recorded(job.stages), layout.scratch)
        stores = _stores(layout, job.stages)
        meter = Meter(observer.progress)
        _work(job, options, layout, plan, stores, observer, meter)
        files = assemble(layout, plan, stores, job.shards, options.check, observer.assembling)
        failed = _write_failures(layout, plan, stores)
        description = _describe(job, plan, stores, files, failed)
        write_text(layout.card, data_card(description), layout.scratch)
        write_json(layout.dataset, description, layout.scratch)
        sweep(layout.scratch)
        figures = {"encoder_busy": meter.busy, "bottleneck": meter.bottleneck, "throughput": meter.throughput}
        return description["totals"] | figures | {"excluded": len(excluded)}


def _scanned(job: Job, options: Options, observer: Observer, excluded: list[str]) -> Iterator[Entry]:
    """The inputs of a run; those that are left out are added to `excluded`."""
    found = job.find(job.sources, observer.scanning, options.exclude, excluded.append)
    return islice(found, options.limit)


def recorded_stages(out: Path) -> dict[str, dict[str, Any]]:
    """By name, the `settings` and the `origin` of the stages with which a folder was made; none where it is empty."""
    layout = Layout(out)
    nothing_done = not any(layout.private.glob("columns/*/*.json"))
    return {} if nothing_done else read_json(layout.run) or {}


def _recorded(stages: tuple[Stage, ...]) -> dict[str, dict[str, Any]]:
    return {stage.name: {"settings": stage.settings, "origin": stage.origin} for stage in stages}


def _refuse_changed_settings(layout: Layout, stages: tuple[Stage, ...], replace: frozenset[str]) -> None:
    """
    Raises:
        UsageError: the folder was made with other settings; says which.
    """
    now = _stage_settings(tuple(stage for stage in stages if stage.name not in replace))
    # A stage that is new adds a column.
    before = {name: stage["settings"] for name, stage in recorded_stages(layout.out).items() if name in now}
    if all(now[name] == settings for name, settings in before.items()):
        return
    old, new = dict(_flat(before)), dict(_flat({name: now[name] for name in before}))
    changes = [
        f"  {name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    raise UsageError(
        f"{layout.out}: was made with other settings:\n" + "\n".join(changes) + "\nGo back to the old ones, choose "
        "another --out, or start anew here with --overwrite."
    )


def _stage_settings(stages: tuple[Stage, ...]) -> dict[str, Any]:
    return {stage.name: stage.settings for stage in stages}


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _stores(layout: Layout, stages: tuple[Stage, ...]) -> tuple[Store, ...]:
    return tuple(Store(layout, stage) for stage in stages)


def _missing(stores: tuple[Store, ...], plan: Plan, part: int, options: Options) -> tuple[str, ...]:
    """The stages that a part still lacks."""
    return tuple(
        store.stage.name for store in stores if not store.is_done(plan.parts[part], options.check, options.retry_failed)
    )


def _work(
    job: Job, options: Options, layout: Layout, plan: Plan, stores: tuple[Store, ...], observer: Observer, meter: Meter
) -> None:
    lacking = [(part, _missing(stores, plan, part.number, options)) for part in plan.parts]
    tasks = [Task(part, stages, options.isolated) for part, stages in lacking if stages]
    done = sum(part.rows for part, stages in lacking if not stages)
    observer.planned(plan.num_entries, len(plan.parts), len(plan.parts) - len(tasks), done)
    if not tasks:
        return
    in_a_row = 0
    pool = _pool(job, options, layout, tasks)

    def progress(progress: Progress) -> None:
        meter(progress)
        observer.workers(pool.workers, pool.redone)

    for task, records in pool.run(tasks, progress):
        failed = max(len(record.failures) for record in records)
        observer.part_done(task.part.rows, failed)
        unreadable = [failure for failure in records[-1].failures if failure["error"] in _UNREADABLE]
        in_a_row = in_a_row + len(unreadable) if len(unreadable) == task.part.rows else 0
        if in_a_row >= UNREADABLE_IN_A_ROW:
            raise SystemFault(
                f"the last {in_a_row} inputs cannot be read (the last one: {unreadable[-1]['message']}). Is a disk or "
                "a mount gone? Mend it and run the same command with --retry-failed."
            )


def _pool(job: Job, options: Options, layout: Layout, tasks: list[Task]) -> Pool | RayPool:
    needed = {name for task in tasks for name in task.stages}
    uses_gpu = any(stage.uses_gpu for stage in job.stages if stage.name in needed)
    device = options.device if uses_gpu else "cpu"
    if options.engine == "local":
        return Pool(layout, job.stages, _resources(device, options.workers, len(tasks)))
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: on a Ray cluster each worker gets a GPU of its own: --device cuda")
    from audioprep.engine.ray_pool import RayPool

    return RayPool(layout, job.stages, device == "cuda", options.workers)


def _resources(device: str, workers: int, tasks: int) -> list[Resources]:
    devices = _devices(device)
    cores = cpu_cores()
    workers = min(workers or (cores if device == "cpu" else len(devices)), tasks)
    threads = max(1, math.ceil(cores / workers))
    return [Resources(devices[slot % len(devices)], threads) for slot in range(workers)]


def cpu_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(device: str) -> list[str]:
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cuda"]


def _write_failures(layout: Layout, plan: Plan, stores: tuple[Store, ...]) -> int:
    count = 0
    with (
        atomic_path(layout.failures, layout.scratch) as temporary,
        pq.ParquetWriter(temporary, FAILURES_SCHEMA, compression="zstd") as writer,
    ):
        for table in failures(plan, stores):
            count += len(table)
            writer.write_table(table)
    return count


def _describe(job: Job, plan: Plan, stores: tuple[Store, ...], files: list[ShardFile], failed: int) -> dict[str, Any]:
    rows = sum(file.rows for file in files)
    if rows + failed != plan.num_entries:
        raise SystemFault(f"{rows} rows and {failed} failures are not {plan.num_entries} inputs: please report it")
    return {
        "format": "audioprep",
        "schema_version": SCHEMA_VERSION,
        "storage": job.shards.format,
        "encoders": _encoders(job, plan, stores),
        "num_frames_of": counted_column(job.stages),
        "columns": _columns(job, files),
        "totals": {"inputs": plan.num_entries, "rows": rows, "failed": failed} | _sums(files)
        | {"splits": {
            split: _sums([file for file in files if file.split == split])
            for split in sorted({file.split for file in files})
        }},
        "shards": [asdict(file) for file in files],
        "settings": _stage_settings(job.stages),
        "fingerprints": {store.stage.name: store.settings_digest for store in stores},
    }  # fmt: skip


def _encoders(job: Job, plan: Plan, stores: tuple[Store, ...]) -> dict[str, dict[str, Any]]:
    """The encoders' specs, with the smaller batches that some parts were encoded in because memory ran out."""
    encoders = job.encoders
    for store in stores:
        rows = {rows for part in plan.parts if (rows := store.record(part.number).batch_rows)}
        if rows:
            spec = encoders[store.stage.name] | {"smaller_batches": sorted(rows)}
            encoders = encoders | {store.stage.name: spec}
    return encoders


def _sums(files: list[ShardFile]) -> dict[str, Any]:
    return {
        "rows": sum(file.rows for file in files),
        "seconds": math.fsum(file.seconds for file in files),
        "num_frames": sum(file.num_frames for file in files),
        "bytes": sum(file.bytes for file in files),
    }


def _columns(job: Job, files: list[ShardFile]) -> dict[str, str]:
    types = {"uri": pa.string()} | {field.name: field.type for stage in job.stages for field in stage.schema}
    names = (*ITEM_COLUMNS, *(name for name in types if name not in ITEM_COLUMNS))
    return {name: str(types[name]) for name in names}
