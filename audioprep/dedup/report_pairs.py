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
    above = [ReportPair(kept_from[d.keep], recordings[d.drop], d.similarity, d.relation, d.alignment) for d in dropped]
    gone = np.zeros(len(recordings), bool)
    gone[[one.drop for one in dropped]] = True
    missed = candidates[(candidates["similarity"] < threshold) & ~gone[candidates["one"]]]
    if order is not None:
        missed = missed[~gone[missed["other"]]]
    missed = missed[np.lexsort((missed["other"], missed["one"], -missed["similarity"]))][:count]
    rank = order and {place: number for number, place in enumerate(order)}
    below: list[ReportPair] = []
    for one, other, similarity in missed.tolist():
        drop, keep = sorted((one, other), key=rank.__getitem__, reverse=True) if rank else (one, other)
        below.append(ReportPair(kept_from[keep], recordings[drop], similarity, None))
    return _choose(above, below, threshold, count)


def _choose(above: list[ReportPair], below: list[ReportPair], threshold: float, count: int) -> list[ReportPair]:
    def nearness(pair: ReportPair) -> tuple[float, str, str]:
        return abs(pair.similarity - threshold), pair.keep.uri, pair.drop.uri

    heard = sorted((pair for pair in above if pair.relation != "exact-copy"), key=nearness)
    exact = sorted((pair for pair in above if pair.relation == "exact-copy"), key=nearness)
    near = count * 3 // 8
    rest = sorted(heard[near:] + below[near:], key=lambda pair: (pair.similarity, *nearness(pair)))
    chosen = heard[:near] + below[:near]
    room = min(count - len(chosen), len(rest))
    chosen += [rest[place] for place in np.linspace(0, len(rest) - 1, room).round().astype(int)] if room else []
    return sorted(chosen + exact[: count - len(chosen)], key=nearness)
