"""From the shards of a corpus to files of counts, one a shard, which are kept for the next run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.dedup.histograms import Binning, Mode, write
from audioprep.encoders.base import EncoderSpec
from audioprep.engine.commit import atomic_path, digest
from audioprep.errors import UsageError, nearest
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import Dataset
from audioprep.shards.tables import read_tables


def tokens_of(dataset: Dataset, column: str) -> EncoderSpec:
    """The spec of a column of tokens.

    Raises:
        UsageError: there is no such column.
    """
    # Words of scores have no rate, and are no codes of sound.
    audio = {name: encoder for name, encoder in dataset.encoders.items() if "sample_rate" in encoder}
    specs = {name: EncoderSpec.from_dict(encoder) for name, encoder in audio.items()}
    tokens = [name for name, spec in specs.items() if spec.kind == "tokens"]
    if column not in tokens:
        raise UsageError(
            f"{dataset.folder}: has no tokens in a column {column}.{nearest(column, tokens)} "
            + (f"There are: {', '.join(tokens)}." if tokens else "Make them with `audioprep tokenize`.")
        )
    return specs[column]


def binning_of(spec: EncoderSpec, mode: Mode, first: int) -> Binning:
    """The bins of an encoder's tokens."""
    assert spec.num_codebooks and spec.codebook_size
    return Binning(mode, spec.num_codebooks, spec.codebook_size, first)


def count_shards(
    dataset: Dataset,
    column: str,
    binning: Binning,
    seconds: float,
    folder: Path,
    on_shards: Callable[[int, int], None],
) -> list[Path]:
    """Counts the tokens of each recording; what an earlier run has counted of the same shards is taken over.

    Args:
        dataset: the shard set.
        column: of tokens.
        binning: which bins are counted.
        seconds: only the first so many of each recording; 0: all.
        folder: for the files.
        on_shards: called with the number of shards done and of all.

    Returns:
        The files, in the order of the shards; see `audioprep.dedup.histograms.SCHEMA`.
    """
    spec = tokens_of(dataset, column)
    frames = round(seconds * spec.frame_rate) or None
    shards = dataset.shards()
    paths: list[Path] = []
    for number, shard in enumerate(shards, start=1):
        what = [shard["sha256"], column, binning.mode, binning.first, frames]
        path = folder / f"{Path(shard['path']).stem}-{digest(what)[:16]}.arrow"
        if not path.exists():
            rows = [row for table in read_tables(dataset, shard) for row in _rows(table, column, binning, frames)]
            with atomic_path(path, folder / "scratch") as temporary:
                write(rows, temporary)
        paths.append(path)
        on_shards(number, len(shards))
    return paths


def _rows(table: Any, column: str, binning: Binning, frames: int | None) -> list[dict[str, Any]]:
    plain = zip(*(table.column(name).to_pylist() for name in ("id", "uri", "split", "duration")), strict=True)
    rows = []
    for (id_, uri, split, seconds), tokens in zip(plain, to_arrays(table.column(column)), strict=True):
        bins, counts = binning.count(tokens[:frames])
        rows.append(
            {
                "id": id_,
                "uri": uri,
                "split": split,
                "seconds": seconds,
                "bytes": _size(uri),
                "frames": len(tokens[:frames]),
                "bins": bins,
                "counts": counts,
            }
        )
    return rows


def _size(uri: str) -> int:
    """Bytes of a recording's file; 0 where it is not there any more, or lies inside another file."""
    try:
        return 0 if split_embedded(uri) else os.path.getsize(uri_to_path(uri))
    except OSError:
        return 0
