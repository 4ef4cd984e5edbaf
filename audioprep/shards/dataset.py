"""`dataset.json` and the data set card: what a shard set says of itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audioprep.errors import UsageError, nearest
from audioprep.shards.columns import feature_dtype

SCHEMA_VERSION = 1

# An array column's Arrow type, as text.
_ARRAY = re.compile(r"list<element: fixed_size_list<element: (?P<value>\w+)>\[(?P<width>\d+)\]>")


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
        """The spec of the encoder behind each array column."""
        return self.description["encoders"]

    @property
    def columns(self) -> dict[str, str]:
        """Arrow types by column."""
        return self.description["columns"]

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


def data_card(description: dict[str, Any]) -> str:
    """The README.md of a shard set, with the metadata by which the Hub and `datasets` find its files."""
    totals = description["totals"]
    suffix = "parquet" if description["storage"] == "parquet" else "tar"
    splits = totals["splits"]
    configs = [
        {
            "config_name": "default",
            "data_files": [{"split": name, "path": f"data/{name}-*.{suffix}"} for name in splits],
        }
    ]
    metadata = {
        "configs": configs if splits else [],
        "size_categories": [_size_category(totals["rows"])],
        "tags": ["audio", "audio-tokens", "audioprep", description["storage"]],
    }
    if description["storage"] == "webdataset":
        # Without it `datasets` guesses the types from the first five items, and fails where a text begins later.
        metadata["dataset_info"] = {"config_name": "default", "features": _tar_features(description["columns"])}
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        "# Audio tokens",
        "",
        f"{totals['rows']} items, {totals['seconds'] / 3600:.2f} hours, made by audioprep; "
        f"inputs that could not be processed: {totals['failed']} (`failures.parquet`).",
        "",
        "| split | items | hours | frames |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {split['rows']} | {split['seconds'] / 3600:.2f} | {split['num_frames']} |"
            for name, split in splits.items()
        ),
        "",
        "| column | type | encoder |",
        "| --- | --- | --- |",
        *(f"| `{name}` | `{kind}` | {_encoder(description, name)} |" for name, kind in description["columns"].items()),
        "",
        "```python",
        "from audioprep.shards.loader import ShardLoader",
        "",
        'for batch in ShardLoader("THIS FOLDER", batch_size=32):',
        "    ...",
        "```",
        "",
        "A set of tokens is derived from the recordings: their licences hold for it too.",
        "",
    ]
    return "\n".join(lines)


def _tar_features(columns: dict[str, str]) -> list[dict[str, Any]]:
    """The features of the members of a tar, in the form that `datasets` reads from a card."""
    scalars: list[dict[str, Any]] = []
    arrays: list[dict[str, Any]] = []
    for name, kind in columns.items():
        if array := _ARRAY.fullmatch(kind):
            array2d = {"shape": [None, int(array["width"])], "dtype": feature_dtype(array["value"])}
            arrays.append({"name": f"{name}.npy", "dtype": {"array2_d": array2d}})
        else:
            scalars.append({"name": name, "dtype": feature_dtype(kind)})
    keys = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [*keys, {"name": "json", "struct": scalars}, *arrays]


def _encoder(description: dict[str, Any], column: str) -> str:
    spec = description["encoders"].get(column)
    if spec is None:
        return ""
    return (
        f"{spec['name']}, {spec['num_codebooks']} codebooks of {spec['codebook_size']}, {spec['frame_rate']:g} frames/s"
    )


def _size_category(rows: int) -> str:
    """The Hub's names for sizes of data sets."""
    bounds = [
        ("n<1K", 10**3),
        ("1K<n<10K", 10**4),
        ("10K<n<100K", 10**5),
        ("100K<n<1M", 10**6),
        ("1M<n<10M", 10**7),
    ]
    return next((name for name, bound in bounds if rows < bound), "10M<n<100M")
