"""eSpeak NG through phonemizer; the program's library and data come with the package `espeakng-loader`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from audioprep.text.g2p.base import PAUSES, Reading, in_pieces, without_foreign_letters, without_repeated_pauses

_SWITCH = re.compile(r"\([a-z-]+\)")  # where the voice changes its language for a foreign word
_PIECE = re.compile(f"([{re.escape(''.join(PAUSES))}])")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_SILENT = re.compile(r"[^\w\s'&%$€£@+=-]|_")


class Espeak:
    """Reads a language by the rules of one of eSpeak's voices: IPA, a vowel with its stress before it.

    Args:
        voice: such as `es-419` or `pt-br`.
        words: phonemes of words in small letters, which come before those of the voice.
    """

    def __init__(self, voice: str, words: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._voice = voice
        self._own = dict(words or {})

    def read(self, text: str) -> Reading:
        """The phonemes of a line; between two pauses words are read together, as they are spoken."""
        symbols: list[str] = []
        text, unread = without_foreign_letters(text)
        # A decimal point is none of the pauses.
        for piece in _PIECE.split(re.sub(r"(?<=\d)[.,](?=\d)", "\0", text)):
            if piece in PAUSES:
                symbols.append(PAUSES[piece])
            else:
                symbols += self._piece(_SILENT.sub(" ", piece.replace("\0", ",")))
        return Reading(without_repeated_pauses(symbols), unread)

    def _piece(self, text: str) -> list[str]:
        if not self._own:
            return self.segments(text)
        phones: list[str] = []
        end = 0
        for found in _WORD.finditer(text):
            if own := self._own.get(found[0].lower()):
                phones += [*self.segments(text[end : found.start()]), *own]
                end = found.end()
        return phones + self.segments(text[end:])

    def segments(self, text: str) -> list[str]:
        """The phonemes of a text without punctuation."""
        if not text.strip():
            return []
        engine = _engine(self._voice)
        spoken = _SWITCH.sub("", " ".join(engine.text_to_phonemes(piece) for piece in in_pieces(text)))
        return [segment for segment in re.split(r"[_\s]+", spoken) if segment.strip("ˈˌ-")]


@lru_cache(maxsize=8)
def _engine(voice: str) -> Any:
    import espeakng_loader
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    engine = EspeakWrapper()
    engine.set_voice(voice)
    return engine
