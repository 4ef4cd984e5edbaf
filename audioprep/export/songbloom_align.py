"""Sketch tokens and latents of one song, brought to the same length, in whole blocks of the model."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FRAME_RATE = 25  # Hz, of both
BLOCK = 16  # frames that SongBloom makes at once: 0.64 s

Policy = Literal["trim", "pad", "error"]


def aligned_frames(sketch: int, latents: int, policy: Policy, block: int = BLOCK, longest: int | None = None) -> int:
    """The length that both get.

    Args:
        sketch: frames of the sketch.
        latents: frames of the latents.
        policy: `trim` to the shorter one and to a whole block; `pad` to the longer one and a whole block; `error`: as
            `trim`, where they are equal.
        block: frames.
        longest: frames that the model takes at most.

    Returns:
        A multiple of `block`; 0 where not even one is left.

    Raises:
        ValueError: `error`, and the lengths differ.
    """
    if policy == "error" and sketch != latents:
        raise ValueError(f"the sketch has {sketch} frames and the latents {latents}")
    frames = -(-max(sketch, latents) // block) * block if policy == "pad" else min(sketch, latents) // block * block
    return frames if longest is None else min(frames, longest // block * block)


def fitted(frames: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    """`[F, …]` as `[length, …]`: cut, or with its last frame held."""
    if len(frames) >= length:
        return frames[:length]
    return np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
