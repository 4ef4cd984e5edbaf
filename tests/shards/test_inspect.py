"""`inspect` on sets with and without tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loader_helpers import MIXED, Item, make_mixed, write_parquet_set, write_tar_set

from audioprep.commands import inspect

COUNTED = ["id", "duration", "split", "num_frames"]


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return make_mixed(12)


def inspected(root: Path, items: list[Item], columns: list[str], write: Any = write_parquet_set) -> dict[str, Any]:
    """The summary of a set with these columns of arrays and vectors, its picture at `root/plot.png`."""
    write(root, [items], schema=pa.schema([MIXED.field(name) for name in (*COUNTED, *columns)]))
    pq.write_table(pa.table({"error": ["empty", "empty"]}), root / "failures.parquet")
    settings = inspect.Settings(out=root, plot=root / "plot.png")
    return inspect.run(settings, MagicMock())


@pytest.mark.parametrize("write", [write_parquet_set, write_tar_set])
def test_columns_of_every_kind(write: Any, tmp_path: Path, items: list[Item]) -> None:
    summary = inspected(tmp_path / "set", items, ["audio_tokens", "latents", "windows", "embedding"], write)
    assert summary["rows"] == 12
    assert summary["failures"] == {"empty": 2}
    tokens = np.concatenate([item["audio_tokens"] for item in items])
    usage = summary["codebooks"]["audio_tokens"]
    assert [book["used"] for book in usage] == [len(np.unique(codes)) / 16384 for codes in tokens.T]
    assert set(summary["values"]) == {"latents", "windows", "embedding"}
    for name, found in summary["values"].items():
        values = np.concatenate([item[name] for item in items]).astype(np.float64)
        assert found == pytest.approx({"mean": values.mean(), "std": values.std(), "absmax": np.abs(values).max()})
    assert (tmp_path / "set/plot.png").stat().st_size > 1000


@pytest.mark.parametrize("column", ["latents", "windows", "embedding"])
def test_sets_without_tokens(column: str, tmp_path: Path, items: list[Item]) -> None:
    summary = inspected(tmp_path / "set", items, [column])
    assert "codebooks" not in summary
    assert list(summary["values"]) == [column]
    assert (tmp_path / "set/plot.png").exists()


def test_sets_with_tokens_alone(tmp_path: Path, items: list[Item]) -> None:
    summary = inspected(tmp_path / "set", items, ["audio_tokens"])
    assert "values" not in summary
    assert (tmp_path / "set/plot.png").exists()


def test_each_dimension_has_its_spread() -> None:
    values = np.random.default_rng(0).normal([0, 5, -1], [1, 2, 0], (1000, 3))
    spread = inspect.Spread(3)
    for part in np.split(values.astype(np.float32), 7 * np.arange(1, 10)):
        spread.add(part)
    mean, std = spread.of_dimensions()
    assert mean == pytest.approx(values.mean(0), abs=1e-6)
    assert std == pytest.approx(values.std(0), abs=1e-3)


def test_nothing_to_take_the_spread_of() -> None:
    assert inspect.Spread(3).summary() == {"mean": 0, "std": 0, "absmax": 0}
