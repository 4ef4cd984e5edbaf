"""Fingerprints of many recordings in one array, and the index in which the words of others are looked up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.hashing import fibonacci_hash
from audioprep.encoders.fingerprint import BITS, SHIFTS, TUNINGS, rotate

_AT = (0, 8, 16)  # frames of which a key is made: a second apart, so that they have little in common
_MOST = 64  # places that an index keeps of a key
CODEBOOKS = len(TUNINGS) + len(SHIFTS)


@dataclass(frozen=True, slots=True)
class Prints:
    """Fingerprints, one after the other.

    Attributes:
        words: of `audioprep.encoders.fingerprint`, uint16 `[frames, codebooks]`.
        starts: the first frame of each recording, and the end: int64 `[n + 1]`.
    """

    words: NDArray[np.uint16]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, recording: int) -> NDArray[np.uint16]:
        return self.words[self.starts[recording] : self.starts[recording + 1]]


@dataclass(frozen=True, slots=True)
class Transposition:
    """A change of pitch under which a recording is looked for.

    Attributes:
        semitones: one of `SHIFTS`.
        tuning: place in `TUNINGS`.
    """

    semitones: int
    tuning: int

    @property
    def pitch(self) -> float:
        """In semitones."""
        return self.semitones + TUNINGS[self.tuning]

    def undo(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Of a recording that is higher by `pitch`, chroma and timbre as if it were not.

        Args:
            words: `[frames, codebooks]`.

        Returns:
            `[frames, 2]`.
        """
        timbre = words[:, len(TUNINGS) + SHIFTS.index(self.semitones)]
        return np.stack([rotate(words[:, self.tuning], -self.semitones), timbre], axis=1)


UNTRANSPOSED = Transposition(0, 0)
TRANSPOSITIONS = [Transposition(semitones, tuning) for semitones in SHIFTS for tuning in range(len(TUNINGS))]


class Index:
    """Where each key occurs among the untransposed words of some recordings.

    Of a key that occurs often, such as that of a drone, some places are kept, chosen by a hash: a bound for the time
    that a search takes. Recordings that have many of their keys in common still share many that are kept.
    """

    def __init__(self, prints: Prints) -> None:
        recordings = np.repeat(np.arange(len(prints), dtype=np.int32), np.diff(prints.starts))
        frames = np.arange(len(prints.words)) - prints.starts[recordings]
        places, keys = keys_of(prints.words[:, 0], recordings)
        order = np.lexsort((_hash(keys ^ _hash(recordings[places])), keys))
        keys, places = keys[order], places[order]
        rank = np.arange(len(keys)) - np.searchsorted(keys, keys)
        kept = rank < _MOST
        self._keys, places = keys[kept], places[kept]
        self._recordings, self._frames = recordings[places], frames[places].astype(np.int32)

    def find(
        self, words: NDArray[np.uint16], after: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Looks up the chroma words `[frames]` of one recording, in those recordings that follow the one at `after`.

        Returns:
            For each place at which one of its keys occurs: the frame here, the recording and the frame there.
        """
        frames, keys = keys_of(words, np.zeros(len(words), np.int32))
        first = np.searchsorted(self._keys, keys)
        counts = np.searchsorted(self._keys, keys, side="right") - first
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        places, here = places[following := self._recordings[places] > after], np.repeat(frames, counts)
        return here[following], self._recordings[places], self._frames[places]


def keys_of(words: NDArray[np.uint16], recordings: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Keys of words `[frames]`: their places, and the keys; none where there is silence or a recording ends."""
    if len(words) <= _AT[-1]:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    parts = [words[at : len(words) - _AT[-1] + at] for at in _AT]
    whole = recordings[: -_AT[-1]] == recordings[_AT[-1] :]
    places = np.flatnonzero(whole & np.all([part > 0 for part in parts], axis=0))
    keys = np.zeros(len(places), np.uint64)
    for part in parts:
        keys = keys << np.uint64(BITS) | part[places].astype(np.uint64)
    return places, keys


def _hash(values: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Numbers to sort by that have nothing to do with the values."""
    product = fibonacci_hash(values)
    return product ^ product >> np.uint64(32)
