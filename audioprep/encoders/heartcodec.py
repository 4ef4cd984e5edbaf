"""The encoder `heartcodec`: the tokens that HeartMuLa is trained on, 8 codebooks at 12.5 frames a second.

Tokens are those of heartlib's `HeartCodec.tokenize`. It cuts a recording at 24 kHz into windows of 29.76 s that know
nothing of each other, fills the last one up with zeros, which are part of what it hears, and counts one frame more
than are whole. Features of pretrained models (`audioprep.encoders.heartcodec_features`) are fused by a transformer
(`heartcodec_query`), whose output the decoder's residual quantizer turns into ids.

The small differences between computing in one way or another move some ids. So what upstream computes on the CPU
whatever the device is (Whisper's spectrogram, the filter from 24 to 16 kHz), is computed there.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import sha256_of_weights
from audioprep.encoders.heartcodec_checkpoint import WINDOW, Checkpoint, find_checkpoint
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from audioprep.encoders.heartcodec_decoder import HeartDecoder

SAMPLE_RATE = 24_000
HOP = 1920


class Settings(TorchSettings):
    """Settings of `heartcodec`; `weights` are the encoder's."""

    decoder: str = Field(
        default="HeartMuLa/HeartCodec-oss-20260123",
        description="The decoder, which has the codebooks: a folder, or a repository of the Hub: org/name[@revision].",
    )
    num_codebooks: int | None = Field(default=None, ge=1, description="Use only the first so many codebooks.")
    backend: Literal["audioprep", "heartlib"] = Field(
        default="audioprep", description="heartlib: the package's own `tokenize`, where it is installed; slower."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of the noise that decoding starts from.")
    steps: int = Field(default=10, ge=1, description="Of decoding: more are slower.")
    guidance: float = Field(default=1.25, ge=0, description="Of decoding: how much the tokens count.")


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; hashes the encoder and the codebooks, and does not import torch.

    Raises:
        UsageError: weights are missing, are not HeartCodec's, or have fewer codebooks than asked for; or heartlib is
            not installed.
    """
    return _describe(settings, find_checkpoint(settings.weights, settings.decoder))


def load(settings: Settings) -> HeartCodec:
    """Loads the encoder and the codebooks onto the device; the rest of the decoder follows when it is needed.

    Raises:
        UsageError: as `describe`; or the weights do not fit their configuration.
        SystemFault: the device cannot be used.
    """
    checkpoint = find_checkpoint(settings.weights, settings.decoder)
    codec = HeartCodec if settings.backend == "audioprep" else HeartlibCodec
    return codec(_describe(settings, checkpoint), settings, checkpoint)


def _describe(settings: Settings, checkpoint: Checkpoint) -> EncoderSpec:
    available = checkpoint.decoder_config["num_quantizers"]
    if (settings.num_codebooks or 1) > available:
        raise UsageError(
            f"{settings.decoder}: has {available} codebooks, and num_codebooks is {settings.num_codebooks}"
        )
    backend = {"backend": settings.backend, "transformers": version("transformers")}
    if settings.backend == "heartlib":
        backend["heartlib"] = _heartlib_version()
    return EncoderSpec(
        name="heartcodec",
        kind="tokens",
        sample_rate=SAMPLE_RATE,
        channels=2,
        hop_length=HOP,
        window=WINDOW,
        left_context=0,
        right_context=0,
        batch_size=batch_size(settings, cpu=1, cuda=4),
        fingerprint=sha256_of_weights([checkpoint.encoder]),
        num_codebooks=settings.num_codebooks or available,
        codebook_size=checkpoint.decoder_config["codebook_size"],
        frame_count="one-more",
        settings=numeric_settings(settings) | {"codebooks": checkpoint.quantizer_sha256()} | backend,
    )


def _heartlib_version() -> str:
    try:
        return version("heartlib")
    except PackageNotFoundError as error:
        raise UsageError(
            "heartcodec: the backend heartlib needs the package heartlib, from https://github.com/HeartMuLa/heartlib"
        ) from error


class HeartCodec(TorchEncoder):
    """Encodes and decodes with given weights; made by `load`."""

    def __init__(self, spec: EncoderSpec, settings: Settings, checkpoint: Checkpoint) -> None:
        super().__init__(spec, settings)
        assert spec.num_codebooks
        self._settings, self._checkpoint, self._num_codebooks = settings, checkpoint, spec.num_codebooks
        # A CPU computes no window that only fills a batch, and equal channels once; a GPU wants one shape.
        self._by_row = self.device.type == "cpu" and not settings.compile
        self._load()

    def _load(self) -> None:
        from audioprep.encoders.heartcodec_model import load_encoder, load_quantizer

        self._encoder = load_encoder(self._checkpoint).to(self.device)
        self._quantizer = load_quantizer(self._checkpoint).to(self.device)

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        if not self._by_row:
            return self._tokens(self._encoder(samples))
        ids = samples.new_zeros(len(samples), WINDOW // HOP, self._num_codebooks).long()
        for row, window in enumerate(samples):
            if valid[row, 1]:
                ids[row] = self._tokens(self._encoder.window(window)[None])[0]
        return ids

    def _tokens(self, rows: Tensor) -> Tensor:
        """`[B, F, D]` to ids `[B, F, K]`, -1 in all of a window with activations that are not finite."""
        import torch

        rows = rows.float()
        with torch.autocast(self.device.type, enabled=False):
            ids = self._quantizer.encode(rows, self._num_codebooks)
        return ids.masked_fill(~rows.isfinite().all(dim=(1, 2), keepdim=True), -1)

    @cached_property
    def _decoder(self) -> HeartDecoder:
        from audioprep.encoders.heartcodec_model import load_decoder

        return load_decoder(self._checkpoint).to(self.device)

    @property
    def decoded_rate(self) -> int:
        return self._checkpoint.decoder_config["sample_rate"]

    def decode(self, frames: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turns tokens `[F, k]`, `k <= K`, into stereo at `decoded_rate`; loads the decoder at first.

        The noise that it starts from is drawn from the setting `seed`, for each call anew. Rows with an id that is no
        code, which tell a language model where a song ends, are left out.

        Returns:
            float32 `[2, F' * 3840]`.

        Raises:
            UsageError: the decoder's weights do not fit their configuration.
        """
        import torch

        ids = frames.astype(np.int64)
        ids = ids[(ids < self._checkpoint.decoder_config["codebook_size"]).all(axis=1)]
        if not len(ids):
            return np.zeros((2, 0), np.float32)
        settings, generator = self._settings, torch.Generator().manual_seed(self._settings.seed)
        shape = (2 * WINDOW // HOP, self._checkpoint.decoder_config["out_channels"])

        def noise() -> Tensor:  # of the CPU: the same for every device
            return torch.randn(shape, generator=generator).to(self.device)

        with torch.inference_mode():
            on_device = torch.from_numpy(ids).to(self.device)
            return self._decoder(on_device, settings.steps, settings.guidance, noise).numpy()


class HeartlibCodec(HeartCodec):
    """Encodes by heartlib's own `tokenize`, window by window."""

    def _load(self) -> None:
        import torch
        from heartlib.heartcodec.modeling_heartcodec import (  # pyright: ignore[reportMissingImports]
            HeartCodec as Heartlib,
        )

        decoder, encoder = self._checkpoint.decoder[0].parent, self._checkpoint.encoder.parent
        model = Heartlib.from_encoder_decoder_pretrained(str(decoder), str(encoder), dtype=torch.float32)
        self._model: Any = model.eval().to(self.device)

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        ids = samples.new_zeros(len(samples), WINDOW // HOP, self._num_codebooks).long()
        for row, window in enumerate(samples):
            if valid[row, 1]:
                ids[row] = self._model.tokenize(window, SAMPLE_RATE)[: self._num_codebooks].T
        return ids
