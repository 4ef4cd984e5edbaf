"""Small shard sets with a column of latents, as `audioprep encode` lays them out.

Channel 0 of every frame is the frame's number, channel 1 that of the item, so that a test sees where a piece is from.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.encoders.base import EncoderSpec
from audioprep.shards import reading
from audioprep.shards.columns import array_type, to_table
from audioprep.shards.writers import SUFFIX, WRITERS, Format

RATE, HOP, DIM = 44100, 2048, 64
SPEC = EncoderSpec(
    "vae", "latents", RATE, 2, HOP, window=4 * HOP, left_context=HOP, right_context=HOP, batch_size=2,
    fingerprint="f" * 64, dim=DIM,
)  # fmt: skip

Item = dict[str, Any]
_TEXTS = ("id", "uri", "split", "tags", "prompt", "license", "source")


def make_item(number: int, frames: int, hop: int = HOP, **changes: Any) -> Item:
    """An item whose last frame is not full."""
    item = {
        "id": hashlib.sha256(b"%d" % number).hexdigest()[:32],
        "uri": f"/music/{number % 2:02d}/{number}.mp3",
        "duration": (frames * hop - 100) / RATE,
        "split": "train",
        "tags": f"tag{number}",
        "prompt": f"Song number {number}",
        "license": "CC BY 4.0" if number % 2 else None,
        "source": None,
        "num_frames": frames,
    }
    return item | changes


def latents_of(number: int, frames: int, dim: int) -> NDArray[np.float16]:
    latents = np.random.default_rng(number).standard_normal((frames, dim)).astype(np.float16)
    latents[:, 0], latents[:, 1] = np.arange(frames), number
    return latents


def write_latent_set(
    root: Path, shards: Sequence[Sequence[Item]], *, storage: Format = "parquet", spec: EncoderSpec = SPEC
) -> Path:
    """One file a shard; the latents of an item are a function of its place in the whole."""
    assert spec.dim
    number = itertools.count()
    rows = [
        [item | {"latents": latents_of(next(number), item["num_frames"], spec.dim)} for item in items]
        for items in shards
    ]
    encoder = spec.to_dict() | {"encoder": "vae", "encoder_settings": {"weights": "somewhere"}}
    return write_set(root, rows, _TEXTS, {"latents": array_type(pa.float16(), spec.dim)}, {"latents": encoder}, storage)


def write_set(
    root: Path,
    shards: Sequence[Sequence[Item]],
    texts: Sequence[str],
    arrays: dict[str, pa.DataType],
    encoders: dict[str, Any],
    storage: Format = "parquet",
) -> Path:
    """A shard set of these rows, one file a shard; the first array's frames are in `num_frames`."""
    columns = {name: pa.string() for name in texts} | {"duration": pa.float64()} | arrays | {"num_frames": pa.int32()}
    schema = pa.schema(columns)
    for folder in ("data", "index"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    entries = []
    for index, rows in enumerate(shards):
        stem = f"train-{index:05d}"
        path = root / f"data/{stem}{SUFFIX[storage]}"
        writer = WRITERS[storage](path, root / f"index/{stem}.parquet", schema)
        writer.write(to_table(rows, schema))
        writer.close()
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append({"path": f"data/{path.name}", "split": "train", "rows": len(rows), "sha256": sha256})
    description = {
        "format": "audioprep",
        "schema_version": 1,
        "storage": storage,
        "encoders": encoders,
        "num_frames_of": next(iter(arrays)),
        "columns": {column.name: str(column.type) for column in schema},
        "shards": entries,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    for remembered in (reading._footer, reading._frames, reading._open_tar):  # of what was here before
        remembered.cache_clear()
    return root


class SilentEncoder:
    """Makes of a window of silence how many samples of it are the file's own: distinct at the file's ends."""

    def __init__(self, spec: EncoderSpec = SPEC) -> None:
        self.spec = spec
        self.calls = 0

    def encode(self, samples: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.generic]:
        assert samples.shape == (self.spec.batch_size, self.spec.channels, self.spec.length)
        assert not samples.any()
        self.calls += 1
        frames = self.spec.window // self.spec.hop_length
        own = (valid[:, 1] - valid[:, 0]).astype(np.float32)[:, None, None]
        steps = np.arange(frames, dtype=np.float32)[None, :, None]
        assert self.spec.dim
        return np.repeat(own / 1024 + steps / 4, self.spec.dim, axis=2)
