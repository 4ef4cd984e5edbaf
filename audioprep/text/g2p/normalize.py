"""What is done to the characters of lyrics before they are read."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Unicode = Literal["nfkc", "nfc"]
Numbers = Literal["read", "digits", "drop"]
Punctuation = Literal["pauses", "drop"]

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]|[^\\S ]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_CHARACTERS = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "【": "[", "】": "]", "〔": "[", "〕": "]"})


@dataclass(frozen=True, slots=True)
class Normalization:
    """How lyrics are normalized.

    Attributes:
        unicode: `nfkc` makes ordinary characters of half-width kana, full-width letters and circled digits; `nfc` only
            composes accents.
        numbers: `read` as a number of the language, with its counters; `digits` one by one; `drop`: not at all.
        punctuation: `pauses` among the phonemes, or `drop`.
    """

    unicode: Unicode = "nfkc"
    numbers: Numbers = "read"
    punctuation: Punctuation = "pauses"


def normalize_line(line: str, settings: Normalization) -> str:
    """One line of lyrics without what is invisible, its apostrophes and brackets written in one way."""
    # A spacing accent that serves as an apostrophe would become a space and a combining accent.
    line = line.translate(_CHARACTERS)
    line = unicodedata.normalize(settings.unicode.upper(), line).translate(_CHARACTERS)  # pyright: ignore[reportArgumentType]
    line = _INVISIBLE.sub(lambda found: " " if found[0].isspace() else "", line)
    if settings.numbers == "digits":
        line = _NUMBER.sub(lambda found: f" {' '.join(filter(str.isdigit, found[0]))} ", line)
    elif settings.numbers == "drop":
        line = _NUMBER.sub(" ", line)
    return re.sub(" +", " ", line).strip()
