"""The order in which a part's measures are played: repeats, endings, D.C. and D.S. carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from music21.stream import Measure, Part


def play_order(part: Part, measures: Sequence[Measure]) -> list[int] | None:
    """Indices into `measures` in the order of playing; None where the repeat signs contradict each other.

    Args:
        part: the part, with its brackets over endings.
        measures: of the part, in order.
    """
    from music21.note import Rest
    from music21.repeat import Expander, RepeatExpression
    from music21.spanner import RepeatBracket
    from music21.stream import Measure, Part

    # An outline of the part with its signs alone: notes would only be copied about, and numbers can come twice.
    outline, places = Part(), {id(measure): place for place, measure in enumerate(measures)}
    for place, measure in enumerate(measures):
        bare = Measure(number=place)
        bare.groups.append(str(place))  # numbers are given anew where the expander goes back
        bare.append(Rest(quarterLength=4))
        bare.leftBarline, bare.rightBarline = measure.leftBarline, measure.rightBarline
        for sign in measure.getElementsByClass(RepeatExpression):
            bare.insert(min(sign.offset, 4), type(sign)())
        outline.append(bare)
    copies = list(outline.getElementsByClass(Measure))
    for bracket in part.recurse().getElementsByClass(RepeatBracket):
        under = [copies[places[id(measure)]] for measure in bracket.getSpannedElements() if id(measure) in places]
        if under:
            outline.insert(0, RepeatBracket(under, number=bracket.number))
    expander = Expander(outline)
    expandable = expander.isExpandable()
    if expandable is None:
        return list(range(len(measures)))
    if not expandable:
        return None
    return [int(measure.groups[0]) for measure in expander.process().getElementsByClass(Measure)]
