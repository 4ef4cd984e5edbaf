"""`audioprep dedup` gives the same files whatever the workers, the order of its sources, and wherever it was killed."""

import os
from pathlib import Path

import pytest
from audio_helpers import ffmpeg
from cli_helpers import Cli, start

from audioprep.dedup.outputs import NAMES
from audioprep.samples import sample_folder

PIECES = ("bach_chorale_bwv269.flac", "ode_to_joy.wav", "bach_prelude_c.mp3")
KILL_POINTS = Path(__file__).parent.parent / "engine" / "kill_points"
# When, and at the first commit of which file: while encoding, gathering, comparing, and writing what was found.
POINTS = (
    "before:*/columns/*.parquet",
    "torn:*/prints/*.arrow",
    "after:*/matches/*/*.npy",
    "torn:*/groups.parquet",
)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pieces with copies, in two folders, and a broken file."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    for piece in PIECES:
        cut = folder / "a" / f"{Path(piece).stem}.wav"
        ffmpeg("-i", sample_folder() / "music" / piece, "-t", "6", cut)
        ffmpeg("-i", cut, "-b:a", "96k", folder / "b" / f"{cut.stem}.mp3")
    (folder / "b" / "copy.wav").write_bytes((folder / "a" / "ode_to_joy.wav").read_bytes())
    (folder / "b" / "broken.wav").write_bytes(b"RIFF")
    return [str(folder / name) for name in ("a", "b/broken.wav", "b")]


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "out" / name).read_bytes() for name in NAMES}


def run(cli: Cli, folder: Path, songs: list[str], workers: int) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    os.chdir(folder)  # a relative folder, as its name is written into the summary
    result = cli("dedup", *songs, "--out", "out", "--workers", str(workers))
    assert result.code == 0, result.err
    return written(folder)


def test_the_same_files_whatever_happens(cli: Cli, songs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    whole = run(cli, tmp_path / "whole", songs, workers=1)
    assert whole["exclude_paths.txt"].count(b"\n") == 5, whole["exclude_paths.txt"]
    assert run(cli, tmp_path / "two", songs[::-1], workers=2) == whole
    assert run(cli, tmp_path / "four", [songs[1], songs[0], songs[2]], workers=4) == whole

    killed = tmp_path / "killed"
    killed.mkdir()
    os.chdir(killed)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(KILL_POINTS), os.environ.get("PYTHONPATH", "")]))
    for point in POINTS:
        monkeypatch.setenv("AUDIOPREP_KILL", point)
        process = start("dedup", *songs, "--out", "out", "--workers", "2")
        said = process.communicate(timeout=120)
        assert process.returncode == -9, f"not killed at {point}: {said}"
    assert run(cli, killed, songs, workers=2) == whole
