"""The latents of silence, which are not zeros: trainers fill up short latents with them."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.encoders.base import Encoder
from audioprep.encoders.registry import load_encoder
from audioprep.errors import AudioprepError, UsageError
from audioprep.stages.windows import WindowCutter

REMEDY = "Give the latents of silence with --silence FILE.npy"


def encode_silence(encoder: Encoder, frames: int) -> NDArray[np.float32]:
    """What an encoder makes of `frames` frames of zeros: float32 `[frames, D]`.

    Windows of silence differ only in where the file begins and ends in them, so that each kind is encoded once.
    """
    spec = encoder.spec
    cutter = WindowCutter(spec)
    zeros = np.zeros((spec.channels, frames * spec.hop_length), np.float32)
    places = [(window.start, window.end) for window in chain(cutter.push(zeros), cutter.finish())]
    kinds = list(dict.fromkeys(places))
    latents: dict[tuple[int, int], NDArray[np.generic]] = {}
    for first in range(0, len(kinds), spec.batch_size):
        batch = kinds[first : first + spec.batch_size]
        valid = np.zeros((spec.batch_size, 2), np.int64)
        valid[: len(batch)] = batch
        found = encoder.encode(np.zeros((spec.batch_size, spec.channels, spec.length), np.float32), valid)
        latents |= dict(zip(batch, found, strict=False))
    return np.concatenate([latents[place] for place in places])[:frames].astype(np.float32)


def silence_of(encoder: dict[str, Any], frames: int) -> NDArray[np.float32]:
    """The latents of silence of the encoder that made a column: float32 `[frames, D]`.

    Args:
        encoder: its entry in `dataset.json`.
        frames: wanted.

    Raises:
        UsageError: it cannot be loaded here, or it is no longer the same.
    """
    try:
        loaded = load_encoder(encoder["encoder"], encoder["encoder_settings"] | {"device": "cpu"})
    except AudioprepError as error:
        raise UsageError(f"short latents are filled up with those of silence, and {error}. {REMEDY}.") from error
    if loaded.spec.fingerprint != encoder["fingerprint"]:
        raise UsageError(
            f"{encoder['encoder']}: its weights are no longer those that made the shard set, so its silence would not "
            f"fit. {REMEDY}, or encode again."
        )
    latents = encode_silence(loaded, frames)
    if not np.isfinite(latents).all():
        raise UsageError(f"{encoder['encoder']}: gives values that are not finite for silence. {REMEDY}.")
    return latents


def read_silence(path: Path, dim: int, frames: int) -> NDArray[np.float32]:
    """Reads latents of silence `[1, D, N]` or `[D, N]`, as stable-audio-3 writes them: float32 `[N, D]`.

    Raises:
        UsageError: no such array, or too short a one.
    """
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}. Give a .npy file of shape (1, {dim}, N).") from error
    latents = stored[0] if stored.ndim == 3 and len(stored) == 1 else stored
    if latents.ndim != 2 or latents.shape[0] != dim or latents.dtype.kind != "f" or not np.isfinite(latents).all():
        raise UsageError(
            f"{path}: holds {stored.dtype} of shape {stored.shape}; give finite numbers of shape (1, {dim}, N)"
        )
    if latents.shape[1] < frames:
        raise UsageError(f"{path}: has {latents.shape[1]} frames, and {frames} are needed. Encode a longer silence.")
    return latents.T.astype(np.float32)
