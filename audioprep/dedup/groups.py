"""From similar pairs to groups of which one recording is kept.

A group is a star: whoever is dropped is similar to the one that is kept for it. Chains, in which each is like the next
and the ends are different songs, so never become one group: what is only like something dropped is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audioprep.dedup.alignment import Alignment, Relation

Keep = Literal["longest", "highest-bitrate", "lossless-first", "first"]

_LOSSLESS = {".wav", ".flac", ".aiff", ".aif", ".alac", ".caf", ".w64", ".ape", ".wv", ".au", ".tta"}


@dataclass(frozen=True, slots=True)
class Recording:
    """What decides which of several recordings is kept.

    Attributes:
        id: hash of its bytes.
        uri: where it is.
        seconds: of sound.
        bytes: of its file; 0 where that is not known.
        sound: hash of its fingerprint from beginning to end; empty where there is none, or nothing but silence.
    """

    id: str
    uri: str
    seconds: float
    bytes: int
    sound: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A recording that another one stands for; `keep` and `drop` are places in the list of recordings."""

    keep: int
    drop: int
    relation: Relation
    similarity: float
    alignment: Alignment | None = None


def preference(recordings: Sequence[Recording], policy: Keep, preferred: re.Pattern[str] | None) -> list[int]:
    """Places of the recordings, those first that are rather kept; where nothing else decides, by `uri`.

    Args:
        recordings: in any order.
        policy: `longest` (to a tenth of a second, then the higher bitrate), `highest-bitrate`, `lossless-first` (then
            the longest), or `first` by `uri`.
        preferred: what a `uri` has that is kept before all others.
    """

    def key(place: int) -> tuple[bool, float, float, float, str]:
        one = recordings[place]
        lossless = PurePath(one.uri).suffix.lower() in _LOSSLESS
        seconds, bitrate = round(one.seconds, 1), one.bytes / max(one.seconds, 0.1)
        order = {
            "longest": (-seconds, -bitrate, 0.0),
            "highest-bitrate": (-bitrate, -seconds, 0.0),
            "lossless-first": (-float(lossless), -seconds, -bitrate),
            "first": (0.0, 0.0, 0.0),
        }[policy]
        return preferred is None or not preferred.search(one.uri), *order, one.uri

    return sorted(range(len(recordings)), key=key)


def drop_similar(order: Sequence[int], recordings: Sequence[Recording], pairs: NDArray[np.void]) -> list[Dropped]:
    """Keeps recordings in the order of preference, and drops what is similar to one that is kept.

    Args:
        order: of `preference`.
        recordings: the same.
        pairs: `PAIR` of places; those of one `id` need not be among them.

    Returns:
        What is dropped, by the place of what is kept for it, then by its own.
    """
    near: dict[int, dict[int, float]] = defaultdict(dict)
    for one, other, similarity in pairs.tolist():
        near[one][other] = near[other][one] = similarity
    same = _places(recordings, order)
    dropped: dict[int, Dropped] = {}
    for place in order:
        if place in dropped:
            continue
        copies = [*same[recordings[place].id], *same[recordings[place].sound]]
        for other in copies:
            if other != place and other not in dropped:
                dropped[other] = Dropped(place, other, _equality(recordings[place], recordings[other]), 1.0)
        for other, similarity in near[place].items():
            for copy in same[recordings[other].id]:
                if copy not in dropped and copy not in copies:
                    dropped[copy] = Dropped(place, copy, "near-duplicate", similarity)
    return sorted(dropped.values(), key=lambda one: (one.keep, one.drop))


def drop_copies(
    recordings: Sequence[Recording], kept_from: Sequence[Recording], pairs: NDArray[np.void]
) -> list[Dropped]:
    """Drops each recording that is similar to one of another corpus, for the most similar one; nothing else.

    Args:
        recordings: those that may be dropped.
        kept_from: those of the other corpus.
        pairs: `PAIR` of a place in `recordings` and one in `kept_from`; equal ones need not be among them.
    """
    same = _places(kept_from, range(len(kept_from)))
    found: dict[int, Dropped] = {}
    for drop, recording in enumerate(recordings):
        for keep in [*same[recording.id], *same[recording.sound]][:1]:
            found[drop] = Dropped(keep, drop, _equality(kept_from[keep], recording), 1.0)
    equal = set(found)
    for drop, keep, similarity in pairs.tolist():
        if drop not in equal and (drop not in found or similarity > found[drop].similarity):
            found[drop] = Dropped(keep, drop, "near-duplicate", similarity)
    return sorted(found.values(), key=lambda one: (one.keep, one.drop))


def _places(recordings: Sequence[Recording], order: Sequence[int]) -> dict[str, list[int]]:
    """Places by id, and by sound, in the order given; there is nothing by an empty sound."""
    places: dict[str, list[int]] = defaultdict(list)
    for place in order:
        for name in filter(None, (recordings[place].id, recordings[place].sound)):
            places[name].append(place)
    return places


def _equality(one: Recording, other: Recording) -> Relation:
    return "exact-copy" if one.id == other.id else "same-sound"
