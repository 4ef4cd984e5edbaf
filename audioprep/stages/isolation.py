"""Calls a function in a child process, where a crash or a hang costs one input and not the worker."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from audioprep.corpus.entry import Entry
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Failed, Outcome

START_SECONDS = 300.0  # imports of a slow disk


class Isolation:
    """A context in which `process(stage, row, entry)` calls a function that gives an outcome.

    Args:
        function: of a stage, a row and an entry; a function of a module, so that a child process finds it.
        isolated: call it in a child process, which is replaced where it dies or is too slow; else here.
        seconds: that one call may take in a child process.
    """

    def __init__(self, function: Callable[[Any, int, Entry], Outcome], isolated: bool, seconds: float) -> None:
        self._function = function
        self._isolated = isolated
        self._seconds = seconds
        self._child: _Child | None = None

    def __enter__(self) -> Callable[[Any, int, Entry], Outcome]:
        return self._in_child if self._isolated else self._function

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _in_child(self, stage: Any, row: int, entry: Entry) -> Outcome:
        self._child = self._child or _Child(self._function)
        try:
            return self._child.call((stage, row, entry), self._seconds)
        except TimeoutError:
            self._stop()
            detail = f"took more than {self._seconds:g} s in a process of its own; remove it"
            return Failed(row, InputError(Reason.TIMEOUT, entry.uri, detail))
        except (EOFError, OSError):
            how = self._stop()
            detail = f"ended the process that read it {how}; it is damaged or hostile: remove it"
            return Failed(row, InputError(Reason.CRASHED, entry.uri, detail))

    def _stop(self) -> str:
        how = self._child.stop() if self._child else ""
        self._child = None
        return how


class _Child:
    def __init__(self, function: Callable[[Any, int, Entry], Outcome]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_SECONDS):
            raise TimeoutError
        self._pipe.recv()  # it has begun

    def call(self, arguments: tuple[Any, int, Entry], seconds: float) -> Outcome:
        self._pipe.send(arguments)
        if not self._pipe.poll(seconds):
            raise TimeoutError
        found = self._pipe.recv()
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> str:
        """Ends it, and says how it had ended before."""
        self._pipe.close()
        self._process.join(0.2)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            return ""
        return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def _serve(pipe: Connection, function: Callable[[Any, int, Entry], Outcome]) -> None:
    """The child's side: ends when the parent's end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(None)
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(function(*arguments))
        except Exception as error:
            pipe.send(error)
