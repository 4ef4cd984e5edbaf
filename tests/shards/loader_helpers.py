"""Small shard sets in both formats, as `audioprep tokenize` lays them out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray

from audioprep.shards.columns import array_type, is_array, to_table, vector_type
from audioprep.shards.writers import TarWriter

Item = dict[str, Any]

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "duration": pa.float64(),
        "split": pa.string(),
        "lyrics": pa.string(),
        "num_frames": pa.int32(),
        "audio_tokens": array_type(pa.uint16(), 3),
    }
)

# Tokens of 50 frames a second, latents of 44100 / 2048, an embedding each second, and one of the whole item.
MIXED = pa.schema(
    {
        "id": pa.string(),
        "duration": pa.float64(),
        "split": pa.string(),
        "num_frames": pa.int32(),
        "audio_tokens": array_type(pa.uint16(), 3),
        "latents": array_type(pa.float16(), 2),
        "windows": array_type(pa.float32(), 4),
        "embedding": vector_type(pa.float32(), 5),
    }
)
ENCODERS = {
    "audio_tokens": {"name": "test", "kind": "tokens", "sample_rate": 44100, "hop_length": 882}
    | {"num_codebooks": 3, "codebook_size": 16384, "frame_rate": 50.0},
    "latents": {"name": "test", "kind": "latents", "sample_rate": 44100, "hop_length": 2048}
    | {"dim": 2, "frame_rate": 44100 / 2048},
    "windows": {"name": "test", "kind": "embedding", "sample_rate": 48000, "hop_length": 48000}
    | {"dim": 4, "frame_rate": 1.0, "pooling": None},
    "embedding": {"name": "test", "kind": "embedding", "sample_rate": 48000, "hop_length": 48000}
    | {"dim": 5, "frame_rate": 1.0, "pooling": "mean"},
}


def make_items(count: int, *, seed: int = 0, longest: int = 40) -> list[Item]:
    """Items whose tokens differ; every frame of item `i` begins with the code `i`."""
    rng = np.random.default_rng(seed)
    return [_item(i, rng.integers(0, 1024, (int(rng.integers(1, longest)), 3))) for i in range(count)]


def _item(number: int, tokens: NDArray[np.int64]) -> Item:
    tokens[:, 0] = number
    return {
        "id": f"{number:016x}",
        "duration": len(tokens) / 25,
        "split": "train",
        "lyrics": f"line {number}" if number % 3 else None,
        "num_frames": len(tokens),
        "audio_tokens": tokens.astype(np.uint16),
    }


def make_mixed(count: int) -> list[Item]:
    """Items of `MIXED`; every frame of tokens, latents and windows ends with its own number."""
    rng = np.random.default_rng(1)
    items = []
    for number, seconds in enumerate(rng.uniform(0.1, 9.0, count)):
        tokens = numbered(rng.integers(0, 1024, (math.ceil(seconds * 50), 3)), np.uint16)
        items.append(
            {
                "id": f"{number:016x}",
                "duration": seconds,
                "split": "train",
                "num_frames": len(tokens),
                "audio_tokens": tokens,
                "latents": numbered(rng.standard_normal((math.ceil(seconds * 44100 / 2048), 2)), np.float16),
                "windows": numbered(rng.standard_normal((math.ceil(seconds), 4)), np.float32),
                "embedding": rng.standard_normal(5).astype(np.float32),
            }
        )
    return items


def numbered(values: NDArray[np.generic], dtype: DTypeLike) -> NDArray[Any]:
    values[:, -1] = np.arange(len(values))
    return values.astype(dtype)


def write_parquet_set(
    root: Path,
    shards: Sequence[Sequence[Item]],
    *,
    split: str = "train",
    group: int = 10,
    schema: pa.Schema = SCHEMA,
    **options: Any,
) -> Path:
    """One Parquet file a shard, with row groups of `group` rows."""
    (root / "data").mkdir(parents=True)
    for number, items in enumerate(shards):
        options = {"compression": "zstd", **options}
        path = root / f"data/{split}-{number:05d}.parquet"
        pq.write_table(to_table(items, schema), path, row_group_size=group, **options)
    return _describe(root, "parquet", shards, split, schema)


def write_tar_set(
    root: Path, shards: Sequence[Sequence[Item]], *, split: str = "train", schema: pa.Schema = SCHEMA
) -> Path:
    """One tar and one index a shard."""
    (root / "data").mkdir(parents=True)
    (root / "index").mkdir()
    for number, items in enumerate(shards):
        stem = f"{split}-{number:05d}"
        writer = TarWriter(root / f"data/{stem}.tar", root / f"index/{stem}.parquet", schema)
        writer.write(to_table(items, schema))
        writer.close()
    return _describe(root, "webdataset", shards, split, schema)


def _describe(root: Path, storage: str, shards: Sequence[Sequence[Item]], split: str, schema: pa.Schema) -> Path:
    suffix = {"parquet": "parquet", "webdataset": "tar"}[storage]
    entries = []
    rows = [item for items in shards for item in items]
    totals = {
        "rows": len(rows),
        "seconds": sum(item["duration"] for item in rows),
        "num_frames": sum(item["num_frames"] for item in rows),
    }
    for number, items in enumerate(shards):
        path = f"data/{split}-{number:05d}.{suffix}"
        content = (root / path).read_bytes()
        entries.append(
            {
                "path": path,
                "split": split,
                "rows": len(items),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    description = {
        "format": "audioprep",
        "schema_version": 1,
        "storage": storage,
        "num_frames_of": next((field.name for field in schema if is_array(field.type)), None),
        "encoders": {name: spec for name, spec in ENCODERS.items() if name in schema.names},
        "columns": {field.name: str(field.type) for field in schema},
        "totals": totals | {"inputs": totals["rows"], "failed": 0, "splits": {split: totals}},
        "shards": entries,
    }
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return root
