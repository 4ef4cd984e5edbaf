"""`dataset.json`: what a shard set says of itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from audioprep.errors import UsageError, nearest
from audioprep.shards.cache import Shard, fetch_file
from audioprep.storage.listing import no_access
from audioprep.storage.places import Place, to_place
from audioprep.storage.transfer import read_bytes

SCHEMA_VERSION = 1
SHARD_NAME = re.compile(r"data/(?P<split>\w+)-\d{5,}\.(?P<suffix>parquet|tar)")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A shard set, as its `dataset.json` describes it; in a local folder, or behind a URL.

    Of the latter, files are copied as they are asked for: see `audioprep.shards.cache`.
    """

    folder: Place
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

    def shard(self, entry: dict[str, Any]) -> Shard:
        """The file behind one of `shards`."""
        folder = str(self.folder).rstrip("/") if not isinstance(self.folder, Path) else str(self.folder)
        return Shard(folder, entry["path"], entry["rows"], entry["sha256"])

    def file(self, name: str) -> Path:
        """Another file of the set, such as `failures.parquet`: a local path, where perhaps nothing is.

        Raises:
            UsageError: the store does not give it.
        """
        return self.folder / name if isinstance(self.folder, Path) else fetch_file(str(self.folder).rstrip("/"), name)


def sums_of(shards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What entries of `shards` hold together."""
    shards = list(shards)
    return {
        "rows": sum(shard["rows"] for shard in shards),
        "seconds": math.fsum(shard["seconds"] for shard in shards),
        "num_frames": sum(shard["num_frames"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
    }


def open_dataset(folder: str | Place) -> Dataset:
    """Reads a shard set's description.

    Args:
        folder: of the shard set, or its URL, such as `s3://bucket/set` or `hf://datasets/org/name@revision`.

    Raises:
        UsageError: the folder is no shard set, or one that a newer audioprep wrote; or its store refuses.
    """
    folder = to_place(folder)
    path = folder / "dataset.json"
    try:
        description = json.loads(read_bytes(path))
        version = description["schema_version"]
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: holds no dataset.json, so it is no finished shard set. Make one with `audioprep tokenize`, "
            "or run the command that makes it to its end."
        ) from error
    except OSError as error:
        if not isinstance(folder, Path):
            raise no_access(str(path), error) from error
        raise UsageError(f"{path}: cannot be read: {error}. Run the command that made it once more.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}. Run the command that made it once more.") from error
    if version > SCHEMA_VERSION:
        raise UsageError(f"{path}: has schema version {version}: this audioprep knows {SCHEMA_VERSION}. Update it.")
    if not isinstance(folder, Path):
        _refuse_escapes(path, description["shards"])
    return Dataset(folder, description)


def _refuse_escapes(path: Place, shards: list[dict[str, Any]]) -> None:
    """Copies are kept under these names: a description from elsewhere must not choose where."""
    for shard in shards:
        if not (SHARD_NAME.fullmatch(shard["path"]) and _SHA256.fullmatch(shard["sha256"])):
            raise UsageError(f"{path}: lists a shard {shard['path']!r} ({shard['sha256']!r}), as no shard set has")
