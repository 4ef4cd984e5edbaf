"""What a comparison of two corpora, or of one with itself, gives; whichever way recordings are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.alignment import Alignment, Relation, relation_of
from audioprep.dedup.groups import Dropped, Recording
from audioprep.dedup.matching import Match
from audioprep.dedup.similarity import PAIR


@dataclass(frozen=True)
class Comparison:
    """Pairs of recordings that are more or less alike.

    Attributes:
        recordings: those that may be dropped.
        kept_from: those that they are compared with; None: with each other.
        pairs: `PAIR` of a place in `recordings` and one in `kept_from`, those below the threshold, too.
        same: which of them are the same recording, bool of the same length.
        threshold: of similarity.
        matches: of fingerprints, by the ids of a recording and of one in `kept_from`.
        cover_below: similarity of fingerprints, below which they are other sounds.
        least_coverage: share of the shorter one that two have in common, from which on they are the same music.
    """

    recordings: list[Recording]
    kept_from: list[Recording] | None
    pairs: NDArray[np.void]
    same: NDArray[np.bool_]
    threshold: float
    matches: dict[tuple[str, str], Match] = field(default_factory=dict)
    cover_below: float = 0.0
    least_coverage: float = 0.0

    @property
    def others(self) -> list[Recording]:
        """Those that recordings are compared with."""
        return self.recordings if self.kept_from is None else self.kept_from

    def look(self, keep: Recording, drop: Recording) -> tuple[Relation, Alignment | None]:
        """How one recording, of `recordings`, relates to another, of `others`, and how it lies in that one."""
        if match := self.matches.get((drop.id, keep.id)):
            return self._relation(match, drop, keep), Alignment.of(match)
        if self.kept_from is None and (match := self.matches.get((keep.id, drop.id))):
            return self._relation(match, keep, drop), Alignment.of(match).reversed()
        return "near-duplicate", None

    def _relation(self, match: Match, one: Recording, other: Recording) -> Relation:
        return relation_of(match, one.seconds, other.seconds, self.cover_below, self.least_coverage)

    def described(self, dropped: Sequence[Dropped]) -> list[Dropped]:
        """What is dropped, with what `look` says of it."""
        out: list[Dropped] = []
        for one in dropped:
            if one.relation == "near-duplicate":
                relation, alignment = self.look(self.others[one.keep], self.recordings[one.drop])
                one = replace(one, relation=relation, alignment=alignment)
            out.append(one)
        return out


def from_matches(
    recordings: list[Recording],
    kept_from: list[Recording] | None,
    found: NDArray[np.void],
    threshold: float,
    least_coverage: float,
) -> Comparison:
    """The comparison by fingerprints: of `MATCH`."""
    others = recordings if kept_from is None else kept_from
    pairs = np.empty(len(found), PAIR)
    pairs["one"], pairs["other"] = found["one"], found["other"]
    pairs["similarity"] = weakened(found, least_coverage)
    matches = {(recordings[one].id, others[other].id): Match(*match) for one, other, *match in found.tolist()}
    same = pairs["similarity"] >= threshold
    return Comparison(recordings, kept_from, pairs, same, threshold, matches, threshold, least_coverage)


def weakened(found: NDArray[np.void], least_coverage: float) -> NDArray[np.float64]:
    """Similarities of `MATCH`: of two that have less than the least coverage in common, less in the same measure."""
    return found["similarity"] * np.minimum(found["coverage"] / least_coverage, 1)
