"""Counts the tokens of a corpus, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from audioprep.dedup.extracts import extract_shards
from audioprep.dedup.histograms import SCHEMA, Binning, Mode, moving
from audioprep.encoders.base import EncoderSpec
from audioprep.errors import UsageError, nearest
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import Dataset

_VERSION = 2  # of how is counted


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
    frames, still = round(seconds * spec.frame_rate) or None, math.ceil(spec.frame_rate)

    def counts_of(table: pa.Table) -> list[dict[str, Any]]:
        counted = [moving(tokens[:frames], still) for tokens in to_arrays(table.column(column))]
        return [
            {"frames": len(tokens), "bins": bins, "counts": counts}
            for tokens, (bins, counts) in zip(counted, map(binning.count, counted), strict=True)
        ]

    what = [_VERSION, binning.mode, binning.first, frames]
    return extract_shards(dataset, column, SCHEMA, counts_of, what, folder, on_shards)
