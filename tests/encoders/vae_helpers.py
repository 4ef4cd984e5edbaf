"""Tiny Oobleck autoencoders with random weights, in the layouts of diffusers and stable-audio-tools."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from audioprep.encoders.base import Encoder
from audioprep.stages.windows import WindowCutter

WIDTH, MULTIPLES, STRIDES = 8, (1, 2), (4, 6)
HOP = math.prod(STRIDES)


def diffusers_model(strides: tuple[int, ...] = STRIDES, seed: int = 0) -> AutoencoderOobleck:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoencoderOobleck(
            encoder_hidden_size=WIDTH,
            downsampling_ratios=list(strides),
            channel_multiples=list(MULTIPLES),
            decoder_channels=WIDTH,
            decoder_input_channels=WIDTH // 2,
            audio_channels=2,
            sampling_rate=16_000,
        )
    return randomized(model, seed)


def randomized(model: nn.Module, seed: int = 0) -> Any:
    """New weights that leave nothing at its neutral value, and no layer silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.normal_(0, 0.3, generator=generator)
            if name.endswith("weight_g"):
                tensor.abs_().add_(0.7)
    return model.eval()


class Snake(nn.Module):
    """stable-audio-tools' SnakeBeta."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(alpha * x) ** 2 / (beta + 1e-9)


class Layers(nn.Module):
    def __init__(self, *layers: nn.Module, adds: bool = False) -> None:
        super().__init__()
        self.layers, self.adds = nn.Sequential(*layers), adds

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class SatAutoencoder(nn.Module):
    """The layers of stable-audio-tools' AudioAutoencoder with its keys, from its JSON config."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoder = self._encoder(**config["model"]["encoder"]["config"])
            self.decoder = self._decoder(**config["model"]["decoder"]["config"])

    def _units(self, width: int, snake: bool) -> list[nn.Module]:
        def activation() -> nn.Module:
            return Snake(width) if snake else nn.ELU()

        return [
            Layers(
                activation(),
                weight_norm(nn.Conv1d(width, width, 7, dilation=dilation, padding=3 * dilation)),
                activation(),
                weight_norm(nn.Conv1d(width, width, 1)),
                adds=True,
            )
            for dilation in (1, 3, 9)
        ]

    def _encoder(self, in_channels, channels, c_mults, strides, latent_dim, use_snake) -> nn.Module:
        widths = [channels, *(channels * m for m in c_mults)]
        levels = [
            Layers(
                *self._units(a, use_snake),
                Snake(a) if use_snake else nn.ELU(),
                weight_norm(nn.Conv1d(a, b, 2 * s, stride=s, padding=math.ceil(s / 2))),
            )
            for a, b, s in zip(widths, widths[1:], strides, strict=False)
        ]
        return Layers(
            weight_norm(nn.Conv1d(in_channels, channels, 7, padding=3)),
            *levels,
            Snake(widths[-1]) if use_snake else nn.ELU(),
            weight_norm(nn.Conv1d(widths[-1], latent_dim, 3, padding=1)),
        )

    def _decoder(self, out_channels, channels, c_mults, strides, latent_dim, use_snake, final_tanh) -> nn.Module:
        widths = [channels, *(channels * m for m in c_mults)][::-1]
        levels = [
            Layers(
                Snake(a) if use_snake else nn.ELU(),
                weight_norm(nn.ConvTranspose1d(a, b, 2 * s, stride=s, padding=math.ceil(s / 2))),
                *self._units(b, use_snake),
            )
            for a, b, s in zip(widths, widths[1:], strides[::-1], strict=False)
        ]
        return Layers(
            weight_norm(nn.Conv1d(latent_dim, widths[0], 7, padding=3)),
            *levels,
            Snake(channels) if use_snake else nn.ELU(),
            weight_norm(nn.Conv1d(channels, out_channels, 7, padding=3, bias=False)),
            nn.Tanh() if final_tanh else nn.Identity(),
        )


def sat_config(
    strides: tuple[int, ...] = STRIDES, *, snake: bool = True, latent_dim: int = WIDTH // 2
) -> dict[str, Any]:
    """As of stable-audio-tools' `stable_audio_2_0_vae.json`, but small."""
    stack = {"channels": WIDTH, "c_mults": list(MULTIPLES), "strides": list(strides), "use_snake": snake}
    return {
        "model_type": "autoencoder",
        "sample_size": 65536,
        "sample_rate": 16_000,
        "audio_channels": 2,
        "model": {
            "encoder": {"type": "oobleck", "config": {"in_channels": 2, "latent_dim": 2 * latent_dim, **stack}},
            "decoder": {
                "type": "oobleck",
                "config": {"out_channels": 2, "latent_dim": latent_dim, "final_tanh": False, **stack},
            },
            "bottleneck": {"type": "vae"},
            "latent_dim": latent_dim,
            "downsampling_ratio": math.prod(strides),
            "io_channels": 2,
        },
        "training": {"learning_rate": 1.5e-4},
    }


def full_model_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a diffusion model around an autoencoder, as of `stable_audio_2_0.json`."""
    pretransform = {"type": "autoencoder", "iterate_batch": True, "scale": 2.0, "config": config["model"]}
    model = {"pretransform": pretransform, "conditioning": {}, "diffusion": {}, "io_channels": 4}
    return {"model_type": "diffusion_cond", "sample_rate": config["sample_rate"], "model": model}


def same_weights(model: AutoencoderOobleck, config: dict[str, Any]) -> SatAutoencoder:
    """The same autoencoder as stable-audio-tools would hold it: both have their layers in the order of computation."""
    twin = SatAutoencoder(config)

    def leaves(module: nn.Module) -> list[nn.Module]:
        return [leaf for leaf in module.modules() if next(leaf.parameters(recurse=False), None) is not None]

    for ours, theirs in zip(leaves(twin), leaves(model), strict=True):
        tensors = theirs.state_dict()
        ours.load_state_dict({key: tensors[key].reshape(own.shape) for key, own in ours.state_dict().items()})
    return twin.eval()


def save_sat(folder: Path, config: dict[str, Any], model: SatAutoencoder) -> Path:
    """A folder as of `stabilityai/stable-audio-open-1.0`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vae_config.json").write_text(json.dumps(config))
    torch.save({"state_dict": model.state_dict()}, folder / "vae_model.ckpt")
    return folder


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Stereo float32 `[2, samples]`."""
    return 0.3 * np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32)


def encode(encoder: Encoder, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A whole file's latents, `[F, D]`, window by window as the stage cuts them, in float32."""
    cutter = WindowCutter(encoder.spec)
    windows = [*cutter.push(samples), *cutter.finish()]
    rows = encoder.spec.batch_size
    found = []
    for first in range(0, len(windows), rows):
        batch = windows[first : first + rows]
        samples_in = np.zeros((rows, encoder.spec.channels, encoder.spec.length), np.float32)
        valid = np.zeros((rows, 2), np.int64)
        for row, window in enumerate(batch):
            samples_in[row], valid[row] = window.samples, (window.start, window.end)
        found.extend(encoder.encode(samples_in, valid)[: len(batch)])
    return np.concatenate(found)[: encoder.spec.num_frames(cutter.samples)]


def padded(samples: NDArray[np.float32], hop: int) -> Tensor:
    """`[1, 2, F * hop]`, as stable-audio-tools prepares a file."""
    return torch.from_numpy(np.pad(samples, ((0, 0), (0, -samples.shape[1] % hop))))[None]
