"""Small shard sets in both formats, as `audioprep tokenize` lays them out."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audioprep.shards.columns import to_table

Item = dict[str, Any]

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "duration": pa.float64(),
        "split": pa.string(),
        "lyrics": pa.string(),
        "num_frames": pa.int32(),
        "audio_tokens": pa.list_(pa.list_(pa.uint16(), 3)),
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
        index = _write_tar(root / f"data/{stem}.tar", items)
        pq.write_table(index, root / f"index/{stem}.parquet")
    return _describe(root, "webdataset", shards, split)


def _write_tar(path: Path, items: Sequence[Item]) -> pa.Table:
    index: dict[str, list[Any]] = {
        name: [] for name in ("key", "json_offset", "json_size", "audio_tokens.offset", "audio_tokens.frames")
    }
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for item in items:
            repeats = sum(key.split("_")[0] == item["id"] for key in index["key"])
            key = item["id"] + (f"_{repeats + 1}" if repeats else "")
            text = json.dumps({name: value for name, value in item.items() if name != "audio_tokens"}).encode()
            array = io.BytesIO()
            np.save(array, item["audio_tokens"])
            json_end = _add(tar, f"{key}.json", text)
            array_end = _add(tar, f"{key}.audio_tokens.npy", array.getvalue())
            row = (
                key,
                json_end - len(text),
                len(text),
                array_end - item["audio_tokens"].nbytes,
                len(item["audio_tokens"]),
            )
            for name, value in zip(index, row, strict=True):
                index[name].append(value)
    types = [pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.int32()]
    return pa.table([pa.array(values, type_) for values, type_ in zip(index.values(), types, strict=True)], list(index))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a member and gives the offset at which its content ends."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    begin = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return begin + len(content)


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
