"""Which pairs of recordings the report shows: those about which the threshold decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.alignment import Alignment
from audioprep.dedup.groups import Dropped, Recording

BELOW = 0.05
"""How far below the threshold pairs are searched for the report."""


@dataclass(frozen=True, slots=True)
class ReportPair:
    """Two recordings that are alike.

    Attributes:
        keep: the one that is kept.
        drop: the one that is dropped for it; or that would be, were the threshold lower.
        similarity: of the two.
        relation: of `Dropped`; None where nothing is dropped.
        alignment: of `Dropped`.
    """

    keep: Recording
    drop: Recording
    similarity: float
    relation: str | None
    alignment: Alignment | None = None

    @property
    def dropped(self) -> bool:
        """Whether one of the two is left out."""
        return self.relation is not None


def pairs_to_show(
    recordings: Sequence[Recording],
    kept_from: Sequence[Recording],
    order: Sequence[int] | None,
    dropped: Sequence[Dropped],
    candidates: NDArray[np.void],
    threshold: float,
    count: int,
) -> list[ReportPair]:
    """Chooses three eighths the nearest above the threshold, as many the nearest below it, and spreads the rest evenly.

    Files of equal bytes, of which there is nothing to hear, come in only where there is room.

    Args:
        recordings: those that may be dropped.
        kept_from: what `Dropped.keep` counts in: `recordings`, or those of another corpus.
        order: of `preference`; None: `kept_from` is another corpus.
        dropped: what `drop_similar` or `drop_copies` gave.
        candidates: `PAIR` of places, as they got it, but from below the threshold on, too.
        threshold: that decided.
        count: pairs to choose.

    Returns:
        Those nearest to the threshold first.
    """
    gone = np.zeros(len(recordings), bool)
    gone[[one.drop for one in dropped]] = True
    missed = candidates[(candidates["similarity"] < threshold) & ~gone[candidates["one"]]]
    if order is not None:
        missed = missed[~gone[missed["other"]]]
    missed = np.sort(missed, order=["similarity", "one", "other"])
    heard = sorted((d for d in dropped if d.relation != "exact-copy"), key=lambda d: (d.similarity, d.keep, d.drop))
    exact = [one for one in dropped if one.relation == "exact-copy"]
    rank = order and {place: number for number, place in enumerate(order)}

    def kept_both(one: int, other: int, similarity: float) -> ReportPair:
        drop, keep = sorted((one, other), key=rank.__getitem__, reverse=True) if rank else (one, other)
        return ReportPair(kept_from[keep], recordings[drop], similarity, None)

    def kept_one(one: Dropped) -> ReportPair:
        return ReportPair(kept_from[one.keep], recordings[one.drop], one.similarity, one.relation, one.alignment)

    # All in one row by similarity, in which the threshold lies at `middle`.
    middle, end, near = len(missed), len(missed) + len(heard), count * 3 // 8
    chosen = np.arange(max(middle - near, 0), min(middle + near, end))
    rest = np.setdiff1d(np.arange(end), chosen)
    spread = np.linspace(0, len(rest) - 1, min(count - len(chosen), len(rest))).round().astype(int)
    pairs = [
        kept_both(*missed[place].tolist()) if place < middle else kept_one(heard[place - middle])
        for place in [*chosen, *rest[spread]]
    ]
    pairs += map(kept_one, exact[: count - len(pairs)])
    return sorted(pairs, key=lambda pair: (abs(pair.similarity - threshold), pair.keep.uri, pair.drop.uri))
