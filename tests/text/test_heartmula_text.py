"""Tags and lyrics as HeartMuLa takes them."""

import pytest

from audioprep.text.heartmula import SECTIONS, normalize_lyrics, normalize_tags

TAGS = [
    ("piano,happy", "piano,happy", []),
    ("piano, happy ,Female  Voice", "piano,happy,Female Voice", ["spaces"]),
    ("['rock', 'lo-fi']", "rock,lo-fi", ["list"]),
    ('["rock"]', "rock", ["list"]),
    ("[rock, pop]", "rock,pop", ["list", "spaces"]),
    ("#rock #pop", "rock,pop", ["separator", "spaces"]),
    ("rock;pop|Rock", "rock,pop", ["separator", "repeated"]),
    ("<tag>rock</tag>", "rock", ["wrapped"]),
    ("\ufeffrock", "rock", ["characters"]),
    ("ロック、ポップ", "ロック,ポップ", ["separator"]),
    ("", "", ["empty"]),
    (" , ", "", ["characters", "spaces", "empty"]),
    ("1984", "1984", ["numeric"]),
    ("1984,rock", "1984,rock", []),
    ("a quiet song that builds up slowly", "a quiet song that builds up slowly", ["sentence"]),
]
LYRICS = [
    ("[Verse]\nla\n\n[Chorus]\nhey", "[Verse]\nla\n\n[Chorus]\nhey", []),
    ("[Verse 1]\nla\n[CHORUS: loud]\nhey", "[Verse]\nla\n\n[Chorus]\nhey", ["section", "section"]),
    ("Verse 2:\nla", "[Verse]\nla", ["section"]),
    ("Pre-Chorus\nla", "[Prechorus]\nla", ["section"]),
    ("(Final Chorus)\nla", "[Chorus]\nla", ["section"]),
    ("【サビ】\nあ", "[Chorus]\nあ", ["characters", "section"]),
    ("[Verse]\nla [laughs] la", "[Verse]\nla la", ["inner-tag"]),
    ("[Verse]\nla\n[Instrumental]\nlo", "[Verse]\nla\nlo", ["inner-tag"]),
    ("[Verse]\nla\n[Guitar Solo]\nlo", "[Verse]\nla\nlo", ["inner-tag"]),
    ("[Verse]\nooh (ooh)", "[Verse]\nooh (ooh)", []),  # a second voice is sung
    ("[Verse]\nhe said: no", "[Verse]\nhe said: no", []),
    ("[Verse]\nhey (x2)", "[Verse]\nhey (x2)", ["repeat-mark"]),
    ("[ar: A]\n[00:01.20][Verse]\n[00:02]la", "[Verse]\nla", ["time", "time", "time"]),
    ("[Verse]\r\nla\r\n\r\n\r\n\r\nlo  ", "[Verse]\nla\n\nlo", []),
    ("[instrumental]", "", ["instrumental"]),
    ("N/A", "", ["instrumental"]),
    ("", "", []),
    ("1999", "1999", ["numeric"]),
    ("la la", "la la", ["no-sections"]),
]


@pytest.mark.parametrize(("text", "expected", "rules"), TAGS)
def test_tags(text: str, expected: str, rules: list[str]):
    normalized, findings = normalize_tags(text)
    assert normalized == expected
    assert [finding.rule for finding in findings] == rules


@pytest.mark.parametrize(("text", "expected", "rules"), LYRICS)
def test_lyrics(text: str, expected: str, rules: list[str]):
    normalized, findings = normalize_lyrics(text)
    assert normalized == expected
    assert [finding.rule for finding in findings] == rules


@pytest.mark.parametrize(
    ("normalize", "text"),
    [(normalize_tags, text) for text, *_ in TAGS] + [(normalize_lyrics, text) for text, *_ in LYRICS],
)
def test_what_is_normalized_is_normal(normalize, text: str):
    normalized, findings = normalize(text)
    again, left = normalize(normalized)
    assert again == normalized
    assert [finding.rule for finding in left] == [finding.rule for finding in findings if finding.fixed is None]


def test_every_section_stays_as_it_is():
    lyrics = "\n\n".join(f"[{name}]\nla" for name in SECTIONS)
    assert normalize_lyrics(lyrics) == (lyrics, [])


def test_findings_say_where_and_what():
    (finding,) = normalize_lyrics("[Verse]\nla\nhey [whispers]")[1]
    assert (finding.field, finding.line, finding.text, finding.fixed) == ("lyrics", 3, "hey [whispers]", "hey")
