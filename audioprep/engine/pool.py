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
    """Processes that are started meanwhile take matrix products on one core: the workers fill them.

    NumPy reads these variables once, when it is imported.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= dict.fromkeys(names, "1")
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
        first = worker.task.part.entries()[0].uri
        raise SystemFault(
            f"part {worker.task.part.number} (from {first}) has ended {ATTEMPTS} workers, the last with exit code "
            f"{worker.process.exitcode}. The encoder or the machine is at fault, not one file: try --workers 1, "
            "another --device, or see `audioprep doctor`."
        )
    return replace(worker.task, isolated=True), worker.attempt + 1


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join()
