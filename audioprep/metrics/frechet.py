"""The Fréchet audio distance: how far apart two sets of embeddings are, each seen as one Gaussian.

`|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` (Kilgour et al. 2019, "Fréchet Audio Distance", arXiv 1812.08466). The
root is taken of the symmetric matrix `C1^(1/2) C2 C1^(1/2)`, which has the same trace of its root: its eigenvalues are
real and not negative, so that nothing imaginary has to be thrown away, and what rounding makes negative is zero.

Shapes: `n` embeddings of `D` dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of embeddings.

    Attributes:
        mean: float64 `[D]`.
        covariance: float64 `[D, D]`, with `n - 1` in the denominator.
        count: `n`; None where a file of statistics does not say it.
    """

    mean: Matrix
    covariance: Matrix
    count: int | None


@dataclass(frozen=True, slots=True)
class Limit:
    """The distance extrapolated to endlessly many embeddings.

    Attributes:
        distance: the limit. It can fall below zero where the true distance is near it.
        standard_error: of the limit, from the fit's residuals.
        r_squared: share of the distances' variance that the line explains; where it is far below 1, trust no limit.
        sizes: of the subsets.
        distances: of the subsets.
    """

    distance: float
    standard_error: float
    r_squared: float
    sizes: list[int]
    distances: list[float]


def fit_gaussian(batches: Iterable[NDArray[np.floating]]) -> Gaussian:
    """Mean and covariance of embeddings that come in batches `[n, D]`, in one pass.

    Raises:
        ValueError: there are fewer than two embeddings, or not all have the same dimensions.
    """
    count, origin = 0, np.zeros(0)
    total, products = np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        if not len(batch):
            continue
        if not count:  # sums around a value in their midst lose no digits
            origin = batch.mean(axis=0, dtype=np.float64)
            total, products = np.zeros_like(origin), np.zeros((len(origin), len(origin)))
        centred = batch.astype(np.float64) - origin
        count += len(batch)
        total += centred.sum(axis=0)
        products += centred.T @ centred
    if count < 2:
        raise ValueError(f"{count} embeddings have no covariance")
    covariance = (products - np.outer(total, total) / count) / (count - 1)
    return Gaussian(origin + total / count, covariance, count)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """The squared Fréchet distance of two Gaussians, in float64."""
    return _distance(first, _root(first.covariance), second)


def frechet_limit(reference: Gaussian, embeddings: NDArray[np.floating], *, points: int = 15, seed: int = 0) -> Limit:
    """FAD-inf: the distance as it would be with endlessly many embeddings.

    An estimate from `n` embeddings is too large by about a constant over `n` (Chong and Forsyth 2020, arXiv
    1911.07023; for audio Gui et al. 2023, arXiv 2311.01616). A line through the distances of random subsets, over
    `1/n`, meets the axis at the limit. The reference is taken as it is: its own number has to be large.

    Args:
        reference: what to compare with.
        embeddings: `[n, D]`; the subsets are drawn from it without repetition.
        points: subsets; the smallest has `D + 1` embeddings (fewer have no full covariance) or a tenth of all.
        seed: of the subsets.

    Raises:
        ValueError: there are fewer than `2 (D + 1)` embeddings.
    """
    count, dim = embeddings.shape
    if count < 2 * (dim + 1):
        raise ValueError(f"an extrapolation from {count} embeddings in {dim} dimensions: {2 * (dim + 1)} are needed")
    random = np.random.default_rng(seed)
    root = _root(reference.covariance)
    sizes = np.unique(np.linspace(max(dim + 1, count // 10), count, points).astype(int))
    subsets = (embeddings[random.choice(count, size, replace=False)] for size in sizes)
    distances = np.array([_distance(reference, root, fit_gaussian([subset])) for subset in subsets])
    return _line(sizes, distances)


def _line(sizes: NDArray[np.int_], distances: Matrix) -> Limit:
    """Least squares of the distances over `1 / size`."""
    terms = np.stack([np.ones(len(sizes)), 1 / sizes], axis=1)
    solution = np.linalg.lstsq(terms, distances, rcond=None)[0]
    residual = float(np.square(distances - terms @ solution).sum())
    spread = float(np.square(distances - distances.mean()).sum())
    variance = residual / (len(sizes) - 2) * np.linalg.inv(terms.T @ terms)[0, 0]
    return Limit(
        distance=float(solution[0]),
        standard_error=float(np.sqrt(variance)),
        r_squared=1 - residual / spread if spread else 1.0,
        sizes=sizes.tolist(),
        distances=distances.tolist(),
    )


def _root(covariance: Matrix) -> Matrix:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _distance(first: Gaussian, root: Matrix, second: Gaussian) -> float:
    product = root @ second.covariance @ root
    overlap = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap
    return max(0.0, float(np.square(first.mean - second.mean).sum() + spread))
