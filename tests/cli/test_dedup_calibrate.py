"""`audioprep dedup --calibrate` on real files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_helpers import Cli

from audioprep.cli.report import calibration_table
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
    histograms = ("--codec", "mel-rvq", "--max-audio-seconds", "0")
    run = ("dedup", songs, "--out", out, "--calibrate", "--workers", "1", *histograms, "--json")
    result = cli(*run)
    assert result.code == 0, result.err
    found = result.json
    assert (found["recordings"], found["copies"]) == (3, 3 * len(COPIES))
    assert list(found["methods"]) == ["per_codebook", "joint", "first_k", "bigram", "fingerprints"]
    in_use = found["methods"]["per_codebook"]["in_use"]
    assert in_use["threshold"] == 0.95
    assert set(in_use["recall"]) == set(COPIES)
    assert in_use["recall"]["shift"] == 1
    assert found["methods"]["joint"]["recommended"]["precision"] >= 0.999
    for pair in found["most_similar_strangers"]:
        assert pair["similarity"] > 0 and str(songs) in pair["one"] and pair["one"] != pair["other"]
    assert json.loads((out / "calibration.json").read_text()) == found
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "exclude_paths.txt").exists()

    # The table has a row a kind of copies, and two columns a method.
    lines = calibration_table(found).splitlines()
    assert lines[0].split()[:5] == [str(3 * len(COPIES)), "copies", "of", "3", "recordings;"]
    assert lines[3].split() == list(found["methods"])
    assert [line.split()[0] for line in lines[4 : 6 + len(COPIES)]] == ["threshold", "precision", *COPIES]
    best = found["methods"][found["best"]]["recommended"]
    assert f"  best: {found['best']} --similarity-threshold {best['threshold']:.4f}" in lines
    assert sum(best["recall"].values()) >= sum(found["methods"]["per_codebook"]["recommended"]["recall"].values())


def test_calibrate_fingerprints(cli: Cli, songs: Path, tmp_path: Path):
    """Of a shard set: its own recordings, and the encoder that it was made with."""
    shards, out = tmp_path / "shards", tmp_path / "out"
    cli("tokenize", songs, "--codec", "fingerprint", "--out", shards, "--workers", "1")
    run = ("dedup", shards, "--out", out, "--calibrate", "--calibrate-files", "4", "--workers", "1", "--json")
    assert cli(*run, "--dry-run").json == {"recordings": 3, "copies_of_each": len(COPIES), "out": str(out)}
    two = cli(*run, "--dry-run", "--calibrate-files", "2").json  # the first and the last are the same song
    assert two["recordings"] == 2
    result = cli(*run)
    assert result.code == 0, result.err
    assert list(result.json["methods"]) == ["fingerprints"]
    in_use = result.json["methods"]["fingerprints"]["in_use"]
    assert in_use["threshold"] == 0.66 and in_use["precision"] == 1
    assert in_use["recall"]["mp3-64k"] == 1


def test_too_little_to_calibrate_on(cli: Cli, songs: Path, tmp_path: Path):
    result = cli("dedup", songs / "1.wav", songs / "broken.wav", "--out", tmp_path / "out", "--calibrate")
    assert result.code == 1
    assert "1.wav" in result.err and "two different recordings" in result.err
