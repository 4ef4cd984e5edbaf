import numpy as np
import pytest
import torch

from audioprep.encoders.rvq import ResidualVQ
from audioprep.encoders.rvq_fit import Reservoir, fit_rvq, kmeans


def clusters(count: int, rows: int, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    centres = 20.0 * torch.randn(count, dim, generator=generator)
    noise = 0.1 * torch.randn(rows, dim, generator=generator)
    return centres, centres[torch.arange(rows) % count] + noise


def sample_of(pieces: list[int], capacity: int = 50) -> np.ndarray:
    reservoir = Reservoir(capacity, 1, seed=3)
    for rows in np.split(np.arange(1000, dtype=np.float32)[:, None], np.cumsum(pieces)):
        reservoir.add(rows)
    assert reservoir.seen == 1000
    return reservoir.rows[:, 0]


def test_reservoir_keeps_rows_of_everywhere_once():
    kept = sample_of([30, 400])
    assert len(set(kept.tolist())) == 50
    assert np.histogram(kept, bins=5, range=(0, 1000))[0].min() >= 3


def test_reservoir_does_not_depend_on_how_rows_arrive():
    np.testing.assert_array_equal(sample_of([7, 13, 500, 1]), sample_of([]))


def test_reservoir_keeps_all_when_there_is_room():
    np.testing.assert_array_equal(sample_of([600], capacity=2000), np.arange(1000))


def test_reservoir_is_uniform():
    total = np.zeros(20)
    for seed in range(2000):
        reservoir = Reservoir(5, 1, seed)
        for rows in np.split(np.arange(20, dtype=np.float32)[:, None], [3, 9, 10]):
            reservoir.add(rows)
        total[reservoir.rows[:, 0].astype(int)] += 1
    # 500 expected of each; the standard deviation is 19.
    assert np.abs(total - 500).max() < 90


def test_kmeans_finds_separate_clusters():
    centres, rows = clusters(12, 1200)
    found = kmeans(rows, 12, torch.Generator().manual_seed(0))
    distance = torch.cdist(centres, found)
    assert sorted(distance.argmin(1).tolist()) == list(range(12))
    assert float(distance.min(1).values.max()) < 0.1


def test_kmeans_of_equal_rows_is_that_row():
    found = kmeans(torch.full((40, 3), 2.0), 8, torch.Generator().manual_seed(0))
    assert torch.equal(found, torch.full((8, 3), 2.0))


def test_every_codeword_is_used_where_rows_allow():
    # Nearly all rows in one spot: seeding alone leaves codewords that win nothing.
    rows = torch.cat([torch.randn(2000, 4, generator=torch.Generator().manual_seed(5)) * 1e-3, clusters(6, 60, 4)[1]])
    _, (report,) = fit_rvq(rows, num_codebooks=1, codebook_size=64, seed=0)
    assert report.usage == 1.0


def test_report_says_what_the_codebooks_do():
    rows = clusters(40, 2000)[1]
    original = rows.clone()
    books, reports = fit_rvq(rows, num_codebooks=3, codebook_size=16, seed=0)
    assert books.dtype == torch.float16
    assert books.shape == (3, 16, 8)
    left = original.clone()
    ids = ResidualVQ(books.float()).encode(left)
    torch.testing.assert_close(left, rows)
    explained = 1 - float(left.square().sum() / original.square().sum())
    assert reports[-1].explained_variance == pytest.approx(explained, abs=1e-6)
    counts = torch.bincount(ids[:, 2], minlength=16).double()
    share = counts[counts > 0] / counts.sum()
    assert reports[2].usage == float((counts > 0).double().mean())
    assert reports[2].perplexity == pytest.approx(float((-(share * share.log()).sum()).exp()))
    assert reports[0].explained_variance < reports[1].explained_variance < reports[2].explained_variance


def test_what_was_lost_before_counts_as_unexplained():
    rows = clusters(40, 2000)[1]
    energy = float(rows.square().sum(1).mean())
    _, (alone,) = fit_rvq(rows.clone(), num_codebooks=1, codebook_size=16, seed=0)
    _, (report,) = fit_rvq(rows.clone(), num_codebooks=1, codebook_size=16, seed=0, lost=energy)
    assert report.explained_variance == pytest.approx(alone.explained_variance / 2)


def test_same_seed_same_codebooks():
    first, second, other = (
        fit_rvq(clusters(40, 500)[1], num_codebooks=2, codebook_size=16, seed=seed)[0] for seed in (4, 4, 5)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
