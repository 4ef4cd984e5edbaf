from functools import cache

import numpy as np
from numpy.typing import NDArray

from audioprep.encoders.base import Encoder

RATE = 24_000


def encode(encoder: Encoder, windows: NDArray[np.float32]) -> NDArray[np.generic]:
    """Encodes windows from the middle of a file."""
    return encoder.encode(windows, np.tile([0, windows.shape[2]], (len(windows), 1)))


@cache
def music(seconds: float, seed: int) -> NDArray[np.float32]:
    """Decaying harmonic notes over a little noise: float32 `[1, T]` at 24 kHz; only to be read."""
    random = np.random.default_rng(seed)
    sound = 1e-3 * random.standard_normal(int(seconds * RATE))
    time = np.arange(RATE) / RATE
    for _ in range(int(4 * seconds)):
        start, pitch = random.integers(len(sound)), 110 * 2 ** (random.integers(36) / 12)
        phases = 2 * np.pi * pitch * np.arange(1, 6)[:, None] * time
        note = 0.1 * np.exp(-4 * time) * (np.sin(phases) / np.arange(1, 6)[:, None]).sum(0)
        sound[start : start + RATE] += note[: len(sound) - start]
    return np.clip(sound, -1, 1).astype(np.float32)[None]


def windows(count: int, seed: int) -> NDArray[np.float32]:
    """Windows of `mel-rvq`, all different: float32 `[count, 1, 124688]`."""
    long = music(24.0, seed)
    return np.stack([long[:, 24_000 * i : 24_000 * i + 124_688] for i in range(count)])
