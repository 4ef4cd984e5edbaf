"""Tells scat (LABADADA, トゥトゥ) from words.

Three things say so: the part that sings, the script, and which syllables there are. A lead sings words; what stands in
Latin letters in Japanese lyrics, or in capitals in romaji, and consists of syllables that no word is made of, is scat
there, too. In other parts the same syllables in kana are scat, and so are vowels that are held (ウー).
"""

from __future__ import annotations

import re
import unicodedata

# `t` but in `tu` is left out, as is all that begins or ends Japanese words of two syllables.
_LATIN = re.compile(
    r"(?:(?:l|b|d|p|dw|by|dy|sh)[aeiou]{1,2}[nmhwpt]?|tu+[nmht]?|w[ao]+[hw]?|dm|[ou]{2,}h?|a+h|m{2,}|n)+"
)
_KANA = re.compile(
    r"(?:[ラバダパ][ンッーァ]*|[ドト][ゥウ][ルンッー]*|[ルリレロ][ンッー]*|ド[ゥンッー]+|[ボブプポデ][ンッーゥ]*|ワ[ーンッ]*"
    r"|[アイウエオンム][ーァィゥェォッ]+|[アウオン]|シュ[ッワビー]*|ツ[クタチッー]+)+"
)
_HIRAGANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}


def is_scat(text: str, lead: bool) -> bool:
    """Whether words between two rests are scat.

    Args:
        text: the words.
        lead: whether the part that sings the song sings them: kana are words there (ラララ is part of many songs).
    """
    letters = "".join(char for char in unicodedata.normalize("NFKC", text) if char.isalpha() or char == "ー")
    if not letters:
        return False
    if letters.isascii():
        return len(letters) > 2 and _LATIN.fullmatch(letters.lower()) is not None
    return not lead and _KANA.fullmatch(letters.translate(_HIRAGANA)) is not None
