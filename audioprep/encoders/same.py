"""The encoder `same`: latents of SAME, the autoencoder of Stable Audio 3, in the sizes S (small) and L (medium).

Weights are `model.safetensors` and `model_config.json` of the autoencoder alone or of a whole model. Latents are those
of upstream's `AutoencoderModel.encode` for the whole file at once, which comes with zeros after it up to a whole
latent, and where attention is in chunks (SAME-S: two latents) up to a whole chunk; latents of that last filling alone
are left out, so that a file has those which have begun. A file is encoded in windows with as much context as the
attention reaches. There is no noise: what a config adds to the learned tokens (`mask_noise`) is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.checkpoints import sha256_of_weights
from audioprep.encoders.same_config import SameConfig, find_files, read_config
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings, batch_size, numeric_settings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_WINDOW_FRAMES = 240  # or up to a chunk more


class Settings(TorchSettings):
    """Settings of `same`."""

    config: str | None = Field(
        default=None,
        description="JSON model config: its path, or its name beside the weights. Default: model_config.json.",
    )


def describe(settings: Settings) -> EncoderSpec:
    """What comes out under these settings; reads the config, hashes the weights, and does not import torch.

    Raises:
        UsageError: weights or config are missing, or of another kind of autoencoder.
    """
    return _describe(settings, *_find(settings))


def load(settings: Settings) -> Same:
    """Loads the encoder; see `describe`.

    Raises:
        UsageError: as `describe` does; or the weights do not fit the config.
        SystemFault: the device cannot be used.
    """
    config, checkpoint = _find(settings)
    return Same(_describe(settings, config, checkpoint), settings, config, checkpoint)


def _find(settings: Settings) -> tuple[SameConfig, Path]:
    path, checkpoint = find_files(settings.weights, settings.config)
    return read_config(path), checkpoint


def _describe(settings: Settings, config: SameConfig, checkpoint: Path) -> EncoderSpec:
    hop = config.hop_length
    left, right = config.context
    return EncoderSpec(
        name="same",
        kind="latents",
        sample_rate=config.sample_rate,
        channels=config.audio_channels,
        hop_length=hop,
        window=-(-_WINDOW_FRAMES // config.grid) * config.grid * hop,
        left_context=left * hop,
        right_context=right * hop,
        batch_size=batch_size(settings, cpu=1, cuda=4),
        fingerprint=sha256_of_weights([checkpoint]),
        dim=config.dim,
        settings=numeric_settings(settings),
    )


class Same(TorchEncoder):
    """See the module."""

    def __init__(self, spec: EncoderSpec, settings: Settings, config: SameConfig, checkpoint: Path) -> None:
        super().__init__(spec, settings)
        from audioprep.encoders.same_layers import load_encoder

        self._grid = config.grid
        self._model = load_encoder(config, checkpoint).to(self.device)
        # A GPU wants batches, and compiled code one shape; a CPU is faster where it skips what is no file's own.
        self._at_once = self.device.type == "cuda" or settings.compile

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        import torch

        hop, whole = self.spec.hop_length, self._grid * self.spec.hop_length
        own = torch.stack([valid[:, 0] // hop, -(-valid[:, 1] // whole) * self._grid], dim=1)
        latents = (self._model(samples, own) if self._at_once else self._by_row(samples, own)).float()
        first, frames = (size // hop for size in (self.spec.left_context, self.spec.window))
        out = latents[:, first : first + frames]
        return torch.where(out.isfinite().all(dim=(1, 2), keepdim=True), out, torch.nan)

    def _by_row(self, samples: Tensor, own: Tensor) -> Tensor:
        """`[B, F, D]`, window by window, and of each only what is the file's own, which are latents `own` `[B, 2]`."""
        hop = self.spec.hop_length
        out = samples.new_zeros(len(samples), self.spec.length // hop, self.spec.dim or 0)
        for row, (start, end) in enumerate(own.tolist()):
            if end > start:
                all_of_it = own.new_tensor([[0, end - start]])
                out[row, start:end] = self._model(samples[row, None, :, start * hop : end * hop], all_of_it)[0]
        return out
