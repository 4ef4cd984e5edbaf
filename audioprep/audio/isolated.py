"""Decoding in a child process: a crash or a hang of a native library costs one input, not the worker.

The child, `python -m audioprep.audio.isolated`, opens the file and writes messages to its standard output:
one byte of kind, eight of length, the body. Kinds: `i` the AudioInfo, `b` a block (its channels and
float32 samples), `x` an error, `.` the end. It dies with its parent, which holds its standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.backends.base import AudioInfo
from audioprep.audio.stream import AudioStream, open_audio
from audioprep.errors import InputError, Reason, SystemFault

_HEADER = struct.Struct("<cQ")
_CHANNELS = struct.Struct("<I")


def open_isolated(
    path: str | os.PathLike[str],
    sample_rate: int | None,
    channels: int | None,
    timeout: float | None,
) -> AudioStream:
    """`open_audio` in a child process; see there. The child ends when the stream is closed."""
    uri = os.fspath(path)
    child = _Child([uri, sample_rate, channels], uri, timeout)
    try:
        info, rate, count = json.loads(child.receive(b"i"))
    except BaseException:
        child.close()
        raise
    return AudioStream(AudioInfo(**info), rate, count, child.blocks(), child.close)


class _Child:
    def __init__(self, request: list[object], uri: str, timeout: float | None) -> None:
        self._uri = uri
        self._timeout = timeout
        command = [sys.executable, "-m", "audioprep.audio.isolated", json.dumps(request)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            raise SystemFault(f"{uri}: no process can be started to decode it: {error}") from error
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._pipe, selectors.EVENT_READ)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        try:
            while body := self.receive(b"b"):
                (channels,) = _CHANNELS.unpack_from(body)
                yield np.frombuffer(body, np.float32, offset=_CHANNELS.size).reshape(channels, -1)
        finally:
            self.close()

    def receive(self, kind: bytes) -> bytearray:
        """The body of the next message, which is of `kind` or the end (empty)."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        got, length = _HEADER.unpack(self._read(_HEADER.size, deadline))
        body = self._read(length, deadline)
        if got == b"x":
            error = json.loads(body)
            if error["reason"] is None:
                raise SystemFault(error["detail"])
            raise InputError(Reason(error["reason"]), self._uri, error["detail"])
        assert got in (kind, b".")
        return body

    def close(self) -> None:
        """Kills and reaps the child."""
        self._process.kill()
        self._ready.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()

    def _read(self, length: int, deadline: float | None) -> bytearray:
        data = bytearray(length)
        view, end = memoryview(data), 0
        while end < length:
            if not self._ready.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
                detail = f"the decoder gave nothing for {self._timeout:g} s; remove the file or allow more time"
                raise InputError(Reason.TIMEOUT, self._uri, detail)
            count = os.readv(self._pipe, [view[end:]])
            if count == 0:
                raise self._crash()
            end += count
        return data

    def _crash(self) -> InputError:
        code = self._process.wait()
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        detail = f"the decoder process ended {how}; the file is damaged or hostile: remove it"
        return InputError(Reason.CRASHED, self._uri, detail)


def main() -> None:
    """The child's side."""
    _die_with_parent()
    # Native libraries must not write into the stream of messages.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    uri, rate, channels = json.loads(sys.argv[1])
    try:
        with open_audio(uri, sample_rate=rate, channels=channels) as stream:
            header = json.dumps([asdict(stream.info), stream.sample_rate, stream.channels])
            _send(pipe, b"i", header.encode())
            for block in stream:
                _send(pipe, b"b", _CHANNELS.pack(block.shape[0]), block.data)
        _send(pipe, b".")
    except InputError as error:
        _send(pipe, b"x", json.dumps({"reason": error.reason, "detail": error.detail}).encode())
    except SystemFault as error:
        _send(pipe, b"x", json.dumps({"reason": None, "detail": str(error)}).encode())


def _send(pipe: BinaryIO, kind: bytes, *parts: bytes | memoryview) -> None:
    views = [memoryview(part).cast("B") for part in parts]
    pipe.write(_HEADER.pack(kind, sum(view.nbytes for view in views)))
    for view in views:
        pipe.write(view)
    pipe.flush()


def _die_with_parent() -> None:
    """Lets the kernel end this process when the parent's end of standard input closes, even in a hang."""
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    with contextlib.suppress(BlockingIOError):
        if not os.read(0, 1):  # the parent went before this
            os._exit(1)


if __name__ == "__main__":
    main()
