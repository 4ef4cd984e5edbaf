"""Writes MusicXML as notation programs do, from a few words; and a corpus that is shaped like jaCappella."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import soundfile

STEPS = {60: ("C", 4), 62: ("D", 4), 64: ("E", 4), 65: ("F", 4), 67: ("G", 4)}
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 3.1 '
    'Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
)


def note(*syllables: str, pitch: int | None = 60, quarters: int = 1, tie: str = "") -> str:
    """A note; a syllable a verse, `wa-` where its word goes on, `-ter` where it is the end of one; "" for none."""
    if pitch is None:
        sound = "<rest/>"
    else:
        step, octave = STEPS[pitch]
        sound = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
    lyrics = ""
    for verse, text in enumerate(syllables, start=1):
        mark = {(0, 0): "single", (0, 1): "begin", (1, 1): "middle", (1, 0): "end"}[text[:1] == "-", text[-1:] == "-"]
        if text:
            lyrics += (
                f'<lyric number="{verse}"><syllabic>{mark}</syllabic><text>{escape(text.strip("-"))}</text></lyric>'
            )
    ties = f'<tie type="{tie}"/>' if tie else ""
    return f"<note>{sound}<duration>{quarters}</duration>{ties}<voice>1</voice>{lyrics}</note>"


def rest(quarters: int) -> str:
    return note(pitch=None, quarters=quarters)


def kana(text: str) -> list[str]:
    """Notes for kana, one each; small ones go with what is before them."""
    syllables: list[str] = []
    for char in text:
        if syllables and char in "ゃゅょャュョゥー":
            syllables[-1] += char
        else:
            syllables.append(char)
    return [note(syllable) for syllable in syllables]


@dataclass
class Measure:
    notes: Sequence[str]
    repeat: str = ""  # forward, backward
    ending: str = ""  # 1 or 2
    mark: str = ""
    tempo: int = 0

    @property
    def quarters(self) -> int:
        return sum(int(duration) for duration in re.findall(r"<duration>(\d+)", "".join(self.notes)))

    def xml(self, number: int) -> str:
        attributes = "<attributes><divisions>1</divisions></attributes>" if number == 1 else ""
        words = f"<direction><direction-type><rehearsal>{self.mark}</rehearsal></direction-type></direction>"
        metronome = (
            "<direction><direction-type><metronome><beat-unit>quarter</beat-unit><per-minute>"
            f"{self.tempo}</per-minute></metronome></direction-type></direction>"
        )
        left = '<repeat direction="forward"/>' if self.repeat == "forward" else ""
        right = '<repeat direction="backward"/>' if self.repeat == "backward" else ""
        if self.ending:
            left = f'<ending number="{self.ending}" type="start"/>' + left
            right = f'<ending number="{self.ending}" type="stop"/>' + right
        return (
            f'<measure number="{number}">{attributes}'
            + (f'<barline location="left">{left}</barline>' if left else "")
            + (words if self.mark else "")
            + (metronome if self.tempo else "")
            + "".join(self.notes)
            + (f'<barline location="right">{right}</barline>' if right else "")
            + "</measure>"
        )


def score(parts: dict[str, Sequence[Measure]]) -> str:
    listed = "".join(
        f'<score-part id="P{n}"><part-name>{name}</part-name></score-part>' for n, name in enumerate(parts)
    )
    bodies = "".join(
        f'<part id="P{n}">{"".join(measure.xml(i + 1) for i, measure in enumerate(measures))}</part>'
        for n, measures in enumerate(parts.values())
    )
    return f'{HEAD}<score-partwise version="3.1"><part-list>{listed}</part-list>{bodies}</score-partwise>'


SCAT = {"svs": "ラバダダ", "romaji": "LABADADA", "default": "トゥトゥ"}


@dataclass
class Song:
    """A song of the corpus: what its lead sings (a row a score), and what else the scores have."""

    subset: str
    name: str
    lead: dict[str, Sequence[Measure]]  # by score: svs, romaji, default
    backing: dict[str, str] = field(
        default_factory=lambda: {"svs": "ラバダダ", "romaji": "LABADADA", "default": "トゥトゥ"}
    )


SUFFIXES = {"svs": "_SVS.musicxml", "romaji": "_romaji.musicxml", "default": ".musicxml"}
AUDIO = (
    "lead_vocal", "soprano", "alto", "tenor", "bass", "vocal_percussion", "mixture", "mixture_stereo",
)  # fmt: skip


def write_corpus(root: Path, songs: Sequence[Song], seconds: float = 1.0) -> Path:
    """Writes songs as jaCappella has them: `SUBSET/SONG/`, eight recordings and three scores each, and `meta.csv`."""
    rows = ["title_in_en,title_in_ja,composer,lyricist,arranger,a,b,c,subset,voice_part,d,gender"]
    for number, song in enumerate(songs):
        folder = root / song.subset / song.name
        folder.mkdir(parents=True)
        for place, name in enumerate(AUDIO):
            sound = np.random.default_rng(number * 10 + place).uniform(-0.1, 0.1, int(seconds * 48000))
            samples = np.stack([sound, sound], axis=1) if name == "mixture_stereo" else sound
            soundfile.write(folder / f"{name}.wav", samples, 48000)
        for kind, suffix in SUFFIXES.items():
            scat = Measure([note(song.backing[kind]), rest(song.lead[kind][0].quarters - 1)])
            parts = {"Lead Vocal": song.lead[kind]}
            parts |= {name: [scat, *song.lead[kind][1:]] for name in ("Soprano", "Alto")}
            silent = [Measure([rest(m.quarters)], m.repeat, m.ending) for m in song.lead[kind][1:]]
            parts |= {name: [scat, *silent] for name in ("Tenor", "Bass")}
            parts["Vocal Percussion"] = [Measure([rest(1)])]
            (folder / f"{song.name}{suffix}").write_text(score(parts), encoding="utf-8")
        parts_of_six = AUDIO[:6]
        rows += [f"{song.name},{song.name},,,,,,,{song.subset},{part},,F" for part in parts_of_six]
    (root / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root
