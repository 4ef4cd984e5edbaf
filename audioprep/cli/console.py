"""Shows a person how the work goes on: progress bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from audioprep.commands.base import Counter
from audioprep.engine.metrics import Meter
from audioprep.engine.worker import Progress as WorkDone

LOG_SECONDS = 30.0


class TerminalConsole:
    """Writes to stderr; without a terminal there, a line each half minute."""

    def __init__(self) -> None:
        self._rich = RichConsole(stderr=True)

    @contextlib.contextmanager
    def counter(self, label: str) -> Iterator[Counter]:
        with self._progress() as progress:
            task = progress.add_task(label, total=None)
            log = None if self._rich.is_terminal else _Log()

            def count(done: int, total: int | None, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=note)
                if log and note:
                    log(f"{label}: {done} of {total}, {note}")

            yield count

    @contextlib.contextmanager
    def observer(self) -> Iterator[RunObserver]:
        with self._progress() as progress:
            yield RunObserver(progress, None if self._rich.is_terminal else _Log())

    def _progress(self) -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        return _Noted(*columns, console=self._rich, disable=not self._rich.is_terminal, transient=True)


class _Noted(Progress):
    """A progress display whose tasks have a note; without one it is empty."""

    def add_task(self, description: str, *args: object, **fields: object):
        return super().add_task(description, *args, **{"note": ""} | fields)  # pyright: ignore


class _Log:
    """Writes a line to stderr, but not often."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, line: str) -> None:
        if time.monotonic() - self._last > LOG_SECONDS:
            self._last = time.monotonic()
            print(line, file=sys.stderr, flush=True)


class RunObserver:
    """Shows one run of the engine."""

    def __init__(self, progress: Progress, log: _Log | None) -> None:
        self._progress = progress
        self._log = log
        self._scan = progress.add_task("Scanning", total=None)
        self._started = time.monotonic()
        self._items = self._entries = self._earlier = self._failed = self._redone = 0
        self._seconds = 0.0
        self._meter = Meter(lambda progress: None)

    def scanning(self, found: int) -> None:
        self._progress.update(self._scan, completed=found)

    def planned(self, entries: int, parts: int, parts_done: int, entries_done: int) -> None:
        self._progress.remove_task(self._scan)
        self._entries = entries
        self._items = self._earlier = entries_done
        self._started = time.monotonic()
        self._work = self._progress.add_task("Working", total=entries, completed=entries_done)

    def progress(self, progress: WorkDone) -> None:
        self._items += progress.items
        self._seconds += progress.seconds
        self._meter(progress)
        note = ", ".join(self._notes())
        self._progress.update(self._work, completed=self._items + self._failed, note=note)
        if self._log:
            self._log(f"done {self._items} of {self._entries} inputs, {note}{self._time_left()}")

    def _notes(self) -> Iterator[str]:
        elapsed = max(time.monotonic() - self._started, 1e-3)
        yield f"{self._processed / elapsed:.3g} inputs/s"
        if self._seconds:  # lyrics take no time
            yield f"{self._seconds / elapsed:.0f}x real time"
        if self._meter.bottleneck:
            yield f"bottleneck: {self._meter.bottleneck}"
        if self._failed:
            yield f"{self._failed} failed"
        if self._redone:
            yield f"{self._redone} parts done again"

    @property
    def _processed(self) -> int:
        """Inputs that this run has done."""
        return self._items - self._earlier + self._failed

    def _time_left(self) -> str:
        if not self._processed:
            return ""
        todo = max(0, self._entries - self._items - self._failed)
        seconds = todo * (time.monotonic() - self._started) / self._processed
        return f", {timedelta(seconds=round(seconds))} left"

    def part_done(self, entries: int, failed: int) -> None:
        self._failed += failed
        self._progress.update(self._work, completed=self._items + self._failed)

    def workers(self, now: int, redone: int) -> None:
        self._redone = redone

    def assembling(self, done: int, groups: int) -> None:
        if done == 1:
            self._shards = self._progress.add_task("Writing shards", total=groups)
        self._progress.update(self._shards, completed=done)


class QuietConsole:
    """Shows nothing."""

    @contextlib.contextmanager
    def counter(self, label: str) -> Iterator[Counter]:
        yield lambda done, total, note="": None

    @contextlib.contextmanager
    def observer(self) -> Iterator[QuietObserver]:
        yield QuietObserver()


class QuietObserver:
    """Takes a run's news and keeps them to itself."""

    def scanning(self, found: int) -> None: ...

    def planned(self, entries: int, parts: int, parts_done: int, entries_done: int) -> None: ...

    def progress(self, progress: WorkDone) -> None: ...

    def part_done(self, entries: int, failed: int) -> None: ...

    def workers(self, now: int, redone: int) -> None: ...

    def assembling(self, done: int, groups: int) -> None: ...
