"""The files of `audioprep dedup`, three of them named and laid out as the Stable Audio fork jxbb824/stable-audio-tools
has them (`exclude_paths.txt`, `similar_pairs.jsonl`, `summary.json`)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.dedup.alignment import Alignment
from audioprep.dedup.groups import Dropped, Recording
from audioprep.engine.commit import atomic_path, write_json, write_text

PathFormat = Literal["absolute", "relative"]
NAMES = ("exclude_paths.txt", "similar_pairs.jsonl", "groups.parquet", "summary.json")

_GROUPS = pa.schema(
    [
        ("group", pa.int64()),
        ("keep", pa.bool_()),
        ("uri", pa.string()),
        ("id", pa.string()),
        ("seconds", pa.float64()),
        ("relation", pa.string()),
        ("similarity", pa.float64()),
        *((field.name, pa.float64()) for field in fields(Alignment)),
    ]
)


def write_outputs(
    folder: Path,
    kept_from: Sequence[Recording],
    recordings: Sequence[Recording],
    dropped: Sequence[Dropped],
    summary: dict[str, Any],
    path_format: PathFormat,
) -> None:
    """Writes all files, `summary.json` last.

    Args:
        folder: for the files.
        kept_from: what `Dropped.keep` counts in: `recordings`, or those of the other corpus.
        recordings: what `Dropped.drop` counts in.
        dropped: recordings to leave out.
        summary: what `summary.json` says.
        path_format: of the paths in `exclude_paths.txt`; relative ones are to the folder that all recordings share.
    """
    scratch = folder / ".audioprep" / "scratch"
    root = common_folder([one.uri for one in recordings])
    kept_root = common_folder([one.uri for one in kept_from])
    lines = [f"# Paths to exclude from training (format={path_format})"]
    pairs: list[str] = []
    for one in dropped:
        keep, drop = kept_from[one.keep].uri, recordings[one.drop].uri
        relative = {"keep": os.path.relpath(keep, kept_root), "drop": os.path.relpath(drop, root)}
        lines.append(drop if path_format == "absolute" else relative["drop"])
        pair = {"keep_path": keep, "keep_relpath": relative["keep"], "drop_path": drop}
        pair |= {"drop_relpath": relative["drop"], "similarity": one.similarity, "relation": one.relation}
        pair |= {"alignment": one.alignment and asdict(one.alignment)}
        pairs.append(json.dumps(pair, ensure_ascii=False))
    write_text(folder / NAMES[0], "\n".join([lines[0], *sorted(lines[1:])]) + "\n", scratch)
    write_text(folder / NAMES[1], "".join(f"{pair}\n" for pair in pairs), scratch)
    with atomic_path(folder / NAMES[2], scratch) as path:
        pq.write_table(pa.Table.from_pylist(_group_rows(kept_from, recordings, dropped), _GROUPS), path)
    write_json(folder / NAMES[3], summary, scratch)


def common_folder(uris: Sequence[str]) -> str:
    """The deepest folder that all are in."""
    folders = {os.path.dirname(uri) for uri in uris}
    return os.path.commonpath(folders) if folders else "/"


def _group_rows(
    kept_from: Sequence[Recording], recordings: Sequence[Recording], dropped: Sequence[Dropped]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    for one in dropped:
        if one.keep not in numbers:
            numbers[one.keep] = len(numbers)
            rows.append(_row(numbers[one.keep], kept_from[one.keep], None))
        rows.append(_row(numbers[one.keep], recordings[one.drop], one))
    return rows


def _row(group: int, recording: Recording, dropped: Dropped | None) -> dict[str, Any]:
    return {
        "group": group,
        "keep": dropped is None,
        "uri": recording.uri,
        "id": recording.id,
        "seconds": recording.seconds,
        "relation": dropped and dropped.relation,
        "similarity": dropped and dropped.similarity,
        **(asdict(dropped.alignment) if dropped and dropped.alignment else {}),
    }
