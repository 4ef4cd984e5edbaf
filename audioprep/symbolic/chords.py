"""Chords: those that a file's markers name, or those that its notes sound like."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.song import QUARTER, Song, Times
from audioprep.symbolic.vocabulary import PITCH_CLASSES, QUALITIES, chord_values

# Semitones above the root, by quality.
_TONES = {
    "M": (0, 4, 7), "m": (0, 3, 7), "o": (0, 3, 6), "+": (0, 4, 8), "7": (0, 4, 7, 10), "M7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10), "o7": (0, 3, 6, 9), "/o7": (0, 3, 6, 10), "sus2": (0, 2, 7), "sus4": (0, 5, 7),
}  # fmt: skip
_FLATS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}

BASS_BONUS = 0.3  # for a chord whose root is the lowest note
SEVENTH_COST = 0.12  # a fourth tone must be worth it
RARE_COST = 0.15  # of +, sus2, sus4, which passing notes imitate
CHANGE_COST = 0.35  # against chords that flicker from beat to beat
NO_CHORD_SCORE = 0.25


class Chords(NamedTuple):
    """Chords as they begin.

    Attributes:
        times: float64 `[M]`, ticks.
        ids: int64 `[M]`, places in `chord_values`.
    """

    times: Times
    ids: NDArray[np.int64]


def marked_chords(song: Song) -> Chords:
    """Those of markers `ROOT_QUALITY_BASS`, as the Compound Word Transformer's analyser writes them.

    Other markers (`global_bpm_120`, `Boundary_…`, a quality that there is no word for) are passed over.
    """
    places = {name: place for place, name in enumerate(chord_values())}
    times, ids = [], []
    for time, text in song.markers:
        root, _, rest = text.partition("_")
        quality, _, bass = rest.rpartition("_")
        name = f"{_FLATS.get(root, root)}_{quality}"
        if bass and name in places:
            times.append(time)
            ids.append(places[name])
    return Chords(np.array(times, np.float64), np.array(ids, np.int64))


def recognise_chords(song: Song) -> Chords:
    """A chord for each quarter note, given where it changes.

    What sounds in a quarter note, weighted by how long it does, is compared with each chord's tones: tones of the
    chord count for it, all others against it. The best sequence is found with a cost for each change (Viterbi).
    """
    chroma, bass = _chroma(song)
    path = _best_path(_scores(chroma, bass))
    changes = np.flatnonzero(np.diff(path, prepend=-1))
    return Chords(changes * float(QUARTER), path[changes])


def _chroma(song: Song) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of each pitch class in each quarter note, `[Q, 12]`, and the lowest one's pitch class; -1: silence."""
    quarters = int(song.end.max() // QUARTER) + 1
    chroma = np.zeros((quarters, 12))
    lowest = np.full(quarters, 128, np.int64)
    first = (song.start // QUARTER).astype(np.int64)
    last = np.maximum(np.ceil(song.end / QUARTER).astype(np.int64) - 1, first)
    counts = last - first + 1  # quarters that a note touches
    note = np.repeat(np.arange(len(first)), counts)
    quarter = np.arange(len(note)) - np.repeat(np.cumsum(counts) - counts, counts) + first[note]
    begin, end = quarter * QUARTER, (quarter + 1) * QUARTER
    held = np.minimum(song.end[note], end) - np.maximum(song.start[note], begin)
    np.add.at(chroma, (quarter, song.pitch[note] % 12), held)
    sounds = held >= QUARTER / 8  # a grace note is no bass
    np.minimum.at(lowest, quarter[sounds], song.pitch[note[sounds]])
    total = chroma.sum(axis=1, keepdims=True)
    return chroma / np.maximum(total, 1e-9), np.where(lowest < 128, lowest % 12, -1)


@cache
def _templates() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of the pitch classes `[C, 12]` and a constant `[C]` for each chord of `chord_values` but the last."""
    weights, costs = [], []
    for root in range(12):
        for quality in QUALITIES:
            row = np.full(12, -1.0)
            tones = [(root + tone) % 12 for tone in _TONES[quality]]
            row[tones] = 1.0
            weights.append(row)
            cost = SEVENTH_COST if len(tones) == 4 else 0.0
            costs.append(cost + (RARE_COST if quality in ("+", "sus2", "sus4") else 0.0))
    return np.array(weights), np.array(costs)


def _scores(chroma: NDArray[np.float64], bass: NDArray[np.int64]) -> NDArray[np.float64]:
    """How well each chord fits each quarter note, `[Q, C + 1]`; the last is no chord."""
    weights, costs = _templates()
    # A chord is more than one long note: its rarest triad tone counts, too.
    scores = chroma @ weights.T - costs
    triads = np.array([[(root + tone) % 12 for tone in _TONES[quality][:3]] for root in range(12)
                       for quality in QUALITIES])  # fmt: skip
    scores += 0.5 * np.minimum(chroma[:, triads].min(axis=2) * 3, 1.0)
    roots = np.repeat(np.arange(len(PITCH_CLASSES)), len(QUALITIES))
    scores += BASS_BONUS * (bass[:, None] == roots)
    return np.concatenate([scores, np.full((len(scores), 1), NO_CHORD_SCORE)], axis=1)


def _best_path(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The sequence of chords `[Q]` with the highest sum of scores, less the changes' costs."""
    came_from = np.empty(scores.shape, np.int16)
    total = scores[0].copy()
    stay = np.arange(scores.shape[1])
    for quarter in range(1, len(scores)):
        best = int(total.argmax())
        change = total[best] - CHANGE_COST
        keeps = total >= change
        came_from[quarter] = np.where(keeps, stay, best)
        total = np.where(keeps, total, change) + scores[quarter]
    path = np.empty(len(scores), np.int64)
    path[-1] = total.argmax()
    for quarter in range(len(scores) - 1, 0, -1):
        path[quarter - 1] = came_from[quarter, path[quarter]]
    return path
