"""Where in one recording another one lies, and what that says of the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from audioprep.dedup.matching import Match
from audioprep.encoders.fingerprint import FRAME_RATE

Relation = Literal[
    "exact-copy",
    "same-sound",
    "near-duplicate",
    "re-encode",
    "excerpt",
    "shifted-cut",
    "speed",
    "tempo",
    "pitch",
    "cover",
    "passage",
]
"""How what is dropped relates to what is kept for it:

- exact-copy: the same bytes
- same-sound: the same fingerprint from beginning to end, as lossless copies have it
- near-duplicate: similar histograms; there are no fingerprints that would tell more
- re-encode: the same recording from beginning to end, in another encoding, or more or less loud
- remaster: likewise, but the levels of its bands differ, too
- excerpt: one is a part of the other
- shifted-cut: each has something that the other one lacks
- speed, tempo, pitch: played faster or slower, with or without its pitch, or higher or lower
- cover: the same music at the same time, but other sounds
- passage: less than the least coverage in common, such as a loop or a sample
"""

_WHOLE = 0.9  # share of a recording that is all of it: fades and silence at the ends are not compared
_SPEED = 0.004  # of change that is more than an error of measurement
_PITCH = 0.35  # semitones, likewise: tunings are a third apart


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

    @classmethod
    def of(cls, match: Match) -> Alignment:
        """Of a recording that is dropped for the reference of a match."""
        seconds = (match.offset / FRAME_RATE, match.overlap / FRAME_RATE)
        return cls(*seconds, match.agreement, match.speed, match.pitch)

    def reversed(self) -> Alignment:
        """How the kept one lies in the dropped one."""
        return Alignment(
            0.0 - self.offset / self.speed, self.overlap / self.speed, self.agreement, 1 / self.speed, 0.0 - self.pitch
        )


def relation_of(
    match: Match, one_seconds: float, other_seconds: float, cover_below: float, least_coverage: float
) -> Relation:
    """What a match says of two recordings.

    Args:
        match: of them.
        one_seconds: of the recording.
        other_seconds: of the reference.
        cover_below: similarity below which their sounds are others.
        least_coverage: from which on they are the same music.
    """
    if match.coverage < least_coverage:
        return "passage"
    if match.similarity < cover_below:
        return "cover"
    if abs(match.speed - 1) > _SPEED:
        return "speed" if abs(match.pitch - 12 * math.log2(match.speed)) < _PITCH else "tempo"
    if match.pitch:
        return "pitch"
    shares = [match.overlap / FRAME_RATE / seconds for seconds in (one_seconds, other_seconds)]
    whole = sum(share >= _WHOLE for share in shares)
    return "re-encode" if whole == 2 else "excerpt" if whole == 1 else "shifted-cut"
