"""The search over blocks: the same pairs whatever the blocks, the workers, and where it was stopped."""

from pathlib import Path

import numpy as np
import pytest
from test_matching import damaged, music

from audioprep.dedup import search
from audioprep.dedup.extracts import write
from audioprep.dedup.search import Library, confirm_pairs, find_matches

FRAMES = 200


def library(folder: Path, *seeds: int, files: int = 2) -> Library:
    """Recordings of which those of one seed are copies; one is empty."""
    rows = [
        {
            "id": f"{place}", "uri": f"/{place}", "split": "train", "seconds": 25.0, "bytes": 1, "sound": "",
            "words": damaged(music(FRAMES, seed), 0.02, place).ravel() if seed >= 0 else np.empty(0, np.uint16),
        }
        for place, seed in enumerate(seeds)
    ]  # fmt: skip
    paths = []
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        paths.append(folder / f"{number}.arrow")
        write([rows[place] for place in part], search._SCHEMA, paths[-1])
    return Library(paths)


def pairs(found: np.ndarray) -> list[tuple[int, int]]:
    return [(int(one), int(other)) for one, other in found[["one", "other"]].tolist()]


def silent(done: int, total: int) -> None: ...


def test_all_pairs_once(tmp_path: Path):
    songs = library(tmp_path / "songs", 0, 1, 0, 2, -1, 1, 0)
    assert songs.frames.tolist() == [FRAMES] * 4 + [0] + [FRAMES] * 2
    found = find_matches(songs, None, tmp_path / "found", 1, silent)
    assert pairs(found) == [(0, 2), (0, 6), (1, 5), (2, 6)]
    assert found["agreement"].min() > 0.9 and np.abs(found["offset"]).max() == 0


@pytest.mark.parametrize("frames", [1, 3 * FRAMES, 4 * FRAMES])
def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int):
    songs = library(tmp_path / "songs", 0, 1, 0, 2, -1, 1, 0, files=3)
    whole = find_matches(songs, None, tmp_path / "whole", 1, silent)
    monkeypatch.setattr(search, "_BLOCK", frames)
    monkeypatch.setattr(search, "_SLICE", 2 * FRAMES)
    counts: list[tuple[int, int]] = []
    in_blocks = find_matches(songs, None, tmp_path / "blocks", 1, lambda *count: counts.append(count))
    np.testing.assert_array_equal(in_blocks, whole)
    assert counts == [(number + 1, len(counts)) for number in range(len(counts))] and len(counts) > 3
    # What is there is not searched again.
    stopped = sorted((tmp_path / "blocks").glob("*.npy"))
    for path in stopped[1:]:
        path.unlink()
    monkeypatch.setattr(search, "find", lambda *_: {})
    assert set(pairs(find_matches(songs, None, tmp_path / "blocks", 1, silent))) < set(pairs(whole))


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    songs, others = library(tmp_path / "songs", 0, 1, 2, 3), library(tmp_path / "others", 3, 5, 0)
    monkeypatch.setattr(search, "_SLICE", FRAMES)
    one = find_matches(songs, others, tmp_path / "one", 1, silent)
    assert pairs(one) == [(0, 2), (3, 0)]
    np.testing.assert_array_equal(find_matches(songs, others, tmp_path / "two", 2, silent), one)


def test_pairs_are_confirmed(tmp_path: Path):
    songs = library(tmp_path / "songs", 0, 1, 0, 2)
    candidates = np.array([(0, 2), (1, 3)], [("one", "<i8"), ("other", "<i8")])
    assert pairs(confirm_pairs(candidates, songs, songs, silent)) == [(0, 2)]
    assert len(confirm_pairs(candidates[:0], songs, songs, silent)) == 0
