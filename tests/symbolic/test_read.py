from __future__ import annotations

import io
import zipfile

import midi_files as m
import pytest

from audioprep.errors import InputError, Reason
from audioprep.symbolic.read import MAX_QUARTERS, read_score, seconds_of_score

NOTE = [(0, m.on(60)), (480, m.off(60))]
GOOD = m.midi(NOTE)

MUSICXML = """<?xml version="1.0"?><score-partwise version="3.1">
<part-list><score-part id="P1"><part-name>piano</part-name>
</score-part></part-list><part id="P1"><measure number="1"><attributes><divisions>1</divisions><key><fifths>-3</fifths>
<mode>minor</mode></key><time><beats>3</beats><beat-type>4</beat-type></time></attributes>
<note><pitch><step>C</step><octave>4</octave></pitch><duration>2</duration></note>
<note><pitch><step>G</step><octave>4</octave></pitch><duration>1</duration></note></measure></part></score-partwise>"""
KERN = "**kern\n*M4/4\n*k[f#]\n4c\n4d\n2e\n==\n*-\n"
ABC = "X:1\nT:a\nM:3/4\nL:1/4\nK:G\nGAB|\n"


def reason(data: bytes, name: str = "a.mid") -> Reason:
    with pytest.raises(InputError) as raised:
        read_score(data, name)
    assert raised.value.uri == name
    return raised.value.reason


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Reason.EMPTY),
        (b"MThd", Reason.CORRUPT),
        (b"RIFF" + GOOD, Reason.CORRUPT),
        (GOOD[:-9], Reason.CORRUPT),
        (m.midi(NOTE, format=2), Reason.UNSUPPORTED),
        (m.midi(NOTE, division=0xE728), Reason.UNSUPPORTED),  # 25 frames a second
        (m.midi(NOTE, division=0), Reason.CORRUPT),
        (m.midi([(0, b"\x40\x40"), *NOTE]), Reason.CORRUPT),  # running status with none before
        (m.midi([(0, bytes([0x90, 60, 200]))]), Reason.CORRUPT),
        (m.midi(), Reason.NO_NOTES),
        (m.midi([(0, m.tempo(120))]), Reason.NO_NOTES),
        (m.midi([(0, m.on(60))]), Reason.NO_NOTES),  # never ended
        (m.midi([(0, m.on(60)), (2 * MAX_QUARTERS, m.off(60))], division=1), Reason.UNSUPPORTED),
    ],
)
def test_bad_files_say_what_is_wrong(data: bytes, expected: Reason) -> None:
    assert reason(data) is expected


def test_notes_never_ended_are_dropped() -> None:
    score = read_score(m.midi([(0, m.on(60)), (10, m.on(62)), (20, m.off(62))]), "a.mid")
    assert [note.pitch for note in score.tracks[0].notes] == [62]


def test_a_tempo_of_zero_is_dropped() -> None:
    score = read_score(m.midi([(0, m.tempo(90)), (10, m.tempo(0)), *NOTE]), "a.mid")
    assert [round(tempo.qpm) for tempo in score.tempos] == [90]


def test_ten_thousand_tracks() -> None:
    assert read_score(m.midi(*[NOTE] * 10_000), "a.mid").note_num() == 10_000


def test_twenty_hours() -> None:
    score = read_score(m.midi([(0, m.on(60)), (480 * 120 * 60 * 20, m.off(60))]), "a.kar")
    assert seconds_of_score(score) == pytest.approx(20 * 3600, rel=1e-3)


def pitches(data: bytes, name: str) -> list[int]:
    return [note.pitch for note in read_score(data, name).tracks[0].notes]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [(MUSICXML, "a.musicxml", [60, 67]), (KERN, "a.krn", [60, 62, 64]), (ABC, "a.abc", [67, 69, 71])],
)
def test_formats_of_text(text: str, name: str, expected: list[int]) -> None:
    assert pitches(text.encode(), name) == expected


def test_chord_symbols_are_no_notes() -> None:
    symbol = "<harmony><root><root-step>F</root-step></root><kind>major</kind></harmony><note>"
    assert pitches(MUSICXML.replace("<note>", symbol).encode(), "a.musicxml") == [60, 67]


def test_key_and_meter_of_musicxml() -> None:
    score = read_score(MUSICXML.encode(), "a.musicxml")
    assert [(meter.numerator, meter.denominator) for meter in score.time_signatures] == [(3, 4)]
    assert [(key.key, key.tonality) for key in score.key_signatures] == [(-3, 1)]


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_compressed_musicxml() -> None:
    container = '<container><rootfiles><rootfile full-path="in/score.xml"/></rootfiles></container>'
    data = zipped({"META-INF/container.xml": container, "other.xml": "<a/>", "in/score.xml": MUSICXML})
    assert pitches(data, "a.mxl") == [60, 67]
    assert reason(zipped({"a.txt": "a"}), "a.mxl") is Reason.SCORE
    assert reason(data[:40], "a.mxl") is Reason.CORRUPT


def test_text_that_is_no_score() -> None:
    assert reason(b"hello", "a.musicxml") is Reason.CORRUPT
    assert reason(b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>', "a.musicxml") is Reason.SCORE
    assert reason(b"hello", "a.mid") is Reason.CORRUPT


def test_several_tunes_in_one_file() -> None:
    assert reason((ABC + "\n" + ABC.replace("X:1", "X:2")).encode(), "a.abc") is Reason.UNSUPPORTED
