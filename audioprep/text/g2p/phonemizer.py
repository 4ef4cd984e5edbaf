"""Whole lyrics to phonemes: languages, tags and times of lines, dictionary, inventory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from audioprep.text.g2p.base import CLAUSE, PAUSES, SENTENCE, Reader, Reading, is_speech
from audioprep.text.g2p.chinese import Chinese
from audioprep.text.g2p.english import English
from audioprep.text.g2p.espeak import Espeak
from audioprep.text.g2p.inventory import ANY, Inventory
from audioprep.text.g2p.japanese import Form, Japanese
from audioprep.text.g2p.language import languages, runs
from audioprep.text.g2p.normalize import Normalization, normalize_line
from audioprep.text.g2p.words import Words
from audioprep.text.sections import section_of

Language = Literal["auto", "ja", "en", "pt", "es", "zh"]

# `[Chorus]`, `[00:12.34]`, and the `<00:12.34>` of a word.
_TAG = re.compile(r"(\[[^\[\]]*\]|<\d+:\d\d(?:[.:]\d+)?>)")


@dataclass(frozen=True, slots=True)
class Settings:
    """How lyrics are read.

    Attributes:
        language: of all lines; `auto`: of each line by itself.
        japanese: see `Japanese`.
        devoiced: likewise.
        english_in_japanese: English words in a Japanese line as `kana`, which is how most singers pronounce them, or as
            `english`.
        spanish: eSpeak's voice: `es-419` of Latin America, `es` of Spain.
        portuguese: `pt-br` of Brazil, `pt` of Portugal.
        normalization: of the characters.
        inventory: the phonemes that the result may have.
        words: the user's dictionary.
    """

    language: Language = "auto"
    japanese: Form = "phonemes"
    devoiced: bool = False
    english_in_japanese: Literal["kana", "english"] = "kana"
    spanish: Literal["es-419", "es"] = "es-419"
    portuguese: Literal["pt-br", "pt"] = "pt-br"
    normalization: Normalization = field(default_factory=Normalization)
    inventory: Inventory = ANY
    words: Words = ()


@dataclass(frozen=True, slots=True)
class Phonemes:
    """What a lyric has become.

    Attributes:
        text: as many lines as the lyric has, symbols with a space between them; tags and times stand where they stood.
        languages: of the lines, each once, in the order in which they come.
        unread: what should be sung and could not be read, in order.
        outside: symbols that the inventory lacks, each once.
    """

    text: str
    languages: tuple[str, ...]
    unread: tuple[str, ...]
    outside: tuple[str, ...]


class Phonemizer:
    """Reads lyrics. Readers of languages are made when the first line wants them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._readers: dict[str, Reader] = {}

    def read(self, lyrics: str, language: Language = "auto") -> Phonemes:
        """The phonemes of a lyric.

        Args:
            lyrics: with or without tags and times.
            language: of this lyric, where the settings leave it open.
        """
        lines = [self._pieces(line) for line in lyrics.splitlines()]
        wanted = self._settings.language if self._settings.language != "auto" else language
        spoken = [" ".join(pieces[::2]) for pieces in lines]
        of_lines = languages(spoken) if wanted == "auto" else [wanted] * len(lines)
        written: list[str] = []
        used: dict[str, None] = {}
        unread: list[str] = []
        outside: dict[str, None] = {}
        for pieces, language_ in zip(lines, of_lines, strict=True):
            symbols: list[str] = []
            for number, piece in enumerate(pieces):
                if number % 2:
                    symbols.append(piece)
                    continue
                if number and piece.strip()[:1] in PAUSES and self._settings.normalization.punctuation == "pauses":
                    symbols.append(PAUSES[piece.strip()[0]])  # between two tags, where no word stands before it
                reading = self._read(piece, language_)
                symbols += reading.symbols
                unread += reading.unread
                outside |= dict.fromkeys(self._settings.inventory.lacks(reading.symbols))
                if reading.symbols and language_:
                    used[language_] = None
            written.append(" ".join(symbols))
        return Phonemes("\n".join(written), tuple(used), tuple(unread), tuple(outside))

    def _pieces(self, line: str) -> list[str]:
        """A line cut at its tags: text, tag, text, …, text."""
        line = normalize_line(line, self._settings.normalization)
        if section_of(line) and not line.startswith("["):
            return ["", f"[{line.strip('():： ')}]", ""]
        return _TAG.split(line)

    @lru_cache(maxsize=8192)  # noqa: B019 (a chorus comes back; a phonemizer lives as long as its process)
    def _read(self, text: str, language: str | None) -> Reading:
        if language is None:
            return Reading((), tuple(word for word in text.split() if any(map(is_speech, word))))
        # A language's own script, and with it what it reads along.
        apart = language == "zh" or (language == "ja" and self._settings.english_in_japanese == "english")
        symbols: list[str] = []
        unread: list[str] = []
        for script, run in runs(text) if apart else [("", text)]:
            reading = self._reader("en" if script == "latin" else language).read(run)
            symbols += reading.symbols
            unread += reading.unread
        if self._settings.normalization.punctuation == "drop":
            symbols = [symbol for symbol in symbols if symbol not in (SENTENCE, CLAUSE)]
        return Reading(self._settings.inventory.write(tuple(symbols)), tuple(unread))

    def _reader(self, language: str) -> Reader:
        if language not in self._readers:
            self._readers[language] = self._make(language)
        return self._readers[language]

    def _make(self, language: str) -> Reader:
        settings = self._settings
        words = self._words(language)
        match language:
            case "ja":
                return Japanese(settings.japanese, settings.devoiced, words, self._english_word)
            case "zh":
                return Chinese(words)
            case "es":
                return Espeak(settings.spanish, words)
            case "pt":
                return Espeak(settings.portuguese, words)
        return English(words)

    def _english_word(self, word: str) -> tuple[tuple[str, ...], bool]:
        reader = self._reader("en")
        assert isinstance(reader, English)
        return reader.word(word), reader.knows(word)

    def _words(self, language: str) -> Mapping[str, tuple[str, ...]]:
        return {word: reading for of, word, reading in self._settings.words if of == language}
