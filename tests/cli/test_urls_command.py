"""Commands on URLs, from end to end: the same as on a disk but for the URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from audio_helpers import music, write_wav
from cli_helpers import Cli, failures, rows
from upath import UPath


@pytest.fixture
def songs(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder and a URL with the same songs, text beside one of them, and a file that is none."""
    monkeypatch.setenv("AUDIOPREP_CACHE", str(tmp_path / "kept"))
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(4):
        write_wav(folder / f"{number} ü#%25.wav", music(200_000 + 5_000 * number, 1))
    (folder / "2 ü#%25.txt").write_text("piano")
    (folder / "broken.wav").write_bytes(b"no sound")
    for path in folder.iterdir():
        place = UPath(f"{bucket}/songs/{path.name}", use_listings_cache=False)
        place.fs.put_file(str(path), place.path)
    return folder, f"{bucket}/songs"


def test_tokens_of_a_store_are_those_of_a_disk(songs: tuple[Path, str], cli: Cli, tmp_path: Path):
    outs = [tmp_path / "from-disk", tmp_path / "from-store"]
    for source, out in zip(songs, outs, strict=True):
        done = cli("tokenize", source, "--codec", "fingerprint", "--out", out, "--workers", "1", "--json")
        assert done.code == 3 and done.json["rows"] == 4, done.err
    here, there = (rows(out) for out in outs)
    assert set(here) == set(there) and there["2 ü#%25.wav"]["tags"] == "piano"
    for name, row in here.items():
        assert there[name].pop("uri") == f"{songs[1]}/{name}" and row.pop("uri") == f"{songs[0]}/{name}"
        assert there[name] == row
    (broken,), (other,) = (failures(out).values() for out in outs)
    assert other.pop("uri") == f"{songs[1]}/broken.wav" and broken.pop("uri") == f"{songs[0]}/broken.wav"
    assert other["error"] == broken["error"]


def test_dedup_from_store_to_store(songs: tuple[Path, str], cli: Cli, bucket: str):
    for _ in range(2):  # the second time goes on from the folder that stayed
        done = cli("dedup", songs[1], "--out", f"{bucket}/dedup", "--report-pairs", "0", "--json", "--workers", "1")
        assert done.code == 0 and done.json["exclude"] == f"{bucket}/dedup/exclude_paths.txt", done.err
    listed = UPath(f"{bucket}/dedup/exclude_paths.txt").read_text().splitlines()[1:]
    assert listed and all(line.startswith(songs[1]) or line.startswith("s3:/") for line in listed)
    listed_in = ("--exclude", f"{bucket}/dedup/exclude_paths.txt")
    left = cli("tokenize", songs[1], "--out", f"{bucket}/set", *listed_in, "--dry-run", "--json")
    assert left.json["excluded"] == len(listed)
