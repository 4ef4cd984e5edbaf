"""Copies of a recording as they occur in collections, made on purpose: to measure which of them are found.

Shapes: `C` channels, `T` samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from audioprep.audio import load_audio, probe
from audioprep.audio.resample import Resampler
from audioprep.errors import InputError, Reason

Samples = NDArray[np.float32]
Change = Callable[[Samples, int], tuple[Samples, int]]

_SEMITONE = 2 ** (1 / 12)
_PEAK = 0.99
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Copy(NamedTuple):
    """A kind of copy: what is done to samples `[C, T]` of a rate, and the format that the result is stored in."""

    change: Change
    suffix: str = ".flac"


def _same(samples: Samples, rate: int) -> tuple[Samples, int]:
    return samples, rate


def _gain(decibels: float) -> Change:
    return lambda samples, rate: (samples * np.float32(10 ** (decibels / 20)), rate)


def _narrow(samples: Samples, rate: int) -> tuple[Samples, int]:
    """Mono at 22.05 kHz, and back to the rate it had."""
    mono = samples.mean(axis=0, keepdims=True)
    return _resampled(_resampled(mono, rate, 22050), 22050, rate), rate


def _trim(samples: Samples, rate: int) -> tuple[Samples, int]:
    """Without its first 7.3 s and its last 3 s; of less than 36.5 s without its first fifth and its last twelfth."""
    size = samples.shape[1]
    return samples[:, min(round(7.3 * rate), size // 5) : size - min(3 * rate, size // 12)], rate


def _shift(samples: Samples, rate: int) -> tuple[Samples, int]:
    """After 2 s of silence (a tenth of less than 20 s), and as much shorter at its end."""
    size = samples.shape[1]
    silence = min(2 * rate, size // 10)
    return np.pad(samples[:, : size - silence], ((0, 0), (silence, 0))), rate


def _excerpt(samples: Samples, rate: int) -> tuple[Samples, int]:
    """30 s from the middle; the middle half of less than a minute."""
    size = samples.shape[1]
    length = min(30 * rate, size // 2)
    start = (size - length) // 2
    return samples[:, start : start + length], rate


def _fade(samples: Samples, rate: int) -> tuple[Samples, int]:
    """Faded in and out, linearly, for 5 s (a quarter of less than 20 s) each."""
    size = samples.shape[1]
    length = max(min(5 * rate, size // 4), 1)
    rise = np.clip(np.arange(size) / length, 0, 1)
    return (samples * rise * rise[::-1]).astype(np.float32), rate


def _noise(samples: Samples, rate: int) -> tuple[Samples, int]:
    """With white noise 20 dB below it, another for each recording."""
    noise = np.random.default_rng(zlib.crc32(samples.tobytes())).standard_normal(samples.shape, np.float32)
    return samples + noise * (0.1 * np.sqrt(np.mean(samples**2, dtype=np.float32))), rate


def _speed(factor: float) -> Change:
    """Played faster, as a tape is: both tempo and pitch go up."""
    return lambda samples, rate: (_resampled(samples, round(rate * factor), rate), rate)


def _pitch(factor: float) -> Change:
    """Its frequencies multiplied, its tempo kept."""

    def change(samples: Samples, rate: int) -> tuple[Samples, int]:
        return _filtered(_resampled(samples, round(rate * factor), rate), rate, f"atempo={1 / factor}"), rate

    return change


def _filters(chain: str) -> Change:
    """Through filters of FFmpeg, which give back the rate they got."""
    return lambda samples, rate: (_filtered(samples, rate, f"{chain},aresample={rate}"), rate)


COPIES: dict[str, Copy] = {
    "mp3-64k": Copy(_same, ".mp3"),
    "ogg": Copy(_same, ".ogg"),
    "resample": Copy(_narrow),
    "gain": Copy(_gain(-9)),
    "eq": Copy(_filters("bass=gain=6:frequency=150,treble=gain=-6:frequency=4000")),
    "trim": Copy(_trim),
    "shift": Copy(_shift),
    "excerpt": Copy(_excerpt),
    "speed-up": Copy(_speed(1.01)),
    "speed-down": Copy(_speed(1 / 1.01)),
    "pitch-up": Copy(_pitch(_SEMITONE)),
    "pitch-down": Copy(_pitch(1 / _SEMITONE)),
    "fade": Copy(_fade),
    "noise": Copy(_noise),
    "loudness": Copy(_filters("loudnorm=I=-14:TP=-1")),
}
"""Kinds of copies by name. Of one recording each sounds the same each time. What gets louder than full scale is
turned down to it."""


def make_copy(name: str, source: Path, out: Path) -> Path:
    """Stores a copy of a recording, of its first two channels at most.

    Args:
        name: of `COPIES`.
        source: audio of any format, at least half a second of it.
        out: where to, without the suffix, which is that of the copy's format.

    Returns:
        The path with its suffix.

    Raises:
        InputError: the source cannot be decoded, or is too short.
        SystemFault: the machine is at fault.
    """
    kind = COPIES[name]
    samples, rate = load_audio(source, channels=min(probe(source).channels, 2))
    if samples.shape[1] < rate / 2:
        raise InputError(Reason.NO_SAMPLES, str(source), "is shorter than half a second: too short to be copied")
    samples, rate = kind.change(samples, rate)
    peak = np.abs(samples).max(initial=0)
    path = out.with_name(out.name + kind.suffix)
    _write(samples * np.float32(min(1, _PEAK / max(peak, _PEAK))), rate, path)
    return path


def _resampled(samples: Samples, rate_in: int, rate_out: int) -> Samples:
    resampler = Resampler(rate_in, rate_out, len(samples))
    return np.concatenate([resampler.push(samples), resampler.finish()], axis=1)


def _frame(samples: Samples, rate: int) -> Any:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", _layout(samples))
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def _layout(samples: Samples) -> str:
    return "mono" if len(samples) == 1 else "stereo"


def _filtered(samples: Samples, rate: int, chain: str) -> Samples:
    """Samples `[C, T]` through FFmpeg's audio filters, written as `name=options,name=options`."""
    from av import AudioFrame
    from av.error import EOFError as EndOfFile
    from av.filter import Graph

    graph = Graph()
    nodes = [graph.add_abuffer(None, rate, "fltp", _layout(samples), time_base=Fraction(1, rate))]
    for part in chain.split(","):
        name, _, options = part.partition("=")
        nodes.append(graph.add(name, options))
    nodes += [graph.add("aformat", "sample_fmts=fltp"), graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    graph.push(_frame(samples, rate))
    graph.push(None)
    blocks: list[Samples] = []
    while True:
        try:
            blocks.append(cast(AudioFrame, graph.pull()).to_ndarray().astype(np.float32))
        except EndOfFile:
            return np.nan_to_num(np.concatenate(blocks, axis=1))  # loudnorm divides by the loudness of silence


def _write(samples: Samples, rate: int, path: Path) -> None:
    import soundfile

    if path.suffix == ".mp3":
        _write_mp3(samples, rate, path)
        return
    subtype = "VORBIS" if path.suffix == ".ogg" else "PCM_16"
    with soundfile.SoundFile(path, "w", rate, len(samples), subtype) as file:
        for start in range(0, samples.shape[1], rate):  # libvorbis takes its stack for all that it is given at once
            file.write(samples[:, start : start + rate].T)


def _write_mp3(samples: Samples, rate: int, path: Path) -> None:
    import av

    if rate not in _MP3_RATES:
        samples, rate = _resampled(samples, rate, 44100), 44100
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate, {"b": "64k"}, layout=_layout(samples))
        for frame in (_frame(samples, rate), None):
            container.mux(stream.encode(frame))
