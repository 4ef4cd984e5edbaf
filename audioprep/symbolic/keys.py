"""The key of a piece, from how long each pitch class sounds (Krumhansl 1990)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from audioprep.symbolic.song import Song

# Albrecht and Shanahan (2013), Music Perception 31(1): shares of the pitch classes above the tonic.
_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)


def estimate_key(song: Song) -> tuple[int, bool]:
    """The key whose profile is nearest to the piece's: semitones above C, and whether it is minor."""
    held = np.bincount(song.pitch % 12, weights=song.end - song.start, minlength=12)
    if not held.any():  # notes without length
        held = np.bincount(song.pitch % 12, minlength=12).astype(np.float64)
    place = int(np.argmin(np.linalg.norm(_profiles() - held / held.sum(), axis=1)))
    return place % 12, place >= 12


@cache
def _profiles() -> NDArray[np.float64]:
    """`[24, 12]`: twelve major keys, then twelve minor ones."""
    return np.array([np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)])
