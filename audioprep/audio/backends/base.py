"""What the stream asks of a decoding backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audioprep.audio.source import Source
from audioprep.errors import Reason

BLOCK_FRAMES = 32768
"""Samples a channel in every block that a decoder gives but the last: the resampler's fixed step."""

MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1_000, 1_000_000


@dataclass(frozen=True)
class AudioInfo:
    """What a file says it holds.

    Args:
        sample_rate: Hz.
        channels: channels of the file, before any down-mix.
        frames: samples a channel that the file declares; None where it declares none, or only implies
            them (an mp3 file with no Xing tag, ADTS, AMR, a live stream). Lossy formats may count
            their priming and padding here, some thousand samples.
        codec: FFmpeg's name, without byte order (`pcm_s16`, `flac`, `mp3`, `aac`).
        container: the sniffed format (`wav`, `mp4`, `matroska`); `unknown` where only a decoder knew it.
        layout: FFmpeg's name of the channel layout (`stereo`, `5.1`), or None where the file names none.
    """

    sample_rate: int
    channels: int
    frames: int | None
    codec: str
    container: str
    layout: str | None

    @property
    def duration(self) -> float | None:
        """Declared seconds."""
        return None if self.frames is None else self.frames / self.sample_rate


class DecodeError(Exception):
    """A backend cannot decode a file, or cannot go on with it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def broken_file(what: str) -> DecodeError:
    """The error of a file that ought to be decodable and is not."""
    return DecodeError(Reason.CORRUPT, f"{what}; fetch it again or remove it")


class Decoder(Protocol):
    """An opened file.

    `positions` names each channel as FFmpeg does (`FL`, `LFE`), in the order of the blocks' rows, or is
    None where the file names none. `is_bounded` is True where samples are integers, so always in [-1, 1).
    """

    info: AudioInfo
    positions: tuple[str, ...] | None
    is_bounded: bool

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Gives `[C, T]` blocks; T is BLOCK_FRAMES, but for the last one.

        Raises:
            DecodeError: the file is broken here.
        """
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A module that decodes through one library."""

    def version(self) -> str:
        """The library's version.

        Raises:
            ImportError: the library is not installed or does not load.
        """
        ...

    def open(self, source: Source) -> Decoder:
        """Reads the header.

        Raises:
            DecodeError: this library cannot open the file.
            ImportError: as in `version`.
        """
        ...


def check_shape(sample_rate: int, channels: int) -> None:
    """Raises DecodeError(UNSUPPORTED) for a rate or a number of channels that no recording has."""
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        detail = f"the header says {sample_rate} Hz; only {MIN_RATE} to {MAX_RATE} Hz can be read"
        raise DecodeError(Reason.UNSUPPORTED, f"{detail}: convert it or mend its header")
    if not 1 <= channels <= MAX_CHANNELS:
        detail = f"the header says {channels} channels; only 1 to {MAX_CHANNELS} can be read"
        raise DecodeError(Reason.UNSUPPORTED, f"{detail}: convert it or mend its header")


def to_float(rows: NDArray[np.generic], out: NDArray[np.float32]) -> None:
    """Writes samples of any type to `out` as sample = integer / 2^(bits - 1); both are `[C, T]`.

    One rule for all backends, so that a lossless recording has the same bits in every container.
    """
    match rows.dtype.kind:
        case "f" if rows.dtype.itemsize <= 4:
            np.copyto(out, rows)
        case "f":
            with np.errstate(over="ignore"):  # a double that float32 cannot hold becomes infinite, which is found later
                np.copyto(out, rows, casting="same_kind")
        case "u":
            to_float(rows.astype(np.int16) - 128 << 8, out)
        case _:
            scale = np.float32(1 / (1 << (8 * rows.dtype.itemsize - 1)))
            np.multiply(rows, scale, out=out, casting="same_kind")
