"""What a part of two recordings tells of them."""

from pathlib import Path

import numpy as np
import pytest
from audio_helpers import ffmpeg

from audioprep.corpus.entry import path_to_uri
from audioprep.dedup.alignment import Alignment
from audioprep.dedup.groups import Dropped, Recording
from audioprep.dedup.sound import level_difference, read_part, tell_remasters
from audioprep.samples import sample_folder

SONG = sample_folder() / "music" / "bach_chorale_bwv269.flac"
WHOLE = Alignment(0.0, 15.0, 0.98)
COPIES = {
    "same.wav": [],
    "lossy.mp3": ["-b:a", "64k"],
    "softer.flac": ["-af", "volume=-9dB"],
    "brighter.flac": ["-af", "bass=g=-6,treble=g=6"],
    "later.flac": ["-af", "adelay=2000:all=1"],
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    for name, options in COPIES.items():
        ffmpeg("-i", SONG, *options, folder / name)
    return folder


def test_levels_differ_but_for_a_gain(copies: Path):
    def apart(name: str, alignment: Alignment = WHOLE) -> float:
        return level_difference(path_to_uri(str(SONG)), path_to_uri(str(copies / name)), alignment)

    assert apart("same.wav") < 1e-3
    assert max(apart("lossy.mp3"), apart("softer.flac"), apart("later.flac", Alignment(-2.0, 13.0, 0.98))) < 0.3
    assert apart("brighter.flac") > 0.6


def test_remasters_are_told_from_re_encodings(copies: Path):
    names = ["lossy.mp3", "brighter.flac", "brighter.flac", "gone.wav"]
    recordings = [Recording(name, path_to_uri(str(copies / name)), 15.0, 1) for name in names]
    kept = [Recording("song", path_to_uri(str(SONG)), 15.0, 1)]
    dropped = [Dropped(0, place, "re-encode", 0.9, WHOLE) for place in range(4)]
    dropped[2] = Dropped(0, 2, "excerpt", 0.9, WHOLE)
    counts: list[tuple[int, int]] = []
    told = tell_remasters(dropped, recordings, kept, lambda *count: counts.append(count))
    assert [one.relation for one in told] == ["re-encode", "remaster", "excerpt", "re-encode"]
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_part(copies: Path):
    path = str(copies / "same.wav")
    whole = read_part(path, 0.0, 60.0, 8000)
    np.testing.assert_array_equal(read_part(path, 2.5, 1.0, 8000), whole[20_000:28_000])
    assert len(read_part(path, 60.0, 1.0, 8000)) == 0
