"""The encoder `mel-rvq`: log-mel frames and a residual vector quantizer, 25 token frames a second.

This is the kind of token that MuQ is trained to predict (Zhu et al. 2025, "MuQ: Self-Supervised Music
Representation Learning with Mel Residual Vector Quantization", arXiv 2501.01108): 24 kHz, 128 mel bands every
10 ms, four of them stacked, a linear projection, then residual quantization. Where MuQ learns one projection
a codebook by gradient descent, this one projects once onto the principal components and fits the codebooks by
k-means, which takes minutes on a CPU and needs no tuning. It is meant for sketches of music, for
self-supervised targets and for trying a pipeline out; it is no codec to listen to.

The weights are one safetensors file, of `audioprep fit mel-rvq` or the small one that comes with audioprep:
`mean` and `std` float32 `[128]`, `projection` float32 `[512, D]`, `codebooks` float16 `[K, N, D]`.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from audioprep.encoders import mel_grid
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.device import DEVICE, device_class, resolve_device
from audioprep.errors import SystemFault, UsageError
from audioprep.storage.fields import PlaceField
from audioprep.storage.kept import kept_file

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "audioprep.mel-rvq.1"
"""Key of the file's metadata; its value is JSON that says where the weights come from."""
BUNDLED = Path(__file__).parent / "weights" / "mel-rvq.safetensors"

_WINDOW_FRAMES = 128
_BATCH_SIZES = {"cpu": 4, "cuda": 16}  # a CPU gains nothing from more, and the last batch is filled up


class Settings(BaseModel):
    """Settings of `mel-rvq`."""

    model_config = ConfigDict(extra="forbid")

    weights: PlaceField | None = Field(
        default=None,
        description="A file made by `audioprep fit mel-rvq`, or its URL. Default: the small one that comes along.",
    )
    num_codebooks: int | None = Field(default=None, ge=1, description="Use only the first so many codebooks.")
    device: str = Field(default="cpu", pattern=DEVICE, description="cpu, cuda, cuda:1, or auto.")


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; reads the file's header, and does not import torch.

    Raises:
        UsageError: the weights are missing or no such file, or have fewer codebooks than asked for.
    """
    path = _file(settings)
    content, header = _read(path)
    shape = header.get("codebooks", {}).get("shape")
    if FORMAT not in header.get("__metadata__", {}) or shape is None:
        raise UsageError(f"{path}: these are no mel-rvq weights; make them with `audioprep fit mel-rvq`")
    available, codebook_size, dim = shape
    device = device_class(settings.device)
    if (settings.num_codebooks or 1) > available:
        raise UsageError(f"{path}: has {available} codebooks, and num_codebooks is {settings.num_codebooks}")
    return EncoderSpec(
        name="mel-rvq",
        kind="tokens",
        sample_rate=mel_grid.SAMPLE_RATE,
        channels=1,
        hop_length=mel_grid.FRAME,
        window=mel_grid.FRAME * _WINDOW_FRAMES,
        left_context=mel_grid.CONTEXT,
        right_context=mel_grid.CONTEXT,
        batch_size=_BATCH_SIZES[device],
        fingerprint=hashlib.sha256(content).hexdigest(),
        num_codebooks=settings.num_codebooks or available,
        codebook_size=codebook_size,
        settings={
            "n_fft": mel_grid.N_FFT,
            "mel_hop": mel_grid.HOP,
            "mel_bands": mel_grid.N_MELS,
            "projected_dim": dim,
            "dtype": "float32",
            "tf32": False,
            "device": device,
            "torch": version("torch"),
        },
    )


def _file(settings: Settings) -> Path:
    return kept_file(settings.weights) if settings.weights else BUNDLED


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A safetensors file's bytes and its header: a length of 8 bytes, then that much JSON."""
    try:
        content = path.read_bytes()
        return content, dict(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: cannot be read as mel-rvq weights ({error}); make them with `audioprep fit mel-rvq`"
        ) from error


def load(settings: Settings) -> MelRvq:
    """Loads the weights onto the device.

    Raises:
        UsageError: as `describe`.
        SystemFault: the device cannot be used.
    """
    import torch
    from safetensors.torch import load_file

    spec = describe(settings)
    device = resolve_device(settings.device)
    if device != "cpu" and not torch.cuda.is_available():
        raise SystemFault(f"device {settings.device}: torch cannot use CUDA here; choose the device cpu")
    # TF32 has 10 bits of mantissa: near ties, and so tokens, would change.
    torch.set_float32_matmul_precision("highest")
    return MelRvq(spec, load_file(_file(settings)), device)


class MelRvq:
    """Encodes and decodes with given weights; made by `load`."""

    def __init__(self, spec: EncoderSpec, weights: dict[str, Tensor], device: str) -> None:
        from audioprep.encoders.mel import LogMel
        from audioprep.encoders.rvq import ResidualVQ

        self._spec = spec
        self._device = device
        self._log_mel = LogMel(device)
        self._mean = weights["mean"].repeat(mel_grid.STACK)
        self._std = weights["std"].repeat(mel_grid.STACK)
        self._basis = weights["projection"]
        # ((x - mean) / std) @ basis as one matrix product.
        matrix = self._basis / self._std[:, None]
        self._matrix, self._offset = matrix.to(device), -(self._mean @ matrix).to(device)
        self._rvq = ResidualVQ(weights["codebooks"][: spec.num_codebooks].float().to(device))

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    @property
    def decoded_rate(self) -> int:
        return self._spec.sample_rate

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        """Encodes windows; each one's tokens depend on its own samples only, wherever it stands in the batch.

        Args:
            samples: float32 `[B, 1, 904 + 122880 + 904]` at 24 kHz; a shorter window gives
                fewer frames.
            valid: not needed: beyond a file's ends there is silence.

        Returns:
            Tokens int64 `[B, 128, K]`.
        """
        import torch

        with torch.inference_mode():
            frames = self._log_mel(torch.from_numpy(samples[:, 0]).to(self._device))
            # On a CPU a matrix product of many rows is cut up by row and thread, and rounds accordingly: one
            # window at a time is the same product wherever it stands. A GPU gets them all at once.
            rows = frames.flatten(0, 1)
            pieces = rows.split(frames.shape[1]) if self._device == "cpu" else [rows]
            ids = [self._rvq.encode(torch.addmm(self._offset, piece, self._matrix)) for piece in pieces]
            return torch.cat(ids).view(*frames.shape[:2], -1).cpu().numpy()

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """An impression of the tokens `[F, K]` in sound, by Griffin-Lim.

        Returns:
            float32 `[1, 960 F]` at 24 kHz; the same codes always give the same samples.
        """
        import torch

        from audioprep.encoders.mel import griffin_lim

        ids = torch.from_numpy(codes.astype(np.int64)).to(self._device)
        rows = self._rvq.decode(ids).cpu() @ self._basis.T
        return griffin_lim(rows * self._std + self._mean).numpy()[None]
