"""What is sung in a score: notes with pitch and time, and the words under them, as performed.

Repeats are carried out, and each time through takes its own verse. A score with more verses than times through is sung
from its beginning until all verses have been. Syllables become words by their syllabic marks; a note without a syllable
goes on with the last one (melisma), and tied notes are one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audioprep.errors import InputError, Reason
from audioprep.scores.play_order import play_order
from audioprep.text.sections import name_of
from audioprep.text.song_structure import SHORTEST_GAP

if TYPE_CHECKING:
    from music21.note import Lyric
    from music21.stream import Measure, Part, Score

LINE_GAP = 0.45  # seconds without singing that end a line; shorter ones are articulation
PARAGRAPH_GAP = 2.0  # seconds without singing between two paragraphs: lines of one follow each other in a breath
_USUAL_SECONDS = 0.5  # of a quarter where a score has no tempo: 120 a minute, as notation programs play it
_VERSE_NUMBER = re.compile(r"^\d+\s*[.)]\s*")
_SENTENCE_END = re.compile(r"[.!?;。！？]$")
_NO_SPACE = re.compile(r"[\u3001-\u30ff\u3400-\u9fff\uff66-\uff9f]")  # kana and Chinese characters


@dataclass(frozen=True, slots=True)
class Note:
    """A note that is sung.

    Attributes:
        start: seconds from the beginning of the score.
        seconds: how long.
        pitch: MIDI number; 60 is middle C.
        syllable: that begins here; empty where the one before goes on.
    """

    start: float
    seconds: float
    pitch: int
    syllable: str


@dataclass(frozen=True, slots=True)
class Line:
    """Words between two rests.

    Attributes:
        start: seconds.
        end: seconds.
        text: the words.
        section: a section that the score names here by a rehearsal mark, such as `Chorus`; else empty.
    """

    start: float
    end: float
    text: str
    section: str = ""


@dataclass(frozen=True, slots=True)
class SungPart:
    """One voice of a score.

    Attributes:
        name: as the score has it, such as `Lead Vocal`.
        notes: all that it sings, in order; also those before its first syllable.
        lines: its words; none where the part has no lyrics.
        seconds: of the score, as performed.
        syllables: in the file, of all verses, each counted once.
        lost: of those, how many are sung at no time.
    """

    name: str
    notes: tuple[Note, ...]
    lines: tuple[Line, ...]
    seconds: float
    syllables: int
    lost: int


def sung_parts(score: Score, uri: str) -> list[SungPart]:
    """All parts of a score.

    Raises:
        InputError: no part has words, or its repeat signs contradict each other.
    """
    from music21.stream import Measure

    parts = [(part, list(part.getElementsByClass(Measure))) for part in score.parts]
    parts = [(part, measures) for part, measures in parts if measures]
    clock = _Clock([measures for _, measures in parts])
    voices = [_Voice(part, measures, uri) for part, measures in parts]
    rounds = max((voice.verses.rounds for voice in voices), default=1)
    sung = [_sung(voice, clock, rounds) for voice in voices]
    if not any(part.lines for part in sung):
        raise InputError(Reason.SCORE, uri, "no part has lyrics; export the score with them")
    return sung


def lead_part(parts: Sequence[SungPart], named: str | None = None) -> SungPart | None:
    """The part with a name (letters alone count), or without one the part that sings the song.

    That is the one called lead, vocal, voice, melody, solo or the like; else the first of those with the most words.
    """
    if named is not None:
        return next((part for part in parts if _letters(part.name) == _letters(named)), None)
    singing = [part for part in parts if part.lines]
    called = [part for part in singing if re.search("lead|vocal(?!perc)|voice|melod|solo|sing", _letters(part.name))]
    return max(called or singing, key=lambda part: part.syllables, default=None)


def timed_lyrics(lines: Sequence[Line], seconds: float) -> str:
    """Lines as LRC: when each begins, and an empty line with a time where singing pauses for `SHORTEST_GAP` or longer.

    Between paragraphs stands an empty line without a time.

    Args:
        lines: in order.
        seconds: of the whole song, which become `[length: …]`.
    """
    written = [f"[length: {_stamp(seconds)}]"]
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        stamp = f"[{_stamp(line.start)}]"
        if line.section:
            written.append(f"[{line.section}]")
        written.append(stamp + line.text)
        pause = (after.start if after else seconds) - line.end
        if pause >= SHORTEST_GAP:
            written.append(f"[{_stamp(line.end)}]")
        elif after and pause >= PARAGRAPH_GAP:
            written.append("")
    return "\n".join(written) + "\n"


def _stamp(seconds: float) -> str:
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    return f"{minutes:02d}:{hundredths / 100:05.2f}"


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]+", "", name.lower())


class _Clock:
    """When things are in the measures of a score, whose parts have the same tempo, as if no measure came twice."""

    def __init__(self, parts: Sequence[Sequence[Measure]]) -> None:
        from music21.tempo import MetronomeMark

        self.lengths: list[float] = []  # in quarters
        self._tempi: list[list[tuple[float, float]]] = []  # of each measure: from which quarter on, seconds a quarter
        now = _USUAL_SECONDS
        for place in range(max(map(len, parts), default=0)):
            here = [measures[place] for measures in parts if place < len(measures)]
            self.lengths.append(max(float(measure.highestTime) for measure in here))
            tempi = [(0.0, now)]
            found = (mark for measure in reversed(here) for mark in measure.getElementsByClass(MetronomeMark))
            marks = {float(mark.offset): mark for mark in found}  # of two at one place, that of the upper part
            for offset, mark in sorted(marks.items()):
                if mark.number is not None and (per_minute := mark.getQuarterBPM()):
                    now = 60 / per_minute
                    tempi.append((offset, now))
            self._tempi.append(tempi)

    def seconds(self, place: int, quarters: float) -> float:
        """From the beginning of a measure until so many quarters of it have passed."""
        total, tempi = 0.0, self._tempi[place]
        for (begin, pace), end in zip(tempi, [*(begin for begin, _ in tempi[1:]), float("inf")], strict=True):
            total += max(0.0, min(quarters, end) - begin) * pace
        return total


@dataclass(slots=True)
class _Words:
    """Puts syllables together to lines."""

    lines: list[Line] = field(default_factory=list)
    _text: str = ""
    _open: bool = False  # the word goes on
    _start: float = 0.0
    _end: float = 0.0
    _section: str = ""  # of the line at work
    _next: str = ""  # of the line that comes

    def syllable(self, pieces: Sequence[tuple[str, str]], start: float) -> None:
        """Adds pieces (text and syllabic mark) of one note: more than one where words are sung together."""
        over = self._next or start - self._end >= LINE_GAP or _SENTENCE_END.search(self._text)
        if self._text and not self._open and over:
            self.finish()
        if not self._text:
            self._start, self._section, self._next = start, self._next, ""
        for text, mark in pieces:
            apart = self._text and not self._open and mark not in ("middle", "end")
            if apart and not (_NO_SPACE.match(self._text[-1]) and _NO_SPACE.match(text)):
                self._text += " "
            self._text += text
            self._open = mark in ("begin", "middle")

    def held(self, end: float) -> None:
        self._end = max(self._end, end)

    def section(self, name: str) -> None:
        self._next = name

    def finish(self) -> None:
        if self._text:
            self.lines.append(Line(self._start, max(self._end, self._start), self._text.strip(), self._section))
        self._text, self._open, self._section = "", False, ""


class _Voice:
    """A part as it is written: its measures, what is in them, and in which order they are played."""

    def __init__(self, part: Part, measures: Sequence[Measure], uri: str) -> None:
        self.name = str(part.partName or part.id)
        order = play_order(part, measures)
        if order is None:
            raise InputError(
                Reason.SCORE, uri, f"the repeat signs of the part {self.name} contradict each other; mend them"
            )
        self.order = order
        self.events = [_events(measure) for measure in measures]
        self.sections = [_section(measure) for measure in measures]
        self.verses = _Verses(self.events, order)


def _sung(voice: _Voice, clock: _Clock, rounds: int) -> SungPart:
    words, notes, used = _Words(), list[Note](), set[tuple[int, int, str]]()
    now, played = 0.0, Counter[int]()
    for place in voice.order * rounds:
        played[place] += 1
        verse = voice.verses.of(place, played[place])
        if voice.sections[place]:
            words.section(voice.sections[place])
        for number, event in enumerate(voice.events[place]):
            start = now + clock.seconds(place, event.offset)
            end = now + clock.seconds(place, event.offset + event.quarters)
            pieces = event.lyrics.get(verse, []) if verse else []
            if event.tied and notes and not pieces and notes[-1].pitch == event.pitch:
                last = notes[-1]
                notes[-1] = Note(last.start, round(end - last.start, 4), last.pitch, last.syllable)
            else:
                text = " ".join(text for text, _ in pieces)
                notes.append(Note(round(start, 4), round(end - start, 4), event.pitch, text))
            if pieces and verse:
                used.add((place, number, verse))
                words.syllable(pieces, start)
            words.held(end)
        now += clock.seconds(place, clock.lengths[place])
    words.finish()
    syllables = sum(len(event.lyrics) for row in voice.events for event in row)
    return SungPart(voice.name, tuple(notes), tuple(words.lines), now, syllables, syllables - len(used))


@dataclass(frozen=True, slots=True)
class _Event:
    offset: float  # in quarters from the measure's beginning
    quarters: float
    pitch: int
    tied: bool  # to the note before
    lyrics: dict[str, list[tuple[str, str]]]  # of each verse the pieces, with their syllabic marks


def _events(measure: Measure) -> list[_Event]:
    """The notes of the voice with the most words in a measure; of a chord the highest."""
    voices = [*measure.voices] or [measure]
    voice = max(voices, key=lambda voice: sum(len(note.lyrics) for note in voice.notes))
    events: list[_Event] = []
    for note in voice.notes:
        if not note.pitches or note.duration.isGrace:
            continue
        pitch = max(pitch.midi for pitch in note.pitches)
        tied = note.tie is not None and note.tie.type in ("stop", "continue")
        lyrics = {str(lyric.identifier): found for lyric in note.lyrics if (found := list(_pieces(lyric)))}
        events.append(_Event(float(note.offset), float(note.quarterLength), pitch, tied, lyrics))
    return events


def _pieces(lyric: Lyric) -> Iterator[tuple[str, str]]:
    for piece in lyric.components or [lyric]:
        text = _VERSE_NUMBER.sub("", (piece.text or "").strip())
        # Some programs write the hyphen beside the mark that says the same.
        text = text.rstrip("-") if piece.syllabic in ("begin", "middle") else text
        if text:
            yield text, piece.syllabic or "single"


def _section(measure: Measure) -> str:
    from music21.expressions import RehearsalMark, TextExpression

    for mark in measure.getElementsByClass([RehearsalMark, TextExpression]):
        if name_of(text := str(mark.content).strip(" []")):
            return text
    return ""


class _Verses:
    """Which line of lyrics is sung at which time through a measure.

    Measures that follow each other and are played equally often belong together: where one of them lacks a verse that
    the others have, nothing new is sung there; unless it has one line only, which all verses share.
    """

    def __init__(self, events: Sequence[Sequence[_Event]], order: Sequence[int]) -> None:
        times = Counter(order)
        self._own = [sorted({verse for event in row for verse in event.lyrics}, key=_verse_order) for row in events]
        self._all: list[list[str]] = []
        begin = 0
        for place in range(1, len(events) + 1):
            if place == len(events) or times[place] != times[begin]:
                together = sorted({verse for own in self._own[begin:place] for verse in own}, key=_verse_order)
                self._all += [together] * (place - begin)
                begin = place
        rounds = (-(-len(own) // times[place]) for place, own in enumerate(self._own) if times[place])
        self.rounds = max([1, *rounds])

    def of(self, place: int, time: int) -> str | None:
        """The verse at the `time`-th playing of a measure; None: none of those that are written."""
        known, own = self._all[place], self._own[place]
        if not own:
            return None
        verse = known[min(time, len(known)) - 1]
        return verse if verse in own else own[0] if len(own) == 1 else None


def _verse_order(verse: str) -> tuple[int, str]:
    number = re.search(r"\d+", verse)
    return (int(number[0]) if number else 0, verse)
