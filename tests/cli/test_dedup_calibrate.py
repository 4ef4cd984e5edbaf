"""`audioprep dedup --calibrate` on real files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_helpers import Cli

from audioprep.dedup.copies import COPIES

RATE = 24000


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Four tunes of 5 s, of which one is there twice, and a broken file."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(4):
        random = np.random.default_rng(number)
        notes = 220 * 2 ** (random.integers(0, 25, 20) / 12)
        tune = [0.3 * np.sin(2 * np.pi * hz * np.arange(RATE // 4) / RATE) for hz in notes]
        soundfile.write(folder / f"{number}.wav", np.concatenate(tune), RATE)
    (folder / "again.wav").write_bytes((folder / "0.wav").read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def test_calibrate(cli: Cli, songs: Path, tmp_path: Path):
    out = tmp_path / "out"
    run = ("dedup", songs, "--out", out, "--calibrate", "--workers", "1", "--max-audio-seconds", "0")
    result = cli(*run, "--json")
    assert result.code == 0, result.err
    found = result.json
    assert (found["recordings"], found["copies"]) == (4, 4 * len(COPIES))
    assert list(found["methods"]) == ["per_codebook", "joint", "first_k", "bigram"]
    in_use = found["methods"]["per_codebook"]["in_use"]
    assert in_use["threshold"] == 0.95
    assert set(in_use["recall"]) == set(COPIES)
    assert in_use["recall"]["shift"] == 1
    assert found["methods"]["joint"]["recommended"]["precision"] >= 0.999
    pairs = found["most_similar_strangers"]
    assert len(pairs) == 6 and pairs[0]["similarity"] >= pairs[5]["similarity"]
    assert str(songs) in pairs[0]["one"]
    assert json.loads((out / "calibration.json").read_text()) == found
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "exclude_paths.txt").exists()

    # Again, of two of them, in another mode: nothing is made anew, and a table is printed.
    copies = {path: path.stat().st_mtime_ns for path in (out / "calibration" / "copies").rglob("*.*")}
    result = cli(*run, "--calibrate-files", "3", "--histogram-mode", "bigram")
    assert result.code == 0, result.err
    assert {path: path.stat().st_mtime_ns for path in copies} == copies
    lines = result.out.splitlines()
    assert lines[3].split() == ["bigram", "per_codebook", "joint", "first_k"]
    assert [line.split()[0] for line in lines[6 : 6 + len(COPIES)]] == list(COPIES)

    # Of a shard set: its own recordings, tokenized as it was.
    result = cli("dedup", out / "calibration" / "shards", "--out", tmp_path / "two", "--calibrate",
                 "--calibrate-files", "2", "--workers", "1", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["recordings"] == 2


def test_too_little_to_calibrate_on(cli: Cli, songs: Path, tmp_path: Path):
    result = cli("dedup", songs / "1.wav", songs / "broken.wav", "--out", tmp_path / "out", "--calibrate")
    assert result.code == 1
    assert "1.wav" in result.err and "two different recordings" in result.err
