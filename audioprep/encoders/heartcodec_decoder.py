"""HeartCodec's decoder: flow matching from tokens to latents, and a convolutional decoder from latents to sound.

Codewords give the condition, at two frames of latents each. A transformer tells, at each of a few Euler steps from
noise, where the latents lie (Lipman et al. 2023, "Flow Matching for Generative Modeling", arXiv 2210.02747), with
guidance away from what it tells without the condition (Ho and Salimans 2022, arXiv 2207.12598). Windows of 372 frames
overlap by 52, whose latents are given to the next window; in the sound, one fades into the other.

Names of layers are those of the published checkpoint. Shapes: `B` rows, `F` frames of tokens, `L = 2 F` frames of
latents, `D` dimensions, `K` codebooks, `C = 2` channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from audioprep.encoders.heartcodec_rvq import ResidualQuantizer
from audioprep.encoders.heartcodec_sound import ScalarModel
from audioprep.encoders.heartcodec_transformer import FlowTransformer

WINDOW = 372
"""Frames of tokens that are decoded at once."""
HOP = 320
_OVERLAP = WINDOW - HOP


class HeartDecoder(nn.Module):
    """
    Args:
        config: the decoder's configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.flow_matching = FlowMatching(config)
        self.scalar_model = ScalarModel(config)

    def forward(self, ids: Tensor, steps: int, guidance: float, noise: Callable[[], Tensor]) -> Tensor:
        """
        Args:
            ids: int64 `[F, k]`, `F` at least 1, `k` at most `K`.
            steps: of Euler's method.
            guidance: weight of the condition; up to 1 there is no guidance.
            noise: gives the noise of the next window, float32 `[2 * WINDOW, D]`, on the same device.

        Returns:
            float32 `[C, F * hop]` on the CPU. (Of 104 + 320 n frames upstream leaves out the last 52.)
        """
        hop = 2 * self.scalar_model.hop_length
        fade = torch.linspace(0, 1, _OVERLAP * hop, dtype=torch.float64)
        out = torch.zeros(2, (_windows(len(ids)) * HOP + _OVERLAP) * hop)
        for number, latents in enumerate(self._latents(ids, steps, guidance, noise)):
            channels = latents.unflatten(-1, (2, -1)).permute(1, 2, 0)
            sound = self.scalar_model.decode(channels)[:, 0].cpu()
            start = number * HOP * hop
            if number:
                both = slice(start, start + len(fade))
                out[:, both] = (out[:, both] * (1 - fade) + sound[:, : len(fade)] * fade).float()
                sound, start = sound[:, len(fade) :], both.stop
            out[:, start : start + sound.shape[1]] = sound
        return out[:, : len(ids) * hop]

    def _latents(self, ids: Tensor, steps: int, guidance: float, noise: Callable[[], Tensor]) -> Iterator[Tensor]:
        """The latents `[2 * WINDOW, D]` of each window; what is too short is repeated."""
        known = None
        for number in range(_windows(len(ids))):
            places = torch.arange(number * HOP, number * HOP + WINDOW, device=ids.device) % len(ids)
            latents = self.flow_matching.sample(ids[places], known, steps, guidance, noise())
            known = latents[2 * HOP :]
            yield latents


def _windows(frames: int) -> int:
    return max(1, math.ceil((frames - _OVERLAP) / HOP))


class FlowMatching(nn.Module):
    """The quantizer, and the transformer that it conditions."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim = config["dim"]
        self.vq_embed = ResidualQuantizer(config)
        self.cond_feature_emb = nn.Linear(dim, dim)
        self.zero_cond_embedding1 = nn.Parameter(torch.empty(dim))  # of training
        self.estimator = FlowTransformer(config)

    def sample(self, ids: Tensor, known: Tensor | None, steps: int, guidance: float, noise: Tensor) -> Tensor:
        """
        Args:
            ids: int64 `[F, k]`.
            known: `[l, D]`, the first of the latents where they are known.
            steps: see `HeartDecoder.forward`.
            guidance: likewise.
            noise: float32 `[L, D]`.

        Returns:
            Latents `[L, D]`.
        """
        condition = self.cond_feature_emb(self.vq_embed.decode(ids)).repeat_interleave(2, dim=0)
        conditions = [torch.zeros_like(condition), condition] if guidance > 1 else [condition]
        context = torch.zeros_like(noise)
        count = 0 if known is None else len(known)
        if known is not None:
            context[:count] = known
        x, times = noise.clone(), torch.linspace(0, 1, steps + 1, device=noise.device)
        time = times[0]
        for until in times[1:]:
            x[:count] = (1 - (1 - 1e-6) * time) * noise[:count] + time * context[:count]
            rows = torch.stack([torch.cat([x, context, one], dim=1) for one in conditions])
            slopes = self.estimator(rows, time.expand(len(rows)))
            slope = slopes[0] + guidance * (slopes[1] - slopes[0]) if guidance > 1 else slopes[0]
            step = until - time  # not all the same: times are rounded
            x, time = x + step * slope, time + step
        x[:count] = context[:count]
        return x
