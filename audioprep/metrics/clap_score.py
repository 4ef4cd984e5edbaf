"""The CLAP score: how well recordings and their texts go together, as the mean cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class TextEncoder(Protocol):
    """An encoder of audio that puts texts into the same space."""

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 `[n, D]`."""
        ...


def cosines(audio: NDArray[np.floating], text: NDArray[np.floating]) -> NDArray[np.float64]:
    """The cosine of each pair of rows of `[n, D]`; 0 where one of them is the zero vector.

    Returns:
        float64 `[n]`. The CLAP score is its mean: neither scaled nor cut off at 0, as in all published code.
    """
    audio, text = audio.astype(np.float64), text.astype(np.float64)
    lengths = np.linalg.norm(audio, axis=1) * np.linalg.norm(text, axis=1)
    return (audio * text).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
