"""The user's dictionary: how words are pronounced that no library knows, or that a song reads in its own way."""

from __future__ import annotations

from pathlib import Path

from audioprep.errors import UsageError, nearest
from audioprep.text.g2p.kana import phonemes_of
from audioprep.text.g2p.language import LANGUAGES

Words = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Language, word, and its reading."""


def read_words(path: Path) -> Words:
    """Reads a dictionary: UTF-8, a word a line, `LANGUAGE<tab>WORD<tab>READING`; `#` begins a comment.

    The reading is kana in Japanese, otherwise the phonemes of that language with spaces between them.

    Raises:
        UsageError: a line says nothing that can be used; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the dictionary cannot be read: {error}. Save it as UTF-8.") from error
    words: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        language, word, reading = (*(field.strip() for field in line.split("\t")), "", "", "")[:3]
        if language not in LANGUAGES or not word or not reading:
            hint = nearest(language, LANGUAGES)
            raise UsageError(
                f"{path}:{number}: write LANGUAGE, WORD and READING with tabs between them, the language one of "
                f"{', '.join(LANGUAGES)}.{hint}"
            )
        if language == "ja" and (phonemes_of(katakana(reading))[1] or not phonemes_of(katakana(reading))[0]):
            raise UsageError(f"{path}:{number}: {reading}: the reading of a Japanese word is written in kana")
        if language == "zh" and len(reading.split()) != len(word):
            raise UsageError(f"{path}:{number}: {word}: write one syllable such as `zhong1` for each character")
        key = (language, word if language in ("ja", "zh") else word.lower())
        words[key] = (katakana(reading),) if language == "ja" else tuple(reading.split())
    return tuple((language, word, reading) for (language, word), reading in sorted(words.items()))


def katakana(text: str) -> str:
    """Hiragana as katakana; all else as it is."""
    return "".join(chr(ord(char) + 0x60) if "ぁ" <= char <= "ゖ" else char for char in text)
