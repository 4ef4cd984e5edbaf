"""The transformer of HeartCodec's flow matching: two stacks of gated blocks, the second twice as wide, in which a time
shifts and scales what goes into each layer (adaLN-single, Chen et al. 2024, "PixArt-α", arXiv 2310.00426).

Names of layers are those of the published checkpoint. Shapes: `B` rows, `L` frames of latents, `D` dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TIME_WIDTH = 512
_MULTIPLE = 256  # to which the inner width of a feed-forward layer is rounded up


class FlowTransformer(nn.Module):
    """
    Args:
        config: the decoder's configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        given, heads = config["in_channels"], config["num_attention_heads"]
        dim = heads * config["attention_head_dim"]
        self.proj_in = _Projection(given, dim)
        self.transformer_blocks = nn.ModuleList(_Block(dim, heads) for _ in range(config["num_layers"]))
        self.transformer_blocks_2 = nn.ModuleList(_Block(2 * dim, heads) for _ in range(config["num_layers_2"]))
        self.connection_proj = _Projection(given + dim, 2 * dim)
        self.scale_shift_table = nn.Parameter(torch.empty(2, dim))
        self.scale_shift_table_2 = nn.Parameter(torch.empty(2, 2 * dim))
        self.proj_out = _Projection(2 * dim, config["out_channels"])
        self.adaln_single = _Modulation(dim)
        self.adaln_single_2 = _Modulation(2 * dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Latents, known latents and condition side by side `[B, L, D]`, at times `[B]` from 0 to 1, to slopes."""
        first = _stack(self.proj_in(x), time, self.adaln_single, self.transformer_blocks, self.scale_shift_table)
        both = self.connection_proj(torch.cat([x, first], dim=-1))
        second = _stack(both, time, self.adaln_single_2, self.transformer_blocks_2, self.scale_shift_table_2)
        return self.proj_out(second)


def _stack(x: Tensor, time: Tensor, modulation: _Modulation, blocks: nn.ModuleList, table: Tensor) -> Tensor:
    changes, embedded = modulation(time)
    for block in blocks:
        x = block(x, changes)
    shift, scale = (table + embedded[:, None]).chunk(2, dim=1)
    return _changed(F.layer_norm(x, x.shape[-1:], eps=1e-6), shift, scale)


def _changed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class _Projection(nn.Module):
    """A convolution over three frames, and a linear layer."""

    def __init__(self, given: int, dim: int) -> None:
        super().__init__()
        self.ffn_1 = nn.Conv1d(given, dim, 3, padding=1)
        self.ffn_2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn_2(self.ffn_1(x.transpose(1, 2)).transpose(1, 2) * 3**-0.5)


class _Modulation(nn.Module):
    """Times `[B]` to the six changes of each block `[B, 6, D]`, and to an embedding `[B, D]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": _TimeEmbedding(dim)})
        self.linear = nn.Linear(dim, 6 * dim)

    def forward(self, time: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.emb["timestep_embedder"](time)
        return self.linear(F.silu(embedded)).unflatten(-1, (6, -1)), embedded


class _TimeEmbedding(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(_TIME_WIDTH, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, time: Tensor) -> Tensor:
        half = _TIME_WIDTH // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
        angles = time[:, None] * rates * 1000
        return self.linear_2(F.silu(self.linear_1(torch.cat([angles.cos(), angles.sin()], dim=-1))))


class _Block(nn.Module):
    """Attention and a gated feed-forward layer, each shifted, scaled and gated by the time."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads)
        self.mlp_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mlp = _FeedForward(dim)
        self.scale_shift_table = nn.Parameter(torch.empty(6, dim))

    def forward(self, x: Tensor, changes: Tensor) -> Tensor:
        """`[B, L, D]`, changed by `[B, 6, D]`."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (self.scale_shift_table + changes).chunk(6, dim=1)
        x = x + gate * self.attn(_changed(self.attn_norm(x), shift, scale))
        return x + mlp_gate * self.mlp(_changed(self.mlp_norm(x), mlp_shift, mlp_scale))


class _Attention(nn.Module):
    """All heads, with rotary positions (Su et al. 2021, arXiv 2104.09864) of neighbouring dimensions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            layer(x).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        angles = _angles(x.shape[1], queries.shape[-1], x.device)
        attended = F.scaled_dot_product_attention(_rotate(queries, angles), _rotate(keys, angles), values)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


def _angles(length: int, dim: int, device: torch.device) -> Tensor:
    """`[L, D / 2]`."""
    rates = 1 / (10_000 ** (torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim))
    return torch.outer(torch.arange(length, device=device, dtype=torch.float32), rates)


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class _FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = math.ceil(int(8 * dim / 3) / _MULTIPLE) * _MULTIPLE
        self.gate = nn.Linear(dim, inner, bias=False)
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))
