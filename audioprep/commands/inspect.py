"""`audioprep inspect`: what is in a shard set, how well its codebooks are used, how its latents are spread."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.commands.inspect_plot import (
    Draw,
    class_panels,
    codes_panel,
    draw_panels,
    durations_panel,
    spread_panel,
)
from audioprep.shards.columns import is_vector, to_arrays, to_vectors
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.storage.fields import PlaceField


class Settings(CommandSettings):
    """Settings of `audioprep inspect`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    plot: Path | None = Field(None, description="Save a picture of lengths, codebook usage and latents here (.png).")


class Spread:
    """Mean, standard deviation and largest magnitude of latents or embeddings, taken in one pass.

    Args:
        dim: `D`.
    """

    def __init__(self, dim: int) -> None:
        self._frames = 0
        self._sums = np.zeros((2, dim))  # of the values, of their squares
        self._absmax = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Takes frames `[F, D]`."""
        values = values.astype(np.float64)
        self._frames += len(values)
        self._sums += values.sum(0), (values**2).sum(0)
        self._absmax = float(np.abs(values).max(initial=self._absmax))

    def of_dimensions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each dimension: float64 `[D]`."""
        mean, square = self._sums / max(self._frames, 1)
        return mean, np.sqrt(np.maximum(square - mean**2, 0))

    def summary(self) -> dict[str, float]:
        """The same of all values together."""
        mean, square = self._sums.mean(1) / max(self._frames, 1)
        return {"mean": float(mean), "std": float(np.sqrt(max(square - mean**2, 0))), "absmax": self._absmax}


def run(settings: Settings, console: Console) -> Summary:
    """Counts items, hours, how often each code is used, and how latents and embeddings are spread.

    Raises:
        UsageError: the folder is no shard set.
    """
    dataset = open_dataset(settings.out)
    counts = {
        name: [np.zeros(size, np.int64) for size in _sizes(spec)]
        for name, spec in dataset.encoders.items()
        if spec["kind"] == "tokens"
    }
    spreads = {name: Spread(spec["dim"]) for name, spec in dataset.encoders.items() if name not in counts}
    durations, ids = _read(dataset, counts, spreads, console)
    summary = {
        "out": str(settings.out),
        "inputs": dataset.totals["inputs"],
        "rows": dataset.totals["rows"],
        "failures": _failures(dataset),
        "exact_copies": len(durations) - len(ids),
        "hours": dataset.totals["seconds"] / 3600,
        "splits": {name: split["rows"] for name, split in dataset.totals["splits"].items()},
    }
    if counts:
        summary["codebooks"] = {name: codebook_usage(count) for name, count in counts.items()}
    if spreads:
        summary["values"] = {name: spread.summary() for name, spread in spreads.items()}
    if settings.plot:
        draw_panels(settings.plot, list(_panels(dataset, np.array(durations), counts, spreads)))
        summary["plot"] = str(settings.plot)
    return summary


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    return {"out": str(settings.out), "plot": str(settings.plot) if settings.plot else "none"}


def _sizes(spec: dict[str, Any]) -> list[int]:
    """Of the codebooks of a column; words of scores have one of its own size for each class."""
    return spec.get("vocabulary_sizes") or [spec["codebook_size"]] * spec["num_codebooks"]


def codebook_usage(counts: Sequence[NDArray[np.int64]]) -> list[dict[str, float]]:
    """Share of the codes that occur, and perplexity (2 to the entropy: how many codes are effectively in use).

    Args:
        counts: int64 `[codebook_size]` of each codebook.
    """
    usage = []
    for row in counts:
        share = row[row > 0] / max(row.sum(), 1)
        entropy = -(share * np.log2(share)).sum()
        usage.append({"used": float((row > 0).mean()), "perplexity": float(2**entropy)})
    return usage


def _read(
    dataset: Dataset, counts: dict[str, list[NDArray[np.int64]]], spreads: dict[str, Spread], console: Console
) -> tuple[list[float], set[str]]:
    """Fills `counts` with the codes and `spreads` with the values; gives the durations, and the ids that there are."""
    durations: list[float] = []
    ids: set[str] = set()
    shards = dataset.shards()
    with console.counter("Reading shards") as counter:
        for number, shard in enumerate(shards):
            for table in read_tables(dataset, shard):
                durations += table.column("duration").to_pylist()
                ids.update(table.column("id").to_pylist())
                for name, count in counts.items():
                    codes = np.concatenate(to_arrays(table.column(name)))
                    for codebook, row in enumerate(count):
                        row += np.bincount(codes[:, codebook], minlength=len(row))
                for name, spread in spreads.items():
                    column = table.column(name)
                    for values in [to_vectors(column)] if is_vector(column.type) else to_arrays(column):
                        spread.add(values)
            counter(number + 1, len(shards))
    return durations, ids


def _failures(dataset: Dataset) -> dict[str, int]:
    path = dataset.file("failures.parquet")
    if not path.exists():  # `push` leaves it out
        return {"not here": dataset.totals["failed"]} if dataset.totals["failed"] else {}
    reasons = pq.read_table(path, columns=["error"]).column(0).to_pylist()
    return dict(Tally(reasons).most_common())


def _panels(
    dataset: Dataset,
    durations: NDArray[np.float64],
    counts: dict[str, list[NDArray[np.int64]]],
    spreads: dict[str, Spread],
) -> Iterator[Draw]:
    yield durations_panel(durations)
    for name, count in counts.items():
        if dataset.encoders[name].get("symbolic"):
            from audioprep.commands.midi import tokenizer_text
            from audioprep.symbolic.classes import token_classes

            yield from class_panels(token_classes(dataset.encoders[name], tokenizer_text(dataset, name)), count)
        else:
            yield codes_panel(name, count)
    for name, spread in spreads.items():
        yield spread_panel(name, *spread.of_dimensions())
