"""From compound words back to a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.song import BAR, QUARTER
from audioprep.symbolic.vocabulary import (
    BAR_WORD,
    CLASSES,
    CONTI,
    KEY_CLASS,
    METRICAL,
    NOTE,
    PITCH_CLASSES,
    STEP,
    Classes,
)

if TYPE_CHECKING:
    from symusic.core import ScoreTick

SHORTEST = STEP // 2  # ticks that a note of duration 0 lasts: written again, it is 0


def decode_words(words: NDArray[np.integer], vocabulary: Classes) -> ScoreTick:
    """The score that words describe; what a model wrote in disorder is passed over.

    Args:
        words: `[F, 8 or 9]`, ids in `vocabulary`.
        vocabulary: the values of the classes, in order.

    Returns:
        A score of 480 ticks a quarter note; chords are markers `ROOT_QUALITY_ROOT`.
    """
    from symusic import KeySignature, Note, Score, Tempo, TextMeta, TimeSignature

    score: Any = Score(QUARTER)
    score.time_signatures.append(TimeSignature(0, 4, 4))
    tracks = _Tracks(score)
    names = (*CLASSES, KEY_CLASS)[: words.shape[1]]
    bar, now = -1, 0
    for row in words:
        word = {name: vocabulary[name][id_] for name, id_ in zip(names, row, strict=True)}
        if word["type"] == METRICAL and word["bar-beat"] == BAR_WORD:
            bar += 1
            now = bar * BAR
        elif word["type"] == METRICAL and word["bar-beat"]:
            now = max(bar, 0) * BAR + _number(word["bar-beat"]) * STEP
            if word["tempo"] not in (0, CONTI):
                score.tempos.append(Tempo(now, _number(word["tempo"])))
            if word["chord"] not in (0, CONTI):
                root = str(word["chord"]).partition("_")[0]
                score.markers.append(TextMeta(now, f"{word['chord']}_{root}"))
        elif word["type"] == NOTE and word["pitch"]:
            duration = (_number(word["duration"]) if word["duration"] else 0) or SHORTEST
            velocity = min(_number(word["velocity"]), 127) if word["velocity"] else 64
            tracks.add(Note(now, duration, _number(word["pitch"]), velocity))
        elif word.get(KEY_CLASS):
            score.key_signatures.append(KeySignature(0, *_signature(str(word[KEY_CLASS]))))
    return score


class _Tracks:
    """The tracks of a score, all named `piano`: a MIDI file cannot tell which of two notes of one pitch has ended, so
    notes that overlap so are of different tracks.
    """

    def __init__(self, score: Any) -> None:
        self._score = score
        self._ends: list[dict[int, int]] = []  # of each track, by pitch

    def add(self, note: Any) -> None:
        number = next(
            (number for number, ends in enumerate(self._ends) if ends.get(note.pitch, 0) <= note.time), len(self._ends)
        )
        if number == len(self._ends):
            from symusic import Track

            self._ends.append({})
            self._score.tracks.append(Track(name="piano", program=0, is_drum=False))
        self._ends[number][note.pitch] = note.time + note.duration
        self._score.tracks[number].notes.append(note)


def _number(value: str | int) -> int:
    return int(str(value).rpartition("_")[2])


def _signature(key: str) -> tuple[int, int]:
    """Sharps (flats are negative), and 1 for minor."""
    is_minor = key[0].islower()
    relative = PITCH_CLASSES.index(key.upper() if len(key) == 1 else key[0].upper() + key[1:]) + (3 if is_minor else 0)
    return (relative * 7 + 5) % 12 - 5, int(is_minor)
