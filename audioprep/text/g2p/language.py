"""Which language each line of a lyric is in, by its script and its commonest words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Literal

LANGUAGES = ("ja", "en", "pt", "es", "zh")
Script = Literal["kana", "han", "latin", "other", ""]

# Words that songs are full of, each in one of the three languages only.
_WORDS = {
    "en": "the and you my in is of to it your we that this with for are be i'm don't all love on what was she he they",
    "pt": "não eu você que é um uma meu minha do da no na em os as dos das nos nas seu sua pra vou tá ela ele isso "
    "mais muito sem coração foi quando saudade também são está",
    "es": "el los las y yo tú que es un una mi del en por con se lo su pero más sin corazón quiero como cuando eres "
    "porque donde hay muy hasta está también son",
}
_VOTES: dict[str, list[str]] = {}
for _language, _list in _WORDS.items():
    for _word in _list.split():
        _VOTES.setdefault(_word, []).append(_language)
_LETTERS = {"pt": "ãõçêô", "es": "ñ¿¡"}


@lru_cache(maxsize=4096)
def script_of(char: str) -> Script:
    """The script of a character; empty for what is no letter."""
    code = ord(char)
    if 0x3041 <= code <= 0x30FF or 0x31F0 <= code <= 0x31FF or 0xFF66 <= code <= 0xFF9F:
        return "" if char == "・" else "kana"
    if 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000 or char in "々〇〆":
        return "han" if char.isalpha() or char in "々〇〆" else ""
    if not char.isalpha():
        return ""
    return "latin" if code < 0x250 or 0x1E00 <= code < 0x1F00 or 0xFF21 <= code <= 0xFF5A else "other"


def runs(text: str) -> list[tuple[Script, str]]:
    """A text cut where the script changes; what is no letter belongs to the letters before it, or to the first ones."""
    script = next(filter(None, map(script_of, text)), "")
    scripts = [script := script_of(char) or script for char in text]
    pieces: list[tuple[Script, str]] = []
    for script, group in groupby(zip(scripts, text, strict=True), itemgetter(0)):
        pieces.append((script, "".join(char for _, char in group)))
    return pieces


def languages(lines: Sequence[str]) -> list[str | None]:
    """The language of each line: kana is Japanese; Chinese characters are so where some line has kana, else Chinese.

    For Latin letters the whole lyric decides between English, Portuguese and Spanish. A line of figures is in the
    language of the line before it. None: the line has letters, but of no script that is read here.
    """
    scripts = [{script_of(char) for char in line} - {""} for line in lines]
    of_han = "ja" if any("kana" in found for found in scripts) else "zh"
    latin = " ".join(line for line, found in zip(lines, scripts, strict=True) if found <= {"latin"})
    of_latin = _of_latin(latin)
    spoken: list[str | None] = []
    for found in scripts:
        if "kana" in found:
            spoken.append("ja")
        elif "han" in found:
            spoken.append(of_han)
        elif "latin" in found:
            spoken.append(of_latin)
        else:
            spoken.append(None if found else "")
    first = next(filter(None, spoken), "en")
    for number, language in enumerate(spoken):
        if language == "":
            spoken[number] = (spoken[number - 1] if number else None) or first
    return spoken


def _of_latin(text: str) -> str:
    votes: dict[str, float] = dict.fromkeys(_WORDS, 0.0)
    for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower()):
        for language in _VOTES.get(word, ()):
            votes[language] += 1 / len(_VOTES[word])
        for language, letters in _LETTERS.items():
            votes[language] += any(letter in word for letter in letters)
    votes["es"] += text.count("¿") + text.count("¡")
    return max(votes, key=lambda language: votes[language])
