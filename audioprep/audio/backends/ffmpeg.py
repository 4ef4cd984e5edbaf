"""The ffmpeg program, for what no library opens. It writes a wav stream of float samples to a pipe."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from typing import IO

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.backends.base import BLOCK_FRAMES, AudioInfo, DecodeError, broken_file, check_shape
from audioprep.audio.backends.pyav import DEMUXERS
from audioprep.audio.source import Source

_MASK_NAMES = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")  # by bit of the mask
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo"}


@cache
def program() -> str:
    """Path of the ffmpeg program: the system's, or else the one in the imageio-ffmpeg package.

    Raises:
        ImportError: there is neither.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ImportError("no ffmpeg program: install ffmpeg, or the package imageio-ffmpeg") from error


def version() -> str:
    _arguments("")
    first = subprocess.run([program(), "-version"], capture_output=True, text=True, check=True).stdout
    return first.split()[2]


def open(source: Source) -> FfmpegDecoder:
    return FfmpegDecoder(source)


def _arguments(path: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ffmpeg-python is old
        import ffmpeg
    reading = {"nostdin": None, "v": "error", "xerror": None, "threads": 1, "protocol_whitelist": "file"}
    writing = {"map": "0:a:0", "f": "wav", "c:a": "pcm_f32le", "bitexact": None, "threads": 1}
    node = ffmpeg.input(f"file:{path}", format_whitelist=DEMUXERS, **reading)
    return ffmpeg.output(node, "pipe:1", **writing).compile(cmd=program())


class FfmpegDecoder:
    """The first audio track of a file, decoded by a child process."""

    def __init__(self, source: Source) -> None:
        arguments = _arguments(source.path)
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        try:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._messages
            )
        except BaseException:
            self._messages.close()
            raise
        try:
            self._read_header(source)
        except BaseException:
            self.close()
            raise
        self.is_bounded = False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        frame_bytes = 4 * self.info.channels
        while data := self._output.read(BLOCK_FRAMES * frame_bytes):
            frames = len(data) // frame_bytes
            samples = np.frombuffer(data, "<f4", frames * self.info.channels)
            yield np.array(samples.reshape(frames, self.info.channels).T, np.float32, order="C")
        if self._process.wait() != 0:
            raise self._error()

    def close(self) -> None:
        self._process.kill()
        self._output.close()
        self._process.wait()
        self._messages.close()

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _read_header(self, source: Source) -> None:
        """Reads the wav header, which names the channels as well."""
        mask = 0
        channels = rate = 0
        self._read(12)
        while (chunk := struct.unpack("<4sI", self._read(8)))[0] != b"data":
            name, size = chunk
            body = self._read(size + size % 2)
            if name == b"fmt ":
                channels, rate = struct.unpack("<HI", body[2:8])
                mask = struct.unpack("<I", body[20:24])[0] if size >= 40 else 0
        check_shape(rate, channels)
        names = tuple(label for bit, label in enumerate(_MASK_NAMES) if mask >> bit & 1)
        self.positions = names if len(names) == channels else None
        layout = _DEFAULT_LAYOUTS.get(channels)
        self.info = AudioInfo(rate, channels, None, "unknown", source.format or "unknown", layout)

    def _read(self, size: int) -> bytes:
        data = self._output.read(size)
        if len(data) < size:
            self._process.wait()
            raise self._error()
        return data

    def _error(self) -> DecodeError:
        self._messages.seek(0)
        lines = self._messages.read(4096).decode("utf-8", "replace").strip().splitlines()
        what = lines[-1] if lines else f"exit code {self._process.returncode}"
        return broken_file(f"it cannot be decoded (ffmpeg: {what})")
