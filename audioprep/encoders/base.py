"""What every encoder is: a spec that says what comes out, and `encode`.

Shapes use fixed letters: `B` windows in a batch, `C` channels, `T` samples, `F` frames, `K` codebooks,
`D` dimensions.

**Tokens are a contract.** An item's tokens never depend on its neighbours, on its place in a batch, or on how
many workers ran. So an encoder sees only windows of one fixed length, each with real audio as context on both
sides, in batches of one fixed size that are filled up with silent windows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Kind = Literal["tokens", "latents", "embedding"]
Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What an encoder takes and gives; all that can move one of its values is in here.

    Attributes:
        name: registered name, such as `mel-rvq`.
        kind: what comes out: `tokens`, `latents` or one `embedding`.
        sample_rate: of the samples that go in, in Hz.
        channels: of the samples that go in.
        hop_length: samples of one frame.
        window: samples of one window without its context; a multiple of `hop_length`.
        context: samples of real audio on each side of a window (zeros only beyond the file's own ends).
        batch_size: windows in every batch.
        num_codebooks: `K`, for tokens.
        codebook_size: ids of a codebook are in `[0, codebook_size)`, for tokens.
        dim: `D`, for latents and embeddings.
        fingerprint: sha256 of the weights.
        settings: whatever else can change a value: dtype, device class, TF32, versions of libraries.
    """

    name: str
    kind: Kind
    sample_rate: int
    channels: int
    hop_length: int
    window: int
    context: int
    batch_size: int
    fingerprint: str
    num_codebooks: int | None = None
    codebook_size: int | None = None
    dim: int | None = None
    settings: dict[str, Setting] = field(default_factory=dict)

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz."""
        return self.sample_rate / self.hop_length

    def num_frames(self, samples: int) -> int:
        """Frames that `samples` samples give: a frame that has begun counts."""
        return -(-samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain values, for `dataset.json`."""
        return asdict(self) | {"frame_rate": self.frame_rate}

    def digest(self) -> str:
        """sha256 over the whole spec: equal digests mean equal values out."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


@runtime_checkable
class Encoder(Protocol):
    """Samples to tokens, latents or embeddings. It knows nothing of files, shards or processes."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        """Encodes one batch of windows.

        Args:
            batch: float32 `[B, C, context + window + context]`, in [-1, 1], `B == spec.batch_size`.

        Returns:
            Tokens `[B, window / hop_length, K]` in the smallest integer type that fits.
        """
        ...


@runtime_checkable
class Decoder(Protocol):
    """An encoder that can also go back to sound."""

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Turns tokens `[F, K]` into samples float32 `[C, F * hop_length]`, for a listening check."""
        ...
