"""A worker: runs the stages over parts, commits the results, says how it goes on; and the process of a local one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

from audioprep.corpus.entry import Entry
from audioprep.engine.layout import Layout
from audioprep.engine.plan import Part
from audioprep.engine.store import Record, Store
from audioprep.errors import AudioprepError, InputError, Reason, SystemFault
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources, Stage

HEARTBEAT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Task:
    """One part, and the stages that it still lacks."""

    part: Part
    stages: tuple[str, ...]
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Work done since the last message.

    Attributes:
        items: finished by the run's last stage.
        seconds: of audio encoded.
        elapsed: seconds that encoders could have worked in.
        waited: those of them in which they waited for decoded audio.
        stages: of the stages that are done with a part, inputs and seconds of the clock; stages that share what they
            read are one, `ONE+OTHER`.
    """

    items: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    waited: float = 0.0
    stages: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """The run cannot go on; a programming error comes with its traceback."""

    error: AudioprepError


Message = Progress | Done | Broken


class Worker:
    """Runs tasks one after the other, with what the stages keep from one to the next: models that are loaded.

    Args:
        layout: of the output folder.
        stages: what can be in a task.
        resources: what it has.
        send: takes its messages.
    """

    def __init__(
        self, layout: Layout, stages: tuple[Stage, ...], resources: Resources, send: Callable[[Message], None]
    ) -> None:
        self._stores = {stage.name: Store(layout, stage) for stage in stages}
        self._resources = resources
        self._reporter = _Reporter(send)
        self._send = send

    def run(self, task: Task) -> None:
        """Does a task; the last message is `Done` or `Broken`."""
        try:
            self._send(Done(tuple(self._records(task))))
        except AudioprepError as error:
            self._send(Broken(error))
        except MemoryError:
            self._send(Broken(SystemFault("out of memory: lower --workers, or close other programs")))
        except Exception as error:
            import traceback

            self._send(Broken(SystemFault(f"{error!r}\n{traceback.format_exc()}")))

    def _records(self, task: Task) -> Iterator[Record]:
        stores, reporter = self._stores, self._reporter
        entries = task.part.entries()
        resources = replace(self._resources, isolated=task.isolated, heartbeat=reporter.heartbeat)
        known = _known_ids(task, stores)
        last = task.stages[-1]
        # Stages of one class share what they read.
        for kind, group in groupby((stores[name].stage for name in task.stages), type):
            began = time.perf_counter()
            stages = list(group)
            outcomes: dict[str, list[Outcome]] = {stage.name: [] for stage in stages}
            for name, outcome in kind.run(stages, entries, resources):
                outcome = _same_content(outcome, entries, known)
                outcomes[name].append(outcome)
                reporter.items += name == last and isinstance(outcome, Kept)
            for stage in stages:
                rows = reporter.rows.get(stage.name)
                yield stores[stage.name].commit(task.part, entries, outcomes[stage.name], rows)
            reporter.stages["+".join(outcomes)] = len(entries), time.perf_counter() - began
        reporter.flush()


def work(pipe: Connection, layout: Layout, stages: tuple[Stage, ...], resources: Resources) -> None:
    """The main function of a worker process: runs tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _die_with_parent()
    worker = Worker(layout, stages, resources, pipe.send)
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        worker.run(task)


def _known_ids(task: Task, stores: dict[str, Store]) -> dict[int, str]:
    """By row, the content ids for which stages that this part no longer lacks have computed their columns."""
    done = [store for name, store in stores.items() if name not in task.stages and "id" in store.stage.schema.names]
    if not done:
        return {}
    table = done[0].read(task.part.number)
    return dict(zip(table.column("row").to_pylist(), table.column("id").to_pylist(), strict=True))


def _same_content(outcome: Outcome, entries: list[Entry], known: dict[int, str]) -> Outcome:
    """The outcome, or a failure where the file is no longer the one that other columns were computed from."""
    if isinstance(outcome, Failed) or "id" not in outcome.columns:
        return outcome
    if outcome.columns["id"] == known.get(outcome.row, outcome.columns["id"]):
        return outcome
    detail = "has changed since its other columns were computed; --overwrite computes all of them anew"
    return Failed(outcome.row, InputError(Reason.CHANGED, entries[outcome.row].uri, detail))


class _Reporter:
    """Sends progress, but not more often than a person can see.

    Attributes:
        items: finished since the last message.
        rows: see `Beat`.
        stages: see `Progress`; since the last message.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._waiting = Progress()
        self._sent = 0.0
        self.items = 0
        self.rows: dict[str, int] = {}
        self.stages: dict[str, tuple[int, float]] = {}

    def heartbeat(self, beat: Beat) -> None:
        self.rows = beat.rows
        waiting = self._waiting
        self._waiting = replace(
            waiting,
            seconds=waiting.seconds + beat.seconds,
            elapsed=waiting.elapsed + beat.elapsed,
            waited=waiting.waited + beat.waited,
        )
        if time.monotonic() - self._sent > HEARTBEAT_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._send(replace(self._waiting, items=self.items, stages=self.stages))
        self._waiting, self.items, self.stages, self._sent = Progress(), 0, {}, time.monotonic()


def _die_with_parent() -> None:
    """Ends this process when the parent is gone, however it went, so that no orphan keeps writing."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
