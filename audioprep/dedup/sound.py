"""What fingerprints do not tell, and a part of the recordings themselves does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from audioprep.corpus.content import local_file
from audioprep.dedup.alignment import Alignment
from audioprep.dedup.groups import Dropped, Recording
from audioprep.errors import InputError

_RATE = 16_000
_START, _SECONDS = 5.0, 15.0  # of what is compared: openings fade in
_HOP = _RATE // 2
_EDGES = np.geomspace(60, 4000, 21)  # of bands, in Hz: what every codec keeps
_RANGE = 45.0  # dB below the loudest point; what is softer is noise
_LEAST = 5  # half seconds in which a band is heard
_REMASTERED = 1.0  # dB; figures are in docs/dedup.md


def tell_remasters(
    dropped: Sequence[Dropped],
    recordings: Sequence[Recording],
    others: Sequence[Recording],
    on_pair: Callable[[int, int], None],
) -> list[Dropped]:
    """Calls those re-encodings remasters whose bands have other levels; those that cannot be read stay what they are.

    Args:
        dropped: recordings that were found to be re-encodings, and others, which stay as they are.
        recordings: what `Dropped.drop` counts in.
        others: what `Dropped.keep` counts in.
        on_pair: called with the number of pairs done and of all.
    """

    def told(one: Dropped) -> Dropped:
        if one.relation != "re-encode" or one.alignment is None:
            return one
        try:
            apart = level_difference(others[one.keep].uri, recordings[one.drop].uri, one.alignment)
        except InputError:
            return one
        return replace(one, relation="remaster") if apart > _REMASTERED else one

    out: list[Dropped] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one in pool.map(told, dropped):
            out.append(one)
            on_pair(len(out), len(dropped))
    return out


def level_difference(keep: str, drop: str, alignment: Alignment) -> float:
    """How far apart two recordings are in loudness, in dB, beside one gain for all.

    That is the root mean square of what bands, or half seconds if that is more, are louder (medians of each).

    Args:
        keep: uri of a recording.
        drop: uri of another one, of the same speed.
        alignment: of the two.

    Raises:
        InputError: one of them is gone or cannot be decoded.
        SystemFault: the machine is at fault.
    """
    start = max(alignment.offset, 0.0) + min(_START, alignment.overlap / 4)
    ones, others = (_levels(uri, at) for uri, at in ((keep, start), (drop, start - alignment.offset)))
    frames = min(len(ones), len(others))
    ones, others = ones[:frames], others[:frames]
    loud = (ones > ones.max(initial=-200) - _RANGE) & (others > others.max(initial=-200) - _RANGE)
    loud &= loud.sum(axis=0) >= _LEAST
    if not loud.any():
        return 0.0
    louder = np.ma.masked_array(ones - others, ~loud)
    louder -= np.ma.median(louder)
    return max(float(np.ma.sqrt((np.ma.median(louder, axis=axis) ** 2).mean())) for axis in (0, 1))


def _levels(uri: str, start: float) -> NDArray[np.float64]:
    """Levels `[half seconds, bands]` in dB."""
    with local_file(uri) as path:
        samples = read_part(path, start, _SECONDS, _RATE)
    count = len(samples) // _HOP
    frames = samples[: count * _HOP].reshape(count, _HOP) * np.hanning(_HOP)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = (_EDGES * _HOP / _RATE).astype(int)
    return 10 * np.log10(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-9)


def read_part(path: str, start: float, seconds: float, rate: int) -> NDArray[np.float32]:
    """A part of a recording, mixed down to one channel: float32 `[T]`, fewer where the recording ends.

    Args:
        path: of the recording.
        start: of the part, in seconds.
        seconds: of the part.
        rate: of the samples, in Hz.

    Raises:
        InputError: it cannot be decoded.
        SystemFault: the machine is at fault.
    """
    from audioprep.audio import open_audio

    first, last = round(start * rate), round((start + seconds) * rate)
    parts = [np.empty(0, np.float32)]
    end = 0
    with open_audio(path, sample_rate=rate, channels=1) as stream:
        for block in stream:
            begin, end = end, end + block.shape[1]
            if end > first:
                parts.append(block[0, max(first - begin, 0) : last - begin])
            if end >= last:
                break
    return np.concatenate(parts)
