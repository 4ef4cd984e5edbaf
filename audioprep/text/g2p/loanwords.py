"""English words as Japanese singers pronounce them, in katakana."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Katakana of a consonant before each of the vowels a, i, u, e, o, and where no vowel follows.
_SYLLABLES = {
    "": "ア イ ウ エ オ", "b": "バ ビ ブ ベ ボ ブ", "d": "ダ ディ ドゥ デ ド ド", "f": "ファ フィ フ フェ フォ フ",
    "g": "ガ ギ グ ゲ ゴ グ", "h": "ハ ヒ フ ヘ ホ フ", "j": "ジャ ジ ジュ ジェ ジョ ジ", "k": "カ キ ク ケ コ ク",
    "m": "マ ミ ム メ モ ム", "n": "ナ ニ ヌ ネ ノ ン", "p": "パ ピ プ ペ ポ プ", "r": "ラ リ ル レ ロ ル",
    "s": "サ シ ス セ ソ ス", "t": "タ ティ トゥ テ ト ト", "v": "ヴァ ヴィ ヴ ヴェ ヴォ ヴ",
    "w": "ワ ウィ ウ ウェ ウォ ウ",    "y": "ヤ イ ユ イェ ヨ イ", "z": "ザ ジ ズ ゼ ゾ ズ",
    "sh": "シャ シ シュ シェ ショ シュ",
    "ch": "チャ チ チュ チェ チョ チ",    "ts": "ツァ ツィ ツ ツェ ツォ ツ",
    "zh": "ジャ ジ ジュ ジェ ジョ ジュ", "ng": "ンガ ンギ ング ンゲ ンゴ ング",
    "ky": "キャ キ キュ キェ キョ キ", "gy": "ギャ ギ ギュ ギェ ギョ ギ", "ny": "ニャ ニ ニュ ニェ ニョ ニ",
    "hy": "ヒャ ヒ ヒュ ヒェ ヒョ ヒ", "by": "ビャ ビ ビュ ビェ ビョ ビ", "py": "ピャ ピ ピュ ピェ ピョ ピ",
    "my": "ミャ ミ ミュ ミェ ミョ ミ", "ry": "リャ リ リュ リェ リョ リ",
}  # fmt: skip
_KANA: dict[str, dict[str, str]] = {
    name: dict(zip(("a", "i", "u", "e", "o", ""), row.split(), strict=False)) for name, row in _SYLLABLES.items()
}

# What Hepburn romanization writes in other ways than the sounds of English.
_ROMAJI = _KANA | {
    "t": {"a": "タ", "e": "テ", "o": "ト"},
    "d": {"a": "ダ", "e": "デ", "o": "ド"},
    "ts": {"u": "ツ"},
    "l": _KANA["r"],
}
_DOUBLED = re.compile(r"([kpst])(?=\1)|t(?=ch)")
_ROMAJI_SYLLABLE = re.compile(r"(sh|ch|ts|[kgnhbpmr]y|[kgsztdnhbpmrywfjl]?)([aiueo])|n(?![aiueoy])|ッ")

# ARPAbet's vowels as a Japanese vowel and what follows it, its consonants by the names above.
_ARPA_VOWELS = {
    "AA": ("a", ""), "AE": ("a", ""), "AH": ("a", ""), "AO": ("o", ""), "AW": ("a", "ウ"), "AY": ("a", "イ"),
    "EH": ("e", ""),    "ER": ("a", "ー"), "EY": ("e", "イ"), "IH": ("i", ""), "IY": ("i", "ー"),
    "OW": ("o", "ー"), "OY": ("o", "イ"),
    "UH": ("u", ""), "UW": ("u", "ー"),
}  # fmt: skip
_ARPA_CONSONANTS = {"HH": "h", "JH": "j", "L": "r", "TH": "s", "DH": "z"}
_SHORT = {"AA", "AE", "AH", "EH", "IH", "UH"}
_STOPS = {"P", "T", "K", "CH", "D", "G"}


def romaji_to_katakana(word: str) -> str | None:
    """Katakana of a word that is spelt like Japanese in Latin letters (`lalala`, `sayonara`); None where it is not."""
    kana, end = "", 0
    word = _DOUBLED.sub("ッ", word.lower())
    for found in _ROMAJI_SYLLABLE.finditer(word):
        syllable = _ROMAJI.get(found[1], {}).get(found[2]) if found[2] else {"n": "ン"}.get(found[0], found[0])
        if found.start() != end or syllable is None:
            return None
        kana += syllable
        end = found.end()
    return kana if kana and end == len(word) else None


def arpabet_to_katakana(phones: tuple[str, ...]) -> str:
    """Katakana of an English pronunciation, by the usual rules for loanwords.

    A consonant gets the vowel that follows it, or `u` (`o` after t and d); a stop at the end is doubled after a short
    vowel.
    """
    kana = ""
    waiting = ""  # the consonant that still wants its vowel
    before = ""  # the phoneme before this one
    for number, phone in enumerate(phones):
        sound = phone.rstrip("012")
        if sound in _ARPA_VOWELS:
            vowel, tail = _ARPA_VOWELS[sound]
            if sound == "AO" and not _is_any(phones, number + 1, ("NG", "G", "F", "S", "TH")):
                tail = "ー"
            kana += _KANA[waiting][vowel] + tail
            waiting = ""
        elif sound == "Y" and waiting + "y" in _KANA:
            waiting += "y"
        elif sound == "R" and before in _ARPA_VOWELS and not _is_vowel(phones, number + 1):
            kana += "" if kana.endswith("ー") else "ー"
        elif sound.lower() in _KANA or sound in _ARPA_CONSONANTS:
            kana += _KANA[waiting][""] if waiting else ""
            if sound in _STOPS and before in _SHORT and number == len(phones) - 1:
                kana += "ッ"
            waiting = _ARPA_CONSONANTS.get(sound, sound.lower())
            if (waiting in ("n", "m") and _is_any(phones, number + 1, "BPM")) or (
                waiting == "ng" and _is_any(phones, number + 1, "KG")
            ):
                kana, waiting = kana + "ン", ""
        before = sound
    return kana + (_KANA[waiting][""] if waiting else "")


def _is_vowel(phones: tuple[str, ...], number: int) -> bool:
    return number < len(phones) and phones[number].rstrip("012") in _ARPA_VOWELS


def _is_any(phones: tuple[str, ...], number: int, sounds: Sequence[str]) -> bool:
    return number < len(phones) and phones[number] in tuple(sounds)
