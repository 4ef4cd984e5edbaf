"""Where in one recording another one lies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a recording that is dropped lies in the one that is kept for it.

    Attributes:
        offset: seconds of the kept one at which the dropped one begins; negative where it begins earlier.
        overlap: seconds of the kept one that the dropped one has, too.
        agreement: share of the bits of their fingerprints that are equal there: 0.5 by chance.
        speed: 1.01 where the dropped one plays 1 % faster.
        pitch: of the dropped one above the kept one, in semitones.
    """

    offset: float
    overlap: float
    agreement: float
    speed: float = 1.0
    pitch: float = 0.0
