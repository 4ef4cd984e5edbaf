from __future__ import annotations

from pathlib import Path

import pytest

from audioprep.corpus.exclusions import Exclusions, read_exclusions, read_exclusions_of
from audioprep.corpus.lyrics import scan_lyrics
from audioprep.corpus.scan import Finder, scan, scan_scores
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


@pytest.mark.parametrize("relative", [False, True])
def test_a_scan_leaves_out_what_is_listed(tmp_path: Path, relative: bool, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "music"
    for name in ("a/1.mp3", "a/2.mp3", "b/1.mp3"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    listed = tmp_path / "exclude_paths.txt"
    listed.write_text("a/1.mp3\n" if relative else f"{folder}/a/1.mp3\n")
    for source in (folder, folder / "a"):
        excluded: list[str] = []
        found = scan([str(source)], None, read_exclusions_of(listed, [str(source)]), excluded.append)
        left = [entry.uri for entry in found]
        if relative and source != folder:
            assert "none of the paths to exclude is an input" in caplog.text
            continue
        assert f"{folder}/a/1.mp3" not in left and f"{folder}/a/2.mp3" in left
        assert excluded == [f"{folder}/a/1.mp3"]


@pytest.mark.parametrize(("find", "suffix"), [(scan, "mp3"), (scan_scores, "mid"), (scan_lyrics, "lrc")])
def test_every_finder_leaves_out_what_is_listed(tmp_path: Path, find: Finder, suffix: str):
    for name in ("left", "out"):
        (tmp_path / f"{name}.{suffix}").touch()
    excluded: list[str] = []
    exclusions = Exclusions(frozenset({"out"}))
    assert [entry.uri for entry in find([str(tmp_path)], None, exclusions, excluded.append)] == [
        f"{tmp_path}/left.{suffix}"
    ]
    assert excluded == [f"{tmp_path}/out.{suffix}"]


def test_a_list_without_a_source_is_refused(tmp_path: Path):
    assert not read_exclusions_of(None, []).entries
    with pytest.raises(UsageError, match="goes with SOURCE alone"):
        read_exclusions_of(tmp_path / "exclude_paths.txt", [])
