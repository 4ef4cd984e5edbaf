"""Small shard sets in both formats, as `audioprep tokenize` lays them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audioprep.shards.columns import array_type, to_table
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


def write_parquet_set(
    root: Path, shards: Sequence[Sequence[Item]], *, split: str = "train", group: int = 10, **options: Any
) -> Path:
    """One Parquet file a shard, with row groups of `group` rows."""
    (root / "data").mkdir(parents=True)
    for number, items in enumerate(shards):
        options = {"compression": "zstd", **options}
        path = root / f"data/{split}-{number:05d}.parquet"
        pq.write_table(to_table(items, SCHEMA), path, row_group_size=group, **options)
    return _describe(root, "parquet", shards, split)


def write_tar_set(root: Path, shards: Sequence[Sequence[Item]], *, split: str = "train") -> Path:
    """One tar and one index a shard."""
    (root / "data").mkdir(parents=True)
    (root / "index").mkdir()
    for number, items in enumerate(shards):
        stem = f"{split}-{number:05d}"
        writer = TarWriter(root / f"data/{stem}.tar", root / f"index/{stem}.parquet", SCHEMA)
        writer.write(to_table(items, SCHEMA))
        writer.close()
    return _describe(root, "webdataset", shards, split)


def _describe(root: Path, storage: str, shards: Sequence[Sequence[Item]], split: str) -> Path:
    suffix = {"parquet": "parquet", "webdataset": "tar"}[storage]
    entries = []
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
        "encoders": {"audio_tokens": {"name": "test"}},
        "columns": {field.name: str(field.type) for field in SCHEMA},
        "totals": {"rows": sum(map(len, shards))},
        "shards": entries,
    }
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return root
