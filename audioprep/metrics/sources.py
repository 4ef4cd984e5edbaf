"""Reads the embeddings that metrics compare: columns of shard sets, and files of numpy."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.errors import UsageError, nearest
from audioprep.metrics.frechet import Gaussian
from audioprep.shards.columns import is_array, is_vector, to_arrays, to_vectors, type_named
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.storage.places import Place
from audioprep.storage.transfer import read_bytes


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of a shard set's column, or of an array in a file.

    Attributes:
        name: of the folder or file, for messages.
        content: where they come from.
        column: of the shard set.
        split: only of this one; None: of all.
    """

    name: str
    content: Dataset | NDArray[np.floating]
    column: str
    split: str | None

    @property
    def spec(self) -> dict[str, Any] | None:
        """The spec of the encoder that made them, where it is known."""
        return self.content.encoders.get(self.column) if isinstance(self.content, Dataset) else None

    def batches(self) -> Iterator[NDArray[np.floating]]:
        """`[n, D]` each; where an item has several windows, each window counts.

        Raises:
            UsageError: one is not finite.
        """
        for batch in self._read():
            if not np.isfinite(batch).all():
                raise UsageError(f"{self.name}: an embedding is not finite; make {self.column} anew")
            yield batch

    def _read(self) -> Iterator[NDArray[np.floating]]:
        if not isinstance(self.content, Dataset):
            yield self.content
            return
        for shard in self.content.shards(self.split):
            for table in read_tables(self.content, shard):
                column = table.column(self.column)
                yield to_vectors(column) if is_vector(column.type) else np.concatenate(to_arrays(column))


def open_source(path: Place, column: str, split: str | None, model: str | None) -> Embeddings | Gaussian:
    """Finds embeddings, or the mean and covariance of some.

    Args:
        path: a shard set; a `.npy` `[n, D]`; a `.npz` with an array named as the column, or with `mu` and `cov`, or
            with `MODEL.mu` and `MODEL.cov` as fadtk ships them.
        column: of the shard set, or name of the array.
        split: of the shard set.
        model: which one's statistics, in a `.npz` that holds several.

    Raises:
        UsageError: there is no such thing.
    """
    if path.suffix not in (".npy", ".npz"):
        return _shard_set(open_dataset(path), column, split)
    try:
        content: Any = np.load(path if isinstance(path, Path) else io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: cannot be read as a file of numpy: {error}") from error
    if isinstance(content, np.ndarray):
        return _array(path, content, column)
    with content:
        if column in content:
            return _array(path, content[column], column)
        return _statistics(path, content, model)


def _shard_set(dataset: Dataset, column: str, split: str | None) -> Embeddings:
    folder, types = dataset.folder, dataset.columns
    if column not in types:
        raise UsageError(
            f"{folder}: has no column {column}.{nearest(column, types)} Make it with `audioprep encode --out {folder} "
            "--encoder clap-htsat-unfused`, or name another with --column."
        )
    type_ = type_named(types[column])
    if not is_vector(type_) and not (is_array(type_) and dataset.encoders.get(column, {}).get("kind") == "embedding"):
        raise UsageError(f"{folder}: {column} is {types[column]}, and no embedding; name another with --column")
    dataset.shards(split)
    return Embeddings(str(folder), dataset, column, split)


def _array(path: Place, array: NDArray[Any], column: str) -> Embeddings:
    if array.ndim != 2 or array.dtype.kind != "f":
        raise UsageError(f"{path}: holds {array.dtype} {list(array.shape)}; embeddings are floats [n, D]")
    return Embeddings(str(path), array, column, None)


def _statistics(path: Place, content: Any, model: str | None) -> Gaussian:
    models = sorted(name.removesuffix("mu").removesuffix(".") for name in content if name.split(".")[-1] == "mu")
    if model is None and len(models) == 1:
        model = models[0]
    if model is None or model not in models:
        raise UsageError(
            f"{path}: has statistics mu and cov of {', '.join(name or 'one model' for name in models) or 'no model'}; "
            "say with --model of which to take"
        )
    prefix = f"{model}." if model else ""
    try:
        mean, covariance = (content[prefix + name].astype(np.float64) for name in ("mu", "cov"))
    except KeyError as error:
        raise UsageError(f"{path}: has no {error}; give a file with both mu and cov") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UsageError(f"{path}: its mu {list(mean.shape)} and cov {list(covariance.shape)} do not belong together")
    count = prefix + "n"
    return Gaussian(mean, covariance, int(content[count]) if count in content else None)
