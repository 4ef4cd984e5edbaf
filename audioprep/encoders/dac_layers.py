"""DAC's layers (Kumar et al. 2023, arXiv 2306.06546), as they run fast: the modules of transformers, some of them
replaced by what computes the same but for rounding.

On a CPU, half of upstream's time goes into Snake, whose every step fetches fresh pages for its result from the system.
Here a level runs slice by slice, in tensors that stay in the cache, and with the channels of a time step side by
side, which makes the dilated convolutions a third faster.

Shapes: `H` channels of a latent, `F` frames, `K` codebooks, `N` codewords in each, `D` dimensions of a codeword.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, normalize, pad
from transformers.models.dac.modeling_dac import DacEncoder, DacResidualVectorQuantize, Snake1d

from audioprep.encoders.receptive_field import RESIDUAL_REACH
from audioprep.encoders.slices import in_slices

_SLICE = 1 << 20  # values in a tensor: 4 MB


class Snake(nn.Module):
    """`x + sin²(alpha x) / alpha` (Ziyin et al. 2020, arXiv 2006.08195), with fewer tensors on the way."""

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Buffer(alpha)
        self.inverse = nn.Buffer((alpha + 1e-9).reciprocal())

    def forward(self, x: Tensor) -> Tensor:
        wave = (x * self.alpha).sin_()
        return torch.addcmul(x, wave.mul_(wave), self.inverse)


def replace_snakes(model: nn.Module) -> None:
    """Puts `Snake` where upstream's Snake was."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Snake1d):
            model.set_submodule(name, Snake(layer.alpha))


class SlicedEncoder(nn.Module):
    """The encoder on a CPU, for one row; takes over the layers of the one it is made of.

    Within, tensors are `[1, C, 1, T]` in the memory format `channels_last`.
    """

    def __init__(self, encoder: DacEncoder) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        self.sizes: list[tuple[int, int]] = []
        for number, level in enumerate(encoder.block):
            down = level.get_submodule("conv1")
            assert isinstance(down, nn.Conv1d)
            (stride,) = down.stride
            self.sizes.append((stride, _SLICE // down.in_channels // stride * stride))
            self.levels.append(level if number else nn.Sequential(encoder.conv1, level))
        self.last = nn.Sequential(encoder.snake1, encoder.conv2)
        for name, layer in list(self.named_modules()):
            if isinstance(layer, Snake1d):
                self.set_submodule(name, Snake(layer.alpha[..., None]))
            elif isinstance(layer, nn.Conv1d):
                self.set_submodule(name, _Downsampling(layer) if layer.stride[0] > 1 else _Convolution(layer))

    def forward(self, samples: Tensor) -> Tensor:
        """`[1, 1, T]` to `[1, H, T / hop]`."""
        x = samples[:, :, None].to(memory_format=torch.channels_last)
        for level, (stride, size) in zip(self.levels, self.sizes, strict=True):
            context = (-(-(3 + RESIDUAL_REACH) // stride) + 1) * stride
            x = in_slices(level, x, size=size, context=context, down=stride)
        return self.last(x)[:, :, 0]


class _Convolution(nn.Module):
    """An `nn.Conv1d` of stride 1."""

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__()
        assert isinstance(layer.padding, tuple)
        self.weight, self.bias = layer.weight[:, :, None], layer.bias
        self.padding, self.dilation = (0, *layer.padding), (1, *layer.dilation)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class _Downsampling(nn.Module):
    """An `nn.Conv1d` whose kernel is two strides long, as two matrix products.

    As a convolution, its weights would be reordered in each call, which takes longer than to use them.
    """

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__()
        assert isinstance(layer.padding, tuple)
        self.stride, self.in_channels, self.bias = layer.stride[0], layer.in_channels, layer.bias
        self.padding = (0, 0, layer.padding[0], self.stride - layer.padding[0])
        kernel = layer.weight.permute(2, 1, 0).reshape(2, self.stride * self.in_channels, layer.out_channels)
        self.halves = kernel.contiguous().unbind()

    def forward(self, x: Tensor) -> Tensor:
        rows = pad(x[0, :, 0].T, self.padding).view(-1, self.stride * self.in_channels)
        assert self.bias is not None
        out = torch.addmm(torch.addmm(self.bias, rows[:-1], self.halves[0]), rows[1:], self.halves[1])
        return out.view(1, 1, *out.shape).permute(0, 3, 1, 2)


class _Codebook(NamedTuple):
    """A stage of the quantizer.

    Attributes:
        down: weight `[D, H]` and bias of the projection to where the codewords are.
        codewords: `[N, D]`.
        directions: the same, of length 1.
        squares: of the lengths of `directions`, as they are rounded, `[N]`.
        up: weight `[H, D]` and bias of the projection back.
    """

    down: tuple[Tensor, Tensor]
    codewords: Tensor
    directions: Tensor
    squares: Tensor
    up: tuple[Tensor, Tensor]


class Quantizer:
    """DAC's residual quantizer: each codebook in a few dimensions of its own, where the angle decides.

    Distances are computed as `dac` does, in float32, so that near ties fall the same way.
    """

    def __init__(self, quantizer: DacResidualVectorQuantize, num_codebooks: int) -> None:
        weights = dict(quantizer.named_parameters())
        self._codebooks: list[_Codebook] = []
        for stage in (f"quantizers.{k}" for k in range(num_codebooks)):
            down, up = (
                (weights[f"{stage}.{name}.weight"][..., 0], weights[f"{stage}.{name}.bias"])
                for name in ("in_proj", "out_proj")
            )
            codewords = weights[f"{stage}.codebook.weight"]
            directions = normalize(codewords)
            self._codebooks.append(_Codebook(down, codewords, directions, directions.pow(2).sum(1), up))

    def encode(self, rows: Tensor) -> Tensor:
        """Ids int64 `[F, K]` of the latents float32 `[F, H]`, which are overwritten with what is left over."""
        ids: list[Tensor] = []
        for book in self._codebooks:
            projected = linear(rows, *book.down)
            direction = normalize(projected)
            distance = direction.pow(2).sum(1, keepdim=True) - 2 * direction @ book.directions.T + book.squares
            ids.append(distance.argmin(1))
            # The codeword, as upstream's straight-through estimator rounds it.
            quantized = projected + (book.codewords[ids[-1]] - projected)
            rows -= linear(quantized, *book.up)
        return torch.stack(ids, 1)

    def decode(self, ids: Tensor) -> Tensor:
        """Latents `[F, H]` of ids `[F, k]`, `k <= K`."""
        vectors = [
            linear(book.codewords[column], *book.up) for book, column in zip(self._codebooks, ids.T, strict=False)
        ]
        return torch.stack(vectors).sum(0)
