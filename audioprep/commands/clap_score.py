"""`audioprep clap-score`: how well the recordings of a shard set go with their own texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import describe_encoder, load_encoder
from audioprep.errors import UsageError, nearest
from audioprep.metrics.clap_score import TextEncoder, cosines
from audioprep.metrics.sources import Embeddings, open_source
from audioprep.shards.columns import is_vector, to_arrays, to_vectors
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.stages.encode import mean_direction
from audioprep.storage.fields import PlaceField


class Settings(CommandSettings):
    """Settings of `audioprep clap-score`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    column: str = Field("clap_embedding", description="Column with the recordings' embeddings.")
    text_column: str = Field("prompt", description="Column with the texts.")
    split: str | None = Field(None, description="Only this split. Default: all.")
    weights: str | None = Field(None, description="The encoder's weights. Default: where they were when it was used.")
    settings: dict[str, Any] = Field({}, description="Settings of the encoder, such as its tokenizer.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")


def run(settings: Settings, console: Console) -> Summary:
    """Embeds the texts with the encoder that embedded the recordings, and compares.

    Raises:
        UsageError: there is no such column, its encoder knows no texts or is not what it was, or there are no texts.
    """
    dataset, name, encoder_settings = _open(settings)
    encoder = load_encoder(name, encoder_settings)
    if not isinstance(encoder, TextEncoder):
        raise UsageError(f"{settings.out}: {settings.column} is of {name}, which knows no texts; name a column of CLAP")
    found = [np.empty(0)]
    rows = 0
    shards = dataset.shards(settings.split)
    with console.counter("Comparing with texts") as counter:
        for number, shard in enumerate(shards):
            for audio, texts in _pairs(settings, dataset, shard):
                rows += len(texts)
                chosen = [row for row, text in enumerate(texts) if text]
                found.append(cosines(audio[chosen], encoder.embed_text([texts[row] for row in chosen])))
            counter(number + 1, len(shards))
    values = np.concatenate(found)
    if not len(values):
        raise UsageError(f"{settings.out}: no item has a text in {settings.text_column}; name another --text-column")
    return {
        "clap_score": float(values.mean()),
        "standard_deviation": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "n": len(values),
        "without_text": rows - len(values),
        "encoder": name,
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would compare."""
    dataset, name, _ = _open(settings)
    rows = sum(shard["rows"] for shard in dataset.shards(settings.split))
    return {"out": str(settings.out), "rows": rows, "text_column": settings.text_column, "encoder": name}


def _open(settings: Settings) -> tuple[Dataset, str, dict[str, Any]]:
    """The shard set, and the name and settings of the encoder of its column."""
    dataset = open_dataset(settings.out)
    source = open_source(settings.out, settings.column, settings.split, None)
    if settings.text_column not in dataset.columns:
        hint = nearest(settings.text_column, dataset.columns)
        raise UsageError(f"{settings.out}: has no column {settings.text_column}.{hint} Name one with --text-column.")
    spec = source.spec if isinstance(source, Embeddings) else None
    if spec is None:
        raise UsageError(f"{settings.out}: it is not known which encoder made {settings.column}; make it anew")
    name = spec["encoder"]
    chosen = spec["encoder_settings"] | settings.settings | {"device": resolve_device(settings.device)}
    if settings.weights is not None:
        chosen["weights"] = settings.weights
    if describe_encoder(name, chosen).fingerprint != spec["fingerprint"]:
        raise UsageError(
            f"{settings.out}: {settings.column} was made with other weights than {chosen.get('weights')}; give those "
            "with --weights"
        )
    return dataset, name, chosen


def _pairs(
    settings: Settings, dataset: Dataset, shard: dict[str, Any]
) -> Iterator[tuple[NDArray[np.floating], list[str]]]:
    """Embeddings `[n, D]` and texts (empty where there is none) of some hundred items at a time."""
    for table in read_tables(dataset, shard):
        column = table.column(settings.column)
        if is_vector(column.type):
            vectors = to_vectors(column)
        else:
            vectors = np.stack([mean_direction(windows) for windows in to_arrays(column)])
        yield vectors, [text or "" for text in table.column(settings.text_column).to_pylist()]
