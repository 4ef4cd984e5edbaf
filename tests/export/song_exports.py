"""Exports for SimpleTuner, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from latent_sets import Item
from song_sets import make_song, write_song_set
from song_traps import BACKEND, table_rows

from audioprep.export.simpletuner import Options, SimpleTunerExport
from audioprep.export.simpletuner_config import LayoutName

LAYOUTS: list[LayoutName] = ["folder", "inline", "jsonl"]
ENDING_ROW = np.full((1, 8), 8193)


def export(out: Path, folder: Path, options: Options | None = None, overwrite: bool = False) -> dict[str, Any]:
    return SimpleTunerExport(out, folder, options or Options()).run(overwrite, lambda done, total: None)


def export_one(root: Path, song: Item, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Exports this and a plain song; gives the counts, and the rows of this one with their tokens."""
    out = write_song_set(root / "one", [[song, make_song(99, 50)]])
    folder = root / "export"
    details = export(out, folder, Options(**options), overwrite=True)
    rows = [row for row in table_rows(folder) if row["id"].startswith(song["id"])]
    return details, [row | {"tokens": np.load(folder / row["audio_tokens_path"])} for row in rows]


def backend(folder: Path) -> dict[str, Any]:
    (entry,) = json.loads((folder / BACKEND).read_text())
    return entry


def everything(folder: Path) -> dict[str, bytes]:
    """All that the trainer may read."""
    names = [path for path in folder.rglob("*") if path.is_file() and ".audioprep" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}
