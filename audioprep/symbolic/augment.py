"""Copies of a song in other keys, at other tempos and loudnesses, made of its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.vocabulary import (
    KEY_CLASS,
    MIN_VELOCITY,
    NO_CHORD,
    PITCH_CLASSES,
    TEMPO_BINS,
    Value,
    full_vocabulary,
)
from audioprep.symbolic.words import nearest

MAX_VELOCITY = 126


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """What is other in a copy.

    Attributes:
        semitones: that all notes, chords and the key are moved by.
        tempo: that all tempos are multiplied by, to the nearest of the bins.
        velocity: that is added to all velocities, within 40 to 126.
    """

    semitones: int = 0
    tempo: float = 1.0
    velocity: int = 0

    @property
    def suffix(self) -> str:
        """What is put behind a song's name: `-k+2`, `-t0.9`, `-v-8`; nothing where nothing is other."""
        parts = (
            f"-k{self.semitones:+d}" if self.semitones else "",
            f"-t{self.tempo:g}" if self.tempo != 1 else "",
            f"-v{self.velocity:+d}" if self.velocity else "",
        )
        # What follows a dot is no part of a name upstream.
        return "".join(parts).replace(".", "p")

    def tables(self, with_key: bool) -> list[NDArray[np.int64]]:
        """For each class, by id in the full vocabulary, the id in the copy; -1 where there is none."""
        return _tables(self, with_key)


def changes(semitones: list[int], tempos: list[float], velocities: list[int]) -> list[Change]:
    """Every combination, the unchanged one first."""
    found = {Change(*values) for values in product([0, *semitones], [1.0, *tempos], [0, *velocities])}
    return sorted(found, key=lambda change: (change != Change(), change))


@cache
def _tables(change: Change, with_key: bool) -> list[NDArray[np.int64]]:
    moves: dict[str, Callable[[str], str]] = {
        "tempo": lambda value: f"Tempo_{_faster(int(value.removeprefix('Tempo_')), change.tempo)}",
        "chord": lambda value: _moved_chord(value, change.semitones),
        "pitch": lambda value: f"Note_Pitch_{int(value.removeprefix('Note_Pitch_')) + change.semitones}",
        "velocity": lambda value: (
            f"Note_Velocity_{_louder(int(value.removeprefix('Note_Velocity_')), change.velocity)}"
        ),
        KEY_CLASS: lambda value: _moved_tone(value, change.semitones),
    }
    tables = []
    for name, values in full_vocabulary(with_key).items():
        at: dict[Value, int] = {value: id_ for id_, value in enumerate(values)}
        move = moves.get(name)
        stays = [move is None or isinstance(value, int) or value == "CONTI" for value in values]
        moved = [value if stay or move is None else move(str(value)) for value, stay in zip(values, stays, strict=True)]
        tables.append(np.array([at.get(value, -1) for value in moved], np.int64))
    return tables


def _faster(tempo: int, factor: float) -> int:
    return int(TEMPO_BINS[nearest(TEMPO_BINS, np.array([tempo * factor]))[0]])


def _louder(velocity: int, by: int) -> int:
    """Bins are even numbers."""
    return min(max(velocity + by // 2 * 2, MIN_VELOCITY), max(velocity, MAX_VELOCITY))


def _moved_chord(name: str, semitones: int) -> str:
    root, _, quality = name.partition("_")
    return name if name == NO_CHORD else f"{_moved_tone(root, semitones)}_{quality}"


def _moved_tone(name: str, semitones: int) -> str:
    moved = PITCH_CLASSES[(PITCH_CLASSES.index(name.upper()) + semitones) % 12]
    return moved.lower() if name[0].islower() else moved
