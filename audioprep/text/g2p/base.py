"""What a reader of one language is, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from audioprep.text.g2p.language import script_of

SENTENCE, CLAUSE = ".", ","
"""The pauses that punctuation stands for, as symbols among the phonemes."""

PAUSES = dict.fromkeys("。．.!?！？…⋯‥", SENTENCE) | dict.fromkeys("、，,;:；：", CLAUSE)
"""The characters that are a pause, and which."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text is pronounced.

    Attributes:
        symbols: phonemes, and the pauses `.` and `,` where the text has punctuation.
        unread: pieces of the text that should be pronounced, and cannot be.
    """

    symbols: tuple[str, ...]
    unread: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one language."""

    def read(self, text: str) -> Reading:
        """How a text without tags is pronounced; `text` is normalized."""
        ...


def is_speech(char: str) -> bool:
    """Whether a character is pronounced: a letter or a digit. Signs such as a heart or an emoji are not."""
    return char.isalnum()


def without_repeated_pauses(symbols: list[str]) -> tuple[str, ...]:
    """The symbols with one pause where several follow each other, and none before the first phoneme."""
    kept: list[str] = []
    for symbol in symbols:
        is_pause = symbol in (SENTENCE, CLAUSE)
        if not is_pause or (kept and kept[-1] not in (SENTENCE, CLAUSE)):
            kept.append(symbol)
        elif kept and symbol == SENTENCE:
            kept[-1] = SENTENCE
    return tuple(kept)


def without_foreign_letters(text: str) -> tuple[str, tuple[str, ...]]:
    """A text for a reader of Latin letters, without the letters of other scripts; and those, by word."""
    parts: list[str] = []
    foreign: list[str] = []
    for is_foreign, group in groupby(text, lambda char: script_of(char) not in ("latin", "")):
        part = "".join(group)
        parts.append(" " if is_foreign else part)
        foreign += [part] if is_foreign else []
    return "".join(parts), tuple(foreign)


def in_pieces(text: str, longest: int = 1000) -> list[str]:
    """A text in pieces of at most `longest` characters, cut after a pause or a space: libraries have limits."""
    pieces: list[str] = []
    while len(text) > longest:
        cut = 1 + max(text.rfind(mark, longest // 2, longest) for mark in (" ", *PAUSES))
        pieces.append(text[: cut or longest])
        text = text[cut or longest :]
    return [*pieces, text]
