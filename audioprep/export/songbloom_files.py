"""The bytes of the files that the fork of SongBloom reads."""

from __future__ import annotations

import io
import wave
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PROMPT_RATE = 48_000  # Hz, also of the songs

SketchFormat = Literal["npy", "pt"]


def wav_bytes(samples: NDArray[np.floating]) -> bytes:
    """Samples `[C, T]` in [-1, 1] as 16-bit wav of 48 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(PROMPT_RATE)
        file.writeframes(np.rint(samples.T * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def sketch_bytes(array: NDArray[np.generic], suffix: SketchFormat) -> bytes:
    """Sketch tokens `[F]` as a file."""
    buffer = io.BytesIO()
    if suffix == "npy":
        np.save(buffer, array, allow_pickle=False)
    else:
        import torch

        torch.save({"sketch": torch.from_numpy(array.copy())}, buffer)
    return buffer.getvalue()


def cache_bytes(lyrics: str, latents: NDArray[np.generic], sketch: NDArray[np.generic]) -> bytes:
    """What the fork keeps of a song; latents as `[D, T]`."""
    import torch

    buffer = io.BytesIO()
    kept = {
        "lyrics": lyrics,
        "audio_latent": torch.from_numpy(np.ascontiguousarray(latents.T)),
        "sketch_tokens": torch.from_numpy(sketch.copy()),
        "length": len(sketch),
    }
    torch.save(kept, buffer)
    return buffer.getvalue()
