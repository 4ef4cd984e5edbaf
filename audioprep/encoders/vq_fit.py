"""Fits the codebook of one vector quantizer: k-means by exponential moving averages.

Each step quantizes a random batch of frames; a codeword's count and the sum of its frames are moving averages, and
their quotient is the codeword (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1; Razavi et al. 2019, arXiv
1906.00446). Seeds are drawn as in scalable k-means++ (Bahmani et al. 2012, arXiv 1203.6402). A codeword that is
hardly used any more is put on a random frame (after the random restarts of Jukebox, arXiv 2005.00341). With the
distance `cosine`, frames and codewords have length 1 (spherical k-means, Dhillon and Modha 2001).

Shapes: `F` frames, `D` dimensions, `N` codewords.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from audioprep.encoders.vq import Distance, VectorQuantizer

_SEEDING_ROUNDS = 64
_SEEDING_FRAMES_PER_CODEWORD = 8
_LAST_REVIVAL = 0.9  # of the steps: later ones are for codewords to settle
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a codebook is fitted.

    Attributes:
        codebook_size: `N`.
        distance: between frames and codewords.
        steps: batches.
        batch_frames: frames of a batch, drawn at random from all.
        decay: of the moving averages, a step.
        dead_code_threshold: a codeword with less than this share of the mean codeword's frames is dead.
        seed: of every random choice.
    """

    codebook_size: int
    distance: Distance = "euclidean"
    steps: int = 1000
    batch_frames: int = 8192
    decay: float = 0.99
    dead_code_threshold: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FitReport:
    """How well all frames are quantized in the end.

    Attributes:
        frames: that were fitted to.
        usage: share of the codewords that are the nearest of at least one frame.
        perplexity: exp of the ids' entropy; `N` where all are used alike.
        quantization_error: euclidean: energy of the differences over the frames' variance, 1 for a single codeword;
            cosine: mean of 1 - cosine.
    """

    frames: int
    usage: float
    perplexity: float
    quantization_error: float


class Frames:
    """Frames that lie in a file or in memory, of which batches are taken.

    Args:
        values: float16 or float32 `[all, D]`; may be a memory map.
        rows: int64 `[F]`: those of them that count.
    """

    def __init__(self, values: NDArray[np.floating], rows: NDArray[np.int64]) -> None:
        self._values = values
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, places: NDArray[np.int64], device: str) -> Tensor:
        """The frames at these places (in the order in which they lie): float32 `[len(places), D]`."""
        return torch.from_numpy(self._values[np.sort(self._rows[places])]).to(device).float()


class EmaKMeans:
    """A fit on its way. Every step's random numbers come from the seed and its number, so that it can go on anywhere.

    On a CPU the same frames and options give the same bits; on CUDA too where its libraries do.
    """

    def __init__(self, frames: Frames, options: FitOptions, device: str = "cpu") -> None:
        self.options = options
        self.step = 0
        self._frames = frames
        self._device = device
        self._mean_count = options.batch_frames / options.codebook_size
        # By step: perplexity of the averaged counts, and the share of the codewords that are not dead.
        self.history: list[tuple[float, float]] = []
        self._codewords = torch.empty(0)

    @property
    def codewords(self) -> Tensor:
        """float32 `[N, D]`."""
        return self._codewords

    def advance(self) -> None:
        """One step."""
        if self.step == 0:
            self._start(self._seeds())
        options = self.options
        random = np.random.default_rng([options.seed, self.step + 1])
        batch = self._take(random.integers(0, len(self._frames), options.batch_frames))
        ids = VectorQuantizer(self._codewords, options.distance).encode(batch)
        counts = torch.bincount(ids, minlength=options.codebook_size).float()
        self._counts.lerp_(counts, 1 - options.decay)
        self._sums.lerp_(_sums(batch, ids, options.codebook_size), 1 - options.decay)
        is_dead = self._counts < options.dead_code_threshold * self._mean_count
        share = self._counts.double() / self._counts.sum()
        self.history.append((_perplexity(share), 1.0 - float(is_dead.double().mean())))
        self.step += 1
        if self.step <= _LAST_REVIVAL * options.steps:
            self._revive(is_dead.nonzero().flatten(), batch, random)
        self._codewords = torch.where(self._counts[:, None] > 1e-6, self._sums / self._counts[:, None], self._codewords)
        if options.distance == "cosine":
            self._codewords = normalize(self._codewords)

    def state(self) -> dict[str, Tensor]:
        """All that a later `restore` needs, on the CPU."""
        found = {"codewords": self._codewords, "counts": self._counts, "sums": self._sums}
        return {name: tensor.cpu() for name, tensor in found.items()} | {
            "history": torch.tensor(self.history, dtype=torch.float64)
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken."""
        self.history = [(float(perplexity), float(usage)) for perplexity, usage in state["history"]]
        self.step = len(self.history)
        self._codewords, self._counts, self._sums = (
            state[name].to(self._device) for name in ("codewords", "counts", "sums")
        )

    def report(self) -> tuple[FitReport, NDArray[np.int64]]:
        """Quantizes all frames once; gives the report, and how many frames each codeword has, `[N]`."""
        quantizer = VectorQuantizer(self._codewords, self.options.distance)
        counts = torch.zeros(self.options.codebook_size, dtype=torch.int64, device=self._device)
        error = energy = 0.0
        total = torch.zeros(self._codewords.shape[1], dtype=torch.float64, device=self._device)
        for first in range(0, len(self._frames), _BLOCK):
            block = self._take(np.arange(first, min(first + _BLOCK, len(self._frames))))
            ids = quantizer.encode(block)
            counts += torch.bincount(ids, minlength=len(counts))
            error += float((block - self._codewords[ids]).square().sum(dtype=torch.float64))
            energy += float(block.square().sum(dtype=torch.float64))
            total += block.sum(0, dtype=torch.float64)
        frames = len(self._frames)
        if self.options.distance == "cosine":
            error /= 2 * frames  # |x - c|^2 = 2 - 2 cos for vectors of length 1
        else:
            error /= max(energy - float(total.square().sum()) / frames, 1e-12)
        usage = float((counts > 0).double().mean())
        return FitReport(frames, usage, _perplexity(counts.double() / frames), error), counts.cpu().numpy()

    def _take(self, places: NDArray[np.int64]) -> Tensor:
        frames = self._frames.take(places, self._device)
        return normalize(frames) if self.options.distance == "cosine" else frames

    def _start(self, seeds: Tensor) -> None:
        self._codewords = seeds
        self._counts = torch.full((len(seeds),), self._mean_count, device=self._device)
        self._sums = seeds * self._mean_count

    def _seeds(self) -> Tensor:
        """Frames that lie far apart: in each round some are drawn, by their squared distance to those drawn before."""
        size = self.options.codebook_size
        random = np.random.default_rng([self.options.seed, 0])
        count = min(len(self._frames), size * _SEEDING_FRAMES_PER_CODEWORD)
        sample = self._take(random.choice(len(self._frames), count, replace=False))
        norms = sample.square().sum(1)
        distance = torch.ones_like(norms)
        chosen = torch.empty(0, dtype=torch.int64)
        new = torch.from_numpy(random.integers(0, count, 1))
        while True:
            chosen = torch.cat([chosen, new])
            centres = sample[new.to(self._device)]
            to_new = norms[:, None] - 2 * (sample @ centres.T) + centres.square().sum(1)
            nearest = to_new.amin(1).clamp_min_(0)
            distance = nearest if len(chosen) == 1 else torch.minimum(distance, nearest)
            if len(chosen) == size:
                return sample[chosen.to(self._device)]
            edges = distance.double().cumsum(0).cpu().numpy()
            points = random.random(min(-(-size // _SEEDING_ROUNDS), size - len(chosen))) * edges[-1]
            new = torch.from_numpy(np.searchsorted(edges, points, side="right").clip(max=count - 1))

    def _revive(self, dead: Tensor, batch: Tensor, random: np.random.Generator) -> None:
        """Puts dead codewords on frames of the batch, as if each had as many as the mean codeword."""
        places = torch.from_numpy(random.permutation(len(batch))[: len(dead)]).to(batch.device)
        dead = dead[: len(places)]
        self._counts[dead] = self._mean_count
        self._sums[dead] = batch[places] * self._mean_count


def _sums(batch: Tensor, ids: Tensor, size: int) -> Tensor:
    """The sum of each codeword's frames, `[N, D]`, added up in one order whatever the device."""
    sums = batch.new_zeros(size, batch.shape[1])
    if batch.is_cuda:  # there, and only there, this sorts them first
        return sums.index_put_((ids,), batch, accumulate=True)
    return sums.index_add_(0, ids, batch)


def _perplexity(share: Tensor) -> float:
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))
