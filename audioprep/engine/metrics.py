"""Figures of a run while it goes on: for people, for Prometheus, for TensorBoard."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from audioprep.engine.worker import Progress
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from audioprep.engine.run import Observer

WRITE_SECONDS = 10.0
DECODING_BELOW = 0.9  # of the time in which encoders are busy: below it they wait for what is decoded too slowly

logger = logging.getLogger(__name__)


class Meter:
    """Adds up what workers say of their work, and passes it on."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._elapsed = self._waited = 0.0
        self.stage_inputs: Counter[str] = Counter()
        self.stage_seconds: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        self._elapsed += progress.elapsed
        self._waited += progress.waited
        for stage, (inputs, seconds) in progress.stages.items():
            self.stage_inputs[stage] += inputs
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        self._on_progress(progress)

    @property
    def busy(self) -> float | None:
        """Share of the time in which encoders did not wait, in [0, 1]; None where there was nothing to do."""
        return 1 - self._waited / self._elapsed if self._elapsed else None

    @property
    def bottleneck(self) -> str | None:
        """What more of would make the run faster: `decoding` or `encoder`."""
        return None if self.busy is None else "decoding" if self.busy < DECODING_BELOW else "encoder"

    @property
    def throughput(self) -> dict[str, float]:
        """By stage, inputs that one worker does in a second."""
        return {stage: self.stage_inputs[stage] / seconds for stage, seconds in self.stage_seconds.items() if seconds}

    @property
    def summary(self) -> dict[str, Any]:
        """What is said of a run at its end."""
        return {"encoder_busy": self.busy, "bottleneck": self.bottleneck, "inputs_per_worker_second": self.throughput}


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric. `name` begins with `audioprep_`; `values` are by the value of `label`, or one by an empty text."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    values: dict[str, float]
    label: str = ""


class Sink(Protocol):
    """Where figures go to."""

    def write(self, figures: Sequence[Figure], step: int) -> None:
        """`step`: seconds since the run began."""

    def close(self) -> None: ...


class MeasuredRun:
    """An observer of a run that writes figures now and then, and tells another observer everything."""

    def __init__(self, observer: Observer, sinks: Sequence[Sink]) -> None:
        self._observer = observer
        self._sinks = sinks
        self._meter = Meter(observer.progress)
        self._began = time.time()
        self._written = 0.0
        self._inputs = self._earlier = self._parts = self._parts_done = 0
        self._kept = self._failed = self._workers = self._redone = 0
        self._seconds = 0.0
        self._succeeded: float | None = None

    def scanning(self, found: int) -> None:
        self._inputs = found
        self._observer.scanning(found)
        self._write_some()

    def planned(self, entries: int, parts: int, parts_done: int, entries_done: int) -> None:
        self._inputs, self._parts, self._parts_done, self._earlier = entries, parts, parts_done, entries_done
        self._observer.planned(entries, parts, parts_done, entries_done)
        self._write_some()

    def progress(self, progress: Progress) -> None:
        self._kept += progress.items
        self._seconds += progress.seconds
        self._meter(progress)
        self._write_some()

    def part_done(self, entries: int, failed: int) -> None:
        self._failed += failed
        self._parts_done += 1
        self._observer.part_done(entries, failed)
        self._write_some()

    def workers(self, now: int, redone: int) -> None:
        self._workers, self._redone = now, redone
        self._observer.workers(now, redone)

    def assembling(self, done: int, groups: int) -> None:
        self._workers = 0
        self._observer.assembling(done, groups)
        self._write_some()

    def finish(self, succeeded: bool) -> None:
        """Writes the figures a last time."""
        self._workers = 0
        self._succeeded = time.time() if succeeded else None
        self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        figures = list(self.figures())
        for sink in self._sinks:
            try:
                sink.write(figures, int(time.time() - self._began))
            except OSError as error:  # of a full disk, say: no reason to stop a run of days
                logger.warning("the figures of the run cannot be written: %s", error)

    def _write_some(self) -> None:
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def figures(self) -> Iterator[Figure]:
        """All figures as of now; counters are of this run."""

        def one(name: str, kind: Literal["counter", "gauge"], help: str, value: float) -> Figure:
            return Figure(f"audioprep_{name}", kind, help, {"": value})

        results: dict[str, float] = {"kept": self._kept, "failed": self._failed}
        yield Figure("audioprep_items_total", "counter", "Inputs processed in this run.", results, "result")
        yield one("inputs", "gauge", "Inputs of the shard set.", self._inputs)
        yield one("inputs_earlier", "gauge", "Inputs that earlier runs had done.", self._earlier)
        yield one("parts", "gauge", "Parts of the shard set.", self._parts)
        yield one("parts_done", "gauge", "Parts that are done.", self._parts_done)
        yield one("parts_redone_total", "counter", "Parts given out again because a worker was lost.", self._redone)
        yield one("audio_seconds_total", "counter", "Seconds of audio encoded.", self._seconds)
        stages: dict[str, float] = dict(self._meter.stage_inputs)
        seconds = self._meter.stage_seconds
        yield Figure("audioprep_stage_items_total", "counter", "Inputs that a stage has finished.", stages, "stage")
        yield Figure("audioprep_stage_seconds_total", "counter", "Seconds of workers in a stage.", seconds, "stage")
        if self._meter.busy is not None:
            help = "Share of the time in which encoders did not wait for audio."
            yield one("encoder_busy_ratio", "gauge", help, self._meter.busy)
        yield one("workers", "gauge", "Workers that are running.", self._workers)
        yield one("start_timestamp_seconds", "gauge", "When the run began.", self._began)
        yield one("heartbeat_timestamp_seconds", "gauge", "When these figures were written.", time.time())
        if self._succeeded:
            yield one("last_success_timestamp_seconds", "gauge", "When the run ended well.", self._succeeded)


class PrometheusFile:
    """Prometheus' text format in a file, whole at any time: for node_exporter's textfile collector.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: Path, output: str) -> None:
        self._path = path
        self._output = output
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write([], 0)
        except OSError as error:
            raise UsageError(f"--metrics {path}: cannot be written: {error.strerror}") from error

    def write(self, figures: Sequence[Figure], step: int) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")  # no collector reads a hidden file
        temporary.write_text(prometheus_text(figures, self._output), encoding="utf-8")
        os.replace(temporary, self._path)

    def close(self) -> None: ...


def prometheus_text(figures: Sequence[Figure], output: str) -> str:
    """The exposition format of Prometheus, 0.0.4; every sample has the label `output`."""
    lines = []
    for figure in figures:
        lines += [f"# HELP {figure.name} {figure.help}", f"# TYPE {figure.name} {figure.kind}"]
        for value_of_label, value in figure.values.items():
            labels = {"output": output} | ({figure.label: value_of_label} if figure.label else {})
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{figure.name}{{{pairs}}} {value!r}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class TensorBoardFolder:
    """Scalars in an event file; the step is seconds since the run began."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        try:
            self._writer: Any = Writer(str(folder))
        except OSError as error:
            raise UsageError(f"--tensorboard {folder}: cannot be written: {error.strerror}") from error

    def write(self, figures: Sequence[Figure], step: int) -> None:
        for figure in figures:
            if figure.name.endswith("_timestamp_seconds"):  # an event has its own time
                continue
            for value_of_label, value in figure.values.items():
                name = figure.name.removeprefix("audioprep_") + (f"/{value_of_label}" if value_of_label else "")
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@contextmanager
def measured(observer: Observer, out: object, metrics: Path | None, tensorboard: Path | None) -> Iterator[Observer]:
    """An observer that also writes figures where the user wants them.

    Args:
        observer: is told everything.
        out: the output folder, for the label.
        metrics: file for Prometheus.
        tensorboard: folder of an event file.

    Raises:
        UsageError: one of them cannot be written.
    """
    if metrics is None and tensorboard is None:
        yield observer
        return
    with ExitStack() as stack:
        sinks: list[Sink] = [PrometheusFile(metrics, str(out))] if metrics else []
        sinks += [TensorBoardFolder(tensorboard)] if tensorboard else []
        for sink in sinks:
            stack.callback(sink.close)
        run = MeasuredRun(observer, sinks)
        try:
            yield run
        except BaseException:
            run.finish(succeeded=False)
            raise
        run.finish(succeeded=True)
