"""Runs tasks in worker processes; a worker that dies or stalls is replaced, and its part done more carefully."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from audioprep.engine.layout import Layout
from audioprep.engine.store import Record
from audioprep.engine.worker import Broken, Done, Progress, Task, work
from audioprep.errors import SystemFault
from audioprep.stages.base import Resources, Stage

ATTEMPTS = 3  # the first as usual, the others with every file decoded in a process of its own
STALL_SECONDS = 600.0  # without any sign of life: longer than the slowest batch of the slowest encoder
ONE_THREAD_EACH = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # of matrix products: the workers fill the cores


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Task
    attempt: int
    last_sign: float


class Pool:
    """A fixed number of worker slots over one output folder.

    Args:
        layout: of the output folder.
        stages: what the workers run.
        resources: one a worker; their number is the number of workers.
        stall_seconds: silence after which a worker counts as hung.

    Attributes:
        workers: that have a task.
        redone: parts that were given out again.
    """

    def __init__(
        self,
        layout: Layout,
        stages: tuple[Stage, ...],
        resources: list[Resources],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._layout = layout
        self._stages = stages
        self._resources = resources
        self._stall_seconds = stall_seconds
        self._context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
        self.workers = self.redone = 0

    def run(
        self, tasks: Iterable[Task], on_progress: Callable[[Progress], None]
    ) -> Iterator[tuple[Task, tuple[Record, ...]]]:
        """Gives tasks with their records as they finish, in any order.

        Raises:
            SystemFault: a worker says that the run cannot go on, or a part has killed every worker that tried it.
        """
        waiting = deque((task, 1) for task in tasks)
        workers: list[_Worker | None] = [None] * len(self._resources)
        try:
            while waiting or any(workers):
                for slot, worker in enumerate(workers):
                    if worker is None and waiting:
                        workers[slot] = self._start(slot, *waiting.popleft())
                busy = [worker for worker in workers if worker]
                self.workers = len(busy)
                ready = set(wait([worker.pipe for worker in busy], timeout=1.0))
                for slot, worker in enumerate(workers):
                    if worker is None:
                        continue
                    if worker.pipe in ready:
                        message = _receive(worker)
                        worker.last_sign = time.monotonic()
                    elif time.monotonic() - worker.last_sign > self._stall_seconds:
                        message = None
                    else:
                        continue
                    match message:
                        case Progress():
                            on_progress(message)
                        case Done(records):
                            yield worker.task, records
                            if waiting:
                                worker.task, worker.attempt = waiting.popleft()
                                worker.pipe.send(worker.task)
                            else:
                                _stop(worker)
                                workers[slot] = None
                        case Broken(error):
                            raise error
                        case None:
                            _stop(worker)
                            workers[slot] = None
                            waiting.appendleft(_retry(worker))
                            self.redone += 1
        finally:
            for worker in workers:
                if worker:
                    _stop(worker)

    def _start(self, slot: int, task: Task, attempt: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._layout, self._stages, self._resources[slot])
        process = self._context.Process(target=work, args=arguments, name=f"worker-{slot}", daemon=False)
        with _one_thread_each():
            process.start()
        theirs.close()
        ours.send(task)
        return _Worker(process, ours, task, attempt, time.monotonic())


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute with one thread: NumPy reads the variables when it is imported."""
    before = {name: os.environ.get(name) for name in ONE_THREAD_EACH}
    os.environ |= dict.fromkeys(ONE_THREAD_EACH, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _receive(worker: _Worker) -> Progress | Done | Broken | None:
    """The worker's next message; None where it has died."""
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        return None


def _retry(worker: _Worker) -> tuple[Task, int]:
    if worker.attempt == ATTEMPTS:
        raise ended_too_many(worker.task, f"with exit code {worker.process.exitcode}")
    return replace(worker.task, isolated=True), worker.attempt + 1


def ended_too_many(task: Task, how: str) -> SystemFault:
    """The error of a part that has ended one worker after the other; `how`, of the last."""
    first = task.part.entries()[0].uri
    return SystemFault(
        f"part {task.part.number} (from {first}) has ended {ATTEMPTS} workers, the last {how}. The encoder or the "
        "machine is at fault, not one file: try --workers 1, another --device, or see `audioprep doctor`."
    )


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join()
