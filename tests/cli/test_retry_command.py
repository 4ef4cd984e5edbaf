"""`audioprep retry`: what has failed is done again as the rest was, without the command line that it was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audio_helpers import music, write_wav
from cli_helpers import Cli

QUIET = ("--workers", "1", "-q")


def public(out: Path) -> dict[str, Any]:
    """What readers see, without how the shards were cut by parts of other sizes."""
    files = [
        out / "dataset.json",
        out / "README.md",
        *out.glob("*.vocab.txt"),
        *out.glob("data/*"),
        *out.glob("index/*"),
    ]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(5):
        write_wav(folder / f"{number}.wav", music(8000 + 500 * number))
    (folder / "2.wav").rename(tmp_path / "good.wav")
    (folder / "2.wav").write_bytes(b"RIFF, and nothing else")
    return folder


def test_recordings(cli: Cli, songs: Path, tmp_path: Path):
    options = ("--codec", "fingerprint", "--format", "webdataset", "--splits", "train=0.5,test=0.5", *QUIET)
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    assert cli("tokenize", songs, "--out", out, *options).code == 3
    assert cli("retry", out, "--dry-run", "--json").json == {"out": str(out), "failed_before": 1}

    (tmp_path / "good.wav").replace(songs / "2.wav")
    again = cli("retry", out, *QUIET, "--json")
    assert (again.code, again.json["failed_before"], again.json["failed"], again.json["rows"]) == (0, 1, 0, 5)
    assert cli("tokenize", songs, "--out", fresh, *options).code == 0
    assert public(out) == public(fresh)


def test_lyrics(cli: Cli, tmp_path: Path):
    pytest.importorskip("pyopenjtalk")
    folder, out, fresh = tmp_path / "lyrics", tmp_path / "out", tmp_path / "fresh"
    folder.mkdir()
    (folder / "a.txt").write_text("さくら")
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbf\xff")
    options = ("--language", "ja", "--japanese", "kana", *QUIET)
    assert cli("g2p", folder, "--out", out, *options).code == 3
    (folder / "b.txt").write_text("ゆき")
    assert cli("retry", out, *QUIET).code == 0
    assert cli("g2p", folder, "--out", fresh, *options).code == 0
    assert public(out) == public(fresh)
    assert "ユ" in (out / "phonemes.vocab.txt").read_text()


def test_sets_that_do_not_say_enough(cli: Cli, songs: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert "no finished shard set" in cli("retry", out).err
    cli("tokenize", songs, "--out", out, "--codec", "fingerprint", *QUIET)
    dataset = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps({name: dataset[name] for name in dataset if name != "cut"}))
    assert "with --retry-failed" in cli("retry", out).err
    (out / "dataset.json").write_text(json.dumps(dataset))
    (out / ".audioprep").rename(tmp_path / "elsewhere")  # as after a pull
    result = cli("retry", out)
    assert result.code == 1 and "was not made here" in result.err
