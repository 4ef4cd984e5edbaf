"""A worker process: takes parts from a pipe, runs the stages over them, commits the results."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from audioprep.engine.layout import Layout
from audioprep.engine.plan import Part
from audioprep.engine.store import Record, Store
from audioprep.errors import AudioprepError, SystemFault
from audioprep.stages.base import Kept, Outcome, Resources, Stage

HEARTBEAT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Task:
    """One part, and the stages that it still lacks."""

    part: Part
    stages: tuple[str, ...]
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Work done since the last message: items finished by the run's last stage, seconds of audio encoded."""

    items: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """The run cannot go on; a programming error comes with its traceback."""

    error: AudioprepError


Message = Progress | Done | Broken


def work(pipe: Connection, out: Path, stages: tuple[Stage, ...], resources: Resources) -> None:
    """The main function of a worker process: runs tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _die_with_parent()
    layout = Layout(out)
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
    for name in task.stages:
        outcomes = stores[name].stage.run(entries, resources)
        last = name == task.stages[-1]
        yield stores[name].commit(task.part, entries, reporter.counted(outcomes) if last else outcomes)
    reporter.flush()


class _Reporter:
    """Sends progress to the parent, but not more often than a person can see."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._items = 0
        self._seconds = 0.0
        self._sent = 0.0

    def counted(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        for outcome in outcomes:
            self._items += isinstance(outcome, Kept)
            yield outcome

    def heartbeat(self, seconds: float) -> None:
        self._seconds += seconds
        if time.monotonic() - self._sent > HEARTBEAT_SECONDS:
            self.flush()

    def flush(self) -> None:
        self.send(Progress(self._items, self._seconds))
        self._items, self._seconds, self._sent = 0, 0.0, time.monotonic()

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
