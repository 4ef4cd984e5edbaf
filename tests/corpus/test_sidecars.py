from pathlib import Path

import pytest

from audioprep.corpus.entry import Entry
from audioprep.corpus.sidecars import read_text
from audioprep.errors import InputError, Reason


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.touch()
    return path


def test_three_files_beside_the_audio(song: Path):
    song.with_suffix(".txt").write_text("piano,calm\n")
    song.with_suffix(".lyrics").write_text("[Verse]\nさくら\n", encoding="utf-8-sig")
    song.with_suffix(".json").write_text('{"caption": "slow", "license": "CC0-1.0", "key": "D", "tags": ["lost"]}')
    assert read_text(Entry(str(song))) == {
        "tags": "piano,calm", "lyrics": "[Verse]\nさくら", "prompt": "slow", "license": "CC0-1.0",
        "metadata": '{"key": "D"}',
    }  # fmt: skip


def test_the_manifest_has_the_last_word(song: Path):
    song.with_suffix(".txt").write_text("piano")
    song.with_suffix(".lyrics").write_text("la")
    assert read_text(Entry(str(song), tags="guitar")) == {"tags": "guitar", "lyrics": "la"}


def test_nothing_beside(song: Path):
    assert read_text(Entry(str(song))) == {}


@pytest.mark.parametrize(
    ("suffix", "content", "reason", "message"),
    [
        (".json", b"{", Reason.CORRUPT, "is not valid JSON"),
        (".json", b"[]", Reason.CORRUPT, "is not a JSON object"),
        (".txt", b"\xff\xfe\x00", Reason.CORRUPT, "is damaged UTF-16"),
        (".lyrics", "さくら".encode("cp932"), Reason.CORRUPT, "is not UTF-8.*Shift-JIS"),
        (".lyrics", b"x" * (10 * 2**20 + 1), Reason.UNSUPPORTED, "is over 10 MiB"),
    ],
)
def test_side_cars_that_cannot_be_used(suffix: str, content: bytes, reason: Reason, message: str, song: Path):
    song.with_suffix(suffix).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_text(Entry(str(song)))
    assert caught.value.reason is reason and caught.value.uri == str(song)
    assert str(song.with_suffix(suffix)) in str(caught.value)


def test_a_folder_in_the_place_of_a_side_car(song: Path):
    song.with_suffix(".txt").mkdir()
    with pytest.raises(InputError, match=r"song.txt cannot be read: Is a directory"):
        read_text(Entry(str(song)))
