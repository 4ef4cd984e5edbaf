"""The sections of a song, for SongBloom, from the tags of its lyrics and from the times of their lines.

Times prove when singing begins; an empty line with a time, or a tag with one, when it has ended: what lies between is
played, not sung. Times do not say which lines are a chorus, nor when a line ends that no empty one follows. Such things
are guessed only where the caller says so, and a section that was guessed says so too.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import median

from audioprep.text.findings import Finding
from audioprep.text.sections import section_of
from audioprep.text.songbloom import NOT_VOCAL, Origin, Section, known_tag, parse, plain, sentences_of
from audioprep.text.timed_lyrics import Line, timed_lines

SHORTEST_GAP = 4.0  # seconds; a shorter one is a breath between two lines
_LENGTH = re.compile(r"\[length: ?(\d+):(\d\d(?:\.\d+)?)\]", re.IGNORECASE)
# What `parse` says of the order of tags and texts, which times may answer.
_OF_ORDER = {"no-tag", "text-after-tag", "no-text", "no-singing", "separator"}


@dataclass(frozen=True, slots=True)
class Structure:
    """The sections of a song.

    Attributes:
        sections: in order; none where nothing says what they are.
        findings: what is wrong with the lyrics; one without `fixed` takes a person.
    """

    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]

    @property
    def origin(self) -> Origin:
        """The weakest thing that a section rests on: `inferred`, `timed`, or `given` by the lyrics' own tags."""
        origins = {section.origin for section in self.sections}
        return "inferred" if "inferred" in origins else "timed" if "timed" in origins else "given"


def song_structure(
    lyrics: str, seconds_per_tag: int = 1, duration: float | None = None, infer: bool = False
) -> Structure:
    """The sections of a song.

    Args:
        lyrics: with tags, with times, or with both.
        seconds_per_tag: that a tag without singing stands for; see `songbloom.SECONDS_PER_TAG`.
        duration: of the recording in seconds; None: what the lyrics' `[length: 03:20]` says, if anything.
        infer: guess what nothing says: lines that come back are a chorus and others a verse, and a line with a time
            lasts as long as such lines do.
    """
    sections, found = parse(lyrics)
    lines = timed_lines(lyrics)
    if lines is not None:
        if duration is None and (length := _LENGTH.search(lyrics)):
            duration = 60 * int(length[1]) + float(length[2])
        parts = _timed_parts(lines, seconds_per_tag, duration, infer)
        found = [finding for finding in found if finding.rule not in _OF_ORDER]
    elif any(finding.rule == "no-tag" for finding in found) and not sections:
        parts = [_Part(None, _paragraph(text)) for text in re.split(r"\n\s*\n", lyrics)]
        parts = [part for part in parts if part.sentences]
    else:
        return Structure(tuple(sections), tuple(found))
    if infer:
        _guess_tags(parts)
        found = [finding for finding in found if finding.rule != "no-tag"]
    elif nameless := next((part for part in parts if part.tag is None), None):
        if lines is not None:
            found.append(Finding("lyrics", 1, "no-tag", nameless.sentences[0]))
        return Structure((), tuple(found))
    if parts and not any(part.sentences for part in parts):
        found.append(Finding("lyrics", 1, "no-singing", f"[{parts[0].tag}]"))
    return Structure(tuple(part.section() for part in parts), tuple(found))


@dataclass(slots=True)
class _Part:
    """A section that is being put together; `tag` is None where nothing says what it is."""

    tag: str | None
    sentences: list[str] = field(default_factory=list)
    repeats: int = 1
    origin: Origin = "given"

    def section(self) -> Section:
        assert self.tag
        return Section(self.tag, tuple(self.sentences), self.repeats, self.origin)


def _timed_parts(lines: list[Line], seconds_per_tag: int, duration: float | None, infer: bool) -> list[_Part]:
    parts: list[_Part] = []
    typical = _typical_seconds(lines)
    silent_since: float | None = 0.0
    heading: str | None = None  # of what is sung now
    played: str | None = None  # the lyrics' own name of what is played now
    begun = 0.0
    fresh = True  # the next words begin a section

    def play(until: float, name: str) -> None:
        """Adds what is played before `until`, if singing has ended by then."""
        nonlocal fresh, played
        origin: Origin = "given" if played else "timed"
        since = silent_since
        if since is None and infer:
            since, origin = begun + typical, "inferred"
        repeats = int((until - since) / seconds_per_tag + 0.5) if since is not None else 0
        if played or (since is not None and until - since >= SHORTEST_GAP and repeats):
            parts.append(_Part(played or name, [], max(repeats, 1), origin))
            fresh = True
        played = None

    for line in lines:
        tags, words, after_blank = _taken_apart(line.text)
        for tag in tags:
            if tag in NOT_VOCAL:
                played = tag
            else:
                heading = tag
            fresh = True
        if not words:
            silent_since = line.seconds if silent_since is None else silent_since
            continue
        play(line.seconds, "inst" if any(part.sentences for part in parts) else "intro")
        if fresh or (heading is None and after_blank):
            parts.append(_Part(heading))
        parts[-1].sentences += words
        silent_since, begun, fresh = None, line.seconds, False
    if duration is not None or played:
        play(duration or begun, "outro")
    return parts


def _taken_apart(text: str) -> tuple[list[str], list[str], bool]:
    """The tags of a line with those before it, its sentences, and whether an empty line is among those before it."""
    tags: list[str] = []
    words: list[str] = []
    lines = [plain(line) for line in text.splitlines()]
    for line in lines:
        name = section_of(line) or (line[1:-1].strip().lower() if re.fullmatch(r"\[[^\[\]]*\]", line) else None)
        if name is None:
            words += sentences_of(re.sub(r"\[[^\[\]]*\]", " ", line))[0]
        elif tag := known_tag(name):
            tags.append(tag)
    return tags, words, "" in lines[:-1]


def _typical_seconds(lines: list[Line]) -> float:
    """How long a line is sung, as far as the times of those after it show."""
    gaps = [after.seconds - line.seconds for line, after in zip(lines, lines[1:], strict=False) if line.text.strip()]
    return median(gaps) if gaps else SHORTEST_GAP


def _paragraph(text: str) -> list[str]:
    return [sentence for line in text.splitlines() for sentence in sentences_of(plain(line))[0]]


def _guess_tags(parts: list[_Part]) -> None:
    """Names what is sung and has no name: `chorus` where the same words come again, otherwise `verse`."""
    times = Counter(tuple(map(str.casefold, part.sentences)) for part in parts if part.sentences)
    for number, part in enumerate(parts):
        if part.tag is None:
            again = times[tuple(map(str.casefold, part.sentences))] > 1
            parts[number] = replace(part, tag="chorus" if again else "verse", origin="inferred")
