"""Small shard sets as the engine lays them out, without running it; and the command line in a process of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.cli.console import QuietConsole
from audioprep.commands import push
from audioprep.engine.assemble import FAILURES_SCHEMA
from audioprep.shards.card import data_card
from audioprep.shards.columns import ITEM_COLUMNS, array_type, to_table
from audioprep.shards.writers import SUFFIX, WRITERS, Format

NUMBERS = {"duration": pa.float64(), "sample_rate": pa.int32(), "channels": pa.int32()}
SCHEMA = pa.schema(
    [(name, NUMBERS.get(name, pa.string())) for name in ITEM_COLUMNS]
    + [("audio_tokens", array_type(pa.uint16(), 3)), ("num_frames", pa.int32())]
)
SPEC = {
    "name": "dac-44khz", "kind": "tokens", "sample_rate": 44100, "channels": 1, "hop_length": 512, "window": 51200,
    "left_context": 0, "right_context": 0, "batch_size": 1, "fingerprint": "f" * 64, "num_codebooks": 3,
    "codebook_size": 1024, "settings": {}, "frame_rate": 44100 / 512, "encoder": "dac-44khz", "encoder_settings": {},
}  # fmt: skip
OPEN = "CC BY 4.0"


def item(number: int, split: str, license: str | None) -> dict[str, Any]:
    frames = 5 + number % 7
    return dict.fromkeys(ITEM_COLUMNS) | {
        "id": hashlib.sha256(str(number).encode()).hexdigest()[:32],
        "uri": f"https://example.org/{number}.flac",
        "duration": frames * 512 / 44100,
        "sample_rate": 44100,
        "channels": 1,
        "split": split,
        "license": license,
        "lyrics": f"line {number}" if number % 2 else None,
        "audio_tokens": np.random.default_rng(number).integers(0, 1024, (frames, 3)).astype(np.uint16),
        "num_frames": frames,
    }


def make_set(
    out: Path,
    shards: int = 2,
    *,
    storage: Format = "parquet",
    licenses: Sequence[str | None] = (OPEN,),
    uris: str = "",
    last_rows: int = 4,
) -> Path:
    """Writes `shards` shards of 4 rows (the last one of `last_rows`): the first of split test, the others of train."""
    for folder in ("data", *(["index"] if storage == "webdataset" else [])):
        (out / folder).mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Any]] = []
    for shard in range(shards):
        split = "train" if shard else "test"
        numbers = range(shard * 4, shard * 4 + (last_rows if shard == shards - 1 else 4))
        items = [item(number, split, licenses[number % len(licenses)]) for number in numbers]
        for row in items if uris else []:
            row["uri"] = uris.format(row["id"])
        path = f"data/{split}-{shard:05d}{SUFFIX[storage]}"
        writer = WRITERS[storage](out / path, out / "index" / f"{split}-{shard:05d}.parquet", SCHEMA)
        writer.write(to_table(items, SCHEMA))
        writer.close()
        data = (out / path).read_bytes()
        files.append(
            {"path": path, "split": split} | _sums(items)
            | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        )  # fmt: skip
    totals = {name: sum(file[name] for file in files) for name in ("rows", "seconds", "num_frames", "bytes")}
    splits = {
        split: {name: sum(file[name] for file in files if file["split"] == split) for name in totals}
        for split in sorted({file["split"] for file in files})
    }
    failed = [{"uri": "/music/broken.wav", "stage": "text", "error": "corrupt", "message": "is broken"}]
    pq.write_table(pa.Table.from_pylist(failed, FAILURES_SCHEMA), out / "failures.parquet")
    description = {
        "format": "audioprep", "schema_version": 1, "storage": storage, "encoders": {"audio_tokens": SPEC},
        "num_frames_of": "audio_tokens", "columns": {field.name: str(field.type) for field in SCHEMA},
        "totals": {"inputs": totals["rows"] + 1, "failed": 1} | totals | {"splits": splits}, "shards": files,
    }  # fmt: skip
    (out / "dataset.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    (out / "README.md").write_text(data_card(description))
    (out / ".audioprep").mkdir(exist_ok=True)
    (out / ".audioprep" / "run.json").write_text("{}")
    return out


def _sums(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rows": len(items),
        "seconds": sum(row["duration"] for row in items),
        "num_frames": sum(row["num_frames"] for row in items),
    }


def pushed(out: Path | str, repository: str = "alice/songs", **settings: Any) -> dict[str, Any]:
    wanted = {"out": out, "repository": repository} | settings
    return push.run(push.Settings.model_validate(wanted), QuietConsole())


def cli(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "audioprep", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
