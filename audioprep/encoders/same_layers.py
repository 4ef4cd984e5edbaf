"""The encoder of SAME, Stable Audio 3's autoencoder (arXiv 2605.18613): transformer blocks over patches of samples.

The patches of a latent and one learned token make a group; what the blocks make of that token is the latent. Attention
is differential: the difference of two, over the same values (cf. Ye et al. 2024, "Differential Transformer", arXiv
2410.05258). A token sees its own chunk (SAME-S), or so many tokens to either side (SAME-L).

Names of layers are those of the published checkpoints. Shapes: `B` rows, `F` latents, `G` tokens of a group, `W` width
of a token, `H` heads, `L` tokens that attend to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audioprep.encoders.checkpoints import load_strict
from audioprep.encoders.same_config import SameConfig
from audioprep.errors import UsageError

_PREFIXES = ("", "pretransform.model.")  # of an autoencoder, and of a whole model
_NOT_OF_ENCODING = "bottleneck.noise_scaling_factor"

_Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values `[B, H, L, W / H]` to what is attended to, of the same shape."""


class SameEncoder(nn.Module):
    """
    Args:
        config: what it is made of.
    """

    def __init__(self, config: SameConfig) -> None:
        super().__init__()
        self._patch = config.patch
        self.encoder = _Encoder(config)
        self.bottleneck = _SoftNorm(config.dim)

    def forward(self, samples: Tensor, valid: Tensor) -> Tensor:
        """Samples `[B, C, F * hop]` to latents `[B, F, D]`.

        Args:
            samples: `F` is a multiple of `config.grid`.
            valid: int64 `[B, 2]`: first and one past the last latent that are the file's own; multiples of
                `config.grid`. Where a file begins or ends within the row, it does so for the attention.
        """
        patches = samples.unflatten(-1, (-1, self._patch)).transpose(1, 2).flatten(2)
        return self.bottleneck(self.encoder(patches, valid))


class _Encoder(nn.Module):
    """Patches `[B, F * stride, P]` to latents `[B, F, D]` before their bottleneck."""

    def __init__(self, config: SameConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Resampling(config), nn.Identity(), nn.Linear(config.width, config.dim)])

    def forward(self, patches: Tensor, valid: Tensor) -> Tensor:
        resampling, _, project = self.layers
        return project(resampling(patches, valid))


class _SoftNorm(nn.Module):
    """Scales and shifts each dimension, and divides by what the deviation was in training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scaling_factor = nn.Parameter(torch.empty(1, dim, 1))
        self.bias = nn.Parameter(torch.empty(1, dim, 1))
        self.running_std = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scaling_factor.mT + self.bias.mT) / self.running_std


class _Resampling(nn.Module):
    """Patches `[B, F * stride, P]` to the tokens that become latents `[B, F, W]`."""

    def __init__(self, config: SameConfig) -> None:
        super().__init__()
        self._config = config
        self.mapping = nn.Linear(config.audio_channels * config.patch, config.width)
        self.new_tokens = nn.Parameter(torch.empty(1, 1, config.width))
        self.transformers = nn.ModuleList(_Block(config) for _ in range(config.depth))

    def forward(self, patches: Tensor, valid: Tensor) -> Tensor:
        x = self.mapping(patches).unflatten(1, (-1, self._config.stride))
        x = torch.cat([x, self.new_tokens.expand(*x.shape[:2], -1, -1)], dim=2)
        x = self._sliding(x, valid) if self._config.chunk is None else self._chunked(x, valid, self._config.chunk)
        return x[:, :, -1]

    def _sliding(self, x: Tensor, valid: Tensor) -> Tensor:
        """Groups `[B, F, G, W]` after all blocks."""
        _, frames, group, _ = x.shape
        reach = self._config.reach
        attend = partial(_attend_in_band, mask=_band(valid, frames, group, reach), reach=reach)
        x = x.flatten(1, 2)
        for block in self.transformers:
            x = block(x, attend)
        return x.unflatten(1, (frames, group))

    def _chunked(self, x: Tensor, valid: Tensor, chunk: int) -> Tensor:
        """Groups `[B, F, G, W]` after all blocks."""
        if not self._config.shifted:
            return _in_chunks(self.transformers, x, chunk)
        first_half = self._config.depth // 2
        half = chunk // 2
        x = _in_chunks(self.transformers[:first_half], x, chunk)
        x = _in_chunks(self.transformers[first_half:], _repeat_ends(x, valid, half), chunk)
        return x[:, half:-half]


def _in_chunks(blocks: nn.ModuleList, x: Tensor, chunk: int) -> Tensor:
    """Groups `[B, F, G, W]`, of which `chunk` after `chunk` attend to each other."""
    shape = x.shape
    x = x.reshape(-1, chunk * shape[2], shape[3])
    for block in blocks:
        x = block(x, F.scaled_dot_product_attention)
    return x.view(shape)


def _repeat_ends(x: Tensor, valid: Tensor, count: int) -> Tensor:
    """`[B, F, …]` to `[B, F + 2 * count, …]`: the file's first `count` before it once more, and its last after it."""
    place = torch.arange(-count, x.shape[1] + count, device=x.device)
    start, end = valid.split(1, dim=1)
    place = torch.where(place < start, place + count, torch.where(place >= end, place - count, place))
    return x[torch.arange(len(x), device=x.device)[:, None], place]


def _band(valid: Tensor, frames: int, group: int, reach: tuple[int, int]) -> Tensor:
    """Which tokens the tokens of each group see, of the groups around it: `[B * F, 1, G, (left + 1 + right) * G]`.

    Nothing outside the file; but what is outside it itself may see all, for a softmax over nothing is not finite.
    """
    left, right = reach
    token = torch.arange(group, device=valid.device)[:, None]
    other = torch.arange((left + 1 + right) * group, device=valid.device) - left * group
    near = (other - token >= -left * group) & (other - token <= right * group)
    place = torch.arange(-left, frames + right, device=valid.device)
    inside = ((place >= valid[:, :1]) & (place < valid[:, 1:])).unfold(1, left + 1 + right, 1)
    seen = inside | ~inside[..., left, None]
    return (near & seen.repeat_interleave(group, dim=-1)[:, :, None]).flatten(0, 1)[:, None]


def _attend_in_band(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, reach: tuple[int, int]) -> Tensor:
    """Attention of each group to the groups around it, and no others: `mask` is of `_band`."""
    group, around = mask.shape[2], sum(reach) + 1

    def windows(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, reach[0] * group, reach[1] * group))
        return padded.unfold(2, around * group, group).permute(0, 2, 1, 4, 3).flatten(0, 1)

    shape = queries.shape
    queries = queries.unflatten(2, (-1, group)).transpose(1, 2).flatten(0, 1)
    attended = F.scaled_dot_product_attention(queries, windows(keys), windows(values), attn_mask=mask)
    return attended.unflatten(0, (shape[0], -1)).transpose(1, 2).reshape(shape)


class _Block(nn.Module):
    """Attention and a gated feed-forward layer."""

    def __init__(self, config: SameConfig) -> None:
        super().__init__()
        self.pre_norm = _DynamicTanh(config.width)
        self.self_attn = _Attention(config.width, config.head_dim)
        self.ff_norm = _DynamicTanh(config.width)
        self.ff = _FeedForward(config.width, config.inner)
        self.rope = _Rotary(config.head_dim)

    def forward(self, x: Tensor, attend: _Attend) -> Tensor:
        """`[B, L, W]` to the same."""
        x = x + self.self_attn(self.pre_norm(x), self.rope(x.shape[1]), attend)
        return x + self.ff(self.ff_norm(x))


class _Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) in half of each head."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.empty(head_dim // 4))

    def forward(self, length: int) -> Tensor:
        """Angles `[L, D / 4]`, of pairs of a head's `D` dimensions."""
        return torch.outer(torch.arange(length, device=self.inv_freq.device), self.inv_freq)


class _DynamicTanh(nn.Module):
    """In the place of a normalization (Zhu et al. 2025, "Transformers without Normalization", arXiv 2503.10622)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1))
        self.gamma = nn.Parameter(torch.empty(dim))
        self.beta = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.gamma, torch.tanh(self.alpha * x))


class _Attention(nn.Module):
    """Differential attention of all heads."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self._head_dim = head_dim
        self.to_qkv = nn.Linear(width, 5 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.q_norm = _DynamicTanh(head_dim)
        self.k_norm = _DynamicTanh(head_dim)

    def forward(self, x: Tensor, angles: Tensor, attend: _Attend) -> Tensor:
        heads = self.to_qkv(x).unflatten(-1, (5, -1, self._head_dim)).permute(2, 0, 3, 1, 4)
        queries, keys, values, other_queries, other_keys = heads

        def attended(queries: Tensor, keys: Tensor) -> Tensor:
            queries, keys = _rotate(self.q_norm(queries), angles), _rotate(self.k_norm(keys), angles)
            return attend(queries.to(values.dtype), keys.to(values.dtype), values)

        difference = attended(queries, keys) - attended(other_queries, other_keys)
        return self.to_out(difference.transpose(1, 2).flatten(2))


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns heads `[…, L, D]` by `angles` `[L, D / 4]`; the second half of their dimensions stays."""
    pairs = angles.shape[-1]
    first, second, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ff = nn.Sequential(_Gated(width, inner), nn.Identity(), nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class _Gated(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.silu(gate)


def load_encoder(config: SameConfig, checkpoint: Path) -> SameEncoder:
    """The encoder with its weights in float32; of a whole model's checkpoint nothing else is read.

    Raises:
        UsageError: the checkpoint cannot be read, holds no such encoder, or one that does not fit the config.
    """
    with torch.device("meta"):
        model = SameEncoder(config)
    load_strict(model, _tensors(checkpoint), checkpoint, assign=True)
    return model.requires_grad_(False).eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """By the names of `SameEncoder`, without weight normalization."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            prefix = next(
                (prefix for prefix in _PREFIXES if any(key.startswith(f"{prefix}encoder.") for key in keys)), None
            )
            if prefix is None:
                raise UsageError(
                    f"{path}: holds no autoencoder's encoder (no tensors named encoder.…); give other weights"
                )
            parts = (f"{prefix}encoder.", f"{prefix}bottleneck.")
            tensors = {key.removeprefix(prefix): file.get_tensor(key).float() for key in keys if key.startswith(parts)}
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{path}: cannot be read as safetensors ({error}), which SAME comes as; no other format is opened"
        ) from error
    tensors.pop(_NOT_OF_ENCODING, None)
    _fold(tensors, "encoder.layers.0.mapping.weight")
    return tensors


def _fold(tensors: dict[str, Tensor], name: str) -> None:
    """Multiplies the weight normalization of a convolution out, and makes a linear layer of one over a single step."""
    if f"{name}_g" in tensors and f"{name}_v" in tensors:
        scale, direction = tensors.pop(f"{name}_g"), tensors.pop(f"{name}_v")
        tensors[name] = direction * (scale / torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True))
    if name in tensors:
        tensors[name] = tensors[name].squeeze(-1)
