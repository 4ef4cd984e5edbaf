"""EMOPIA's compound words of a song: an event of emotion, one of key, then bars with their positions and notes.

The quantisation is that of the Compound Word Transformer (Hsiao et al. 2021) and EMOPIA (Hung et al. 2021): 16
positions a bar of 4/4; velocities to even numbers, at least 40; tempos to 65 bins from 32 to 224; durations to
positions, at most one bar. Empty bars before the first note are left out.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.chords import Chords
from audioprep.symbolic.song import BAR, Song, Times
from audioprep.symbolic.vocabulary import (
    BAR_WORD,
    CONTI,
    EMOTION,
    EOS,
    KEY,
    KEY_CLASS,
    METRICAL,
    MIN_VELOCITY,
    NOTE,
    POSITIONS,
    STEP,
    TEMPO_BINS,
    VELOCITY_BINS,
    chord_values,
    full_vocabulary,
    key_name,
)

Words = NDArray[np.uint8]


class _Ids:
    """Ids of the full vocabulary, as arrays that quantised values index."""

    def __init__(self, with_key: bool) -> None:
        at = {name: {value: id_ for id_, value in enumerate(values)} for name, values in
              full_vocabulary(with_key).items()}  # fmt: skip
        self.tempo = np.array([at["tempo"][f"Tempo_{tempo}"] for tempo in TEMPO_BINS], np.uint8)
        self.chord = np.array([at["chord"][name] for name in chord_values()], np.uint8)
        self.position = np.array([at["bar-beat"][f"Beat_{position}"] for position in range(POSITIONS)], np.uint8)
        self.pitch = np.array([at["pitch"][f"Note_Pitch_{pitch}"] for pitch in range(128)], np.uint8)
        self.duration = np.array([at["duration"][f"Note_Duration_{n * STEP}"] for n in range(POSITIONS + 1)], np.uint8)
        velocities = (max(int(velocity), MIN_VELOCITY) for velocity in VELOCITY_BINS)
        self.velocity = np.array([at["velocity"][f"Note_Velocity_{velocity}"] for velocity in velocities], np.uint8)
        self.conti = at["tempo"][CONTI], at["chord"][CONTI]
        self.bar = at["bar-beat"][BAR_WORD]
        self.types = at["type"]
        self.keys = at.get(KEY_CLASS, {})


@cache
def ids_of(with_key: bool) -> _Ids:
    """The ids that a song is written with."""
    return _Ids(with_key)


def encode_song(song: Song, chords: Chords, emotion: int, key: tuple[int, bool] | None) -> Words:
    """Writes a song as words.

    Args:
        song: in 4/4, or to be read as if it were.
        chords: what sounds from which tick on.
        emotion: 1 to 4; 0 for none.
        key: semitones above C, and whether it is minor; None: words have no key.

    Returns:
        uint8 `[F, 8]`, with a key `[F, 9]`: ids in `full_vocabulary`.
    """
    ids = ids_of(key is not None)
    offset = int(_steps(song.start[:1])[0]) // POSITIONS * BAR  # empty bars at the start
    notes = _steps(song.start - offset)
    # The bar in which the last note lies is part of the song, also where the note begins it.
    bars = int(notes.max()) // POSITIONS + 1

    at = np.full((2, bars * POSITIONS), -1, np.int64)  # the last tempo and the last chord at each position
    for row, (times, values) in zip(at, ((song.tempo_times, nearest(TEMPO_BINS, song.qpm)), chords), strict=True):
        steps = _steps(np.maximum(times - offset, 0.0))
        row[steps[steps < row.size]] = values[steps < row.size]
    metrical = np.union1d(np.flatnonzero((at >= 0).any(axis=0)), notes)

    bar_rows, metrical_rows, note_rows = (np.zeros((n, 8 + bool(ids.keys)), np.uint8)
                                          for n in (bars, len(metrical), len(notes)))  # fmt: skip
    bar_rows[:, 2:4] = ids.bar, ids.types[METRICAL]
    for column, (row, of, conti) in enumerate(zip(at, (ids.tempo, ids.chord), ids.conti, strict=True)):
        found = row[metrical]
        metrical_rows[:, column] = np.where(found >= 0, of[found], conti)
    metrical_rows[:, 2] = ids.position[metrical % POSITIONS]
    metrical_rows[:, 3] = ids.types[METRICAL]
    note_rows[:, 3] = ids.types[NOTE]
    note_rows[:, 4] = ids.pitch[song.pitch]
    note_rows[:, 5] = ids.duration[_steps(np.minimum(song.end - song.start, BAR))]
    note_rows[:, 6] = ids.velocity[nearest(VELOCITY_BINS, song.velocity)]

    places = np.concatenate([np.arange(bars) * POSITIONS * 3, metrical * 3 + 1, notes * 3 + 2])
    rows = np.concatenate([bar_rows, metrical_rows, note_rows])[np.argsort(places, kind="stable")]
    head = np.zeros((1 + bool(ids.keys), rows.shape[1]), np.uint8)
    head[0, 3], head[0, 7] = ids.types[EMOTION], emotion
    if key is not None:
        head[1, 3], head[1, 8] = ids.types[KEY], ids.keys[key_name(*key)]
    tail = np.zeros((2, rows.shape[1]), np.uint8)
    tail[0, 2:4] = ids.bar, ids.types[METRICAL]
    tail[1, 3] = ids.types[EOS]
    return np.concatenate([head, rows, tail])


def _steps(times: Times) -> NDArray[np.int64]:
    """The nearest position, counted from tick 0; half way to the even one."""
    return np.rint(times / STEP).astype(np.int64)


def nearest(bins: NDArray[np.int64], values: NDArray[np.generic]) -> NDArray[np.int64]:
    """For each value the place of the nearest of evenly spaced bins, the lower one half way."""
    spacing = bins[1] - bins[0]
    place = np.ceil((values - bins[0]) / spacing - 0.5)
    return np.clip(place, 0, len(bins) - 1).astype(np.int64)
