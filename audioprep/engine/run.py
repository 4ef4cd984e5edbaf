"""One run: scan, plan, work, assemble. The same call again goes on where the last one ended.

Of a slice, only the work is done beside that of others; they plan and assemble one after the other.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from audioprep.corpus.entry import Entry
from audioprep.corpus.exclusions import NOTHING, Exclusions
from audioprep.corpus.scan import Finder, scan
from audioprep.engine.assemble import ShardSettings, assemble
from audioprep.engine.commit import read_json, write_json, write_text
from audioprep.engine.describe import describe, write_failures
from audioprep.engine.layout import Layout, Slice
from audioprep.engine.metrics import Meter
from audioprep.engine.plan import Part, Plan
from audioprep.engine.pool import Pool
from audioprep.engine.store import Check, Store
from audioprep.engine.worker import Progress, Task
from audioprep.errors import Reason, SystemFault, UsageError
from audioprep.shards.card import data_card
from audioprep.shards.split import check_splits
from audioprep.stages.base import Resources, Stage
from audioprep.storage.files import listing
from audioprep.storage.lock import Lease
from audioprep.storage.places import Place

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
        out: the output folder, of this machine or of a store.
        stages: what is computed for each item; the first gives the text, the last is what progress counts.
        encoders: spec of the encoder behind each column that has one, for `dataset.json`.
        shards: how the result is cut.
        find: finds the inputs behind the sources.
    """

    sources: tuple[str, ...]
    out: Place
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
        slice: do only these parts; None: all.
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
    slice: Slice | None = None


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
    inputs = 0
    excluded: list[str] = []

    def counted() -> Iterator[Any]:
        nonlocal inputs
        for entry in _scanned(job, options, observer, excluded):
            inputs += 1
            yield entry

    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(layout.plan, Path(scratch))
        stores = _stores(layout, job.stages)
        done = 0 if options.overwrite else sum(not _missing(stores, part, options) for part in plan.parts)
        new = sum(1 for _ in plan.new_entries(counted()))
    return Preview(inputs, len(excluded), new, len(plan.parts), done)


def run(job: Job, options: Options, observer: Observer) -> dict[str, Any]:
    """Does what is not yet done of a job, and gives the totals of its shard set.

    Of a slice, after which others have still something to do, it gives `inputs`, `parts_done` and `parts_left`.

    Raises:
        UsageError: the settings are wrong, or others than those that `out` was made with; or another run works there.
        SystemFault: the disk is full, a device is broken, a store is gone; the same call goes on later.
        KeyboardInterrupt: what was committed stays.
    """
    check_splits(job.shards.splits)
    if options.slice and options.overwrite:
        raise UsageError("--overwrite would remove what other slices do: run it once without --shard-of, or start anew")
    layout = Layout(job.out, options.slice)
    meter = Meter(observer.progress)
    with contextlib.ExitStack() as held:
        with layout.lock() as lease:
            own = held.enter_context(layout.slice_lock()) if options.slice else lease
            plan, excluded = _plan(job, options, layout, observer, lease)
            found = {"excluded": excluded}
            if not options.slice:
                stores = _work(job, options, layout, plan, observer, meter, lease)
                totals = _assemble(job, options, layout, plan, stores, observer, lease)
                return totals | found | meter.summary
        _work(job, options, layout, plan, observer, meter, own)
        with layout.lock() as lease:
            own.check()
            plan, stores = Plan(layout.plan, layout.scratch), _stores(layout, job.stages)  # others may have added to it
            left = sum(not all(store.is_done(part) for store in stores) for part in plan.parts)
            if left:
                layout.sweep()
                return found | {"inputs": plan.num_entries, "parts_done": len(plan.parts) - left, "parts_left": left}
            totals = _assemble(job, options, layout, plan, stores, observer, lease)
            return totals | found | meter.summary


def _plan(job: Job, options: Options, layout: Layout, observer: Observer, lease: Lease) -> tuple[Plan, int]:
    """The plan with all inputs that there are now, and how many of them are left out."""
    if options.overwrite:
        layout.clear()
    _refuse_changed_settings(layout, job.stages, options.replace)
    layout.sweep()
    excluded: list[str] = []
    plan = Plan(layout.plan, layout.scratch)
    found = plan.new_entries(_scanned(job, options, observer, excluded))
    plan = plan.extend(_while_held(found, lease), options.part_size)
    if not plan.parts:
        sources = ", ".join(job.sources) or f"{job.out}: no source is given, and nothing is there"
        raise UsageError(f"{sources}: no {job.find.what} found. See `audioprep --help`.")
    write_json(layout.run, _recorded(job.stages), layout.scratch)
    return plan, len(excluded)


def _while_held(entries: Iterator[Entry], lease: Lease) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        lease.check()


def _assemble(
    job: Job, options: Options, layout: Layout, plan: Plan, stores: tuple[Store, ...], observer: Observer, lease: Lease
) -> dict[str, Any]:
    """Writes what readers see, and gives its totals."""

    def on_group(done: int, groups: int) -> None:
        lease.check()
        observer.assembling(done, groups)

    files = assemble(layout, plan, stores, job.shards, options.check, on_group)
    failed = write_failures(layout, plan, stores)
    description = describe(plan, stores, job.encoders, job.shards, files, failed)
    lease.check()
    write_text(layout.card, data_card(description), layout.scratch)
    write_json(layout.dataset, description, layout.scratch)
    layout.sweep()
    return description["totals"]


def _scanned(job: Job, options: Options, observer: Observer, excluded: list[str]) -> Iterator[Entry]:
    """The inputs of a run; those that are left out are added to `excluded`."""
    found = job.find(job.sources, observer.scanning, options.exclude, excluded.append)
    return islice(found, options.limit)


def recorded_stages(out: Place) -> dict[str, dict[str, Any]]:
    """By name, the `settings` and the `origin` of the stages with which a folder was made; none where it is empty."""
    layout = Layout(out)
    something_done = any(name.endswith(".json") for folder in layout.stages() for name in listing(folder))
    return read_json(layout.run) or {} if something_done else {}


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


def _missing(stores: tuple[Store, ...], part: Part, options: Options) -> tuple[str, ...]:
    """The stages that a part still lacks."""
    return tuple(store.stage.name for store in stores if not store.is_done(part, options.check, options.retry_failed))


def _work(
    job: Job, options: Options, layout: Layout, plan: Plan, observer: Observer, meter: Meter, lease: Lease
) -> tuple[Store, ...]:
    """Does the parts that are missing, and gives the stores in which all are done."""
    stores = _stores(layout, job.stages)
    named = {store.stage.name: store for store in stores}
    parts = [part for part in plan.parts if options.slice is None or part.number in options.slice]
    lacking = [(part, _missing(stores, part, options)) for part in parts]
    tasks = [Task(part, stages, options.isolated) for part, stages in lacking if stages]
    done = sum(part.rows for part, stages in lacking if not stages)
    observer.planned(sum(part.rows for part in parts), len(parts), len(parts) - len(tasks), done)
    if not tasks:
        return stores

    in_a_row = 0
    pool = _pool(job, options, layout, tasks)

    def on_progress(progress: Progress) -> None:
        lease.check()
        meter(progress)
        observer.workers(pool.workers, pool.redone)

    for task, records in pool.run(tasks, on_progress):
        for record in records:
            named[record.stage].done(record)
        failed = max(len(record.failures) for record in records)
        observer.part_done(task.part.rows, failed)
        unreadable = [failure for failure in records[-1].failures if failure["error"] in _UNREADABLE]
        in_a_row = in_a_row + len(unreadable) if len(unreadable) == task.part.rows else 0
        if in_a_row >= UNREADABLE_IN_A_ROW:
            raise SystemFault(
                f"the last {in_a_row} inputs cannot be read (the last one: {unreadable[-1]['message']}). Is a disk or "
                "a mount gone? Mend it and run the same command with --retry-failed."
            )
    return stores


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
