"""What the bundled trainers share: settings, the loop, and a command line.

A trainer brings a model, a loader and a loss; `fit` does the rest, in one process or in several under torchrun.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from audioprep.encoders.device import resolve_device
from audioprep.errors import AudioprepError, UsageError
from audioprep.shards.loader import ShardLoader
from audioprep.storage.fields import PlaceField
from audioprep.training_files import LATEST, LossLog, RunFiles, load_checkpoint

logger = logging.getLogger("audioprep.train")


class TrainerSettings(BaseModel):
    """Settings of every bundled trainer."""

    model_config = ConfigDict(extra="forbid")

    shards: PlaceField = Field(description="Shard set with a column of tokens: its folder or URL.")
    out: PlaceField = Field(description="Folder for checkpoints, loss log and TensorBoard events, or its URL.")
    steps: int = Field(default=1000, ge=1, description="Steps of the optimizer in all.")
    batch_size: int = Field(default=8, ge=1, description="Items a step and process.")
    lr: float = Field(default=1e-3, gt=0, description="Highest learning rate; it falls to a tenth along a cosine.")
    warmup: int = Field(default=20, ge=0, description="Steps in which the learning rate rises.")
    seed: int = Field(default=0, description="Seed of weights, order and dropout.")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, or auto.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Arithmetic of the model's layers.")
    save_every: int = Field(default=100, ge=1, description="Steps between checkpoints.")
    keep_every: int | None = Field(default=None, ge=1, description="Steps between checkpoints that stay.")
    valid_split: str | None = Field(default=None, description="Split whose loss says which checkpoint is the best.")
    num_workers: int = Field(default=0, ge=0, description="Processes that read shards.")
    exclude: PlaceField | None = Field(default=None, description="List of items to leave out: a path or an id a line.")

    def loader(self, columns: list[str], split: str, max_frames: int | None) -> ShardLoader:
        """The loader of a split; for `train`, of whole batches in an order of the seed."""
        return ShardLoader(
            self.shards,
            split=split,
            shuffle=split == "train",
            batch_size=self.batch_size,
            columns=columns,
            seed=self.seed,
            num_workers=self.num_workers,
            exclude=self.exclude,
            # Every process gets as many batches, so one position holds for all of them.
            drop_last=split == "train" and processes()[1] > 1,
            max_frames=max_frames,
        )


class Loss(NamedTuple):
    """What a model is worth on one batch.

    Attributes:
        mean: a scalar in nats, to be made small.
        tokens: how many it is the mean of.
        parts: scalars for the log, by name.
    """

    mean: Tensor
    tokens: int
    parts: dict[str, Tensor]


LossOf = Callable[[nn.Module, dict[str, Any]], Loss]


def processes() -> tuple[int, int]:
    """The number of this process, and how many train one model (as torchrun says)."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def training_device(name: str) -> Iterator[torch.device]:
    """The device of this process; within, the processes of torchrun know each other."""
    device = torch.device(resolve_device(name))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    several = processes()[1] > 1
    if several:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        if several:
            dist.destroy_process_group()


def learning_rate(step: int, settings: TrainerSettings) -> float:
    """Rises linearly, then falls along half a cosine to a tenth of the highest rate."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * (0.1 + 0.45 * (1.0 + math.cos(math.pi * done)))


def fit(
    settings: TrainerSettings,
    fixed: dict[str, Any],
    model: nn.Module,
    loss_of: LossOf,
    columns: list[str],
    max_frames: int | None = None,
) -> dict[str, Any]:
    """Trains until `settings.steps`; the same call again goes on from the last checkpoint, as if it had never stopped.

    Writes `latest.pt`, `best.pt` (by the loss of `valid_split`; without one, by the mean of the last `save_every`
    losses), every `keep_every` steps `step-N.pt`, and the files of `LossLog`.

    Args:
        settings: of the trainer.
        fixed: what a checkpoint fixes, by name; the other settings may change when a run goes on.
        model: on its device.
        loss_of: a batch's loss by the model, which may be wrapped for several processes.
        columns: that it needs.
        max_frames: crops longer rows; see `ShardLoader`.

    Returns:
        steps, first_loss and last_loss (means of up to ten steps), tokens_per_second, seconds, checkpoint.

    Raises:
        UsageError: a checkpoint of other settings, no such columns, or too few items.
    """
    rank, world = processes()
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    loader = settings.loader(columns, "train", max_frames)
    valid = settings.loader(columns, settings.valid_split, max_frames) if settings.valid_split else None
    checkpoint = settings.out / LATEST
    start = 0
    if state := load_checkpoint(checkpoint, fixed):
        start = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        logger.info("goes on after step %d of %s", start, checkpoint)
    network = DistributedDataParallel(model) if world > 1 else model
    log = LossLog(RunFiles(settings.out), start) if rank == 0 else None
    data = _batches(loader)
    tokens_seen, began, reported = 0, time.perf_counter(), 0.0
    live = rank == 0 and sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=not live) as progress:
        bar = progress.add_task("training", total=settings.steps, completed=start)
        for step in range(start + 1, settings.steps + 1):
            # A step's random numbers depend on its own number, so no generator's state needs saving.
            torch.manual_seed((settings.seed * 2**32 + step) * world + rank)
            lr = optimizer.param_groups[0]["lr"] = learning_rate(step - 1, settings)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                loss = loss_of(network, next(data))
            optimizer.zero_grad()
            loss.mean.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            tokens_seen += world * loss.tokens
            means = torch.stack([loss.mean, *loss.parts.values()]).detach() / world
            if world > 1:
                dist.all_reduce(means)
            mean, *parts = means.tolist()
            values = {"loss": mean, "lr": lr, "grad_norm": float(norm)} | dict(zip(loss.parts, parts, strict=True))
            saves = step % settings.save_every == 0 or step == settings.steps
            if saves and valid:
                values["compared"] = _mean_loss(model, valid, loss_of)
            if not log:
                continue
            if saves and not valid:
                recent = [*log.losses, mean][-settings.save_every :]
                values["compared"] = sum(recent) / len(recent)
            log.add(step, **values)
            progress.update(bar, advance=1, description=f"loss {mean:.3f}")
            if not live and time.perf_counter() - reported > 10.0:
                reported = time.perf_counter()
                logger.info("step %d of %d, loss %.3f", step, settings.steps, mean)
            if saves:
                state = {"step": step, "fixed": fixed, "settings": settings.model_dump(mode="json")}
                for name, part in {"model": model, "optimizer": optimizer, "loader": loader}.items():
                    state[name] = part.state_dict()
                names = [LATEST]  # last: a run goes on from it, and makes anew what was not yet written
                if values["compared"] < log.best:
                    log.best = values["compared"]
                    names.insert(0, "best.pt")
                if settings.keep_every and step % settings.keep_every == 0:
                    names.insert(0, f"step-{step:07d}.pt")
                log.save(state, names)
    seconds = time.perf_counter() - began
    summary = {"steps": settings.steps, "seconds": seconds, "tokens_per_second": tokens_seen / seconds}
    return summary | {"checkpoint": str(checkpoint)} | (log.close() if log else {})


def _batches(loader: ShardLoader) -> Iterator[dict[str, Any]]:
    """One batch after the other without end, from where the loader is."""
    if not len(loader):
        raise UsageError("the split train has too few items for a batch in every process: lower batch_size")
    while True:
        yield from loader


@torch.no_grad()
def _mean_loss(model: nn.Module, loader: ShardLoader, loss_of: LossOf) -> float:
    """Of all items of a loader, which all processes share."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in loader:
        loss = loss_of(model, batch)
        sums += torch.tensor([float(loss.mean) * loss.tokens, loss.tokens])
    model.train()
    if dist.is_initialized():
        sums = sums.to(next(model.parameters()).device)
        dist.all_reduce(sums)
    total, tokens = sums.tolist()
    return total / tokens


def command_line(
    settings: type[BaseModel], function: Callable[[Any], dict[str, Any]], help: str, argv: Sequence[str] | None = None
) -> int:
    """Calls a function with settings from a command line, and prints the summary as JSON; returns the exit code.

    The first field is an argument, the others are options.
    """
    parser = argparse.ArgumentParser(description=help)
    for place, (name, field) in enumerate(settings.model_fields.items()):
        flag = "--" + name.replace("_", "-") if place else name
        parser.add_argument(flag, help=field.description, default=argparse.SUPPRESS)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        summary = function(settings(**vars(parser.parse_args(argv))))
    except (AudioprepError, ValidationError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if processes()[0] == 0:
        print(json.dumps(summary))
    return 0
