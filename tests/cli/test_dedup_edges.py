"""`audioprep dedup` on what is hardly a corpus: silence, seconds, one file, copies alone, nothing readable."""

import json
from pathlib import Path

import numpy as np
import pytest
from audio_helpers import ffmpeg, write_wav
from cli_helpers import Cli

from audioprep.dedup.outputs import NAMES
from audioprep.samples import sample_folder

RATE = 24_000


def excluded(out: Path) -> list[str]:
    return [Path(line).name for line in (out / "exclude_paths.txt").read_text().splitlines()[1:]]


def test_silence_and_seconds(cli: Cli, tmp_path: Path):
    """Silent files are copies only where their bytes are; seconds of different pieces are not alike, nor are tones."""
    songs = tmp_path / "songs"
    songs.mkdir()
    for name, seconds in {"silence": 2, "silence-longer": 5, "silence-second": 1}.items():
        write_wav(songs / f"{name}.wav", np.zeros((1, RATE * seconds), np.float32), RATE)
    (songs / "silence-copy.wav").write_bytes((songs / "silence.wav").read_bytes())
    ffmpeg("-i", songs / "silence.wav", songs / "silence-again.flac")
    for pitch in (220, 440):
        tone = np.sin(2 * np.pi * pitch * np.arange(RATE * 3) / RATE)
        write_wav(songs / f"tone{pitch}.wav", 0.3 * tone[None].astype(np.float32), RATE)
    for piece in ("bach_chorale_bwv269.flac", "ode_to_joy.wav", "bach_prelude_c.mp3"):
        second = songs / f"{Path(piece).stem}.wav"
        ffmpeg("-i", sample_folder() / "music" / piece, "-ss", "2", "-t", "1", second)
    ffmpeg("-i", songs / "ode_to_joy.wav", songs / "ode_again.flac")
    (songs / "broken.wav").write_bytes(b"RIFF")
    result = cli("dedup", songs, "--out", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.err
    assert excluded(tmp_path / "out") == ["ode_again.flac", "silence.wav"]
    assert (result.json["failed_files"], result.json["exact_copies"], result.json["duplicate_files"]) == (1, 1, 2)


@pytest.mark.parametrize("copies", [0, 3])
def test_one_file_or_copies_of_one_alone(cli: Cli, tmp_path: Path, copies: int):
    songs = tmp_path / "songs"
    songs.mkdir()
    ffmpeg("-i", sample_folder() / "music" / "ode_to_joy.wav", "-t", "3", songs / "0.wav")
    for number in range(copies):
        (songs / f"{number + 1}.wav").write_bytes((songs / "0.wav").read_bytes())
    result = cli("dedup", songs, "--out", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.err
    assert excluded(tmp_path / "out") == [f"{number + 1}.wav" for number in range(copies)]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["kept_files"], summary["exact_copies"], summary["groups"]) == (1, copies, copies > 0)


def test_nothing_that_can_be_read(cli: Cli, tmp_path: Path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "broken.wav").write_bytes(b"RIFF")
    result = cli("dedup", tmp_path / "songs", "--out", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.err
    assert (result.json["processed_files"], result.json["failed_files"], result.json["kept_files"]) == (0, 1, 0)
    assert all((tmp_path / "out" / name).is_file() for name in NAMES)


def test_copies_within_the_training_set_stay_where_only_leaks_are_sought(cli: Cli, tmp_path: Path):
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    for name, piece in {"ode": "ode_to_joy.wav", "prelude": "bach_prelude_c.mp3"}.items():
        ffmpeg("-i", sample_folder() / "music" / piece, "-t", "6", train / f"{name}.wav")
        ffmpeg("-i", train / f"{name}.wav", "-b:a", "128k", train / f"{name}_again.mp3")
        (train / f"{name}_copy.wav").write_bytes((train / f"{name}.wav").read_bytes())
    ffmpeg("-i", train / "ode.wav", "-b:a", "96k", test / "leak.mp3")
    (test / "leak_again.mp3").write_bytes((test / "leak.mp3").read_bytes())
    before = {path.name: path.read_bytes() for path in train.iterdir()}
    result = cli("dedup", train, "--against", test, "--out", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.err
    assert excluded(tmp_path / "out") == ["ode.wav", "ode_again.mp3", "ode_copy.wav"]
    assert {path.name: path.read_bytes() for path in train.iterdir()} == before
