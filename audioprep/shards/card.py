"""The data set card (README.md) of a shard set, with the metadata by which the Hub and `datasets` find its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from audioprep.shards.columns import feature_dtype, is_array, is_vector, type_named

_KINDS = {"tokens": "tokens", "latents": "latents", "embedding": "embeddings"}


@dataclass(frozen=True, slots=True)
class Published:
    """What the card of a published set says besides.

    Attributes:
        repository: `org/name`.
        revision: the branch; None: the default one.
        licenses: items by what their `license` says; `""`: nothing.
        license_metadata: the card's fields on the licence: `license`, and for one that the Hub does not know its name.
        weights: by column, where the encoder's weights are from.
        failures: whether `failures.parquet` is published.
    """

    repository: str
    revision: str | None
    licenses: Mapping[str, int]
    license_metadata: Mapping[str, str]
    weights: Mapping[str, str]
    failures: bool


def data_card(description: dict[str, Any], published: Published | None = None) -> str:
    """The README.md of a shard set.

    Args:
        description: its `dataset.json`.
        published: of a set on the Hub; None: of a folder.
    """
    totals = description["totals"]
    found = {spec["kind"] for spec in description["encoders"].values()}
    kinds = [name for kind, name in _KINDS.items() if kind in found]
    failures = " (`failures.parquet`)" if published is None or published.failures else ""
    sections = [
        f"# {'Score' if _is_symbolic(description) else 'Audio'} {' and '.join(kinds)}".rstrip(),
        f"{totals['rows']} items, {totals['seconds'] / 3600:.2f} hours, made by audioprep; "
        f"inputs that could not be processed: {totals['failed']}{failures}.",
        _table(
            ("split", "items", "hours", "frames"),
            (
                (name, split["rows"], f"{split['seconds'] / 3600:.2f}", split["num_frames"])
                for name, split in totals["splits"].items()
            ),
        ),
        _table(
            ("column", "type", "encoder"),
            ((f"`{name}`", f"`{kind}`", _encoder(description, name)) for name, kind in description["columns"].items()),
        ),
        *([] if published is None else _published(description, published)),
        _example(published),
        "What is in this set is derived from the recordings: their licences hold for it too.",
    ]
    metadata = yaml.safe_dump(_metadata(description, kinds, published), sort_keys=False, allow_unicode=True).strip()
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(description: dict[str, Any], kinds: list[str], published: Published | None) -> dict[str, Any]:
    totals = description["totals"]
    suffix = "parquet" if description["storage"] == "parquet" else "tar"
    data_files = [{"split": name, "path": f"data/{name}-*.{suffix}"} for name in totals["splits"]]
    metadata: dict[str, Any] = {
        **({} if published is None else published.license_metadata),
        "configs": [{"config_name": "default", "data_files": data_files}] if data_files else [],
        "size_categories": [_size_category(totals["rows"])],
        "tags": [*_tags(description, kinds), "audioprep", description["storage"]],
    }
    if description["storage"] == "webdataset":
        # Without it `datasets` guesses the types from the first five items, and fails where a text begins later.
        # Parquet files have their features in their own schema; said twice they could come to differ.
        metadata["dataset_info"] = {"config_name": "default", "features": _tar_features(description["columns"])}
    return metadata


def _published(description: dict[str, Any], published: Published) -> list[str]:
    """What is told to people who do not have the maker's folder."""
    audio = {name: spec for name, spec in description["encoders"].items() if not spec.get("symbolic")}
    encoders = (
        (
            f"`{column}`",
            spec["name"],
            published.weights.get(column, ""),
            spec.get("sample_rate", ""),
            spec.get("num_codebooks") or spec.get("dim") or "",
            f"{spec['frame_rate']:.6g}",
            f"`{spec.get('fingerprint', 'unknown')[:16]}`",
        )
        for column, spec in audio.items()
    )
    heads = ("column", "encoder", "weights", "sample rate (Hz)", "codebooks or channels", "frames/s", "sha256")
    licenses = sorted(published.licenses.items(), key=lambda found: (-found[1], found[0]))
    shown = [(name or "not stated", rows) for name, rows in licenses[:_LICENSES_SHOWN]]
    if rest := sum(rows for _, rows in licenses[_LICENSES_SHOWN:]):
        shown.append((f"{len(licenses) - _LICENSES_SHOWN} others", rest))
    return [
        *(["## Encoders", _table(heads, encoders)] if audio else []),
        "## Licences",
        _table(("licence", "items"), shown),
        "## Use",
    ]


_LICENSES_SHOWN = 20


def _table(heads: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    marks = ["---:" if head in _NUMBERS else "---" for head in heads]
    lines = [heads, marks, *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


_NUMBERS = ("items", "hours", "frames", "sample rate (Hz)", "codebooks or channels", "frames/s")


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _example(published: Published | None) -> str:
    lines = ["from audioprep.shards.loader import ShardLoader", ""]
    if published is None:
        lines += ['for batch in ShardLoader("THIS FOLDER", batch_size=32):', "    ..."]
    else:
        revision = f', revision="{published.revision}"' if published.revision else ""
        at = f"@{published.revision}" if published.revision else ""
        lines = [
            "from datasets import load_dataset",
            "",
            f'rows = load_dataset("{published.repository}"{revision}, streaming=True)',
            "",
            f"# audioprep pull {published.repository}{at} FOLDER",
            *lines,
            'for batch in ShardLoader("FOLDER", batch_size=32):',
            "    ...",
        ]
    return "\n".join(["```python", *lines, "```"])


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
        ("10M<n<100M", 10**8),
    ]
    return next((name for name, bound in bounds if rows < bound), "100M<n<1B")
