"""What the benchmark of near-duplicates is made of: scores to recordings, plain chromaprint, the table."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audioprep.dedup.calibration import ORIGINAL, Trial


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))


def test_the_same_tune_is_known_in_any_key_and_rhythm():
    bench = importlib.import_module("score_renders")
    pitches = np.random.default_rng(0).integers(55, 80, 40).tolist()
    tune = [bench.Note(place, 1, pitch) for place, pitch in enumerate(pitches)]
    again = [bench.Note(2 * place, 0.5, pitch + 5) for place, pitch in enumerate(pitches)]
    other = [bench.Note(place, 1, pitch) for place, pitch in enumerate(reversed(pitches))]
    assert len(bench.intervals(tune)) == 32
    assert bench.intervals(tune) == bench.intervals(again)
    assert not bench.intervals(tune) & bench.intervals(other)
    assert bench.intervals(tune[:8]) == set()


def test_a_piece_is_played_again_until_it_is_long_enough():
    bench = importlib.import_module("score_renders")
    tune = [bench.Note(place, 1, 69) for place in range(16)]
    take = bench.Take(band=0, onsets=1, up=12, drums="", drum_tempo=0, seconds=45)
    sound = bench.render([tune], take)
    seconds = len(sound) / bench.RATE
    assert 45 <= seconds <= 47
    assert np.array_equal(sound, bench.render([tune], take))
    # One onset a second for 16 s: an organ first, the next bands after it, an octave up.
    for second in (2, 20, 35):
        spectrum = np.abs(np.fft.rfft(sound[second * bench.RATE : (second + 1) * bench.RATE]))
        assert spectrum[870:890].max() > 10 * spectrum[500:860].max()
    assert np.abs(sound[16 * bench.RATE - 2000 : 16 * bench.RATE]).max() > 0.01


def test_chromaprint_is_aligned(tmp_path: Path):
    bench = importlib.import_module("dedup_quality")
    random = np.random.default_rng(0)
    long = random.integers(0, 2**32, 200, dtype=np.uint32)
    flipped = long[60:150] ^ (np.uint32(1) << random.integers(0, 32, 90).astype(np.uint32))
    prints = [long, flipped, random.integers(0, 2**32, 120, dtype=np.uint32), long[150:]]
    files = [tmp_path / "audio" / f"{number}.flac" for number in range(4)]
    for file, one in zip(files, prints, strict=True):
        np.save(tmp_path / f"audio-{file.stem}.npy", one)
    found = bench.Chromaprint(tmp_path).similarities(files)
    expected = [[slow(one, other) for other in prints] for one in prints]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0, 1] == pytest.approx(31 / 32) and found[0, 3] == pytest.approx(1)


def slow(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """The best share of equal bits, offset by offset."""
    best = 0.0
    for offset in range(-len(one) + 1, len(other)):
        left, right = one[max(0, -offset) :], other[max(0, offset) :]
        overlap = min(len(left), len(right))
        if 2 * overlap >= min(len(one), len(other)):
            wrong = np.unpackbits((left[:overlap] ^ right[:overlap]).view(np.uint8)).mean()
            best = max(best, 1 - float(wrong))
    return best


class Told:
    """A method that says what it is told."""

    name = "told"
    threshold = None

    def __init__(self, similarities: Any) -> None:
        self.values = np.array(similarities, np.float32)

    def similarities(self, files: list[Path]) -> NDArray[np.float32]:
        return self.values


def test_table(capsys: pytest.CaptureFixture[str]):
    bench = importlib.import_module("dedup_quality")
    files = [Path(f"{name}.flac") for name in ("pieces/0", "gain/0", "pieces/1", "gain/1", "alike/cover", "alike/loop")]
    trial = Trial(files[:4], np.array([0, 0, 1, 1]), [ORIGINAL, "gain"] * 2)
    alike = [
        {"one": "pieces/0.flac", "other": "alike/cover.flac", "why": "cover"},
        {"one": "alike/cover.flac", "other": "alike/loop.flac", "why": "loop"},
    ]
    told = np.full((6, 6), 0.1)
    told[0, 1], told[2, 3], told[1, 3], told[0, 4] = 0.9, 0.5, 0.6, 0.95
    columns = bench.compare(Told(np.maximum(told, told.T)), trial, files, alike)
    assert bench.table(columns).splitlines() == [
        "| copies | told |", "| --- | ---: |", "| gain | 0.500 |", "| called copies: cover | 1.000 |",
        "| called copies: loop | 0.000 |", "| precision | 1.0000 |", "| threshold | 0.9000 |",
    ]  # fmt: skip
    assert "gain of pieces/0.flac, gain of pieces/1.flac" in capsys.readouterr().err
