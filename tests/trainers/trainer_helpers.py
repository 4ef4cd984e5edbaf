import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
TOKEN_LM = ROOT / "trainers" / "token_lm.py"
COMPOUND_WORD = ROOT / "trainers" / "compound_word.py"
CODEBOOKS, SIZE = 3, 16


def load_trainer(script: Path) -> ModuleType:
    """A trainer as a module; `trainers` is a folder of scripts, not a package."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train_in_two_processes(script: Path, shards: Path, out: Path, *options: str) -> dict[str, Any]:
    """What a trainer prints that `torchrun` starts twice, of a small model on a CPU."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
        str(shards), "--out", str(out), "--batch-size", "2", "--width", "16", "--depth", "1", "--heads", "2",
        "--device", "cpu", *options,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_counting(folder: Path, items: int = 10) -> Path:
    """A shard set whose items count upwards, each from another start: easy to learn."""
    starts = np.random.default_rng(0).integers(SIZE, size=items)
    tokens = [(start + np.arange(20 + i)[:, None] + np.arange(CODEBOOKS)) % SIZE for i, start in enumerate(starts)]
    return write_shards(folder, "audio_tokens", tokens, {"num_codebooks": CODEBOOKS, "codebook_size": SIZE})


def write_shards(folder: Path, name: str, tokens: list[NDArray[np.integer]], encoder: dict[str, Any]) -> Path:
    """A shard set with one column of tokens `[F, K]`."""
    column = pa.array([rows.tolist() for rows in tokens], pa.list_(pa.list_(pa.uint8(), tokens[0].shape[1])))
    frames = pa.array([len(rows) for rows in tokens], pa.int32())
    table = pa.table({"id": [str(i) for i in range(len(tokens))], "num_frames": frames, name: column})
    path = folder / "data" / "train-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, row_group_size=4)
    content = path.read_bytes()
    shard = {"path": "data/train-00000.parquet", "split": "train", "rows": len(tokens), "bytes": len(content)}
    dataset = {
        "format": "audioprep",
        "schema_version": 1,
        "storage": "parquet",
        "encoders": {name: encoder},
        "columns": {field.name: str(field.type) for field in table.schema},
        "totals": {"rows": len(tokens)},
        "shards": [shard | {"sha256": hashlib.sha256(content).hexdigest()}],
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
