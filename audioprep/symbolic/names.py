"""What the names of known data sets say of their files: EMOPIA's clips, and the pieces of Pop1K7."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from audioprep.corpus.entry import uri_to_path

# Q1_0vLPYiPN7qY_0.mid: the quadrant, YouTube's name of the song (of 11 characters), the clip's number.
_EMOPIA = re.compile(r"Q([1-4])_([\w-]{11})_\d+")
_QUADRANT = re.compile(r"Q([1-4])(?![0-9A-Za-z])")


class Named(NamedTuple):
    """What a name says.

    Attributes:
        emotion: the quadrant of Russell's circle, 1 to 4; 0: not said.
        song: of which song the file is an excerpt; None: it is a piece of its own.
    """

    emotion: int
    song: str | None


def read_name(uri: str) -> Named:
    """Reads an input's file name. Those of Pop1K7 (`src_001/0.mid`) say nothing: each is a song without emotion."""
    stem = Path(uri_to_path(uri)).stem
    if clip := _EMOPIA.match(stem):
        return Named(int(clip[1]), clip[2])
    quadrant = _QUADRANT.match(stem)
    return Named(int(quadrant[1]) if quadrant else 0, None)
