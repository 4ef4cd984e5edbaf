"""The data set card says what is in a set, whatever it holds."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import yaml

from audioprep.shards.card import Published, data_card
from audioprep.shards.columns import array_type, type_named, vector_type

TOKENS = {"name": "dac-44khz", "kind": "tokens", "num_codebooks": 9, "codebook_size": 1024, "frame_rate": 44100 / 512}
LATENTS = {"name": "vae-oobleck", "kind": "latents", "dim": 64, "frame_rate": 44100 / 2048}
MEAN = {"name": "clap-music", "kind": "embedding", "dim": 512, "frame_rate": 0.2, "pooling": "mean"}
WINDOWS = MEAN | {"pooling": None}
COLUMNS = {
    "id": pa.string(),
    "duration": pa.float64(),
    "audio_tokens": array_type(pa.uint16(), 9),
    "latents": array_type(pa.float16(), 64),
    "clap": vector_type(pa.float32(), 512),
}


def card(
    encoders: dict[str, Any], storage: str = "parquet", published: Published | None = None
) -> tuple[dict[str, Any], str]:
    """Its metadata and its text."""
    sums = {"rows": 2, "seconds": 1.0, "num_frames": 1}
    text = data_card(
        {
            "storage": storage,
            "encoders": encoders,
            "columns": {name: str(type_) for name, type_ in COLUMNS.items()},
            "totals": sums | {"failed": 0, "splits": {"train": sums}},
        },
        published,
    )
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


@pytest.mark.parametrize(
    ("encoders", "title", "tags"),
    [
        ({"audio_tokens": TOKENS}, "# Audio tokens", ["audio-tokens"]),
        ({"latents": LATENTS}, "# Audio latents", ["audio-latents"]),
        ({"clap": MEAN}, "# Audio embeddings", ["audio-embeddings"]),
        ({"clap": MEAN, "audio_tokens": TOKENS}, "# Audio tokens and embeddings", ["audio-tokens", "audio-embeddings"]),
        ({}, "# Audio", []),
    ],
)
def test_title_and_tags_are_of_what_is_there(encoders: dict[str, Any], title: str, tags: list[str]) -> None:
    metadata, body = card(encoders)
    assert metadata["tags"] == ["audio", *tags, "audioprep", "parquet"]
    assert title in body.splitlines()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (TOKENS, "dac-44khz, 9 codebooks of 1024, 86.13 frames/s"),
        (LATENTS, "vae-oobleck, 64 channels, 21.53 frames/s"),
        (MEAN, "clap-music, 512-d, mean of windows"),
        (WINDOWS, "clap-music, 512-d, a window every 5 s"),
    ],
)
def test_encoders_are_described(spec: dict[str, Any], text: str) -> None:
    _, body = card({"latents": spec})
    assert f"| `latents` | `{COLUMNS['latents']}` | {text} |" in body.splitlines()


WORDS = {"name": "REMI", "kind": "tokens", "symbolic": True, "num_codebooks": 1, "vocabulary_sizes": [300]}


@pytest.mark.parametrize("encoders", [{"latents": LATENTS, "clap": MEAN}, {"midi_tokens": WORDS}, {}])
def test_a_published_set_of_any_kind(encoders: dict[str, Any]) -> None:
    many = {f"licence {number:02d}": 1 for number in range(25)} | {"a | b\nc": 30, "": 2}
    published = Published("org/name", "v2", many, {"license": "other", "license_name": "mixed"}, {}, failures=False)
    metadata, body = card(encoders, published=published)
    assert list(metadata)[:2] == ["license", "license_name"]
    assert ("## Encoders" in body) == ("latents" in encoders)
    assert body.count("| licence ") == 1 + 18 and "| 7 others | 7 |" in body
    assert "| a \\| b c | 30 |\n| not stated | 2 |" in body
    assert "audioprep pull org/name@v2 FOLDER" in body and "failures.parquet" not in body


def test_features_of_tars() -> None:
    metadata, _ = card({}, "webdataset")
    features = {feature.pop("name"): feature for feature in metadata["dataset_info"]["features"]}
    assert [feature["name"] for feature in features["json"]["struct"]] == ["id", "duration"]
    assert features["audio_tokens.npy"] == {"dtype": {"array2_d": {"shape": [None, 9], "dtype": "uint16"}}}
    assert features["latents.npy"] == {"dtype": {"array2_d": {"shape": [None, 64], "dtype": "float16"}}}
    assert features["clap.npy"] == {"sequence": "float32", "length": 512}


@pytest.mark.parametrize(
    "type_", [*COLUMNS.values(), pa.int32(), array_type(pa.int32(), 1), array_type(pa.float32(), 7)]
)
def test_types_are_read_from_their_names(type_: pa.DataType) -> None:
    assert type_named(str(type_)) == type_
