from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from audioprep.encoders.vq_fit import EmaKMeans, FitOptions, Frames

CLUSTERS, SIZE, DIM = 24, 72, 16
OPTIONS = FitOptions(codebook_size=SIZE, steps=60, batch_frames=512, decay=0.9)


def clusters(seed: int = 0, count: int = CLUSTERS) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Frames around some centres, most of them around the first ones; and whose they are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((count, DIM)) * 3
    share = 0.8 ** np.arange(count) + 0.05
    whose = random.choice(count, 4000, p=share / share.sum())
    return (centres[whose] + 0.05 * random.standard_normal((4000, DIM))).astype(np.float32), whose


def fit(values: NDArray[Any], options: FitOptions = OPTIONS, steps: int | None = None) -> EmaKMeans:
    found = EmaKMeans(Frames(values, np.arange(len(values))), options)
    for _ in range(options.steps if steps is None else steps):
        found.advance()
    return found


def same(one: EmaKMeans, other: EmaKMeans) -> bool:
    return all(torch.equal(tensor, other.state()[name]) for name, tensor in one.state().items())


def test_every_cluster_has_its_codewords():
    values, whose = clusters()
    found = fit(values)
    means = np.stack([values[whose == cluster].mean(0) for cluster in range(CLUSTERS)])
    assert torch.cdist(torch.from_numpy(means), found.codewords).amin(1).max() < 0.3
    report, counts = found.report()
    distance = torch.cdist(torch.from_numpy(values).double(), found.codewords.double())
    assert np.abs(counts - np.bincount(distance.argmin(1), minlength=SIZE)).sum() < 10  # ties in float32
    share = counts[counts > 0] / 4000
    assert report.frames == 4000
    assert report.usage == pytest.approx((counts > 0).mean()) and report.usage > 0.9
    assert report.perplexity == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert report.quantization_error == pytest.approx(
        float(distance.amin(1).square().sum()) / float(np.square(values - values.mean(0)).sum()), rel=1e-3
    )
    assert report.quantization_error < 1e-3


def test_cosine_looks_at_directions_only():
    values, _ = clusters()
    values *= np.random.default_rng(1).uniform(0.1, 10, (len(values), 1)).astype(np.float32)
    found = fit(values, replace(OPTIONS, distance="cosine"))
    torch.testing.assert_close(found.codewords.norm(dim=1), torch.ones(SIZE))
    directions = values / np.linalg.norm(values, axis=1, keepdims=True)
    error = (1 - (torch.from_numpy(directions).double() @ found.codewords.double().T).amax(1)).mean()
    assert found.report()[0].quantization_error == pytest.approx(float(error), rel=1e-3)
    assert found.report()[0].quantization_error < 1e-3 < fit(values).report()[0].quantization_error


def test_a_resumed_fit_is_bit_for_bit_the_uninterrupted_one():
    values, _ = clusters()
    whole = fit(values)
    for stop in (1, 17, 60):
        state = fit(values, steps=stop).state()
        other = EmaKMeans(Frames(values, np.arange(len(values))), OPTIONS)
        other.restore(state)
        assert other.step == stop
        while other.step < OPTIONS.steps:
            other.advance()
        assert same(whole, other)
        assert other.history == whole.history


def test_the_seed_decides():
    values, _ = clusters()
    assert same(fit(values), fit(values))
    assert not torch.equal(fit(values).codewords, fit(values, replace(OPTIONS, seed=1)).codewords)


def test_dead_codewords_come_back_to_life():
    values, _ = clusters()
    found, left_alone = (fit(values, replace(OPTIONS, dead_code_threshold=threshold), 1) for threshold in (0.1, 0.0))
    for one in (found, left_alone):
        one._codewords[1:] += 1000  # so far away that no frame is theirs
        one._sums[1:] += 1000 * one._counts[1:, None]
        while one.step < OPTIONS.steps:
            one.advance()
    assert left_alone.report()[0].usage == 1 / SIZE
    assert found.report()[0].usage > 0.9
    assert min(usage for _, usage in found.history) < 0.5  # it is shown when it happens


def test_history_is_of_every_step():
    values, _ = clusters()
    history = np.array(fit(values).history)
    assert history.shape == (OPTIONS.steps, 2)
    assert (history[:, 0] >= 1).all() and (history[:, 0] <= SIZE + 1e-6).all()
    assert (history[:, 1] >= 0).all() and (history[:, 1] <= 1).all()


def test_only_the_rows_that_count_are_seen():
    values, _ = clusters()
    values = np.concatenate([values, np.full((4000, DIM), np.nan, np.float32)]).astype(np.float16)
    rows = np.random.default_rng(0).permutation(4000)
    found = EmaKMeans(Frames(values, rows), OPTIONS)
    found.advance()
    assert found.codewords.isfinite().all()
    assert found.report()[0].frames == 4000


@pytest.mark.parametrize("distinct", [1, 3])
def test_fewer_distinct_frames_than_codewords(distinct: int):
    values = np.random.default_rng(0).standard_normal((distinct, DIM)).astype(np.float32)
    report, _ = fit(np.repeat(values, 100, axis=0)).report()
    assert report.usage == distinct / SIZE
    assert report.quantization_error < 1e-3
