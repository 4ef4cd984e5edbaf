"""What every encoder is: a spec that says what comes out, and `encode`.

Shapes use fixed letters: `B` windows in a batch, `C` channels, `T` samples, `F` frames, `K` codebooks,
`D` dimensions.

**Tokens are a contract.** An item's tokens never depend on its neighbours, on its place in a batch, or on how
many workers ran. So an encoder sees only windows of one fixed length, each with real audio as context on both
sides, in batches of one fixed size that are filled up with silent windows. Where a file begins or ends within a
window, the encoder is told, and makes of it what the model would make of the whole file.
"""

from __future__ import annotations

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
        kind: what comes out: `tokens`, `latents` or `embedding`.
        sample_rate: of the samples that go in, in Hz.
        channels: of the samples that go in.
        hop_length: samples from one frame to the next.
        window: samples from one window to the next; a multiple of `hop_length`.
        left_context: samples of real audio before a window (zeros only before the file's own start).
        right_context: likewise after it.
        batch_size: windows in every batch.
        fingerprint: sha256 of the weights.
        num_codebooks: `K`, for tokens.
        codebook_size: ids of a codebook are in `[0, codebook_size)`, for tokens.
        dim: `D`, for latents and embeddings.
        pooling: `mean`: an item's embeddings are averaged to one vector of length 1; None: all are kept.
        frame_count: `begun`: a frame that has begun counts; `one-more`: one more than are whole, as far as the
            windows of the file reach (HeartCodec).
        settings: whatever else can change a value: dtype, device class, TF32, versions of libraries.
    """

    name: str
    kind: Kind
    sample_rate: int
    channels: int
    hop_length: int
    window: int
    left_context: int
    right_context: int
    batch_size: int
    fingerprint: str
    num_codebooks: int | None = None
    codebook_size: int | None = None
    dim: int | None = None
    pooling: Literal["mean"] | None = None
    frame_count: Literal["begun", "one-more"] = "begun"
    settings: dict[str, Setting] = field(default_factory=dict)

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz."""
        return self.sample_rate / self.hop_length

    @property
    def length(self) -> int:
        """Samples of a window with its context: what `encode` sees."""
        return self.left_context + self.window + self.right_context

    def num_frames(self, samples: int) -> int:
        """Frames that `samples` samples give.

        Of tokens and latents, `frame_count` says which frames count. Embeddings are of long stretches that overlap:
        the last one is the first that reaches the end.
        """
        if self.frame_count == "one-more":
            # Floating point on purpose: 0.08 s of a recording may be a little less than a frame. So upstream counts.
            windows = -(-samples // self.window)
            return min(int(samples / self.sample_rate * self.frame_rate) + 1, windows * self.window // self.hop_length)
        if self.kind == "embedding":
            samples = max(0, samples - self.right_context - self.window) + self.hop_length
        return -(-samples // self.hop_length)

    def num_windows(self, samples: int) -> int:
        """Windows that are needed for these frames."""
        return -(-self.num_frames(samples) * self.hop_length // self.window)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain values, for `dataset.json`."""
        return asdict(self) | {"frame_rate": self.frame_rate}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`; what it does not know is left out."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})


@runtime_checkable
class Encoder(Protocol):
    """Samples to tokens, latents or embeddings. It knows nothing of files, shards or processes."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        """Encodes one batch of windows.

        Args:
            samples: float32 `[B, C, spec.length]`, in [-1, 1], `B == spec.batch_size`.
            valid: int64 `[B, 2]`: first and one past the last sample of each window that are the file's own;
                outside them are zeros. In a file's first window, the first is `left_context`; in a row that
                only fills the batch, both are 0.

        Returns:
            `[B, window / hop_length, K or D]`: tokens as integers, latents and embeddings as floats. A window
            whose activations are not finite gives tokens of -1, or NaN.
        """
        ...


@runtime_checkable
class Decoder(Protocol):
    """An encoder that can also go back to sound."""

    @property
    def decoded_rate(self) -> int:
        """Of the samples that come out of `decode`, in Hz; most often `spec.sample_rate`."""
        ...

    def decode(self, frames: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turns tokens `[F, K]` or latents `[F, D]` into samples float32 `[C, F / frame_rate * decoded_rate]`."""
        ...
