"""Scores are read as sung; bad ones are refused by name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from score_files import HEAD, Measure, kana, note, rest, score

from audioprep.errors import InputError
from audioprep.scores.musicxml import read_musicxml
from audioprep.scores.singing import Line, SungPart, lead_part, sung_parts, timed_lyrics

pytest.importorskip("music21")


def sing(tmp_path: Path, *measures: Measure) -> SungPart:
    path = tmp_path / "song.musicxml"
    path.write_text(score({"Voice": measures}), encoding="utf-8")
    (part,) = sung_parts(read_musicxml(path), str(path))
    return part


def texts(part: SungPart) -> list[str]:
    return [line.text for line in part.lines]


def test_syllables_become_words_and_rests_become_lines(tmp_path: Path) -> None:
    part = sing(
        tmp_path,
        Measure([note("wa-"), note("-ter"), note("flows"), rest(1)], tempo=60),
        Measure([*kana("さくら"), rest(1)]),
    )
    assert part.lines == (Line(0.0, 3.0, "water flows"), Line(4.0, 7.0, "さくら"))
    assert part.seconds == 8.0 and (part.syllables, part.lost) == (6, 0)


def test_two_verses_are_sung_one_after_the_other_with_the_repeat_and_a_shared_refrain(tmp_path: Path) -> None:
    part = sing(
        tmp_path,
        Measure([note("one", "two"), note("a", ""), note("b", "c"), rest(1)], repeat="forward"),
        Measure([note("la"), rest(3)], repeat="backward"),
        Measure([note("end"), rest(3)]),
    )
    assert texts(part) == ["one a b", "la", "two c", "la", "end"]
    assert part.lost == 0


def test_first_and_second_endings(tmp_path: Path) -> None:
    part = sing(
        tmp_path,
        Measure([note("go"), rest(3)], repeat="forward"),
        Measure([note("back"), rest(3)], ending="1", repeat="backward"),
        Measure([note("", "on"), rest(3)], ending="2"),
    )
    assert texts(part) == ["go", "back", "go", "on"]


def test_a_hymn_is_sung_once_for_every_verse_that_is_written_under_it(tmp_path: Path) -> None:
    part = sing(tmp_path, Measure([note("1. ein", "2. zwei", "3. drei"), rest(3)], tempo=60))
    assert texts(part) == ["ein", "zwei", "drei"] and part.seconds == 12.0


def test_ties_are_one_note_and_a_melisma_several(tmp_path: Path) -> None:
    part = sing(
        tmp_path,
        Measure([note("a", quarters=2, tie="start"), note(tie="stop"), note(pitch=64)], tempo=60),
    )
    assert [(n.start, n.seconds, n.pitch, n.syllable) for n in part.notes] == [(0.0, 3.0, 60, "a"), (3.0, 1.0, 64, "")]
    assert part.lines == (Line(0.0, 4.0, "a"),)


def test_tempo_and_pauses_become_timed_lyrics(tmp_path: Path) -> None:
    part = sing(
        tmp_path,
        Measure([rest(4)], tempo=120),
        Measure([note("hi"), rest(3)], tempo=60, mark="Verse 1"),
        Measure([rest(4)]),
    )
    assert timed_lyrics(part.lines, part.seconds) == "[length: 00:10.00]\n[Verse 1]\n[00:02.00]hi\n[00:03.00]\n"


def test_the_part_that_sings(tmp_path: Path) -> None:
    path = tmp_path / "song.musicxml"
    words = [Measure([note("x"), note("y"), rest(2)])]
    path.write_text(score({"Soprano": words * 3, "Lead Vocal": words, "Piano": [Measure([note()])]}), encoding="utf-8")
    parts = sung_parts(read_musicxml(path), str(path))
    chosen, named = lead_part(parts), lead_part(parts, "soprano")
    assert chosen and chosen.name == "Lead Vocal" and named and named.name == "Soprano"
    assert lead_part(parts, "Flute") is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "shift_jis"])
def test_declared_encodings_and_archives(tmp_path: Path, encoding: str) -> None:
    text = score({"Voice": [Measure(kana("さくら"))]}).replace("UTF-8", "shift_jis" if "jis" in encoding else "UTF-16")
    path = tmp_path / "song.mxl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", '<c><rootfiles><rootfile full-path="a/b.xml"/></rootfiles></c>')
        archive.writestr("a/b.xml", text.encode(encoding))
    (part,) = sung_parts(read_musicxml(path), "song")
    assert texts(part) == ["さくら"]


BOMB = (
    '<!DOCTYPE s [<!ENTITY a "aaaaaaaa">'
    + "".join(f'<!ENTITY {b} "&{a};&{a};&{a};">' for a, b in zip("abc", "bcd", strict=True))
) + "]><score-partwise>&d;</score-partwise>"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<score-partwise>", "no well-formed XML"),
        (b"RIFF....", "no well-formed XML"),
        (b"<html/>", "XML of a <html>"),
        (b"<score-timewise/>", "by time"),
        (BOMB.encode(), "declares the XML entity a"),
        (b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><score-partwise>&x;</score-partwise>', "entity x"),
        (b'<!DOCTYPE s [<!ENTITY % x SYSTEM "http://example.org/x">%x;]><score-partwise/>', "entity x"),
        (b'<?xml version="1.0" encoding="klingon"?><score-partwise/>', "cannot be decoded"),
        (b"\x93\xfa\x96{", "not UTF-8"),
        (b"PK\x05\x06" + bytes(18), "no MusicXML in the archive"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "song.musicxml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        read_musicxml(path)
    assert caught.value.uri == str(path)


def test_a_score_without_words_and_one_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "song.musicxml"
    path.write_text(score({"Piano": [Measure([note()])]}), encoding="utf-8")
    with pytest.raises(InputError, match="no part has lyrics"):
        sung_parts(read_musicxml(path), str(path))
    with pytest.raises(InputError, match="no such score"):
        read_musicxml(tmp_path / "other.musicxml")
    path.write_text(HEAD + "<score-partwise><part><measure><note/></measure></part></score-partwise>")
    with pytest.raises(InputError):
        sung_parts(read_musicxml(path), str(path))


@pytest.mark.parametrize(
    ("work", "first", "syllables"),
    [
        ("bach/bwv103.6", "Was mein Gott will, das g'scheh' allzeit, sein Will' der ist der beste;", 120),
        ("bach/bwv267", "An Wasserflüssen Babylon, da sassen wir mit Schmerzen,", 152),
        ("verdi/laDonnaEMobile", "La donna.è mobile", 108),
    ],
)
def test_real_scores(work: str, first: str, syllables: int) -> None:
    from music21 import corpus

    part = lead_part(sung_parts(read_musicxml(Path(str(corpus.getWork(work)))), work))
    assert part and part.lines[0].text.startswith(first)
    assert (part.syllables, part.lost) == (syllables, 0)
