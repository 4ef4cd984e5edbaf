"""The files of a training run: checkpoints, and the log of its loss. They lie in a folder, or in a store."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from audioprep.engine.commit import atomic_path
from audioprep.errors import UsageError
from audioprep.storage.files import fetch, read_bytes, remove_folder, send
from audioprep.storage.places import Place
from audioprep.storage.publish import working_path

LATEST = "latest.pt"


class RunFiles:
    """Where a run's files are written.

    Attributes:
        out: the run's folder, or its URL.
        folder: that of the run; or, where it is in a store, one on this machine, from which all is sent with every
            checkpoint, so that a run on any machine goes on from there.
    """

    def __init__(self, out: Place) -> None:
        self.out = out
        self.folder = working_path(out)
        if not isinstance(out, Path):
            remove_folder(self.folder)  # what counts is in the store
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any], names: Sequence[str]) -> None:
        """Writes a checkpoint by several names, and sends all that is new.

        Raises:
            UsageError: there is no such store, or it gives no permission.
            SystemFault: it does not answer.
        """
        for name in names:
            with atomic_path(self.folder / name, self.folder) as temporary:
                torch.save(state, temporary)
        self.send()

    def send(self) -> None:
        """Sends what was written, if it goes to a store; the checkpoint that a run goes on from is the last."""
        if isinstance(self.out, Path):
            return
        for path in sorted(self.folder.iterdir(), key=lambda path: (path.name == LATEST, path.name)):
            send(path, self.out / path.name)
            if path.suffix == ".pt":
                path.unlink()


def read_checkpoint(place: Place, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `RunFiles.save` wrote, its tensors on `device`.

    Raises:
        FileNotFoundError: there is none.
        SystemFault: the store that has it does not answer.
    """
    if isinstance(place, Path):
        return torch.load(place, map_location=device, weights_only=True)
    with tempfile.NamedTemporaryFile(prefix="audioprep-") as file:
        fetch(place, Path(file.name))
        return torch.load(file.name, map_location=device, weights_only=True)


def load_checkpoint(place: Place, fixed: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, if there is one.

    Raises:
        UsageError: it was made with other settings.
        SystemFault: the store that has it does not answer.
    """
    try:
        state = read_checkpoint(place)
    except FileNotFoundError:
        return None
    old = state["fixed"]
    changed = [f"{name} was {old.get(name)}, is {now}" for name, now in fixed.items() if old.get(name) != now]
    if changed:
        raise UsageError(f"{place}: made with other settings: {', '.join(changed)}. Keep them, or change --out.")
    return state


class LossLog:
    """`loss.jsonl`, TensorBoard events and `loss.png`; what came after the step `start` is forgotten.

    Args:
        files: of the run.
        start: step after which it goes on.
    """

    def __init__(self, files: RunFiles, start: int) -> None:
        self._files = files
        self.path = files.folder / "loss.jsonl"
        try:
            lines = read_bytes(files.out / self.path.name).decode().splitlines()[:start]
        except FileNotFoundError:
            lines = []
        self.path.write_text("".join(f"{line}\n" for line in lines))
        rows = [json.loads(line) for line in lines]
        self.losses: list[float] = [row["loss"] for row in rows]
        self.best = min((row["compared"] for row in rows if "compared" in row), default=math.inf)
        self.board = SummaryWriter(str(files.folder), purge_step=start)

    def save(self, state: dict[str, Any], names: Sequence[str]) -> None:
        """Writes a checkpoint by several names; the log that goes with it is there, too."""
        self.board.flush()
        self._files.save(state, names)

    def add(self, step: int, **values: float) -> None:
        self.losses.append(values["loss"])
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> dict[str, float]:
        """Draws the curve, and sends all; returns the mean loss of the first and of the last ten steps."""
        self.board.close()
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, len(self.losses) + 1), self.losses)
        axes.set(xlabel="step", ylabel="loss (nats a token)")
        figure.savefig(self.path.with_suffix(".png"), dpi=120)
        self._files.send()
        first, last = self.losses[:10], self.losses[-10:]
        return {"first_loss": sum(first) / len(first), "last_loss": sum(last) / len(last)}
