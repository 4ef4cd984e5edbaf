"""Katakana as pronounced (`トーキョー`) to the phonemes of Open JTalk."""

from __future__ import annotations

import re
from itertools import chain

_VOWELS = "aiueo"
# A row of five kana a consonant; `-` where there is none.
_ROWS = {
    "": "アイウエオ", "k": "カキクケコ", "g": "ガギグゲゴ", "s": "サ-スセソ", "z": "ザ-ズゼゾ", "t": "タ--テト",
    "d": "ダ--デド", "n": "ナニヌネノ", "h": "ハヒ-ヘホ", "b": "バビブベボ", "p": "パピプペポ", "m": "マミムメモ",
    "r": "ラリルレロ", "w": "ワヰ-ヱ-", "y": "ヤ-ユ-ヨ",
}  # fmt: skip
_OTHERS = {
    "シ": "sh i", "ジ": "j i", "ヂ": "j i", "チ": "ch i", "ツ": "ts u", "ヅ": "z u",
    "フ": "f u", "ヲ": "o", "ン": "N",
    "ッ": "cl", "ヴ": "v u", "ヰ": "i", "ヱ": "e", "ヮ": "w a", "ヵ": "k a", "ヶ": "k e",
    "ァ": "a", "ィ": "i", "ゥ": "u", "ェ": "e", "ォ": "o", "ャ": "y a", "ュ": "y u", "ョ": "y o",
    "イェ": "y e", "ウィ": "w i", "ウェ": "w e", "ウォ": "w o", "スィ": "s i", "ズィ": "z i",
    "ティ": "t i", "ディ": "d i", "トゥ": "t u", "ドゥ": "d u", "クヮ": "kw a", "グヮ": "gw a",
    "テャ": "ty a", "デャ": "dy a", "テュ": "ty u",
    "デュ": "dy u", "テョ": "ty o", "デョ": "dy o", "フュ": "fy u",
}  # fmt: skip
# Kana with a small `ヤユヨ` (and `ェ`), or with a small vowel.
_PALATAL = {
    "キ": "ky", "ギ": "gy", "シ": "sh", "ジ": "j", "チ": "ch", "ヂ": "j", "ニ": "ny",
    "ヒ": "hy", "ビ": "by", "ピ": "py",
    "ミ": "my", "リ": "ry", "ヴ": "by",
}  # fmt: skip
_WITH_VOWEL = {"ツ": "ts", "フ": "f", "ヴ": "v", "ク": "kw", "グ": "gw"}
_SMALL_Y = {"ャ": "a", "ュ": "u", "ョ": "o", "ェ": "e"}
_SMALL_VOWELS = {"ァ": "a", "ィ": "i", "ェ": "e", "ォ": "o"}


def _table() -> dict[str, tuple[str, ...]]:
    table = {
        kana: (f"{consonant} {vowel}".strip())
        for consonant, row in _ROWS.items()
        for kana, vowel in zip(row, _VOWELS, strict=True)
        if kana != "-"
    }
    table |= {first + small: f"{phone} {v}" for first, phone in _PALATAL.items() for small, v in _SMALL_Y.items()}
    table |= {
        first + small: f"{phone} {v}" for first, phone in _WITH_VOWEL.items() for small, v in _SMALL_VOWELS.items()
    }
    return {kana: tuple(phones.split()) for kana, phones in (table | _OTHERS).items()}


MORAE = _table()
"""The phonemes of each mora."""

PHONEMES = frozenset(chain.from_iterable(MORAE.values())) | set("AIUEO")
"""All phonemes that `phonemes_of` can give; a capital vowel is devoiced."""

_MORA = re.compile("|".join(sorted(MORAE, key=len, reverse=True)) + "|ー|[’']|.", re.DOTALL)


def phonemes_of(pronunciation: str, devoiced: bool = False) -> tuple[list[str], str]:
    """The phonemes of katakana as pronounced.

    Args:
        pronunciation: katakana, with `ー` for a long vowel and `’` after a mora whose vowel is devoiced.
        devoiced: give devoiced vowels as capitals; a sung note has a voiced one.

    Returns:
        The phonemes, and the characters that are no kana.
    """
    phones: list[str] = []
    unknown = ""
    for mora in _MORA.findall(pronunciation):
        if mora in MORAE:
            phones += MORAE[mora]
        elif mora == "ー":
            if phones and phones[-1].lower() in _VOWELS:
                phones.append(phones[-1].lower())
        elif mora in "’'":
            if devoiced and phones and phones[-1] in _VOWELS:
                phones[-1] = phones[-1].upper()
        else:
            unknown += mora
    return phones, unknown
