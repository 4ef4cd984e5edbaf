"""All pairs above a threshold, whatever the size of a block, and wherever a run was killed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_histograms import histograms, tokens

from audioprep.dedup import similarity
from audioprep.dedup.histograms import Histograms
from audioprep.dedup.similarity import lowest_product, similar_pairs


@pytest.fixture
def corpus(tmp_path: Path) -> Histograms:
    """Twelve songs, three cuts of each, in one row."""
    return histograms(tmp_path, [tokens(300, cut, song) for cut in range(3) for song in range(12)])


def pairs(corpus: Histograms, folder: Path, threshold: float = 0.9, block: int = 7) -> list[tuple[int, int, float]]:
    return similar_pairs(corpus, None, threshold, folder, "cpu", lambda done, total: None, block).tolist()


def test_every_pair_is_found_once(corpus: Histograms, tmp_path: Path):
    vectors = np.stack([corpus.row(number) for number in range(36)])
    product = vectors @ vectors.T
    for block in (5, 36, 100):
        found = pairs(corpus, tmp_path / str(block), block=block)
        assert [pair[:2] for pair in found] == [
            (one, other) for one in range(36) for other in range(one + 1, 36) if product[one, other] >= 0.9
        ]
        for one, other, value in found:
            assert value == pytest.approx(product[one, other], abs=1e-12)
    assert {one % 12 == other % 12 for one, other, _ in found} == {True}


def test_a_killed_search_goes_on(corpus: Histograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = pairs(corpus, tmp_path / "whole")
    computed: list[tuple[int, int]] = []
    between = similarity._Search.between

    def counted(search: similarity._Search, rows: range, columns: range) -> np.ndarray:
        computed.append((rows.start, columns.start))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return between(search, rows, columns)

    monkeypatch.setattr(similarity._Search, "between", counted)
    with pytest.raises(KeyboardInterrupt):
        pairs(corpus, tmp_path / "killed", block=12)
    assert pairs(corpus, tmp_path / "killed", block=12) == whole
    assert computed == [(0, 0), (0, 12), (0, 24), (0, 24), (12, 12), (12, 24), (24, 24)]


def test_against_another_corpus(corpus: Histograms, tmp_path: Path):
    (tmp_path / "others").mkdir()
    others = histograms(tmp_path / "others", [tokens(300, 9, song) for song in (3, 50)])
    found = similar_pairs(corpus, others, 0.9, tmp_path / "pairs", "cpu", lambda done, total: None, 8)
    assert [(one, other) for one, other, _ in found.tolist()] == [(3, 0), (15, 0), (27, 0)]


def test_the_threshold_is_exact(corpus: Histograms, tmp_path: Path):
    """What rounds to the threshold in a matrix product is decided in float64."""
    values = sorted(value for *_, value in pairs(corpus, tmp_path / "all", 0.5))
    middle = values[len(values) // 2]
    for block in (13, 36):
        found = pairs(corpus, tmp_path / f"exact{block}", middle, block)
        assert len(found) == sum(value >= middle for value in values)


def test_half_precision_loses_nothing(corpus: Histograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each pair in turn is the one that is just similar enough."""
    near = pairs(corpus, tmp_path / "all", 0.8)
    vectors = corpus.vectors(0, 36, dtype="float16")
    products = (vectors @ vectors.T).float()
    assert any(products[one, other] < value for one, other, value in near), "nothing is rounded down: a vain test"
    monkeypatch.setitem(similarity._DTYPES, "cpu", "float16")
    for number, (*_, threshold) in enumerate(near[:40]):
        assert pairs(corpus, tmp_path / str(number), threshold, 36) == [pair for pair in near if pair[2] >= threshold]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_margin_is_wider_than_the_error_of_a_product(dtype: str):
    """Also for vectors with many entries that float16 holds badly, or not at all."""
    random = np.random.default_rng(0)
    for bins in (16, 9216):
        for spread in (0.1, 3.0, 12.0):
            vectors = random.lognormal(0, spread, (20, bins))
            vectors /= np.linalg.norm(vectors, axis=1)[:, None]
            rounded = torch.from_numpy(vectors).to(getattr(torch, dtype))
            similar, products = vectors @ vectors.T, (rounded @ rounded.T).double().numpy()
            lowest = np.vectorize(lambda value, d=bins: lowest_product(value, d, 1.0, dtype))(similar)
            assert (products >= lowest).all()
            assert lowest_product(0.9, bins, 1.0, dtype) > 0.89


def test_a_pair_is_as_similar_in_either_order(corpus: Histograms, tmp_path: Path):
    (tmp_path / "backwards").mkdir()
    turned = histograms(
        tmp_path / "backwards", [tokens(300, cut, song) for cut in range(3) for song in range(12)][::-1]
    )
    found = {(35 - other, 35 - one, value) for one, other, value in pairs(turned, tmp_path / "turned", 0.5)}
    assert found == set(pairs(corpus, tmp_path / "straight", 0.5))
