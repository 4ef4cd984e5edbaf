"""The layers of the Oobleck autoencoder (Evans et al. 2024, "Fast Timing-Conditioned Latent Audio Diffusion",
arXiv 2402.04825), as stable-audio-tools and diffusers define them, built to run fast on a CPU.

Weights come without weight normalization and without logarithms (`audioprep.encoders.vae_keys`). A layer's name is its
place: `3.0.1` is the first convolution of the first residual unit of the third level.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from audioprep.encoders.receptive_field import RESIDUAL_REACH
from audioprep.encoders.slices import in_slices
from audioprep.encoders.vae_config import Stack

_SLICE = 8192  # time steps at a level's rate: few enough that a level's tensors stay in a processor's cache


class Snake(nn.Module):
    """`x + (gain * sin(alpha * x))²`, with `alpha` and `gain` of each channel.

    Ziyin et al. 2020, "Neural Networks Fail to Learn Periodic Functions and How to Fix It", arXiv 2006.08195; with
    `gain² = 1 / beta` it is the variant of BigVGAN, SnakeBeta.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels, 1))
        self.gain = nn.Parameter(torch.empty(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        wave = (x * self.alpha).sin_().mul_(self.gain)
        return torch.addcmul(x, wave, wave)


class ResidualUnit(nn.Sequential):
    """Two convolutions beside an identity."""

    def __init__(self, stack: Stack, channels: int, dilation: int) -> None:
        super().__init__(
            _activation(stack, channels),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            _activation(stack, channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).add_(input)


def build_encoder(stack: Stack) -> nn.Sequential:
    """Samples `[B, C, F * hop]` to `[B, latent_channels, F]`, without weights."""
    widths = stack.widths
    with torch.device("meta"):
        levels = [
            nn.Sequential(
                *_residual_units(stack, width),
                _activation(stack, width),
                nn.Conv1d(width, deeper, 2 * stride, stride=stride, padding=math.ceil(stride / 2)),
            )
            for width, deeper, stride in zip(widths, widths[1:], stack.strides, strict=False)
        ]
        return nn.Sequential(
            nn.Conv1d(stack.audio_channels, stack.width, 7, padding=3),
            *levels,
            _activation(stack, widths[-1]),
            nn.Conv1d(widths[-1], stack.latent_channels, 3, padding=1),
        )


def build_decoder(stack: Stack) -> nn.Sequential:
    """Latents `[B, latent_channels, F]` to samples `[B, C, F * hop]`, without weights.

    Each odd stride leaves out a sample at the end.
    """
    widths = stack.widths[::-1]
    with torch.device("meta"):
        levels = [
            nn.Sequential(
                _activation(stack, width),
                nn.ConvTranspose1d(width, shallower, 2 * stride, stride=stride, padding=math.ceil(stride / 2)),
                *_residual_units(stack, shallower),
            )
            for width, shallower, stride in zip(widths, widths[1:], stack.strides[::-1], strict=False)
        ]
        return nn.Sequential(
            nn.Conv1d(stack.latent_channels, widths[0], 7, padding=3),
            *levels,
            _activation(stack, stack.width),
            nn.Conv1d(stack.width, stack.audio_channels, 7, padding=3, bias=False),
            *(nn.Tanh() for _ in range(stack.tanh)),
        )


def _activation(stack: Stack, channels: int) -> nn.Module:
    return Snake(channels) if stack.snake else nn.ELU()


def _residual_units(stack: Stack, channels: int) -> list[nn.Module]:
    return [ResidualUnit(stack, channels, dilation) for dilation in (1, 3, 9)]


def encode_sliced(encoder: nn.Sequential, stack: Stack, samples: Tensor) -> Tensor:
    """What `encoder(samples)` gives, computed slice by slice within each level.

    On a CPU this takes about three quarters of the time: what a layer gives is still in the cache when the next one
    reads it, and no time goes into fetching fresh pages from the system.

    Args:
        encoder: of `build_encoder`.
        stack: of the same.
        samples: `[B, C, F * hop]`.

    Returns:
        `[B, latent_channels, F]`.
    """
    for number, stride in enumerate(stack.strides):
        # The convolution before the first level reaches 3 samples further than the level itself.
        level = encoder[:2] if number == 0 else encoder[number + 1]
        context = -(-(RESIDUAL_REACH + 3) // stride) * stride + 2 * stride
        samples = in_slices(level, samples, size=_SLICE // stride * stride, context=context, down=stride)
    return encoder[len(stack.strides) + 1 :](samples)
