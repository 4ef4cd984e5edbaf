"""A worker process: takes parts from a pipe, runs the stages over them, commits the results."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    """

    items: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """The run cannot go on; a programming error comes with its traceback."""

    error: AudioprepError


Message = Progress | Done | Broken


def work(pipe: Connection, layout: Layout, stages: tuple[Stage, ...], resources: Resources) -> None:
    """The main function of a worker process: runs tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _die_with_parent()
    stores = {stage.name: Store(layout, stage) for stage in stages}
    reporter = _Reporter(pipe)
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        try:
            reporter.send(Done(tuple(_run(task, stores, resources, reporter))))
        except AudioprepError as error:
            reporter.send(Broken(error))
        except MemoryError:
            reporter.send(Broken(SystemFault("out of memory: lower --workers, or close other programs")))
        except Exception as error:
            import traceback

            reporter.send(Broken(SystemFault(f"{error!r}\n{traceback.format_exc()}")))


def _run(task: Task, stores: dict[str, Store], resources: Resources, reporter: _Reporter) -> Iterator[Record]:
    entries = task.part.entries()
    resources = replace(resources, isolated=task.isolated, heartbeat=reporter.heartbeat)
    known = _known_ids(task, stores)
    last = task.stages[-1]
    # Stages of one class share what they read.
    for kind, group in groupby((stores[name].stage for name in task.stages), type):
        stages = list(group)
        outcomes: dict[str, list[Outcome]] = {stage.name: [] for stage in stages}
        for name, outcome in kind.run(stages, entries, resources):
            outcome = _same_content(outcome, entries, known)
            outcomes[name].append(outcome)
            reporter.items += name == last and isinstance(outcome, Kept)
        for stage in stages:
            rows = reporter.rows.get(stage.name)
            yield stores[stage.name].commit(task.part, entries, outcomes[stage.name], rows)
    reporter.flush()


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
    """Sends progress to the parent, but not more often than a person can see.

    Attributes:
        items: finished since the last message.
        rows: see `Beat`.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._waiting = Progress()
        self._sent = 0.0
        self.items = 0
        self.rows: dict[str, int] = {}

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
        self.send(replace(self._waiting, items=self.items))
        self._waiting, self.items, self._sent = Progress(), 0, time.monotonic()

    def send(self, message: Message) -> None:
        self._pipe.send(message)


def _die_with_parent() -> None:
    """Ends this process when the parent is gone, however it went, so that no orphan keeps writing."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
