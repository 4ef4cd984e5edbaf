"""Lyrics as SongBloom has them: `[intro] [intro] , [verse] A line. Another , [chorus] … , [outro]`.

Sections are joined by ` , `, sentences by `. `. A section that is sung has one tag and text; one that is not has no
text, and its tag once for every second that it lasts (once in five seconds in the models of 240 s). The model splits at
spaces, so a tag without one beside it is read out as a word, as is a tag that it does not know; a comma inside of a
section ends it.
Source: `docs/lyric_format.md` and the lyric processor of SongBloom, December 2025.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from audioprep.text.findings import Finding
from audioprep.text.g2p.language import script_of
from audioprep.text.sections import INSTRUMENTAL, name_of, section_of

VOCAL = ("verse", "chorus", "bridge")
NOT_VOCAL = ("intro", "inst", "outro")
SECONDS_PER_TAG = {150: 1, 240: 5}
"""Seconds that a tag without singing stands for, by the seconds that a model can make at most."""

# Names that others give to what SongBloom knows by another. A prechorus is sung, as a verse is.
_ALIASES = {"prechorus": "verse", "start": "intro", "end": "outro", INSTRUMENTAL: "inst"}
_TAG = re.compile(r"\[([^\[\]]*)\]")
_TIME = re.compile(r"[\[<]\d+:\d\d(?:[.:]\d+)?[\]>]")
_LRC_HEAD = re.compile(r"\[(?:ar|ti|al|au|by|la|length|offset|re|ve|#): ?[^\]]*\]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.。!?]+")
_COMMA = re.compile(r"[,、;:]+")
_SIGN = re.compile(r"[\"“”«»「」『』《》〈〉(){}<>*_|/\\\[\]]+")
_DRAWN_OUT = re.compile(r"(?<=[\u3041-\u30ff])[~〜]+")
_INVISIBLE = {"Cf", "Cs", "Co", "Cn", "Cc"}
_SYMBOLS = {"So", "Sk", "Sm"}

Origin = Literal["given", "timed", "inferred"]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a song.

    Attributes:
        tag: one of `VOCAL` or `NOT_VOCAL`.
        sentences: what is sung, without punctuation; none where nothing is.
        repeats: of the tag; 1 in a section that is sung.
        origin: what says that this section is here: the lyrics' own tags, their times, or nothing but a guess.
    """

    tag: str
    sentences: tuple[str, ...] = ()
    repeats: int = 1
    origin: Origin = "given"


def write(sections: Iterable[Section]) -> str:
    """Sections in SongBloom's format, on one line."""
    return " , ".join(
        " ".join([*[f"[{section.tag}]"] * section.repeats, ". ".join(section.sentences)]).strip()
        for section in sections
    )


def parse(lyrics: str) -> tuple[list[Section], list[Finding]]:
    """Reads lyrics in SongBloom's format, or with section lines as other models have them.

    Returns:
        The sections, and what was found; a finding without `fixed` needs a person. Text that belongs to no section that
        is sung is in none of them.
    """
    reading = _Reading()
    for number, line in enumerate(lyrics.splitlines(), start=1):
        reading.line(number, line)
    return reading.finish(lyrics)


def normalize_lyrics(lyrics: str) -> tuple[str, list[Finding]]:
    """Lyrics in SongBloom's format, and what was found in them."""
    sections, found = parse(lyrics)
    return write(sections), found


def known_tag(name: str) -> str | None:
    """SongBloom's tag for a section's name, in small letters; None where it has none."""
    if name in (*VOCAL, *NOT_VOCAL):
        return name
    name = _ALIASES.get(name) or name_of(name) or ""
    name = _ALIASES.get(name, name)
    return name or None


def plain(line: str) -> str:
    """A line in ordinary characters, without times and without what LRC files say about the song."""
    return _LRC_HEAD.sub("", _TIME.sub("", _DRAWN_OUT.sub("ー", _ordinary(line)))).strip()


def _ordinary(line: str) -> str:
    """A line without what is invisible, in characters as they are usually written."""
    visible = "".join(char for char in line if char == "\t" or unicodedata.category(char) not in _INVISIBLE)
    return unicodedata.normalize("NFKC", visible.replace("…", "。").replace("’", "'"))


def sentences_of(text: str) -> tuple[list[str], list[tuple[str, str, str]]]:
    """The sentences of what is sung, and what had to be changed: rule, what stood there, what stands there now."""
    changed: list[tuple[str, str, str]] = []
    if sign := _SIGN.search(text):
        changed.append(("sign", sign[0], ""))
        text = _SIGN.sub(" ", text)
    if symbols := "".join(char for char in dict.fromkeys(text) if unicodedata.category(char) in _SYMBOLS):
        changed.append(("symbol", symbols, ""))
        text = text.translate(dict.fromkeys(map(ord, symbols), " "))
    if comma := _COMMA.search(text):
        changed.append(("comma", text[max(0, comma.start() - 12) : comma.end()].strip(), "."))
        text = _COMMA.sub(".", text)
    pieces = (" ".join(piece.split()) for piece in _SENTENCE_END.split(text))
    return list(filter(None, pieces)), changed


def unreadable_lines(lyrics: str) -> list[Finding]:
    """The lines with letters of scripts that no reader of phonemes knows: a person has to write them in another."""
    found: list[Finding] = []
    for number, line in enumerate(lyrics.splitlines(), start=1):
        foreign = "".join(char for char in unicodedata.normalize("NFKC", line) if script_of(char) == "other")
        if foreign:
            found.append(Finding("lyrics", number, "script", foreign))
    return found


class _Reading:
    """Takes lines, and puts sections together from their tags and texts."""

    def __init__(self) -> None:
        self._sections: list[Section] = []
        self._lines: list[int] = []  # on which each section begins
        self._found: list[Finding] = []
        self._separated = True  # a comma or the end of a line came after the last tag or text
        self._homeless = False  # text in no section that is sung has been found since the last tag

    def line(self, number: int, line: str) -> None:
        text = plain(line)
        if (ordinary := _ordinary(line)) != line.replace("…", "。").replace("’", "'"):
            self._say(number, "characters", line, ordinary)
        if _TIME.search(line) or _LRC_HEAD.search(line):
            self._say(number, "time", line.strip(), text)
        if re.search(r"\S\[|\](?!$|\s)", text):
            self._say(number, "spacing", text, _TAG.sub(r" [\1] ", text).strip())
        name = section_of(text)
        if name and not text.startswith("["):
            self._say(number, "section", text, f"[{known_tag(name)}]")
            self._tag(number, text, name)
        else:
            for place, piece in enumerate(_TAG.split(text)):
                if place % 2:
                    self._tag(number, f"[{piece}]", piece.strip().lower())
                elif piece.strip():
                    self._text(number, piece.strip())
        self._separated = True

    def finish(self, lyrics: str) -> tuple[list[Section], list[Finding]]:
        for number, section in zip(self._lines, self._sections, strict=True):
            if section.tag in VOCAL and not section.sentences:
                self._say(number, "no-text", f"[{section.tag}]")
        kept = [section for section in self._sections if section.sentences or section.tag in NOT_VOCAL]
        rules = {finding.rule for finding in self._found}
        if (
            lyrics.strip()
            and not any(section.sentences for section in kept)
            and not rules & {"no-tag", "text-after-tag"}
        ):
            self._say(1, "no-singing", lyrics.strip().splitlines()[0])
        return kept, sorted(self._found, key=lambda finding: finding.line)

    def _tag(self, number: int, written: str, name: str) -> None:
        tag = known_tag(name)
        if written != f"[{tag}]" and written.startswith("["):
            self._say(number, "unknown-tag" if tag is None else "tag", written, f"[{tag}]" if tag else None)
        if tag is None:
            return
        last = self._sections[-1] if self._sections else None
        if last and last.tag == tag and tag in NOT_VOCAL:
            self._sections[-1] = Section(tag, (), last.repeats + 1)
        else:
            if not self._separated:
                self._say(number, "separator", written, f", [{tag}]")
            self._sections.append(Section(tag))
            self._lines.append(number)
        self._separated = self._homeless = False

    def _text(self, number: int, text: str) -> None:
        body = text.removesuffix(",").rstrip()
        sentences, changed = sentences_of(body)
        for rule, before, after in changed:
            self._say(number, rule, before, after)
        last = self._sections[-1] if self._sections else None
        if sentences and (last is None or last.tag in NOT_VOCAL):
            if not self._homeless:
                self._say(number, "text-after-tag" if last else "no-tag", sentences[0])
            self._homeless = True
        elif sentences and last:
            self._sections[-1] = Section(last.tag, (*last.sentences, *sentences))
        self._separated = body != text

    def _say(self, line: int, rule: str, text: str, fixed: str | None = None) -> None:
        self._found.append(Finding("lyrics", line, rule, text, fixed))
