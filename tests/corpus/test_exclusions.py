from __future__ import annotations

from pathlib import Path

import pytest

from audioprep.corpus.exclusions import read_exclusions
from audioprep.errors import UsageError


@pytest.mark.parametrize(
    ("entry", "matches"),
    [
        ("/music/01/7.mp3", True),
        ("/music/./01/../01/7.mp3", True),
        ("7.mp3", True),
        ("7", True),
        ("01/7.mp3", True),
        ("01/7", True),
        ("02/7.mp3", False),
        ("music/01/7.mp3", False),
        ("/other/01/7.mp3", False),
        ("17", False),
        ("# 7.mp3", False),
        ("", False),
    ],
)
def test_an_entry_matches_as_in_the_fork(tmp_path: Path, entry: str, matches: bool):
    path = tmp_path / "exclude_paths.txt"
    path.write_text(f"# Paths to exclude from training (format=relative)\n\n  {entry}  \n")
    assert read_exclusions(path, [Path("/music")]).match("/music/01/7.mp3") is matches


def test_relative_entries_need_a_root(tmp_path: Path):
    path = tmp_path / "exclude_paths.txt"
    path.write_text("/music/2.mp3\ns3://bucket/3.mp3\n4.mp3\n")
    assert read_exclusions(path, []).match("s3://bucket/3.mp3")
    path.write_text("01/7.mp3\n")
    with pytest.raises(UsageError, match=r"01/7\.mp3 is relative: say with --root"):
        read_exclusions(path, [])


def test_no_list_excludes_nothing(tmp_path: Path):
    assert not read_exclusions(None, [Path("/music")]).match("/music/1.mp3")
    with pytest.raises(UsageError, match="missing.txt: cannot be read"):
        read_exclusions(tmp_path / "missing.txt", [])
