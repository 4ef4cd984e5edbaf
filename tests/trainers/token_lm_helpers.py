import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "trainers" / "token_lm.py"
CODEBOOKS, SIZE = 3, 16


def load_trainer() -> ModuleType:
    """The trainer as a module; `trainers` is a folder of scripts, not a package."""
    spec = importlib.util.spec_from_file_location("token_lm", SCRIPT)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_shards(folder: Path, items: int = 10) -> Path:
    """A shard set whose items count upwards, each from another start: easy to learn."""
    starts = np.random.default_rng(0).integers(SIZE, size=items)
    tokens = [(start + np.arange(20 + i)[:, None] + np.arange(CODEBOOKS)) % SIZE for i, start in enumerate(starts)]
    column = pa.array([rows.tolist() for rows in tokens], pa.list_(pa.list_(pa.uint8(), CODEBOOKS)))
    frames = pa.array([len(rows) for rows in tokens], pa.int32())
    table = pa.table({"id": [str(i) for i in range(items)], "num_frames": frames, "audio_tokens": column})
    path = folder / "data" / "train-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, row_group_size=4)
    content = path.read_bytes()
    shard = {"path": "data/train-00000.parquet", "split": "train", "rows": items, "bytes": len(content)}
    dataset = {
        "format": "audioprep",
        "schema_version": 1,
        "storage": "parquet",
        "encoders": {"audio_tokens": {"num_codebooks": CODEBOOKS, "codebook_size": SIZE}},
        "columns": {field.name: str(field.type) for field in table.schema},
        "totals": {"rows": items},
        "shards": [shard | {"sha256": hashlib.sha256(content).hexdigest()}],
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
