"""SongBloom's lyric format: read, checked line by line, written; sections from times."""

from __future__ import annotations

import pytest

from audioprep.text.song_structure import song_structure
from audioprep.text.songbloom import Section, normalize_lyrics, parse, unreadable_lines, write

SONG = "[intro] [intro] , [verse] 風が吹く. 空は青い , [inst] [inst] [inst] , [chorus] Run with me. Now , [outro]"


def test_what_is_right_stays_as_it_is():
    sections, found = parse(SONG)
    assert found == [] and write(sections) == SONG
    assert sections[:2] == [Section("intro", (), 2), Section("verse", ("風が吹く", "空は青い"))]


LYRICS = [
    ("[verse]風[chorus]海", "[verse] 風 , [chorus] 海", ["spacing", "separator"]),
    ("[verse] 風 [chorus] 海", "[verse] 風 , [chorus] 海", ["separator"]),
    ("[verse] a , [verse] b", "[verse] a , [verse] b", []),
    ("[verse] a, b!  c… , [outro]", "[verse] a. b. c , [outro]", ["comma"]),
    ("[Verse 1]\nHello\nworld\n\n[Chorus]\nla", "[verse] Hello. world , [chorus] la", ["tag", "tag"]),
    ("Verse 2:\nla", "[verse] la", ["section"]),
    ("[Pre-Chorus] a", "[verse] a", ["tag"]),
    ("[start] , [verse] a , [solo] [break] , [end]", "[intro] , [verse] a , [inst] [inst] , [outro]", ["tag"] * 4),
    ('[verse] (ooh) "a" b♪ ら〜', "[verse] ooh a b らー", ["sign", "symbol"]),
    ("[verse] a [b", "[verse] a b", ["sign"]),
    ("[verse] ﾊﾛｰ", "[verse] ハロー", ["characters"]),
    ("[00:12.00][verse] a", "[verse] a", ["time"]),
    ("", "", []),
]


@pytest.mark.parametrize(("lyrics", "expected", "rules"), LYRICS)
def test_lyrics_are_mended(lyrics: str, expected: str, rules: list[str]):
    text, found = normalize_lyrics(lyrics)
    assert text == expected and [finding.rule for finding in found] == rules
    assert all(finding.fixed is not None for finding in found)
    assert normalize_lyrics(text) == (text, [])


PEOPLE = [
    ("just words\nmore", "", [("no-tag", 1)]),
    ("[intro] words , [verse] a", "[intro] , [verse] a", [("text-after-tag", 1)]),
    ("[verse] , [chorus] a", "[chorus] a", [("no-text", 1)]),
    ("[verse]\na\n\n[rap]\nb", "[verse] a. b", [("unknown-tag", 4)]),
    ("[intro] [intro]", "[intro] [intro]", [("no-singing", 1)]),
]


@pytest.mark.parametrize(("lyrics", "expected", "rules"), PEOPLE)
def test_what_takes_a_person_is_told_with_its_line(lyrics: str, expected: str, rules: list[tuple[str, int]]):
    text, found = normalize_lyrics(lyrics)
    assert text == expected
    assert [(finding.rule, finding.line) for finding in found if finding.fixed is None] == rules


def test_letters_that_nobody_reads_are_told():
    assert [(found.line, found.text) for found in unreadable_lines("空\n한국 love\n🎤")] == [(2, "한국")]


TIMED = """[ar: someone]
[length: 00:50]
[Verse]
[00:12.00]first line
[00:16.00]second, line
[00:20.00]
[Chorus]
[00:30.00]la la la
[00:34.00]
[00:40.00]third line
[00:43.50]
"""


@pytest.mark.parametrize(
    ("seconds", "tags"),
    [(1, {"intro": 12, "inst": [10, 6], "outro": 7}), (5, {"intro": 2, "inst": [2, 1], "outro": 1})],
)
def test_sections_come_from_times(seconds: int, tags: dict):
    structure = song_structure(TIMED, seconds)
    assert [(section.tag, section.repeats) for section in structure.sections] == [
        ("intro", tags["intro"]), ("verse", 1), ("inst", tags["inst"][0]), ("chorus", 1), ("inst", tags["inst"][1]),
        ("chorus", 1), ("outro", tags["outro"]),
    ]  # fmt: skip
    assert structure.sections[1].sentences == ("first line", "second", "line")
    assert structure.origin == "timed"
    assert all(finding.fixed is not None for finding in structure.findings)


def test_the_recordings_length_beats_the_lyrics():
    assert song_structure(TIMED, 1, duration=44.0).sections[-1].tag == "chorus"


def test_a_short_gap_is_a_breath():
    lyrics = "[Verse]\n[00:01.00]a\n[00:03.00]\n[00:05.00]b"
    assert [section.tag for section in song_structure(lyrics).sections] == ["verse"]


UNTAGGED = "[00:12.00]a b\n[00:16.00]c\n\n[00:20.00]hook\n[00:24.00]hook two\n\n[00:50.00]e\n[00:54.00]f\n\n" \
    "[00:58.00]hook\n[01:02.00]hook two"  # fmt: skip


def test_nothing_is_invented():
    structure = song_structure(UNTAGGED)
    assert structure.sections == ()
    assert [finding.rule for finding in structure.findings if finding.fixed is None] == ["no-tag"]
    assert song_structure("a\n\nb").sections == ()


def test_what_is_inferred_says_so():
    structure = song_structure(UNTAGGED, 1, duration=80.0, infer=True)
    tags = ["intro", "verse", "chorus", "inst", "verse", "chorus", "outro"]
    assert [section.tag for section in structure.sections] == tags
    assert [section.origin for section in structure.sections] == ["timed", *["inferred"] * 6]
    assert structure.origin == "inferred"
    plain = song_structure("a\nb\n\nc\n\na\nb", infer=True)
    assert write(plain.sections) == "[chorus] a. b , [verse] c , [chorus] a. b" and plain.origin == "inferred"


def test_tags_that_are_given_are_not_guessed_over():
    assert song_structure(SONG, infer=True).origin == "given"


def test_a_tag_with_a_time_ends_what_is_sung():
    lyrics = "[00:00.00][Intro]\n[00:10.00][Verse]\n[00:10.50]x\n[00:20.00][Inst]\n[00:30.00]z\n[00:33.00][Outro]"
    found = [(section.tag, section.repeats) for section in song_structure(lyrics, 1, 40.0).sections]
    assert found == [("intro", 11), ("verse", 1), ("inst", 10), ("verse", 1), ("outro", 7)]
