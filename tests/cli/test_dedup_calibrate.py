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
    """Three tunes of 4 s, of which one is there twice, and a broken file."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(3):
        random = np.random.default_rng(number)
        notes = 220 * 2 ** (random.integers(0, 25, 16) / 12)
        tune = [0.3 * np.sin(2 * np.pi * hz * np.arange(RATE // 4) / RATE) for hz in notes]
        soundfile.write(folder / f"{number}.wav", np.concatenate(tune), RATE)
    (folder / "again.wav").write_bytes((folder / "0.wav").read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def test_calibrate(cli: Cli, songs: Path, tmp_path: Path):
    out = tmp_path / "out"
    histograms = ("--codec", "mel-rvq", "--no-second-opinion", "--max-audio-seconds", "0")
    run = ("dedup", songs, "--out", out, "--calibrate", "--workers", "1", *histograms, "--json")
    result = cli(*run)
    assert result.code == 0, result.err
    found = result.json
    assert (found["recordings"], found["copies"]) == (3, 3 * len(COPIES))
    assert list(found["methods"]) == ["per_codebook", "joint", "first_k", "bigram"]
    in_use = found["methods"]["per_codebook"]["in_use"]
    assert in_use["threshold"] == 0.95
    assert set(in_use["recall"]) == set(COPIES)
    assert in_use["recall"]["shift"] == 1
    assert found["methods"]["joint"]["recommended"]["precision"] >= 0.999
    pairs = found["most_similar_strangers"]
    assert len(pairs) == 3 and pairs[0]["similarity"] >= pairs[2]["similarity"]
    assert str(songs) in pairs[0]["one"]
    assert json.loads((out / "calibration.json").read_text()) == found
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "exclude_paths.txt").exists()

    # Of a shard set: its own recordings, tokenized as it was. The table has a row a kind, and the chosen mode first.
    shards = tmp_path / "shards"
    cli("tokenize", songs, "--out", shards, "--workers", "1")
    some = ("--calibrate-files", "2", "--histogram-mode", "bigram", "--workers", "1")
    result = cli("dedup", shards, "--out", tmp_path / "two", "--calibrate", *some)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split()[:5] == [str(2 * len(COPIES)), "copies", "of", "2", "recordings;"]
    assert lines[3].split() == ["bigram", "per_codebook", "joint", "first_k"]
    assert [line.split()[0] for line in lines[6 : 6 + len(COPIES)]] == list(COPIES)
    assert "--similarity-threshold" in result.out and str(tmp_path / "two" / "calibration.png") in result.out


def test_calibrate_fingerprints(cli: Cli, songs: Path, tmp_path: Path):
    result = cli("dedup", songs, "--out", tmp_path / "out", "--calibrate", "--workers", "1", "--json")
    assert result.code == 0, result.err
    assert list(result.json["methods"]) == ["fingerprints"]
    in_use = result.json["methods"]["fingerprints"]["in_use"]
    assert in_use["threshold"] == 0.66 and in_use["precision"] == 1
    assert in_use["recall"]["mp3-64k"] == 1


def test_too_little_to_calibrate_on(cli: Cli, songs: Path, tmp_path: Path):
    result = cli("dedup", songs / "1.wav", songs / "broken.wav", "--out", tmp_path / "out", "--calibrate")
    assert result.code == 1
    assert "1.wav" in result.err and "two different recordings" in result.err
