"""Where two recordings hold the same music: by keys that they share, votes for an offset, and then bit by bit.

This is the search of Haitsma and Kalker 2002 ("A Highly Robust Audio Fingerprinting System", ISMIR) with the offset
voting of Wang 2003 ("An Industrial-Strength Audio Search Algorithm", ISMIR), with words that turn with the pitch, along
a line as steep as one recording is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.prints import TRANSPOSITIONS, UNTRANSPOSED, Index, Prints
from audioprep.encoders.fingerprint import BITS

_VOTES = 4  # hits at about one offset, from which on two recordings are compared bit by bit
_OFFSET = 16  # frames that make "about one offset"
_NEAR_LINE = 6.0  # frames, of hits by which the line is drawn
_SPEED = 0.06  # of change that is looked for
_LOCAL = 24  # frames over which bits are averaged to tell whether the music is the same there
_SAME = 0.75  # share of bits that agree there, from which on it is
# Strangers agree by half, give or take this over the square root of frames (seen of renders of scores: neighbouring
# bits and frames depend on each other); what is shared has to be six times as far from chance.
_DEVIATION = 0.36
_SIGNIFICANT = 6.0
_AGREEING = (BITS - np.array([word.bit_count() for word in range(2**BITS)])) / BITS


class Match(NamedTuple):
    """That a recording has music in common with another one, the reference. Times are in frames.

    Attributes:
        similarity: of what they have in common, 0 by chance and 1 for the very same: the correlation of the bits of
            chroma, or of timbre where that is less.
        coverage: share of the shorter one that they have in common.
        agreement: share of the bits of chroma that are equal there.
        timbre: likewise of timbre.
        offset: frame of the reference at which the recording begins.
        overlap: frames of the reference that they have in common.
        speed: frames of the reference in a frame of the recording.
        pitch: of the recording above the reference, in semitones.
    """

    similarity: float
    coverage: float
    agreement: float
    timbre: float
    offset: float
    overlap: float
    speed: float
    pitch: float


def find(words: NDArray[np.uint16], references: Prints, index: Index, after: int = -1) -> dict[int, Match]:
    """Finds a recording, or parts of it, in references.

    Args:
        words: of the recording, `[frames, codebooks]`.
        references: others.
        index: of the references.
        after: only those references are looked at that follow this one.

    Returns:
        The match of the largest coverage with each reference that has music in common.
    """
    best: dict[int, Match] = {}
    for transposition in TRANSPOSITIONS:
        turned = transposition.undo(words)
        for number, offset, here, there in _candidates(*index.find(turned[:, 0], after)):
            reference = UNTRANSPOSED.undo(references[number])
            for line in _lines(offset, here, there):
                match = _compare(turned, reference, *line, transposition.pitch)
                if match and (number not in best or _merit(match) > _merit(best[number])):
                    best[number] = match
    return best


def _merit(match: Match) -> float:
    return match.coverage * (match.agreement - 0.5)


def _candidates(
    here: NDArray[np.int64], references: NDArray[np.int32], there: NDArray[np.int32]
) -> Iterator[tuple[int, float, NDArray[np.float64], NDArray[np.float64]]]:
    """References with enough hits at about one offset, that offset, and all their hits."""
    # One number that orders hits by reference, then by offset, which may be negative.
    keys = (references.astype(np.int64) << 32) + (there - here) + 2**31
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    votes = np.searchsorted(keys, keys + _OFFSET, side="right") - np.arange(len(keys))
    owners = keys >> 32
    for start, stop in pairwise(np.flatnonzero(np.diff(owners, prepend=-1, append=-1)).tolist()):
        top = start + int(np.argmax(votes[start:stop]))
        if votes[top] >= _VOTES:
            voters, hits = order[top : top + votes[top]], order[start:stop]
            offset = float(np.median(there[voters] - here[voters]))
            yield int(owners[start]), offset, here[hits].astype(float), there[hits].astype(float)


def _lines(offset: float, here: NDArray[np.float64], there: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Offsets and speeds to try: as fast, and as steep as hits near the line say, which takes in more and more."""
    speed = 1.0
    yield offset, speed
    for _ in range(8):
        near = np.abs(there - offset - speed * here) <= _NEAR_LINE
        if near.sum() < 2 * _VOTES or np.ptp(here[near]) < _LOCAL:
            return
        steeper, begin = np.polyfit(here[near], there[near], 1)
        if abs(steeper - 1) > _SPEED:
            return
        settled = abs(begin - offset) < 0.1 and abs(steeper - speed) < 1e-4
        offset, speed = float(begin), float(steeper)
        if settled:
            break
    yield offset, speed


def _compare(
    words: NDArray[np.uint16], reference: NDArray[np.uint16], offset: float, speed: float, pitch: float
) -> Match | None:
    """Compares chroma and timbre `[frames, 2]` bit by bit along a line; None: what is in common may be chance."""
    places = np.rint(offset + speed * np.arange(len(words))).astype(np.int64)
    inside = (places >= 0) & (places < len(reference))
    ones, others = words[inside], reference[places[inside]]
    sounding = (ones[:, 0] > 0) & (others[:, 0] > 0)
    agreeing = _AGREEING[ones[sounding] ^ others[sounding]]
    common = _smooth(agreeing[:, 0]) >= _SAME
    overlap = int(common.sum())
    if overlap == 0:
        return None
    agreement, timbre = agreeing[common].mean(0).tolist()
    if agreement - 0.5 < _SIGNIFICANT * _DEVIATION / np.sqrt(overlap):
        return None
    shorter = min(np.count_nonzero(words[:, 0]), np.count_nonzero(reference[:, 0]) / speed)
    similarity = max(2 * min(agreement, timbre) - 1, 0.0)
    coverage = float(min(overlap / shorter, 1))
    return Match(similarity, coverage, agreement, timbre, offset, overlap * speed, speed, pitch)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over `_LOCAL` frames, of fewer at the ends."""
    window = np.ones(min(_LOCAL, len(values)) or 1)
    return np.convolve(values, window, "same")[: len(values)] / np.convolve(np.ones(len(values)), window, "same")
