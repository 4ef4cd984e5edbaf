"""The encoder `vae`: latents of an Oobleck autoencoder, as Stable Audio, SongBloom and ACE-Step are trained on.

Weights are a folder or repository of diffusers (`AutoencoderOobleck`; in a pipeline's repository, subfolder `vae`), or
a checkpoint of stable-audio-tools with its JSON model config. Latents are what the autoencoder gives: a model's own
scale is never applied. A file is encoded in windows that overlap by the receptive field, and comes out as if it had
been encoded whole, with zeros after it up to a whole frame.

A latent is the posterior's mean; or with `posterior: sample`, mean + std * noise. The noise of a window is drawn from
the seed and a hash of the window's samples: it depends on neither its place, nor its neighbours, nor on how often
something was drawn before. (So equal windows, such as long silence, get equal noise.)
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import load_strict, sha256_of_weights
from audioprep.encoders.receptive_field import decoder_reach, encoder_reach
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings
from audioprep.encoders.vae_config import Stack, VaeConfig, find_files, read_config
from audioprep.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

_WINDOW_FRAMES = 240
_DECODED_FRAMES = 64  # at once


class Settings(TorchSettings):
    """Settings of `vae`."""

    subfolder: str = Field(default="", description="Folder of the weights within a folder or repository.")
    config: str | None = Field(
        default=None,
        description="JSON model config of stable-audio-tools: its path, or its name beside the weights. "
        "Default: the usual names.",
    )
    posterior: Literal["mean", "sample"] = Field(default="mean", description="What a latent is.")
    seed: int = Field(default=0, ge=0, lt=2**64, description="For posterior: sample.")


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; reads the configuration, hashes the weights, and does not import torch.

    Raises:
        UsageError: weights or configuration are missing, or of another kind of autoencoder.
    """
    return _describe(settings, *_find(settings))


def load(settings: Settings) -> Vae:
    """Loads the encoder; see `describe`.

    Raises:
        UsageError: as `describe` does; or the weights do not fit the configuration.
    """
    config, checkpoint = _find(settings)
    return Vae(_describe(settings, config, checkpoint), settings, config, checkpoint)


def _find(settings: Settings) -> tuple[VaeConfig, Path]:
    path, checkpoint = find_files(settings.weights, settings.config, settings.subfolder)
    return read_config(path), checkpoint


def _describe(settings: Settings, config: VaeConfig, checkpoint: Path) -> EncoderSpec:
    hop = config.encoder.hop_length
    left, right = (-(-reach // hop) * hop for reach in encoder_reach(config.encoder.strides))
    sampling = {"seed": settings.seed, "numpy": version("numpy")} if settings.posterior == "sample" else {}
    return EncoderSpec(
        name="vae",
        kind="latents",
        sample_rate=config.sample_rate,
        channels=config.encoder.audio_channels,
        hop_length=hop,
        window=_WINDOW_FRAMES * hop,
        left_context=left,
        right_context=right,
        batch_size=batch_size(settings, cpu=1, cuda=4),
        fingerprint=sha256_of_weights([checkpoint]),
        dim=config.dim,
        settings={**numeric_settings(settings), "posterior": settings.posterior, **sampling},
    )


class Vae(TorchEncoder):
    """See the module."""

    def __init__(self, spec: EncoderSpec, settings: Settings, config: VaeConfig, checkpoint: Path) -> None:
        super().__init__(spec, settings)
        from audioprep.encoders.edges import EdgeMask
        from audioprep.encoders.oobleck import build_encoder

        self._config, self._checkpoint = config, checkpoint
        self._seed = settings.seed if settings.posterior == "sample" else None
        self._encoder = self._with_weights(build_encoder(config.encoder), "encoder")
        # Compiled code wants one shape.
        self._edges = (
            EdgeMask(self._encoder, spec.hop_length) if self.device.type == "cuda" or settings.compile else None
        )

    def _with_weights(self, model: nn.Sequential, part: Literal["encoder", "decoder"]) -> nn.Sequential:
        from audioprep.encoders.vae_keys import load_part

        model = model.to_empty(device="cpu")
        load_strict(model, load_part(self._checkpoint, self._config, part), self._checkpoint)
        return model.requires_grad_(False).eval().to(self.device)

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        out = super().encode(samples, valid)
        if self._seed is None:
            return out
        mean, std = np.split(out.astype(np.float32), 2, axis=-1)
        return mean + std * np.stack([self._noise(window, mean.shape[1:]) for window in samples])

    def _noise(self, window: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        assert self._seed is not None
        digest = hashlib.blake2b(window.tobytes(), digest_size=16, key=self._seed.to_bytes(8)).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest)))
        return generator.standard_normal(shape, np.float32)

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        import torch
        from torch.nn.functional import softplus

        parameters = self._at_once(samples, valid) if self._edges else self._by_row(samples, valid)
        first = self.spec.left_context // self.spec.hop_length
        parameters = parameters[..., first : first + _WINDOW_FRAMES].transpose(1, 2).float()
        mean, scale = parameters.chunk(2, dim=-1)
        out = mean if self._seed is None else torch.cat([mean, softplus(scale) + 1e-4], dim=-1)
        finite = out.isfinite().flatten(1).all(dim=1)
        return torch.where(finite[:, None, None], out, torch.nan)

    def _at_once(self, samples: Tensor, valid: Tensor) -> Tensor:
        """`[B, C, T]` to `[B, 2D, F]`: all windows in one go."""
        assert self._edges
        with self._edges.at(valid, self.spec.length):
            return self._encoder(samples)

    def _by_row(self, samples: Tensor, valid: Tensor) -> Tensor:
        """The same window by window, and of each only what is the file's own, which has its edges by itself."""
        from audioprep.encoders.oobleck import encode_sliced

        stack, hop = self._config.encoder, self.spec.hop_length
        out = samples.new_zeros(len(samples), stack.latent_channels, self.spec.length // hop)
        for row, (start, end) in enumerate(valid.tolist()):
            if end > start:
                end = -(-end // hop) * hop
                out[row, :, start // hop : end // hop] = encode_sliced(
                    self._encoder, stack, samples[row, None, :, start:end]
                )[0]
        return out

    @cached_property
    def _decoder(self) -> tuple[nn.Sequential, Stack]:
        from audioprep.encoders.oobleck import build_decoder

        stack = self._config.decoder
        if isinstance(stack, str):
            raise UsageError(f"{self._checkpoint}: cannot decode: of the decoder's configuration, {stack}")
        if stack.latent_channels != self.spec.dim:
            raise UsageError(
                f"{self._checkpoint}: cannot decode: the decoder takes {stack.latent_channels} channels, and a latent "
                f"has {self.spec.dim}"
            )
        return self._with_weights(build_decoder(stack), "decoder"), stack

    def decode(self, frames: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turns latents `[F, D]` into samples float32 `[C, F * hop_length]`; loads the decoder the first time.

        Raises:
            UsageError: the checkpoint or its configuration has no decoder.
        """
        import torch

        from audioprep.encoders.slices import in_slices

        decoder, stack = self._decoder
        latents = torch.from_numpy(frames.astype(np.float32).T[None]).to(self.device)
        with torch.inference_mode():
            samples = in_slices(
                decoder, latents, size=_DECODED_FRAMES, context=decoder_reach(stack.strides), up=stack.hop_length
            )
        missing = len(frames) * stack.hop_length - samples.shape[-1]  # after odd strides
        return torch.nn.functional.pad(samples[0], (0, missing)).cpu().numpy()
