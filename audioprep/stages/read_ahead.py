"""Decodes the files of a part side by side, ahead of the encoder, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from audioprep.audio import open_audio
from audioprep.audio.backends.base import AudioInfo
from audioprep.corpus.content import content_id, local_file
from audioprep.corpus.entry import Entry
from audioprep.encoders.base import EncoderSpec
from audioprep.errors import InputError, Reason
from audioprep.stages.base import Resources
from audioprep.stages.windows import Window, WindowCutter
from audioprep.storage.places import is_url

FILES_AHEAD = 8
SECONDS_AHEAD = 40.0  # of one file
COPY_THREADS = 16
COPIES_AHEAD = 32  # files of stores
BYTES_AHEAD = 4 * 2**30  # of their copies on the disk
UNKNOWN_BYTES = 64 * 2**20  # what a copy counts that no listing tells the size of
READ_ATTEMPTS = 3  # network file systems hiccup
ISOLATED_TIMEOUT = 60.0  # seconds without a block before an isolated file is given up


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file once it is decoded to its end."""

    id: str
    sample_rate: int
    channels: int
    samples: tuple[int, ...]  # at the rate of each encoder


class DecodedFile:
    """One file's windows for several encoders, as they are decoded by another thread.

    Iterating gives the number of an encoder and a window for it; after that, `facts` is set.
    """

    facts: Facts

    def __init__(
        self,
        entry: Entry,
        specs: Sequence[EncoderSpec],
        isolated: bool,
        stop: threading.Event,
        copy: Copy | None,
    ) -> None:
        self._entry = entry
        self._copy = copy
        self._specs = specs
        self._isolated = isolated
        self._stop = stop
        windows = sum(SECONDS_AHEAD * spec.sample_rate / spec.window for spec in specs)
        self._queue: queue.Queue[tuple[int, Window] | Facts | BaseException] = queue.Queue(max(2, int(windows)))

    def __iter__(self) -> Iterator[tuple[int, Window]]:
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
        finally:
            if self._copy:
                self._copy.remove()

    def _decode_once(self) -> None:
        cutters = [WindowCutter(spec) for spec in self._specs]
        # Encoders that want the same samples share one decode.
        wanted: dict[tuple[int, int], list[int]] = {}
        for number, spec in enumerate(self._specs):
            wanted.setdefault((spec.sample_rate, spec.channels), []).append(number)
        identity: tuple[tuple[int, int], str] | None = None
        info: AudioInfo | None = None
        with self._copy.ready() if self._copy else local_file(self._entry.uri) as path:
            for (sample_rate, channels), numbers in wanted.items():
                with open_audio(
                    path,
                    sample_rate=sample_rate,
                    channels=channels,
                    isolated=self._isolated,
                    timeout=ISOLATED_TIMEOUT if self._isolated else None,
                ) as stream:
                    identity, info = identity or _identify(path), stream.info
                    for block in stream:
                        for number in numbers:
                            self._put_all(number, cutters[number].push(block))
                for number in numbers:
                    self._put_all(number, cutters[number].finish())
            assert identity and info
            if _state(path) != identity[0]:
                raise InputError(Reason.CHANGED, path, "changed while it was read: run again when it is complete")
        self._put(Facts(identity[1], info.sample_rate, info.channels, tuple(cutter.samples for cutter in cutters)))

    def _put_all(self, number: int, windows: Iterator[Window]) -> None:
        for window in windows:
            self._put((number, window))

    def _put(self, found: tuple[int, Window] | Facts | BaseException) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(found, timeout=0.1)
                return
        raise _Stopped


class _Stopped(Exception):
    """The consumer has gone."""


class Copy:
    """A local copy of what a URL names, made by a thread of `pool`; it stays until it is removed."""

    def __init__(self, pool: ThreadPoolExecutor, entry: Entry) -> None:
        self.size = entry.size or UNKNOWN_BYTES
        self._files = contextlib.ExitStack()
        self._path = pool.submit(self._files.enter_context, local_file(entry.uri))

    @contextlib.contextmanager
    def ready(self) -> Iterator[str]:
        """Waits for it.

        Raises:
            InputError: the store does not give it.
            SystemFault: there is no room for it.
        """
        yield self._path.result()

    def remove(self) -> None:
        self.size = 0
        if not self._path.cancel():
            wait([self._path])
        self._files.close()


def read_ahead(entries: Sequence[Entry], specs: Sequence[EncoderSpec], resources: Resources) -> Iterator[DecodedFile]:
    """Gives the files in the order of `entries`, while `decode_threads` threads decode those that follow.

    Those behind URLs are copied further ahead, by more threads: they wait for the network, not for a core.
    """
    stop = threading.Event()
    waiting = iter(entries)
    next_ones: deque[tuple[Entry, Copy | None]] = deque()
    ahead: deque[DecodedFile] = deque()
    copies: deque[Copy] = deque()
    with (
        ThreadPoolExecutor(COPY_THREADS, thread_name_prefix="copy") as network,
        ThreadPoolExecutor(resources.decode_threads, thread_name_prefix="decode") as pool,
    ):
        try:
            while True:
                while copies and not copies[0].size:
                    copies.popleft()
                while len(next_ones) < COPIES_AHEAD:
                    if (next_ones or ahead) and sum(copy.size for copy in copies) >= BYTES_AHEAD:
                        break
                    if not (entry := next(waiting, None)):
                        break
                    next_ones.append((entry, Copy(network, entry) if is_url(entry.uri) else None))
                    copies.extend(filter(None, [next_ones[-1][1]]))
                while len(ahead) < FILES_AHEAD and next_ones:
                    file = DecodedFile(next_ones[0][0], specs, resources.isolated, stop, next_ones.popleft()[1])
                    pool.submit(file.decode)
                    ahead.append(file)
                if not ahead:
                    return
                yield ahead.popleft()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            for copy in copies:
                copy.remove()


def _identify(path: str) -> tuple[tuple[int, int], str]:
    """The file's state and its id, taken once it is known to be audio."""
    try:
        return _state(path), content_id(path)
    except OSError as error:
        raise InputError(Reason.UNREADABLE, path, f"cannot be read: {error.strerror}") from error


def _state(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
