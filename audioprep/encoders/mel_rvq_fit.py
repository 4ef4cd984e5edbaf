"""Fits the weights of `mel-rvq` to audio."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from audioprep.encoders import mel_grid
from audioprep.encoders.device import resolve_device
from audioprep.encoders.mel import LogMel
from audioprep.encoders.mel_rvq import FORMAT
from audioprep.encoders.rvq_fit import CodebookReport, Reservoir, fit_rvq
from audioprep.errors import UsageError

logger = logging.getLogger(__name__)

_PIECE = 256
"""Token frames that are analysed at a time: 10 s."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit saw and how well the result quantizes it.

    Attributes:
        frames_seen: token frames of all the audio.
        frames_used: of the random sample that was fitted to.
        projected_variance: share of the energy that the projection keeps; the codebooks cannot explain more.
        codebooks: one report a codebook; its explained variance counts from the first to this one.
    """

    frames_seen: int
    frames_used: int
    projected_variance: float
    codebooks: list[CodebookReport]


@dataclass(frozen=True, slots=True)
class MelRvqWeights:
    """Fitted tensors, with where they come from."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    report: FitReport

    def save(self, path: Path) -> None:
        """Writes one safetensors file; the same weights give the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".tmp")
        unfinished.write_bytes(save(self.tensors, self.metadata))
        unfinished.replace(path)


def fit_mel_rvq(
    blocks: Iterable[NDArray[np.float32]],
    *,
    num_codebooks: int = 8,
    codebook_size: int = 1024,
    dim: int = 128,
    max_frames: int = 200_000,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> MelRvqWeights:
    """Fits normalization, projection and codebooks to audio.

    Memory is bounded by `max_frames` times 3 kB, whatever the length of the audio. The same blocks and
    settings give the same bytes on one kind of CPU; on CUDA, sums are rounded in varying order.

    Args:
        blocks: float32 `[1, T]` at 24 kHz, of any lengths. Only frames whose analysis windows lie within one
            block are used, so that no cut is ever heard: a block of 10 s gives 248 frames of 250.
        num_codebooks: `K`.
        codebook_size: `N`, at most 65,536.
        dim: principal components that are kept of 512; 128 keep 99.3% of the bundled recordings' energy.
        max_frames: size of the random sample of frames that is fitted to.
        seed: of the sample and of k-means.
        device: where k-means runs: `cpu`, `cuda`, `cuda:1` or `auto`.
        progress: called with (codebooks done, `K`).

    Raises:
        UsageError: the audio has fewer frames than a codebook has codewords.
    """
    reservoir = Reservoir(max_frames, mel_grid.DIM, seed)
    for frames in _frames(blocks):
        reservoir.add(frames)
    if len(reservoir.rows) < codebook_size:
        raise UsageError(
            f"fit mel-rvq: {len(reservoir.rows)} frames of 40 ms cannot fill {codebook_size} codewords;"
            " pass more audio, a smaller codebook size or a larger max_frames"
        )
    rows = torch.from_numpy(reservoir.rows)
    std, mean = torch.std_mean(rows.view(-1, mel_grid.N_MELS), dim=0, correction=0)
    std = std.clamp_min(1e-3)
    rows.view(-1, mel_grid.N_MELS).sub_(mean).div_(std)
    projection, kept, lost = _principal_components(rows, dim)
    codebooks, reports = fit_rvq(
        (rows @ projection).to(resolve_device(device)),
        num_codebooks=num_codebooks,
        codebook_size=codebook_size,
        seed=seed,
        lost=lost,
        progress=progress,
    )
    report = FitReport(reservoir.seen, len(rows), kept, reports)
    provenance = asdict(report) | {"seed": seed, "max_frames": max_frames, "torch": version("torch")}
    return MelRvqWeights(
        {"mean": mean, "std": std, "projection": projection, "codebooks": codebooks},
        # One entry only: safetensors writes several in random order.
        {FORMAT: json.dumps(provenance, sort_keys=True)},
        report,
    )


def _frames(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Log-mel frames `[F, 512]` of the blocks, some 10 s at a time."""
    log_mel = LogMel("cpu")
    for block in blocks:
        count = (block.shape[-1] - 2 * mel_grid.CONTEXT) // mel_grid.FRAME
        for first in range(0, count, _PIECE):
            last = min(first + _PIECE, count)
            piece = block[:, first * mel_grid.FRAME : last * mel_grid.FRAME + 2 * mel_grid.CONTEXT]
            yield log_mel(torch.from_numpy(piece))[0].numpy()


def _principal_components(rows: Tensor, dim: int) -> tuple[Tensor, float, float]:
    """The `dim` directions with the most energy.

    Returns:
        Orthonormal columns float32 `[512, dim]`, the share of the energy in them, and a row's mean energy
        outside them.
    """
    moments = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in rows.split(8192):
        moments += part.T @ part
    values, vectors = torch.linalg.eigh(moments / len(rows))
    basis = vectors.flip(1)[:, :dim]
    # A principal component's sign is arbitrary.
    basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    lost = float(values[: rows.shape[1] - dim].sum())
    return basis.float().contiguous(), 1.0 - lost / float(values.sum()), lost
