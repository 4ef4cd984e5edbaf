"""All pairs above a threshold, whatever the size of a block, and wherever a run was killed."""

from pathlib import Path

import numpy as np
import pytest
from test_histograms import histograms, tokens

from audioprep.dedup import similarity
from audioprep.dedup.histograms import Histograms
from audioprep.dedup.similarity import similar_pairs


@pytest.fixture
def corpus(tmp_path: Path) -> Histograms:
    """Twelve songs, three cuts of each, in one row."""
    return histograms(tmp_path, [tokens(300, cut, song) for cut in range(3) for song in range(12)])


def pairs(corpus: Histograms, folder: Path, threshold: float = 0.9, block: int = 7) -> list[tuple[int, int, float]]:
    return similar_pairs(corpus, None, threshold, folder, "cpu", lambda done, total: None, block).tolist()


def test_every_pair_is_found_once(corpus: Histograms, tmp_path: Path):
    vectors = corpus.vectors(0, 36).astype(np.float64)
    product = vectors @ vectors.T
    for block in (5, 36, 100):
        found = pairs(corpus, tmp_path / str(block), block=block)
        assert [pair[:2] for pair in found] == [
            (one, other) for one in range(36) for other in range(one + 1, 36) if product[one, other] >= 0.9
        ]
        for one, other, value in found:
            assert value == pytest.approx(product[one, other], abs=1e-6)
    assert {one % 12 == other % 12 for one, other, _ in found} == {True}


def test_a_killed_search_goes_on(corpus: Histograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = pairs(corpus, tmp_path / "whole")
    computed: list[int] = []
    of_block = similarity._of_block

    def counted(ones, others, start, *rest):
        computed.append(start)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return of_block(ones, others, start, *rest)

    monkeypatch.setattr(similarity, "_of_block", counted)
    with pytest.raises(KeyboardInterrupt):
        pairs(corpus, tmp_path / "killed")
    assert pairs(corpus, tmp_path / "killed") == whole
    assert computed == [0, 7, 14, 14, 21, 28, 35]


def test_against_another_corpus(corpus: Histograms, tmp_path: Path):
    (tmp_path / "others").mkdir()
    others = histograms(tmp_path / "others", [tokens(300, 9, song) for song in (3, 50)])
    found = similar_pairs(corpus, others, 0.9, tmp_path / "pairs", "cpu", lambda done, total: None, 8)
    assert [(one, other) for one, other, _ in found.tolist()] == [(3, 0), (15, 0), (27, 0)]


def test_the_threshold_is_exact(corpus: Histograms, tmp_path: Path):
    """What rounds to the threshold in a matrix product is decided in float64."""
    values = sorted(value for *_, value in pairs(corpus, tmp_path / "all", 0.5))
    middle = values[len(values) // 2]
    for block in (1, 7, 36):
        found = pairs(corpus, tmp_path / f"exact{block}", middle, block)
        assert len(found) == sum(value >= middle for value in values)
