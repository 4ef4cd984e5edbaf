"""Which pairs of recordings the report shows: those about which the threshold decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audioprep.dedup.alignment import Alignment, Relation
from audioprep.dedup.comparison import Comparison
from audioprep.dedup.groups import Dropped, Recording


@dataclass(frozen=True, slots=True)
class ReportPair:
    """Two recordings that are alike.

    Attributes:
        keep: the one that is kept.
        drop: the one that is dropped for it; or that would be, were the threshold lower.
        similarity: of the two.
        relation: of `Dropped`.
        alignment: of `Dropped`.
        dropped: whether one of the two is left out.
    """

    keep: Recording
    drop: Recording
    similarity: float
    relation: Relation
    alignment: Alignment | None = None
    dropped: bool = True


def pairs_to_show(
    comparison: Comparison, order: Sequence[int] | None, dropped: Sequence[Dropped], count: int
) -> list[ReportPair]:
    """Chooses those about which the threshold decides, and some more.

    Three eighths are the least similar that were dropped, as many the most similar that were not; the rest is spread
    evenly. Files of equal bytes, of which there is nothing to hear, come in only where there is room.

    Args:
        comparison: of the recordings.
        order: of `preference`; None: they were compared with another corpus.
        dropped: what is dropped.
        count: pairs to choose.

    Returns:
        Those nearest to the threshold first.
    """
    recordings, others = comparison.recordings, comparison.others
    gone = np.zeros(len(recordings), bool)
    gone[[one.drop for one in dropped]] = True
    missed = comparison.pairs[~comparison.same]
    missed = missed[~gone[missed["one"]]]
    if order is not None:
        missed = missed[~gone[missed["other"]]]
    missed = np.sort(missed, order=["similarity", "one", "other"])
    heard = sorted((d for d in dropped if d.relation != "exact-copy"), key=lambda d: (d.similarity, d.keep, d.drop))
    exact = [one for one in dropped if one.relation == "exact-copy"]
    rank = order and {place: number for number, place in enumerate(order)}

    def kept_both(one: int, other: int, similarity: float) -> ReportPair:
        drop, keep = sorted((one, other), key=rank.__getitem__, reverse=True) if rank else (one, other)
        relation, alignment = comparison.look(others[keep], recordings[drop])
        return ReportPair(others[keep], recordings[drop], similarity, relation, alignment, dropped=False)

    def kept_one(one: Dropped) -> ReportPair:
        return ReportPair(others[one.keep], recordings[one.drop], one.similarity, one.relation, one.alignment)

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
    return sorted(pairs, key=lambda pair: (abs(pair.similarity - comparison.threshold), pair.keep.uri, pair.drop.uri))
