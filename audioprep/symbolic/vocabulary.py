"""The vocabulary of EMOPIA's compound words: eight classes of values, and the key as a ninth.

A word has one value of each class; 0 (the integer) says that a class has nothing to say in it. Shards hold ids in
the full vocabulary, which has every value that the quantisation can give, so that they do not depend on the corpus;
an export makes of it the vocabulary that a trainer wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.song import BAR

Value = int | str
Classes = dict[str, tuple[Value, ...]]

CLASSES = ("tempo", "chord", "bar-beat", "type", "pitch", "duration", "velocity", "emotion")
KEY_CLASS = "key"

POSITIONS = 16  # of a bar
STEP = BAR // POSITIONS
TEMPO_BINS = np.linspace(32, 224, 65, dtype=np.int64)
VELOCITY_BINS = np.linspace(0, 128, 65, dtype=np.int64)
MIN_VELOCITY = 40
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
QUALITIES = ("M", "m", "o", "+", "7", "M7", "m7", "o7", "/o7", "sus2", "sus4")
NO_CHORD = "N_N"
CONTI = "CONTI"

IGNORE, BAR_WORD = 0, "Bar"
EOS, EMOTION, METRICAL, NOTE, KEY = "EOS", "Emotion", "Metrical", "Note", "Key"


def key_name(root: int, is_minor: bool) -> str:
    """Sharps only; minor keys in small letters: `F#`, `a`."""
    name = PITCH_CLASSES[root % 12]
    return name.lower() if is_minor else name


def chord_name(root: int, quality: int) -> str:
    """`C#_m7`; without its bass, which words leave out."""
    return f"{PITCH_CLASSES[root % 12]}_{QUALITIES[quality]}"


def chord_values() -> list[str]:
    """Every chord, root by root, and last the one that is none."""
    return [*(chord_name(root, quality) for root in range(12) for quality in range(len(QUALITIES))), NO_CHORD]


@cache
def full_vocabulary(with_key: bool) -> Classes:
    """Every value that a word can have, in the order of the ids: integers first, then texts by their letters.

    The type `Key` stands last: so EMOPIA's generator knows it (`models.py`: the emotion's type is 1, that of a bar
    2, that of a key 4).
    """
    tempos, velocities = TEMPO_BINS, VELOCITY_BINS[VELOCITY_BINS >= MIN_VELOCITY]
    classes = {
        "tempo": [CONTI, *(f"Tempo_{tempo}" for tempo in tempos)],
        "chord": [CONTI, *chord_values()],
        "bar-beat": [BAR_WORD, *(f"Beat_{position}" for position in range(POSITIONS))],
        "type": [EOS, EMOTION, METRICAL, NOTE],
        "pitch": [f"Note_Pitch_{pitch}" for pitch in range(128)],
        "duration": [f"Note_Duration_{steps * STEP}" for steps in range(POSITIONS + 1)],
        "velocity": [f"Note_Velocity_{velocity}" for velocity in velocities],
    }
    found: Classes = {name: (IGNORE, *sorted(values)) for name, values in classes.items()}
    found["type"] = (EOS, EMOTION, METRICAL, NOTE, *([KEY] if with_key else []))
    found["emotion"] = (0, 1, 2, 3, 4)
    if with_key:
        found[KEY_CLASS] = (
            IGNORE,
            *sorted(key_name(root, is_minor) for root in range(12) for is_minor in (False, True)),
        )
    return found


@cache
def published_vocabulary(with_key: bool) -> Classes:
    """The vocabulary of EMOPIA's released models, which were trained on Pop1K7 first: 56, 135, 18, 4, 87, 18, 42, 5.

    Of four classes that size is all values that there are. Tempos are those that the beat tracker finds (55 to 215
    beats a minute); of pitches and velocities only the number is known, and the ranges that have it and fit a piano
    are taken: compare with your checkpoint's own dictionary before you continue its training.
    """
    full = full_vocabulary(with_key)
    kept = {
        "tempo": {CONTI, *(f"Tempo_{tempo}" for tempo in TEMPO_BINS if 55 <= tempo <= 215)},
        "pitch": {f"Note_Pitch_{pitch}" for pitch in range(22, 108)},
        "velocity": {f"Note_Velocity_{velocity}" for velocity in range(MIN_VELOCITY, 121, 2)},
    }
    return {
        name: tuple(value for value in values if value == IGNORE or value in kept.get(name, values))
        for name, values in full.items()
    }


def mapping(full: Classes, wanted: Mapping[str, Sequence[Value]]) -> list[NDArray[np.int64]]:
    """For each class, by id in the full vocabulary, the id in another; -1 where it lacks the value."""
    return [
        np.array([wanted[name].index(value) if value in wanted[name] else -1 for value in values], np.int64)
        for name, values in full.items()
    ]
