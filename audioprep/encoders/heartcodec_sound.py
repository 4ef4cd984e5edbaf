"""HeartCodec's scalar codec: latents of one channel, 25 a second, to and from sound at 48 kHz.

All convolutions but the decoder's first look only back. A latent is rounded to ninths, as in finite scalar quantization
(Mentzer et al. 2023, arXiv 2309.15505). Names of layers are those of the published checkpoint. Shapes: `B` channels of
sound, `T` samples, `L` latents of `D` dimensions.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

_LEVELS = 9  # between 0 and 1
_DILATIONS = (1, 3, 5, 7, 9)


class ScalarModel(nn.Module):
    """
    Args:
        config: the decoder's configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, dim, bands = config["init_channel"], config["latent_hidden_dim"], config["num_bands"]
        kernel, unit_kernel, samples = (config[n] for n in ("default_kernel_size", "res_kernel_size", "num_samples"))
        downs = list(zip(config["downsample_factors"], config["downsample_kernel_sizes"], strict=True))
        ups = list(zip(config["upsample_factors"], config["upsample_kernel_sizes"], strict=True))
        self.hop_length = samples * prod(config["upsample_factors"])
        self.encoder = nn.ModuleList(
            [
                weight_norm(_Causal(bands, width, kernel)),
                *(_Pooled(width, kernel, samples) for _ in range(samples > 1)),
                *(_Down(width * 2**level, *sizes, unit_kernel) for level, sizes in enumerate(downs)),
                weight_norm(_Causal(width * 2 ** len(downs), dim, kernel)),
            ]
        )
        widest, ahead = width * 2 ** len(ups), config["delay_kernel_size"]
        self.decoder = nn.ModuleList(
            [
                weight_norm(nn.Conv1d(dim, widest, ahead, padding=(ahead - 1) // 2)),
                *(_Up(widest // 2**level, *sizes, unit_kernel) for level, sizes in enumerate(ups)),
                *(_Repeated(width, kernel, samples) for _ in range(samples > 1)),
                weight_norm(_Causal(width, bands, kernel)),
            ]
        )

    def encode(self, samples: Tensor) -> Tensor:
        """`[B, 1, T]` to latents `[B, D, L]`, not rounded."""
        for layer in self.encoder:
            samples = layer(samples)
        return samples.tanh()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, D, L]` to `[B, 1, L * hop_length]`."""
        x = torch.round(_LEVELS * latents) / _LEVELS
        for layer in self.decoder:
            x = layer(x)
        return x


class _Causal(nn.Conv1d):
    """A convolution that sees nothing ahead."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


class _CausalTranspose(nn.ConvTranspose1d):
    """`[B, D, L]` to `[B, D', L * stride]`; the kernel is two strides long."""

    def forward(self, input: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(input)[..., : -self.stride[0]]


class _Pooled(nn.Module):
    """A convolution, and the mean of each few samples."""

    def __init__(self, width: int, kernel: int, samples: int) -> None:
        super().__init__()
        self.conv = _Causal(width, width, kernel)
        self.activation = nn.PReLU()
        self.pooling = nn.AvgPool1d(samples)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooling(self.activation(self.conv(x)))


class _Repeated(nn.Module):
    """Each sample a few times, and a convolution."""

    def __init__(self, width: int, kernel: int, samples: int) -> None:
        super().__init__()
        self._samples = samples
        self.conv = _Causal(width, width, kernel)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x.repeat_interleave(self._samples, dim=-1)))


class _Unit(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = weight_norm(_Causal(width, width, kernel, dilation=dilation))
        self.conv2 = weight_norm(_Causal(width, width, 1))
        self.activation1 = nn.PReLU()
        self.activation2 = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation2(self.conv2(self.activation1(self.conv1(x)))) + x


class _Down(nn.Module):
    """Residual units, then fewer samples of twice the width."""

    def __init__(self, width: int, factor: int, kernel: int, unit_kernel: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_Unit(width, unit_kernel, dilation) for dilation in _DILATIONS)
        down = weight_norm(_Causal(width, 2 * width, kernel, stride=factor))
        self.down_conv = nn.ModuleDict({"layer": down, "activation": nn.PReLU()})

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.convs:
            x = unit(x)
        return self.down_conv["activation"](self.down_conv["layer"](x))


class _Up(nn.Module):
    """More samples of half the width, then residual units."""

    def __init__(self, width: int, factor: int, kernel: int, unit_kernel: int) -> None:
        super().__init__()
        up = weight_norm(_CausalTranspose(width, width // 2, kernel, stride=factor))
        self.up_conv = nn.ModuleDict({"layer": up})
        self.convs = nn.ModuleList(_Unit(width // 2, unit_kernel, dilation) for dilation in _DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up_conv["layer"](x)
        for unit in self.convs:
            x = unit(x)
        return x
