"""A small decoder-only transformer over the tokens of several codebooks: shards in, checkpoints out.

Codebook `k` is delayed by `k` frames, so that one step predicts all codebooks and each of them still sees
the coarser ones of its frame (the delay pattern of MusicGen, Copet et al. 2023, arXiv 2306.05284). The file
is read from top to bottom: settings, delay pattern, model, loss; the loop is that of all
trainers (`audioprep.training.fit`). It is the model for how thin a trainer is:

    python trainers/token_lm.py SHARDS --out RUN
    torchrun --nproc-per-node 8 trainers/token_lm.py SHARDS --out RUN

Shapes: `B` items, `F` frames, `S = F + K - 1` steps, `K` codebooks, `N` codewords; the id `N` means "none".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from audioprep.errors import UsageError
from audioprep.shards.dataset import open_dataset
from audioprep.storage.places import Place
from audioprep.training import Loss, TrainerSettings, command_line, fit, training_device

COLUMN = "audio_tokens"


class Settings(TrainerSettings):
    """Settings of the trainer `token-lm`."""

    width: int = Field(default=192, ge=8, description="Dimensions of the model; a multiple of heads.")
    depth: int = Field(default=4, ge=1, description="Layers.")
    heads: int = Field(default=4, ge=1, description="Attention heads.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of activations dropped in training.")
    max_frames: int = Field(default=256, ge=1, description="Frames of an item that are used.")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


# What a checkpoint fixes; the other settings may change when a run goes on.
FIXED = ("batch_size", "width", "depth", "heads", "max_frames", "seed")


def delay(tokens: Tensor, fill: int) -> Tensor:
    """Shifts codebook `k` by `k` steps: `[B, F, K]` to `[B, F + K - 1, K]`, with `fill` where nothing is."""
    batch, frames, codebooks = tokens.shape
    out = tokens.new_full((batch, frames + codebooks - 1, codebooks), fill)
    for k in range(codebooks):
        out[:, k : k + frames, k] = tokens[:, :, k]
    return out


def undelay(steps: Tensor) -> Tensor:
    """The inverse of `delay`: `[B, F + K - 1, K]` to `[B, F, K]`."""
    codebooks = steps.shape[2]
    frames = steps.shape[1] - codebooks + 1
    return torch.stack([steps[:, k : k + frames, k] for k in range(codebooks)], dim=2)


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each behind a norm and beside a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        x = x + F.dropout(self.proj(mixed.transpose(1, 2).flatten(2)), dropout)
        return x + F.dropout(self.mlp(self.norm2(x)), dropout)


class TokenLM(nn.Module):
    """Embeddings of the `K` codebooks summed, transformer blocks, and one linear head a codebook."""

    def __init__(self, codebooks: int, size: int, settings: Settings) -> None:
        super().__init__()
        self.codebooks, self.size = codebooks, size
        width = settings.width
        self.embedding = nn.Embedding(codebooks * (size + 1), width)
        self.position = nn.Embedding(settings.max_frames + codebooks - 1, width)
        blocks = (Block(width, settings.heads, settings.dropout) for _ in range(settings.depth))
        self.blocks = nn.Sequential(*blocks, nn.RMSNorm(width))
        self.heads = nn.Linear(width, codebooks * size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, steps: Tensor) -> Tensor:
        """Logits `[B, S, K, N]` of what follows each of the delayed steps `[B, S, K]`."""
        offsets = torch.arange(self.codebooks, device=steps.device) * (self.size + 1)
        x = self.embedding(steps + offsets).sum(dim=2) + self.position.weight[: steps.shape[1]]
        return self.heads(self.blocks(x)).unflatten(-1, (self.codebooks, self.size))


def loss_of(model: nn.Module, tokens: Tensor, mask: Tensor, none: int) -> Tensor:
    """Mean cross-entropy in nats of all real tokens `[B, F, K]`, each from the steps before it."""
    target = delay(tokens.masked_fill(~mask[..., None], none), none)
    steps = F.pad(target[:, :-1], (0, 0, 1, 0), value=none)
    return F.cross_entropy(model(steps).float().flatten(0, 2), target.flatten(), ignore_index=none)


def train(settings: Settings) -> dict[str, Any]:
    """Trains until `settings.steps`; the same call again goes on from the last checkpoint.

    Returns:
        see `audioprep.training.fit`.

    Raises:
        UsageError: no shard set with tokens, or a checkpoint of other settings.
    """
    codebooks, size = token_shape(settings.shards)
    fixed = settings.model_dump(include=set(FIXED)) | {"codebooks": [codebooks, size]}

    def of_batch(network: nn.Module, batch: dict[str, Any]) -> Loss:
        tokens, mask = batch[COLUMN].to(device), batch[f"{COLUMN}_mask"].to(device)
        return Loss(loss_of(network, tokens, mask, size), codebooks * int(mask.sum()), {})

    with training_device(settings.device) as device:
        torch.manual_seed(settings.seed)
        model = TokenLM(codebooks, size, settings).to(device)
        return fit(settings, fixed, model, of_batch, [COLUMN], max_frames=settings.max_frames)


def token_shape(shards: Place) -> tuple[int, int]:
    """Number of codebooks and their size, from `dataset.json`."""
    try:
        spec = open_dataset(shards).encoders[COLUMN]
        return int(spec["num_codebooks"]), int(spec["codebook_size"])
    except (UsageError, KeyError, TypeError) as error:
        remedy = "make one with `audioprep tokenize`"
        raise UsageError(f"{shards}: no shard set with {COLUMN} ({error!r}); {remedy}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the settings as options, a summary as JSON on stdout; returns the exit code."""
    return command_line(Settings, train, "Trains a small transformer on a shard set's tokens.", argv)


if __name__ == "__main__":
    sys.exit(main())
