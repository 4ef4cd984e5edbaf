"""`dataset.json`: what a shard set says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from audioprep.errors import UsageError, nearest

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Dataset:
    """A shard set, as its `dataset.json` describes it."""

    folder: Path
    description: dict[str, Any]

    @property
    def storage(self) -> str:
        """`parquet` or `webdataset`."""
        return self.description["storage"]

    @property
    def encoders(self) -> dict[str, dict[str, Any]]:
        """The spec of the encoder behind each column of arrays or vectors."""
        return self.description["encoders"]

    @property
    def columns(self) -> dict[str, str]:
        """Arrow types by column."""
        return self.description["columns"]

    @property
    def num_frames_of(self) -> str | None:
        """The array column whose frames `num_frames` counts; None where there is none."""
        # Sets from before there was more than one array column do not say it.
        first = next((name for name, kind in self.columns.items() if kind.startswith("list<")), None)
        return self.description.get("num_frames_of", first)

    def frame_rate(self, column: str) -> Fraction | None:
        """Frames a second of an array column, exactly; None where no encoder of audio made it."""
        spec = self.encoders.get(column)
        return Fraction(spec["sample_rate"], spec["hop_length"]) if spec and "sample_rate" in spec else None

    @property
    def totals(self) -> dict[str, Any]:
        return self.description["totals"]

    def shards(self, split: str | None = None) -> list[dict[str, Any]]:
        """The shards, of one split or of all.

        Raises:
            UsageError: there is no such split.
        """
        shards = self.description["shards"]
        if split is None:
            return shards
        names = sorted({shard["split"] for shard in shards})
        if split not in names:
            hint = nearest(split, names)
            raise UsageError(f"{self.folder}: has no split {split}.{hint} There are: {', '.join(names) or 'none'}.")
        return [shard for shard in shards if shard["split"] == split]


def open_dataset(folder: str | Path) -> Dataset:
    """Reads a shard set's description.

    Raises:
        UsageError: the folder is no shard set, or one that a newer audioprep wrote.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["schema_version"]
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: holds no dataset.json, so it is no finished shard set. Make one with `audioprep tokenize`, "
            "or run the command that makes it to its end."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}. Run the command that made it once more.") from error
    if version > SCHEMA_VERSION:
        raise UsageError(f"{path}: has schema version {version}: this audioprep knows {SCHEMA_VERSION}. Update it.")
    return Dataset(folder, description)
