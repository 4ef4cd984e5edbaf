"""HeartCodec's query transformer: features of 25 Hz to 12.5 Hz, each pair of frames summed up by a learned query.

Shapes: `B` windows, `F` frames of tokens, `L` places of a sequence, `D` dimensions, `H` dimensions of a head. Names of
layers are those of the published checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class QueryEncoder(nn.Module):
    """Fuses the four features, and lets a query after each `interval` frames attend to the whole window.

    Args:
        config: `dim`, `num_layers`, `head_dim`, `interval`.
        music: width of each of the music encoder's two features, of both channels.
        whisper: of Whisper's.
        wavlm: of WavLM's.
    """

    def __init__(self, config: dict[str, Any], music: int, whisper: int, wavlm: int) -> None:
        super().__init__()
        dim, self._interval = config["dim"], config["interval"]
        self.cond_fusion_layer_semantic = nn.Linear(music, dim)
        self.cond_fusion_layer_acoustic = nn.Linear(music, dim)
        self.cond_fusion_layer_phone = nn.Linear(wavlm, dim)
        self.feature_proj = nn.Linear(3 * dim + whisper, dim)
        self.cls_token = nn.Parameter(torch.empty(1, dim))
        blocks = (_Block(dim, config["head_dim"]) for _ in range(config["num_layers"]))
        self.encoder_transformers = nn.Sequential(*blocks)

    def forward(self, acoustic: Tensor, semantic: Tensor, whisper: Tensor, wavlm: Tensor) -> Tensor:
        """Features `[B, interval * F, width]` to `[B, F, D]`."""
        parts = (
            self.cond_fusion_layer_acoustic(acoustic),
            self.cond_fusion_layer_semantic(semantic),
            whisper,
            self.cond_fusion_layer_phone(wavlm),
        )
        groups = self.feature_proj(torch.cat(parts, dim=-1)).unflatten(1, (-1, self._interval))
        queries = self.cls_token.expand(*groups.shape[:2], 1, -1)
        sequence = torch.cat([groups, queries], dim=2).flatten(1, 2)
        return self.encoder_transformers(sequence)[:, self._interval :: self._interval + 1]


class _Block(nn.Module):
    """Attention and a gated feed-forward layer, both added with a learned scale (Touvron et al. 2021, LayerScale,
    arXiv 2103.17239)."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.self_attn = _Attention(dim, head_dim)
        self.self_attn_scale = _Scale(dim)
        self.ff = _FeedForward(dim)
        self.ff_scale = _Scale(dim)
        self.rope = _Rotary(max(head_dim // 2, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn_scale(self.self_attn(x, self.rope(x.shape[1])))
        return x + self.ff_scale(self.ff(x))


class _Attention(nn.Module):
    """Heads with normalized queries and keys."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self._head_dim = head_dim
        self.to_qkv = weight_norm(nn.Linear(dim, 3 * dim, bias=False))
        self.to_out = weight_norm(nn.Linear(dim, dim, bias=False))
        self.q_norm = nn.LayerNorm(head_dim)
        self.k_norm = nn.LayerNorm(head_dim)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (-1, self._head_dim)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        queries, keys = _rotate(self.q_norm(queries), angles), _rotate(self.k_norm(keys), angles)
        return self.to_out(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


class _Rotary(nn.Module):
    """Angles of rotary positions (Su et al. 2021, arXiv 2104.09864)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.empty(dim // 2))
        self.inv_freq: Tensor

    def forward(self, length: int) -> Tensor:
        """`[L, H']`, for the first `H'` dimensions of a head."""
        places = torch.arange(length, device=self.inv_freq.device, dtype=torch.float32)
        return torch.outer(places, self.inv_freq.float()).repeat(1, 2)


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns the first dimensions of heads `[B, heads, L, H]`; dimension i goes with i + H' / 2."""
    width = angles.shape[-1]
    turned, rest = x[..., :width].float(), x[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


class _FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        # The places of two layers of training, which do nothing here.
        self.ff = nn.Sequential(
            _GatedLinear(dim), nn.Identity(), weight_norm(nn.Linear(4 * dim, dim)), nn.Identity()
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class _GatedLinear(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = weight_norm(nn.Linear(dim, 8 * dim))

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, dim=-1)
        return values * gate.sigmoid()


class _Scale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
