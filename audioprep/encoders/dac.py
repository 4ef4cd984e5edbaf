"""The encoder `dac`: the neural codec of descript (Kumar et al. 2023, "High-Fidelity Audio Compression with Improved
RVQGAN", arXiv 2306.06546) for mono at 16, 24 or 44.1 kHz.

Tokens are those that `dac.DAC.encode` gives for the whole file, filled up to whole frames with zeros. (Its `compress`
gives others: it leaves out the padding, and so the context at the edges of its chunks.) A window comes with as much
context as the encoder reaches; where a file begins or ends, the padding of each layer begins too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import load_strict, sha256_of_weights
from audioprep.encoders.dac_checkpoint import (
    Checkpoint,
    descript_arguments,
    descript_tensors,
    find_checkpoint,
    load_part,
)
from audioprep.encoders.device import device_class
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings
from audioprep.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_WINDOW_FRAMES = {"cpu": 496, "cuda": 240}  # a GPU also computes what fills up a file's last window
_DECODED_FRAMES = 256  # at a time
_PACKAGES = {"transformers": "transformers", "descript": "descript-audio-codec"}


class Settings(TorchSettings):
    """Settings of `dac`."""

    num_codebooks: int | None = Field(default=None, ge=1, description="Use only the first so many codebooks.")
    backend: Literal["transformers", "descript"] = Field(
        default="transformers", description="descript: the published package, slower; needs its .pth as weights."
    )


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings. Imports torch only where the weights are a `.pth`.

    Raises:
        UsageError: the weights are missing, are not of a DAC, or have fewer codebooks than asked for; or the backend
            cannot use them, or is not installed.
    """
    return _describe(settings, find_checkpoint(settings.weights))


def load(settings: Settings) -> Dac:
    """Loads encoder and quantizer onto the device.

    Raises:
        UsageError: as `describe`; or the weights do not fit the configuration.
        SystemFault: the device cannot be used.
    """
    checkpoint = find_checkpoint(settings.weights)
    return Dac(_describe(settings, checkpoint), settings, checkpoint)


def _describe(settings: Settings, checkpoint: Checkpoint) -> EncoderSpec:
    path, architecture, package = checkpoint.path, checkpoint.architecture, _PACKAGES[settings.backend]
    if (settings.num_codebooks or 1) > architecture.n_codebooks:
        raise UsageError(
            f"{path}: has {architecture.n_codebooks} codebooks, and num_codebooks is {settings.num_codebooks}"
        )
    if settings.backend == "descript" and checkpoint.layout != "descript":
        raise UsageError(f"{path}: backend descript takes the .pth of descript-audio-codec; use backend transformers")
    try:
        package_version = version(package)
    except PackageNotFoundError as error:
        raise UsageError(
            f"dac: backend {settings.backend} needs the package {package}: `pip install {package}`"
        ) from error
    context = architecture.encoder_context() * architecture.hop_length
    return EncoderSpec(
        name="dac",
        kind="tokens",
        sample_rate=architecture.sampling_rate,
        channels=1,
        hop_length=architecture.hop_length,
        window=_WINDOW_FRAMES[device_class(settings.device)] * architecture.hop_length,
        left_context=context,
        right_context=context,
        batch_size=batch_size(settings, cpu=1, cuda=32),
        fingerprint=sha256_of_weights([path]),
        num_codebooks=settings.num_codebooks or architecture.n_codebooks,
        codebook_size=architecture.codebook_size,
        settings={**numeric_settings(settings), "backend": settings.backend, package: package_version},
    )


class Dac(TorchEncoder):
    """Encodes and decodes with given weights; made by `load`."""

    def __init__(self, spec: EncoderSpec, settings: Settings, checkpoint: Checkpoint) -> None:
        super().__init__(spec, settings)
        from audioprep.encoders.edges import EdgeMask

        # A GPU wants batches, and compiled code one shape; a CPU is faster where it skips what is no file's own.
        at_once = self.device.type == "cuda" or settings.compile
        self._architecture = checkpoint.architecture
        assert spec.num_codebooks
        self._parts = _PARTS[settings.backend](checkpoint, spec.num_codebooks, self.device, at_once)
        self._edges = EdgeMask(self._parts.encoder, spec.hop_length) if at_once else None

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        import torch

        latents = self._at_once(samples, valid) if self._edges else self._by_row(samples, valid)
        first, frames = (size // self.spec.hop_length for size in (self.spec.left_context, self.spec.window))
        rows = latents[..., first : first + frames].transpose(1, 2).float()
        finite = rows.isfinite().all(dim=2).all(dim=1)
        with torch.autocast(self.device.type, enabled=False):
            if self.device.type == "cuda":
                ids = self._parts.quantize(rows.flatten(0, 1)).view(*rows.shape[:2], -1)
            else:  # the same matrix products wherever a row stands
                ids = torch.stack([self._parts.quantize(row) for row in rows])
        return torch.where(finite[:, None, None], ids, -1)

    def _at_once(self, samples: Tensor, valid: Tensor) -> Tensor:
        """Latents `[B, H, F]` of all windows in one go."""
        assert self._edges
        with self._edges.at(valid, self.spec.length):
            return self._parts.encoder(samples)

    def _by_row(self, samples: Tensor, valid: Tensor) -> Tensor:
        """The same window by window, of each only what is the file's own: there a file's ends come by themselves."""
        hop = self.spec.hop_length
        latents = samples.new_zeros(len(samples), self._architecture.latent_channels, self.spec.length // hop)
        for row, (start, end) in enumerate(valid.tolist()):
            end = -(-end // hop)
            if end:
                latents[row, :, start // hop : end] = self._parts.encoder(samples[row, None, :, start : end * hop])[0]
        return latents

    @cached_property
    def _decoder(self) -> nn.Module:
        return self._parts.load_decoder()

    def decode(self, frames: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turns tokens `[F, k]`, `k <= K`, into samples float32 `[1, F * hop_length]`; loads the decoder at first.

        After odd strides upstream's decoder ends a few samples early; zeros are put there.
        """
        import torch

        from audioprep.encoders.slices import in_slices

        ids = torch.from_numpy(frames.astype(np.int64)).to(self.device)
        architecture, hop = self._architecture, self.spec.hop_length
        with torch.inference_mode():
            latents = self._parts.dequantize(ids).T[None]
            samples = in_slices(
                self._decoder, latents, size=_DECODED_FRAMES, context=architecture.decoder_context(), up=hop
            )[0]
        return torch.nn.functional.pad(samples, (0, len(frames) * hop - samples.shape[-1])).cpu().numpy()


class _Parts(NamedTuple):
    """A model on its device.

    Attributes:
        encoder: samples `[B, 1, T]` to latents `[B, H, F]`.
        quantize: latents `[F, H]`, which it may overwrite, to ids `[F, K]`.
        dequantize: ids `[F, k]` to latents `[F, H]`.
        load_decoder: gives what turns latents `[B, H, F]` into samples `[B, 1, T]`.
    """

    encoder: nn.Module
    quantize: Callable[[Tensor], Tensor]
    dequantize: Callable[[Tensor], Tensor]
    load_decoder: Callable[[], nn.Module]


def _transformers(checkpoint: Checkpoint, num_codebooks: int, device: torch.device, at_once: bool) -> _Parts:
    from audioprep.encoders.dac_layers import Quantizer, SlicedEncoder, replace_snakes

    model = load_part(checkpoint, "encoder")
    encoder, quantizer = model.encoder.to(device), Quantizer(model.quantizer.to(device), num_codebooks)
    if at_once:
        replace_snakes(encoder)
    else:
        encoder = SlicedEncoder(encoder)

    def load_decoder() -> nn.Module:
        decoder = load_part(checkpoint, "decoder").decoder.to(device)
        replace_snakes(decoder)
        return decoder

    return _Parts(encoder, quantizer.encode, quantizer.decode, load_decoder)


def _descript(checkpoint: Checkpoint, num_codebooks: int, device: torch.device, at_once: bool) -> _Parts:
    """The published package as it is."""
    import dac

    model = dac.DAC(**descript_arguments(checkpoint.architecture))
    load_strict(model, descript_tensors(checkpoint), checkpoint.path)
    model = model.requires_grad_(False).eval().to(device)
    return _Parts(
        model.encoder,
        lambda rows: model.quantizer(rows.T[None], num_codebooks)[1][0].T,
        lambda ids: model.quantizer.from_codes(ids.T[None])[0][0].T,  # pyright: ignore[reportIndexIssue]
        lambda: model.decoder,
    )


_PARTS = {"transformers": _transformers, "descript": _descript}
