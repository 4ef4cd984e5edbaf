"""Which pieces of an item's frames are exported. The plan is exact: every piece knows where it begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

Mode = Literal["whole", "grid", "random"]
Tail = Literal["align", "pad", "drop"]


class Piece(NamedTuple):
    """The frames `[start, stop)` of an item."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class CropPlan:
    """How items are cut. An item of at most `frames` frames is one piece; that it may be short is others' care.

    Attributes:
        mode: `whole`: items are not cut; `grid`: a piece every `hop` frames; `random`: `per_item` pieces, one in each
            of as many equal stretches of the item, at a place that is a pure function of `seed` and the item's id.
        frames: of a piece; None only where items stay whole.
        hop: frames from one piece of the grid to the next.
        tail: what becomes of the frames behind the grid's last full piece. `align`: one more piece, which ends with
            the item; `pad`: one more piece, which is short; `drop`: nothing.
        per_item: pieces of an item, for `random`. Where two fall on the same frame, one is left out.
        seed: of the random places.
    """

    mode: Mode
    frames: int | None = None
    hop: int | None = None
    tail: Tail = "align"
    per_item: int = 1
    seed: int = 0

    def pieces(self, item_id: str, frames: int) -> list[Piece]:
        """The pieces of an item that has `frames` frames, in order."""
        size = self.frames
        if self.mode == "whole" or size is None or frames <= size:
            return [Piece(0, frames)]
        if self.mode == "random":
            starts = sorted(set(self._random_starts(item_id, frames - size + 1)))
            return [Piece(start, start + size) for start in starts]
        hop = self.hop or size
        pieces = [Piece(start, start + size) for start in range(0, frames - size + 1, hop)]
        last = pieces[-1]
        if last.stop < frames and self.tail == "align":
            pieces.append(Piece(frames - size, frames))
        elif last.stop < frames and self.tail == "pad" and last.start + hop < frames:
            pieces.append(Piece(last.start + hop, frames))
        return pieces

    def _random_starts(self, item_id: str, places: int) -> list[int]:
        """One of the `places` possible starts in each of `per_item` stretches; integers, so exact on any machine."""
        bits = hashlib.shake_256(f"{self.seed} {item_id}".encode()).digest(8 * self.per_item)
        draws = [int.from_bytes(bits[at : at + 8]) for at in range(0, len(bits), 8)]
        return [(number * 2**64 + draw) * places // (self.per_item * 2**64) for number, draw in enumerate(draws)]
