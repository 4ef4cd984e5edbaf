"""Mandarin to initials and finals with tones (1 to 4, 5 for the neutral one), by pypinyin with tone sandhi."""

from __future__ import annotations

import re
from collections.abc import Mapping

from audioprep.text.g2p.base import PAUSES, Reading, is_speech, without_repeated_pauses
from audioprep.text.g2p.language import script_of

INITIALS = (
    "AA", "EE", "OO", "b", "c", "ch", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "q", "r", "s", "sh",
    "t", "w", "x", "y",
    "z", "zh",
)  # fmt: skip
FINALS = (
    "E", "En", "a", "ai", "an", "ang", "ao", "e", "ei", "en", "eng", "er", "i", "i0", "ia", "ian", "iang",
    "iao", "ie", "in",
    "ing", "iong", "ir", "iu", "o", "ong", "ou", "u", "ua", "uai", "uan", "uang", "ui", "un", "uo", "v",
    "van", "ve", "vn",
)  # fmt: skip

_SYLLABLE = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?([a-z]+)([1-5])")
_NO_INITIAL = {"a": "AA", "e": "EE", "o": "OO"}
_HUMMED = {"n": "en", "ng": "en", "m": "mu", "hm": "heng", "hng": "heng", "ê": "ei"}
_DIGITS = "零一二三四五六七八九"
_UNITS = (("亿", 10**8), ("万", 10**4), ("千", 1000), ("百", 100), ("十", 10))
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*%?年?|.", re.DOTALL)


class Chinese:
    """Reads Mandarin.

    Args:
        words: syllables such as `chang2` of words, which come before those of pypinyin.
    """

    def __init__(self, words: Mapping[str, tuple[str, ...]] | None = None) -> None:
        from pypinyin import load_phrases_dict

        self._own = dict(words or {})
        if self._own:
            load_phrases_dict({word: [[syllable] for syllable in reading] for word, reading in self._own.items()})

    def read(self, text: str) -> Reading:
        """The phonemes of a line."""
        symbols: list[str] = []
        unread: list[str] = []
        spoken = "".join(numeral(token) if token[0].isdecimal() else token for token in _TOKEN.findall(text))
        for run, is_han in _runs(spoken):
            if is_han:
                phones, missing = _syllables(run)
                symbols += phones
                unread += missing
                continue
            symbols += [PAUSES[char] for char in run if char in PAUSES]
            if rest := "".join(char for char in run if is_speech(char)):
                unread.append(rest)
        return Reading(without_repeated_pauses(symbols), tuple(unread))


def split_syllable(syllable: str) -> tuple[str, str] | None:
    """`zhong1` as the initial `zh` and the final `ong1`; None where it is no syllable of Mandarin.

    A syllable without initial gets one: `AA`, `EE`, `OO`, or the `y` and `w` of the spelling. `i` is `i0` after z, c, s
    and `ir` after zh, ch, sh, r; `u` is `v` after j, q, x, y; `ye` and `yan` have the finals `E` and `En`.
    """
    if syllable[:-1] in _HUMMED:
        syllable = _HUMMED[syllable[:-1]] + syllable[-1]
    found = _SYLLABLE.fullmatch(syllable)
    if not found:
        return None
    initial, final, tone = found.groups()
    if initial is None:
        if final[0] not in _NO_INITIAL:
            return None
        initial = _NO_INITIAL[final[0]]
    if final == "i" and initial in ("zh", "ch", "sh", "r"):
        final = "ir"
    elif final == "i" and initial in ("z", "c", "s"):
        final = "i0"
    elif initial in ("j", "q", "x", "y") and final[0] == "u":
        final = "v" + final[1:]
    elif initial in ("l", "n") and final == "ue":
        final = "ve"
    elif initial == "y" and final in ("e", "an"):
        final = {"e": "E", "an": "En"}[final]
    return (initial, final + tone) if final in FINALS else None


def numeral(token: str) -> str:
    """A number in figures as it is said: a year figure by figure, others with their units."""
    percent, year = token.endswith("%"), token.endswith("年")
    whole, _, fraction = token.rstrip("%年").replace(",", "").partition(".")
    by_figures = (year and len(whole) == 4) or len(whole) > 12 or (whole[0] == "0" and len(whole) > 1)
    said = "".join(_DIGITS[int(figure)] for figure in whole) if by_figures else _said(int(whole))
    said += "点" + "".join(_DIGITS[int(figure)] for figure in fraction.replace(".", "")) if fraction else ""
    return ("百分之" if percent else "") + said + ("年" if year else "")


def _said(number: int) -> str:
    if number < 10:
        return _DIGITS[number]
    unit, size = next((unit, size) for unit, size in _UNITS if number >= size)
    head, rest = divmod(number, size)
    # Eleven is 十一; inside of a number it is 一十一.
    said = ("" if unit == "十" and head == 1 else _said(head)) + unit
    if not rest:
        return said
    tail = _said(rest)
    tail = "一" + tail if tail.startswith("十") else tail
    return said + ("零" if rest < size // 10 else "") + tail


def _runs(text: str) -> list[tuple[str, bool]]:
    pieces = re.findall(
        r"([\u3400-\u9fff\uf900-\ufaff〇々\U00020000-\U000323af]+)|([^\u3400-\u9fff\uf900-\ufaff〇々\U00020000-\U000323af]+)",
        text,
    )
    return [(han or other, bool(han)) for han, other in pieces]


def _syllables(run: str) -> tuple[list[str], list[str]]:
    from pypinyin import Style, lazy_pinyin

    phones: list[str] = []
    unread: list[str] = []
    read = lazy_pinyin(
        run,
        style=Style.TONE3,
        neutral_tone_with_five=True,
        tone_sandhi=True,
        v_to_u=False,
        errors=lambda chars: list(chars),  # pyright: ignore[reportArgumentType]
    )
    for syllable in read:
        if script_of(syllable[0]) == "han" or not (parts := split_syllable(syllable)):
            unread.append(syllable)
        else:
            phones += parts
    return phones, unread
