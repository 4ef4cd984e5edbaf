"""`audioprep inspect`: what is in a shard set, and how well its codebooks are used."""

from __future__ import annotations

from collections import Counter as Tally
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables


class Settings(CommandSettings):
    """Settings of `audioprep inspect`."""

    out: Path = Field(description="Folder of the shard set.")
    plot: Path | None = Field(None, description="Save a picture of lengths and codebook usage here (.png).")


def run(settings: Settings, console: Console) -> Summary:
    """Counts items, hours, and how often each code is used.

    Raises:
        UsageError: the folder is no shard set.
    """
    dataset = open_dataset(settings.out)
    counts = {
        name: np.zeros((spec["num_codebooks"], spec["codebook_size"]), np.int64)
        for name, spec in dataset.encoders.items()
        if spec["kind"] == "tokens"
    }
    durations, ids = _read(dataset, counts, console)
    summary = {
        "out": str(settings.out),
        "inputs": dataset.totals["inputs"],
        "rows": dataset.totals["rows"],
        "failures": _failures(dataset),
        "exact_copies": len(durations) - len(ids),
        "hours": dataset.totals["seconds"] / 3600,
        "splits": {name: split["rows"] for name, split in dataset.totals["splits"].items()},
        "codebooks": {name: codebook_usage(count) for name, count in counts.items()},
    }
    if settings.plot:
        _plot(settings.plot, np.array(durations), counts)
        summary["plot"] = str(settings.plot)
    return summary


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do."""
    return {"out": str(settings.out), "plot": str(settings.plot) if settings.plot else "none"}


def codebook_usage(counts: NDArray[np.int64]) -> list[dict[str, float]]:
    """Share of the codes that occur, and perplexity (2 to the entropy: how many codes are effectively in use).

    Args:
        counts: int64 `[K, codebook_size]`.
    """
    usage = []
    for row in counts:
        share = row[row > 0] / max(row.sum(), 1)
        entropy = -(share * np.log2(share)).sum()
        usage.append({"used": float((row > 0).mean()), "perplexity": float(2**entropy)})
    return usage


def _read(dataset: Dataset, counts: dict[str, NDArray[np.int64]], console: Console) -> tuple[list[float], set[str]]:
    """Adds up the codes in `counts`; gives the durations, and the ids that there are."""
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
            counter(number + 1, len(shards))
    return durations, ids


def _failures(dataset: Dataset) -> dict[str, int]:
    reasons = pq.read_table(dataset.folder / "failures.parquet", columns=["error"]).column(0).to_pylist()
    return dict(Tally(reasons).most_common())


def _plot(path: Path, durations: NDArray[np.float64], counts: dict[str, NDArray[np.int64]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * (1 + len(counts))), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1 + len(counts), 1, squeeze=False)[:, 0]
    axes[0].hist(durations, bins=50, color="#4477aa")
    axes[0].set(xlabel="duration (s)", ylabel="items", title=f"{len(durations)} items")
    for axis, (name, count) in zip(axes[1:], counts.items(), strict=True):
        for codebook, row in enumerate(count):
            axis.plot(np.sort(row / max(row.sum(), 1))[::-1], label=f"codebook {codebook}")
        axis.set(xlabel="code, most used first", ylabel="share of frames", yscale="log", title=name)
        axis.legend(ncols=4, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
