"""A small decoder-only transformer over the tokens of several codebooks: shards in, checkpoints out.

Codebook `k` is delayed by `k` frames, so that one step predicts all codebooks and each of them still sees
the coarser ones of its frame (the delay pattern of MusicGen, Copet et al. 2023, arXiv 2306.05284). The file
is read from top to bottom: settings, delay pattern, model, loop. It is the model for how thin a trainer is:

    python trainers/token_lm.py SHARDS --out RUN
    torchrun --nproc-per-node 8 trainers/token_lm.py SHARDS --out RUN

Shapes: `B` items, `F` frames, `S = F + K - 1` steps, `K` codebooks, `N` codewords; the id `N` means "none".
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from audioprep.encoders.device import resolve_device
from audioprep.engine.commit import atomic_path
from audioprep.errors import AudioprepError, UsageError
from audioprep.shards.dataset import open_dataset
from audioprep.shards.loader import ShardLoader

logger = logging.getLogger("audioprep.train.token_lm")
COLUMN = "audio_tokens"


class Settings(BaseModel):
    """Settings of the trainer `token-lm`."""

    model_config = ConfigDict(extra="forbid")

    shards: Path = Field(description="Shard set with a column of tokens.")
    out: Path = Field(description="Folder for checkpoint, loss log and TensorBoard events.")
    steps: int = Field(default=1000, ge=1, description="Steps of the optimizer in all.")
    batch_size: int = Field(default=8, ge=1, description="Items a step and process.")
    lr: float = Field(default=1e-3, gt=0, description="Highest learning rate; it falls to a tenth along a cosine.")
    warmup: int = Field(default=20, ge=0, description="Steps in which the learning rate rises.")
    width: int = Field(default=192, ge=8, description="Dimensions of the model; a multiple of heads.")
    depth: int = Field(default=4, ge=1, description="Layers.")
    heads: int = Field(default=4, ge=1, description="Attention heads.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of activations dropped in training.")
    max_frames: int = Field(default=256, ge=1, description="Frames of an item that are used.")
    seed: int = Field(default=0, description="Seed of weights, order and dropout.")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, or auto.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Arithmetic of the model's layers.")
    save_every: int = Field(default=100, ge=1, description="Steps between checkpoints.")
    num_workers: int = Field(default=0, ge=0, description="Processes that read shards.")
    exclude: Path | None = Field(default=None, description="File with items to leave out: a path or an id a line.")

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


def learning_rate(step: int, settings: Settings) -> float:
    """Rises linearly, then falls along half a cosine to a tenth of the highest rate."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * (0.1 + 0.45 * (1.0 + math.cos(math.pi * done)))


def load_checkpoint(path: Path, fixed: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, if there is one.

    Raises:
        UsageError: it was made with other settings.
    """
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    old = state["fixed"]
    changed = [f"{name} was {old.get(name)}, is {now}" for name, now in fixed.items() if old.get(name) != now]
    if changed:
        raise UsageError(f"{path}: made with other settings: {', '.join(changed)}. Keep them, or change --out.")
    return state


def batches(loader: ShardLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and mask of one batch after the other without end, from where the loader is."""
    if not len(loader):
        raise UsageError("the split train has too few items for a batch in every process: lower batch_size")
    while True:
        for batch in loader:
            yield batch[COLUMN], batch[f"{COLUMN}_mask"]


class LossLog:
    """`loss.jsonl`, TensorBoard events and `loss.png`; what came after the step `start` is forgotten."""

    def __init__(self, folder: Path, start: int) -> None:
        self.path = folder / "loss.jsonl"
        lines = self.path.read_text().splitlines()[:start] if self.path.exists() else []
        self.path.write_text("".join(f"{line}\n" for line in lines))
        self.losses: list[float] = [json.loads(line)["loss"] for line in lines]
        self.board = SummaryWriter(str(folder), purge_step=start)

    def add(self, step: int, **values: float) -> None:
        self.losses.append(values["loss"])
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> dict[str, float]:
        """Draws the curve; returns the mean loss of the first and of the last ten steps."""
        self.board.close()
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, len(self.losses) + 1), self.losses)
        axes.set(xlabel="step", ylabel="loss (nats a token)")
        figure.savefig(self.path.with_suffix(".png"), dpi=120)
        first, last = self.losses[:10], self.losses[-10:]
        return {"first_loss": sum(first) / len(first), "last_loss": sum(last) / len(last)}


def train(settings: Settings) -> dict[str, Any]:
    """Trains until `settings.steps`; the same call again goes on from the last checkpoint.

    Returns:
        steps, first_loss and last_loss (means of up to ten steps), tokens_per_second, seconds, checkpoint.

    Raises:
        UsageError: no shard set with tokens, or a checkpoint of other settings.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device(resolve_device(settings.device))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        return _train(settings, device, rank, world)
    finally:
        if world > 1:
            dist.destroy_process_group()


def _train(settings: Settings, device: torch.device, rank: int, world: int) -> dict[str, Any]:
    codebooks, size = token_shape(settings.shards)
    torch.manual_seed(settings.seed)
    model = TokenLM(codebooks, size, settings).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    loader = ShardLoader(
        settings.shards,
        batch_size=settings.batch_size,
        columns=[COLUMN],
        seed=settings.seed,
        max_frames=settings.max_frames,
        num_workers=settings.num_workers,
        exclude=settings.exclude,
        drop_last=world > 1,  # every process gets as many batches, so one position holds for all of them
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    checkpoint = settings.out / "latest.pt"
    fixed = settings.model_dump(include=set(FIXED)) | {"codebooks": [codebooks, size]}
    start = 0
    if state := load_checkpoint(checkpoint, fixed):
        start = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        logger.info("goes on after step %d of %s", start, checkpoint)
    network = DistributedDataParallel(model) if world > 1 else model
    log = LossLog(settings.out, start) if rank == 0 else None
    data = batches(loader)
    tokens_seen, began, reported = 0, time.perf_counter(), 0.0
    live = rank == 0 and sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=not live) as progress:
        bar = progress.add_task("training", total=settings.steps, completed=start)
        for step in range(start + 1, settings.steps + 1):
            # A step's random numbers depend on its own number, so no generator's state needs saving.
            torch.manual_seed((settings.seed * 2**32 + step) * world + rank)
            tokens, mask = next(data)
            lr = optimizer.param_groups[0]["lr"] = learning_rate(step - 1, settings)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                loss = loss_of(network, tokens.to(device), mask.to(device), size)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            tokens_seen += world * codebooks * int(mask.sum())
            mean = loss.detach() / world
            if world > 1:
                dist.all_reduce(mean)
            if log:
                log.add(step, loss=float(mean), lr=lr, grad_norm=float(norm))
                progress.update(bar, advance=1, description=f"loss {mean:.3f}")
                if not live and time.perf_counter() - reported > 10.0:
                    reported = time.perf_counter()
                    logger.info("step %d of %d, loss %.3f", step, settings.steps, mean)
            if log and (step % settings.save_every == 0 or step == settings.steps):
                state = {"step": step, "fixed": fixed, "settings": settings.model_dump(mode="json")}
                for name, part in {"model": model, "optimizer": optimizer, "loader": loader}.items():
                    state[name] = part.state_dict()
                with atomic_path(checkpoint, settings.out) as temporary:
                    torch.save(state, temporary)
    seconds = time.perf_counter() - began
    summary = {"steps": settings.steps, "seconds": seconds, "tokens_per_second": tokens_seen / seconds}
    return summary | {"checkpoint": str(checkpoint)} | (log.close() if log else {})


def token_shape(shards: Path) -> tuple[int, int]:
    """Number of codebooks and their size, from `dataset.json`."""
    try:
        spec = open_dataset(shards).encoders[COLUMN]
        return int(spec["num_codebooks"]), int(spec["codebook_size"])
    except (UsageError, KeyError, TypeError) as error:
        remedy = "make one with `audioprep tokenize`"
        raise UsageError(f"{shards}: no shard set with {COLUMN} ({error!r}); {remedy}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the settings as options, a summary as JSON on stdout; returns the exit code."""
    parser = argparse.ArgumentParser(description="Trains a small transformer on a shard set's tokens.")
    for name, field in Settings.model_fields.items():
        flag = name if name == "shards" else "--" + name.replace("_", "-")
        parser.add_argument(flag, help=field.description, default=argparse.SUPPRESS)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        summary = train(Settings(**vars(parser.parse_args(argv))))
    except (AudioprepError, ValidationError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
