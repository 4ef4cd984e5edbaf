"""Histograms of tokens: what is counted, and how alike two recordings come out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audioprep.dedup.extracts import write
from audioprep.dedup.histograms import SCHEMA, Binning, Histograms, Mode, inverse_document_frequencies, moving

BOOKS, SIZE = 3, 16
MODES: list[Mode] = ["per_codebook", "joint", "first_k", "bigram"]


def tokens(frames: int, seed: int, song: int = 0) -> NDArray[np.int64]:
    """Draws of a song's own distribution over the codes of each codebook."""
    shares = np.random.default_rng(song).dirichlet(np.full(SIZE, 0.3), BOOKS)
    random = np.random.default_rng([song, seed])
    return np.stack([random.choice(SIZE, frames, p=share) for share in shares], axis=1)


def histograms(
    folder: Path,
    recordings: list[NDArray[Any]],
    mode: Mode = "per_codebook",
    idf: bool = False,
    corrected: bool = False,
) -> Histograms:
    binning = Binning(mode, BOOKS, SIZE)
    rows = []
    for number, recording in enumerate(recordings):
        bins, counts = binning.count(recording)
        rows.append({"id": str(number), "uri": f"/{number}.wav", "split": "train", "seconds": 1.0, "bytes": 1,
                     "frames": len(recording), "bins": bins, "counts": counts})  # fmt: skip
    half = len(rows) // 2
    paths = [folder / "a.arrow", folder / "b.arrow"]
    write(rows[:half], SCHEMA, paths[0])
    write(rows[half:], SCHEMA, paths[1])
    return Histograms(paths, binning, corrected, inverse_document_frequencies(paths, binning) if idf else None)


def test_bins():
    few = np.array([[1, 2, 3], [1, 2, 4]])
    assert [part.tolist() for part in Binning("per_codebook", 3, 16).count(few)] == [[1, 18, 35, 36], [2, 2, 1, 1]]
    assert [part.tolist() for part in Binning("joint", 3, 16).count(few)] == [[1, 2, 3, 4], [2, 2, 1, 1]]
    assert [part.tolist() for part in Binning("first_k", 3, 16, 1).count(few)] == [[1], [2]]
    (bin_,), (count,) = Binning("bigram", 3, 16).count(few)
    assert (0 <= bin_ < 2**14, count) == (True, 1)
    assert len(Binning("bigram", 3, 16).count(few[:1])[0]) == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("idf", [False, True])
def test_vectors_are_rows_and_rows_are_unit_cosines(tmp_path: Path, mode: Mode, idf: bool):
    found = histograms(tmp_path, [tokens(200, seed, seed) for seed in range(5)], mode, idf)
    vectors = found.vectors(0, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for number in range(5):
        np.testing.assert_allclose(vectors[number], found.row(number), atol=1e-6)
    np.testing.assert_array_equal(found.vectors(2, 4), vectors[2:4])
    np.testing.assert_allclose(found.vectors(0, 5, dtype="float16"), vectors, atol=3e-4)


def test_order_of_frames_does_not_matter_but_for_bigrams(tmp_path: Path):
    song = tokens(500, 0)
    for mode in MODES:
        one, other = histograms(tmp_path, [song, np.random.default_rng(0).permutation(song)], mode).vectors(0, 2)
        assert (one @ other > 0.9999) == (mode != "bigram")


@pytest.mark.parametrize("frames", [40, 100, 1000])
def test_excerpts_of_one_song_are_alike_however_short(tmp_path: Path, frames: int):
    """Corrected, the similarity of two draws is 1 on average; not corrected, it falls with their length."""
    draws = [tokens(frames, seed) for seed in range(60)]
    others = np.triu_indices(60, 1)
    corrected = histograms(tmp_path, draws, corrected=True).vectors(0, 60)
    plain = histograms(tmp_path, draws).vectors(0, 60)
    assert (corrected @ corrected.T)[others].mean() == pytest.approx(1, abs=0.01)
    assert (plain @ plain.T)[others].mean() < 1 - 2 / frames


def test_rare_codes_count_for_more_with_idf(tmp_path: Path):
    common, rare = np.zeros((100, BOOKS), int), np.zeros((100, BOOKS), int)
    rare[:20, 0] = 7
    recordings = [common, common, common, common, rare, rare]
    plain, weighted = (histograms(tmp_path, recordings, idf=idf).vectors(0, 6) for idf in (False, True))
    assert weighted[0] @ weighted[5] < plain[0] @ plain[5]
    assert weighted[4] @ weighted[5] == pytest.approx(1)


def test_a_recording_without_frames_is_like_nothing(tmp_path: Path):
    found = histograms(tmp_path, [tokens(50, 0), np.empty((0, BOOKS), int)], corrected=True).vectors(0, 2)
    assert not found[1].any()


def test_what_stands_still_is_counted_for_a_second():
    song = tokens(60, 0)
    silence = np.full((1, BOOKS), 3)
    still = np.concatenate([np.repeat(silence, 100, 0), song, np.repeat(silence, 5, 0), song])
    np.testing.assert_array_equal(moving(still, 20), still[80:])
    np.testing.assert_array_equal(moving(song, 1), song[np.concatenate([[True], (song[1:] != song[:-1]).any(1)])])


@pytest.mark.parametrize("different", [0, 1, 7])
def test_silence_and_test_tones_have_no_histogram(different: int):
    few = np.repeat(np.arange(different), 40)[:, None].repeat(BOOKS, 1)
    assert len(moving(few, 25)) == 0
    assert len(moving(np.concatenate([few, np.arange(8)[:, None].repeat(BOOKS, 1)]), 25)) > 0
