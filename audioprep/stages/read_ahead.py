"""Decodes the files of a part side by side, ahead of the encoder, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audioprep.audio import open_audio
from audioprep.corpus.content import content_id, local_file
from audioprep.corpus.entry import Entry
from audioprep.encoders.base import EncoderSpec
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Resources
from audioprep.stages.windows import cut_windows

FILES_AHEAD = 8
SECONDS_AHEAD = 40.0  # of one file
READ_ATTEMPTS = 3  # network file systems hiccup
ISOLATED_TIMEOUT = 60.0  # seconds without a block before an isolated file is given up


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file once it is decoded to its end."""

    id: str
    duration: float
    sample_rate: int
    channels: int
    samples: int  # at the encoder's rate


class DecodedFile:
    """One file's windows, as they are decoded by another thread.

    Iterating gives float32 `[C, context + window + context]`; after that, `facts` is set.
    """

    facts: Facts

    def __init__(self, entry: Entry, spec: EncoderSpec, isolated: bool, stop: threading.Event) -> None:
        self._entry = entry
        self._spec = spec
        self._isolated = isolated
        self._stop = stop
        windows = SECONDS_AHEAD * spec.sample_rate / spec.window
        self._queue: queue.Queue[NDArray[np.float32] | Facts | BaseException] = queue.Queue(max(2, int(windows)))

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """
        Raises:
            InputError: the file cannot be decoded; windows before the fault may have been given.
        """
        while True:
            found = self._queue.get()
            if isinstance(found, Facts):
                self.facts = found
                return
            if isinstance(found, BaseException):
                raise found
            yield found

    def decode(self) -> None:
        """Fills the queue; runs in a thread of the pool. Whatever goes wrong is raised in the consumer."""
        try:
            for attempt in range(1, READ_ATTEMPTS + 1):
                try:
                    self._decode_once()
                    return
                except InputError as error:
                    retry = error.reason is Reason.UNREADABLE and self._queue.empty()
                    if not retry or attempt == READ_ATTEMPTS or self._stop.wait(0.2 * attempt):
                        raise InputError(error.reason, self._entry.uri, error.detail) from error
        except BaseException as error:
            self._put(error)

    def _decode_once(self) -> None:
        spec = self._spec
        with (
            local_file(self._entry.uri) as path,
            open_audio(
                path,
                sample_rate=spec.sample_rate,
                channels=spec.channels,
                isolated=self._isolated,
                timeout=ISOLATED_TIMEOUT if self._isolated else None,
            ) as stream,
        ):
            try:
                before = _state(path)
                item_id = content_id(path)
            except OSError as error:
                raise InputError(Reason.UNREADABLE, path, f"cannot be read: {error.strerror}") from error
            samples = 0

            def counted() -> Iterator[NDArray[np.float32]]:
                nonlocal samples
                for block in stream:
                    samples += block.shape[1]
                    yield block

            for window in cut_windows(counted(), spec):
                self._put(window)
            if _state(path) != before:
                raise InputError(Reason.CHANGED, path, "changed while it was read: run again when it is complete")
            info = stream.info
            duration = samples / spec.sample_rate
            self._put(Facts(item_id, duration, info.sample_rate, info.channels, samples))

    def _put(self, found: NDArray[np.float32] | Facts | BaseException) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(found, timeout=0.1)
                return
        raise _Stopped


class _Stopped(Exception):
    """The consumer has gone."""


def read_ahead(entries: Sequence[Entry], spec: EncoderSpec, resources: Resources) -> Iterator[DecodedFile]:
    """Gives the files in the order of `entries`, while `decode_threads` threads decode those that follow."""
    stop = threading.Event()
    waiting = iter(entries)
    ahead: deque[DecodedFile] = deque()
    with ThreadPoolExecutor(resources.decode_threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(ahead) < FILES_AHEAD and (entry := next(waiting, None)):
                    file = DecodedFile(entry, spec, resources.isolated, stop)
                    pool.submit(file.decode)
                    ahead.append(file)
                if not ahead:
                    return
                yield ahead.popleft()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _state(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
