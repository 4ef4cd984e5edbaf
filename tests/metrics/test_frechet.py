import numpy as np
import pytest
import scipy.linalg

from audioprep.metrics.clap_score import cosines
from audioprep.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_limit


def embeddings(count: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated, and far from the origin."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, dim)) @ random.standard_normal((dim, dim)) + 5 + shift).astype(np.float32)


def test_moments_are_those_of_numpy():
    rows = embeddings(1000, 12, 0) + 1e3
    found = fit_gaussian(np.split(rows, [1, 10, 400, 400]))
    assert found.count == 1000
    np.testing.assert_allclose(found.mean, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.astype(np.float64).T, ddof=1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [0, 1])
def test_one_embedding_has_no_covariance(count: int):
    with pytest.raises(ValueError, match=f"{count} embeddings have no covariance"):
        fit_gaussian([np.zeros((count, 3))])


def test_the_distance_of_diagonal_gaussians_is_known():
    random = np.random.default_rng(0)
    means, spreads = random.standard_normal((2, 6)), random.uniform(0.1, 3, (2, 6))
    turn = np.linalg.qr(random.standard_normal((6, 6)))[0]  # a rotation changes no distance
    first, second = (
        Gaussian(turn @ mean, turn @ np.diag(spread**2) @ turn.T, None)
        for mean, spread in zip(means, spreads, strict=True)
    )
    expected = np.square(means[0] - means[1]).sum() + np.square(spreads[0] - spreads[1]).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("count", "dim"), [(500, 20), (4000, 64)])
def test_the_distance_is_that_of_the_matrix_root(count: int, dim: int):
    first, second = fit_gaussian([embeddings(count, dim, 0)]), fit_gaussian([embeddings(count, dim, 1, 0.3)])
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance)
    expected = np.square(first.mean - second.mean).sum()
    expected += np.trace(first.covariance + second.covariance - 2 * np.real(root))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)


def test_a_set_is_at_no_distance_from_itself_also_where_it_is_small():
    for count in (5, 300):  # below and above the 40 dimensions
        gaussian = fit_gaussian([embeddings(count, 40, 0)])
        assert 0 <= frechet_distance(gaussian, gaussian) < 1e-5 * np.trace(gaussian.covariance)


def test_few_embeddings_give_a_finite_distance_that_is_too_large():
    everything = embeddings(5000, 64, 0)
    reference = fit_gaussian([everything[:2500]])
    few, many = fit_gaussian([everything[2500:2530]]), fit_gaussian([everything[2500:]])
    assert np.isfinite(frechet_distance(reference, few))
    assert frechet_distance(reference, few) > 3 * frechet_distance(reference, many)


def test_the_limit_is_nearer_to_the_truth_than_the_distance():
    dim = 16
    reference = Gaussian(np.zeros(dim), np.eye(dim), None)
    draws = [np.random.default_rng(seed).standard_normal((400, dim)) for seed in range(5)]  # at distance 0 in truth
    limits = [frechet_limit(reference, rows) for rows in draws]
    distances = [frechet_distance(reference, fit_gaussian([rows])) for rows in draws]
    assert np.mean(distances) > 0.1
    assert abs(np.mean([limit.distance for limit in limits])) < 0.2 * np.mean(distances)
    for limit, distance in zip(limits, distances, strict=True):
        assert limit.r_squared > 0.9
        assert 0 < limit.standard_error < 0.05
        assert (limit.sizes[0], limit.sizes[-1], len(limit.sizes)) == (40, 400, 15)
        assert limit.distances[-1] == pytest.approx(distance, rel=1e-9)


def test_the_limit_depends_on_the_seed_alone():
    reference, rows = fit_gaussian([embeddings(300, 8, 0)]), embeddings(200, 8, 1)
    assert frechet_limit(reference, rows, seed=3) == frechet_limit(reference, rows, seed=3)
    assert frechet_limit(reference, rows, seed=3) != frechet_limit(reference, rows, seed=4)


def test_a_line_in_one_over_n_is_found_exactly():
    from audioprep.metrics.frechet import _line

    sizes = np.array([50, 100, 200, 400])
    limit = _line(sizes, 0.25 + 30 / sizes)
    assert limit.distance == pytest.approx(0.25)
    assert limit.r_squared == pytest.approx(1.0)
    assert limit.standard_error == pytest.approx(0.0, abs=1e-9)


def test_a_limit_from_too_few_is_refused():
    with pytest.raises(ValueError, match="17 embeddings in 8 dimensions: 18 are needed"):
        frechet_limit(fit_gaussian([embeddings(30, 8, 0)]), embeddings(17, 8, 1))


def test_cosines_do_not_depend_on_lengths():
    audio = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    text = np.array([[6.0, 8.0], [-2.0, 0.0], [1.0, 0.0]], np.float32)
    np.testing.assert_allclose(cosines(audio, text), [1, -1, 0], atol=1e-12)
