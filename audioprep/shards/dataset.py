"""`dataset.json` and the data set card: what a shard set says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from audioprep.errors import UsageError, nearest
from audioprep.shards.cache import Shard, fetch_file
from audioprep.shards.columns import feature_dtype, is_array, is_vector, type_named
from audioprep.storage.listing import no_access
from audioprep.storage.places import Place, to_place
from audioprep.storage.transfer import read_bytes

SCHEMA_VERSION = 1

_KINDS = {"tokens": "tokens", "latents": "latents", "embedding": "embeddings"}


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
    return Dataset(folder, description)


def data_card(description: dict[str, Any]) -> str:
    """The README.md of a shard set, with the metadata by which the Hub and `datasets` find its files."""
    totals = description["totals"]
    found = {spec["kind"] for spec in description["encoders"].values()}
    kinds = [name for kind, name in _KINDS.items() if kind in found]
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
        "tags": [*_tags(description, kinds), "audioprep", description["storage"]],
    }
    if description["storage"] == "webdataset":
        # Without it `datasets` guesses the types from the first five items, and fails where a text begins later.
        metadata["dataset_info"] = {"config_name": "default", "features": _tar_features(description["columns"])}
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {'Score' if _is_symbolic(description) else 'Audio'} {' and '.join(kinds)}".rstrip(),
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
        "What is in this set is derived from the recordings: their licences hold for it too.",
        "",
    ]
    return "\n".join(lines)


def _is_symbolic(description: dict[str, Any]) -> bool:
    return any(spec.get("symbolic") for spec in description["encoders"].values())


def _tags(description: dict[str, Any], kinds: list[str]) -> list[str]:
    return ["music", "midi"] if _is_symbolic(description) else ["audio", *(f"audio-{kind}" for kind in kinds)]


def _tar_features(columns: dict[str, str]) -> list[dict[str, Any]]:
    """The features of the members of a tar, in the form that `datasets` reads from a card."""
    scalars: list[dict[str, Any]] = []
    arrays: list[dict[str, Any]] = []
    for name, kind in columns.items():
        type_ = type_named(kind)
        if is_array(type_):
            inner = type_.value_type
            array2d = {"shape": [None, inner.list_size], "dtype": feature_dtype(str(inner.value_type))}
            arrays.append({"name": f"{name}.npy", "dtype": {"array2_d": array2d}})
        elif is_vector(type_):
            vector = {"sequence": feature_dtype(str(type_.value_type)), "length": type_.list_size}
            arrays.append({"name": f"{name}.npy", **vector})
        else:
            scalars.append({"name": name, "dtype": feature_dtype(kind)})
    keys = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [*keys, {"name": "json", "struct": scalars}, *arrays]


def _encoder(description: dict[str, Any], column: str) -> str:
    spec = description["encoders"].get(column)
    if spec is None:
        return ""
    if spec.get("symbolic"):
        what = f"{spec['num_codebooks']} ids a word, vocabularies of {', '.join(map(str, spec['vocabulary_sizes']))}"
    elif spec["kind"] == "tokens":
        what = f"{spec['num_codebooks']} codebooks of {spec['codebook_size']}, {spec['frame_rate']:.4g} frames/s"
    elif spec["kind"] == "latents":
        what = f"{spec['dim']} channels, {spec['frame_rate']:.4g} frames/s"
    elif spec["pooling"] == "mean":
        what = f"{spec['dim']}-d, mean of windows"
    else:
        what = f"{spec['dim']}-d, a window every {1 / spec['frame_rate']:.4g} s"
    return f"{spec['name']}, {what}"


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
