"""Sound and pictures of the report, each a data: URI: the page needs no other file."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audioprep.corpus.content import local_file
from audioprep.dedup.sound import read_part
from audioprep.errors import InputError, Reason

RATE = 48_000
BIT_RATE = 48_000
_WINDOW, _HOP = 4096, 1440  # 85 ms; 33 columns of the picture a second
_BANDS, _TOP = 96, 20_000.0  # rows of the picture, and the frequency of the uppermost, in Hz
_RANGE = 70.0  # dB below the loudest point that are shown
_LEVELS = 32
# From quiet to loud; between them the colours are interpolated.
_COLOURS = ((13, 13, 30), (66, 24, 100), (165, 45, 95), (237, 105, 37), (251, 190, 60), (255, 255, 210))


@dataclass(frozen=True, slots=True)
class Clip:
    """A part of a recording.

    Attributes:
        seconds: of sound; fewer than were asked for where the recording ends.
        sound: data: URI of Ogg Opus.
        picture: data: URI of a PNG: the spectrogram, time to the right, mel scale upwards.
    """

    seconds: float
    sound: str
    picture: str


def cut_clip(uri: str, start: float, seconds: float) -> Clip:
    """Takes a part of a recording, mixed down to one channel.

    Args:
        uri: of the recording.
        start: of the part, in seconds.
        seconds: of the part.

    Raises:
        InputError: the recording is gone, cannot be decoded, or ends before `start`.
        SystemFault: the machine is at fault.
    """
    with local_file(uri) as path:
        samples = read_part(path, start, seconds, RATE)
    if not len(samples):
        detail = f"it ends before {start:.1f} s: it is not the file that was compared; run the command again"
        raise InputError(Reason.CHANGED, uri, detail)
    return Clip(
        len(samples) / RATE,
        _data_uri("audio/ogg; codecs=opus", ogg_opus(samples)),
        _data_uri("image/png", png(spectrogram(samples))),
    )


def ogg_opus(samples: NDArray[np.float32]) -> bytes:
    """Encodes float32 `[T]` at `RATE`; the same samples always give the same bytes."""
    import av

    file = io.BytesIO()
    # Without this flag the stream's serial number is drawn by chance.
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        options = {"vbr": "constrained", "compression_level": "4"}  # bounded; a fraction of the highest level's time
        stream = container.add_stream("libopus", RATE, options, layout="mono", bit_rate=BIT_RATE)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def spectrogram(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Levels 0 to `_LEVELS - 1` of a mel spectrogram, uint8 `[_BANDS, columns]`, high frequencies first.

    The loudest point is the highest level, so that a change of gain is not seen.
    """
    columns = -(-len(samples) // _HOP)
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:columns]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32))) ** 2
    # Evenly spaced on the mel scale (O'Shaughnessy 1987).
    mels = np.linspace(0, 2595 * np.log10(1 + _TOP / 700), _BANDS + 1)
    edges = (700 * (10 ** (mels / 2595) - 1) * _WINDOW / RATE).astype(int)
    # Where a band is narrower than a bin, `reduceat` gives it the bin itself.
    bands = np.maximum.reduceat(power, edges, axis=1)[:, :-1]
    decibels = 10 * np.log10(bands / max(float(bands.max()), 1e-10) + 1e-10)
    levels = (decibels / _RANGE + 1).clip(0, 1) * (_LEVELS - 1)
    return levels.round().astype(np.uint8).T[::-1]


def png(levels: NDArray[np.uint8]) -> bytes:
    """A picture of levels `[height, width]`, with a palette (ISO/IEC 15948)."""
    height, width = levels.shape
    at = np.linspace(0, len(_COLOURS) - 1, _LEVELS)
    channels = zip(*_COLOURS, strict=True)
    palette = np.stack([np.interp(at, range(len(_COLOURS)), channel) for channel in channels], axis=1)
    rows = np.pad(levels, ((0, 0), (1, 0))).tobytes()  # before each row its filter: none
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
