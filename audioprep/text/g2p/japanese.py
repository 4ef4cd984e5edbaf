"""Japanese by pyopenjtalk (the package pyopenjtalk-plus, whose dictionary comes with it)."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from audioprep.text.g2p.base import CLAUSE, PAUSES, SENTENCE, Reading, in_pieces, is_speech, without_repeated_pauses
from audioprep.text.g2p.kana import MORAE, phonemes_of
from audioprep.text.g2p.loanwords import arpabet_to_katakana, romaji_to_katakana
from audioprep.text.g2p.words import katakana

Form = Literal["phonemes", "kana", "accent"]
# The ARPAbet of an English word, and whether a dictionary says so.
EnglishWord = Callable[[str], tuple[tuple[str, ...], bool]]

_RUBY = re.compile(r"(?:[|｜]([^|｜《》]+)|([\u3400-\u9fff々〆ヶ]+))《([\u3041-\u30ffー]+)》")
_DRAWN_OUT = re.compile(r"(?<=[\u3041-\u30ff])(?:[~〜～]|(?<=ー)ー)+")
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?")
_RARE_KANA = str.maketrans({"ヷ": "ヴァ", "ヸ": "ヴィ", "ヹ": "ヴェ", "ヺ": "ヴォ"})
_MORA = re.compile("|".join(sorted(MORAE, key=len, reverse=True)) + "|ー")
_SPOKEN = re.compile(f"(?:(?:{_MORA.pattern})’?)+")
# Cheaper than any word of the dictionary, by so much that a user's word wins where the dictionary has the same one.
_USER_WORD_GAIN = 1500
_PROPER_NOUN = ("1348", "1348", 3000, "名詞,固有名詞,一般,*,*,*")


class Japanese:
    """Reads Japanese.

    Args:
        form: `phonemes` of Open JTalk; `kana`: katakana morae as pronounced; `accent`: phonemes with `[` where pitch
            rises, `]` where it falls, `#` between accent phrases, `?` after a question.
        devoiced: give devoiced vowels as capitals, as speech has them; a sung note has a voiced vowel.
        words: katakana of words, which come before those of the dictionary.
        english: see `EnglishWord`; None: words that the dictionary lacks are spelt letter by letter.
    """

    def __init__(
        self,
        form: Form = "phonemes",
        devoiced: bool = False,
        words: Mapping[str, tuple[str, ...]] | None = None,
        english: EnglishWord | None = None,
    ) -> None:
        self._form = form
        self._devoiced = devoiced
        self._english = english
        self._jtalk = _jtalk()
        self._engine = _engine_with(self._jtalk, words) if words else None

    def read(self, text: str) -> Reading:
        """The phonemes of a line. `運命《さだめ》` is read as its ruby says, `らら〜` as `ららー`."""
        text = _RUBY.sub(lambda found: katakana(found[3]), text)
        text = "".join(" " if unicodedata.category(char) == "So" else char for char in text)
        text = _DRAWN_OUT.sub("ー", text).replace("ーー", "ー").translate(_RARE_KANA)
        text = _WORD.sub(lambda found: self._word(found[0]), text)
        symbols: list[str] = []
        unread: list[str] = []
        for piece in in_pieces(text):
            reading = self._piece(piece)
            symbols += reading.symbols
            unread += reading.unread
        return Reading(without_repeated_pauses(symbols), tuple(unread))

    def _piece(self, text: str) -> Reading:
        symbols: list[str] = []
        unread: list[str] = []
        spoken = ""  # since the last pause: a long vowel may belong to the word before it

        def say() -> None:
            nonlocal spoken
            symbols.extend(_MORA.findall(spoken) if self._form == "kana" else phonemes_of(spoken, self._devoiced)[0])
            spoken = ""

        # Words without a sound are left out; the library would warn of each.
        for feature in self._jtalk.run_frontend(text, jtalk=self._engine) if any(map(is_speech, text)) else []:
            surface, pronunciation = feature["string"], feature["pron"]
            if _SPOKEN.fullmatch(pronunciation):
                spoken += pronunciation
                continue
            say()
            symbols += [PAUSES[char] for char in surface if char in PAUSES]
            unread += [surface] if any(map(is_speech, surface)) else []
        say()
        if self._form == "accent" and symbols:
            symbols = self._with_accent(text)
        return Reading(tuple(symbols), tuple(unread))

    def _with_accent(self, text: str) -> list[str]:
        symbols: list[str] = []
        for symbol in self._jtalk.g2p_prosody(text, jtalk=self._engine):
            if symbol == "_":
                symbols.append(CLAUSE)
            elif symbol not in ("^", "$", "sp", "unk", "{", "}", "!"):
                symbols.append(symbol if self._devoiced or symbol == "N" else symbol.lower())
        return [*symbols, SENTENCE] if PAUSES.get(text[-1:]) == SENTENCE else symbols

    @lru_cache(maxsize=65536)  # noqa: B019 (a reader lives as long as its process)
    def _word(self, word: str) -> str:
        """A word in Latin letters as Open JTalk shall see it: katakana where it would spell it letter by letter."""
        if len(word) == 1 or (word.isupper() and len(word) <= 3) or self._is_known(word):
            return word
        phones, is_english = self._english(word) if self._english else ((), False)
        romaji = None if is_english else romaji_to_katakana(word)
        return romaji or arpabet_to_katakana(phones) or word

    def _is_known(self, word: str) -> bool:
        """Whether the dictionary has a word in Latin letters as one word."""
        _, morphs = self._jtalk.run_mecab_detailed(_full_width(word), jtalk=self._engine)
        return len(morphs) == 1 and not morphs[0]["is_unknown"]


@cache
def _jtalk() -> ModuleType:
    # On import it tells stdout which packages it could also use; stdout belongs to the command's summary.
    with contextlib.redirect_stdout(sys.stderr):
        import pyopenjtalk
    return pyopenjtalk


def _engine_with(jtalk: ModuleType, words: Mapping[str, tuple[str, ...]]) -> Any:
    """Open JTalk with a user's words."""
    with tempfile.TemporaryDirectory(prefix="audioprep-words-") as folder:
        source, compiled = Path(folder, "words.csv"), Path(folder, "words.dic")
        lines = (_dictionary_line(jtalk, word, "".join(reading)) for word, reading in words.items())
        source.write_text("".join(lines), encoding="utf-8")
        with _silent_stdout():
            jtalk.mecab_dict_index(str(source), str(compiled))
        # What is read stays in memory: the file can go.
        return jtalk.OpenJTalk(
            dn_mecab=jtalk.OPEN_JTALK_DICT_DIR,
            userdic=str(compiled).encode(),
            userdic_reading_protection=[True],
        )


def _dictionary_line(jtalk: ModuleType, word: str, reading: str) -> str:
    """A line of MeCab's dictionary: the word as it is there already, but cheaper and with another reading."""
    surface = _full_width(word)
    _, morphs = jtalk.run_mecab_detailed(surface)
    left, right, cost, kind = _PROPER_NOUN
    if len(morphs) == 1 and not morphs[0]["is_unknown"]:
        (morph,) = morphs
        left, right, cost = morph["left_id"], morph["right_id"], morph["word_cost"]
        kind = ",".join(morph["features"][1:7])
    reading = katakana(reading)
    morae = len(_MORA.findall(reading))
    return f"{surface},{left},{right},{cost - _USER_WORD_GAIN},{kind},{surface},{reading},{reading},0/{morae},*\n"


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Keeps what C code writes to stdout away from it."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)
