"""Beats of a performance whose file has none: transcriptions, as EMOPIA's and Pop1K7's were before they were aligned.

Ellis (2007), "Beat Tracking by Dynamic Programming", on the notes' onsets instead of a sound's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.song import BAR, QUARTER, Song, Times, seconds_of

FRAME_RATE = 50.0  # Hz, of the onset strength
CENTRE_BPM, SPREAD_OCTAVES = 110.0, 0.9  # of the tempo that listeners expect
TIGHTNESS = 100.0  # of the beats' distance
LONGEST_SECONDS = 4 * 3600.0


def track_beats(song: Song) -> Song:
    """The song with its notes placed between tracked beats, 480 ticks each, and a tempo at each beat.

    Downbeats are those of four phases on which most begins, low notes above all; the meter is taken for 4/4. A song
    of fewer than two beats, or of more than four hours, stays as it is.
    """
    onsets = seconds_of(song, song.start)
    if onsets[-1] - onsets[0] < 2.0 or onsets[-1] > LONGEST_SECONDS:
        return song
    strength = _onset_strength(onsets, song.velocity)
    beats = _beats(strength, _period(strength)) / FRAME_RATE
    interval = float(np.median(np.diff(beats)))
    ends = seconds_of(song, song.end)
    before = np.arange(np.ceil(beats[0] / interval), 0, -1)
    after = np.arange(1, np.ceil(max(ends.max() - beats[-1], 0) / interval) + 2)
    beats = np.concatenate([beats[0] - before * interval, beats, beats[-1] + after * interval])
    ticks = (np.arange(len(beats)) - _downbeat(beats, onsets, song.pitch)) * QUARTER + BAR
    start, end = np.interp(onsets, beats, ticks), np.interp(ends, beats, ticks)
    return replace(
        song,
        start=start,
        end=end,
        tempo_times=np.maximum(ticks[:-1], 0.0),
        qpm=60 / np.diff(beats),
        markers=tuple(
            (float(np.interp(seconds_of(song, np.array(time)), beats, ticks)), text) for time, text in song.markers
        ),
        meters=((0.0, 4, 4),),
    )


def _onset_strength(onsets: Times, velocity: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much begins in each frame `[T]`, smoothed over some 40 ms, of unit deviation."""
    frames = np.rint(onsets * FRAME_RATE).astype(np.int64)
    strength = np.bincount(frames, weights=velocity.astype(np.float64), minlength=frames[-1] + 1)
    strength = np.convolve(np.sqrt(strength), np.exp(-0.5 * (np.arange(-3, 4) / 1.2) ** 2), "same")
    return strength / (strength.std() or 1.0)


def _period(strength: NDArray[np.float64]) -> float:
    """Frames between beats: the lag of the strongest autocorrelation, near the tempos that listeners expect."""
    size = 1 << (2 * len(strength) - 1).bit_length()
    spectrum = np.fft.rfft(strength - strength.mean(), size)
    lags = np.arange(int(FRAME_RATE * 60 / 220), min(int(FRAME_RATE * 60 / 40), len(strength) - 1) + 1)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), size)[lags]
    octaves = np.log2(lags * CENTRE_BPM / (60 * FRAME_RATE))
    return float(lags[np.argmax(correlation * np.exp(-0.5 * (octaves / SPREAD_OCTAVES) ** 2))])


def _beats(strength: NDArray[np.float64], period: float) -> NDArray[np.int64]:
    """The frames of the best sequence of beats: strong onsets, at distances near the period."""
    lags = np.arange(round(period / 2), round(period * 2) + 1)
    cost = TIGHTNESS * np.log(lags / period) ** 2
    total = strength.copy()
    came_from = np.full(len(strength), -1, np.int64)
    for frame in range(lags[0], len(strength)):
        usable = lags[: np.searchsorted(lags, frame, side="right")]
        scores = total[frame - usable] - cost[: len(usable)]
        best = int(scores.argmax())
        if scores[best] > 0:
            total[frame] += scores[best]
            came_from[frame] = frame - usable[best]
    # The last beat is the best frame within the last period.
    beats = [len(strength) - 1 - int(np.argmax(total[: -round(period) - 1 : -1]))]
    while came_from[beats[-1]] >= 0:
        beats.append(int(came_from[beats[-1]]))
    return np.array(beats[::-1] if len(beats) > 1 else [beats[0] - round(period), beats[0]])


def _downbeat(beats: Times, onsets: Times, pitch: NDArray[np.int64]) -> int:
    """Which of the first four beats begins a bar."""
    place = np.rint(np.interp(onsets, beats, np.arange(len(beats)))).astype(np.int64)
    near = np.abs(onsets - beats[place]) < 0.07
    weight = np.bincount(place[near] % 4, weights=np.where(pitch[near] < 48, 3.0, 1.0), minlength=4)
    return int(weight.argmax())
