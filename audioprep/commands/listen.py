"""`audioprep listen`: what the tokens or latents of an item sound like, beside its recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.corpus.content import local_file
from audioprep.encoders.base import Decoder
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import load_encoder
from audioprep.errors import UsageError, nearest
from audioprep.shards.columns import to_values
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import adding


class Settings(CommandSettings):
    """Settings of `audioprep listen`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    item: str = Field(min_length=1, description="The item: its id, the first digits of it, or the file's name.")
    column: str | None = Field(None, description="Column to decode. Default: the only one that can be decoded.")
    dest: PlaceField = Field(Path(), description="Folder for the two files, or its URL.")
    encoder: str | None = Field(None, description="What decodes imported tokens: the name of an encoder.")
    settings: dict[str, Any] = Field({}, description="Settings of the encoder, where they shall be others.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    soundfont: Path | None = Field(None, description="Of scores: play them with this .sf2 or .sf3, too.")


def run(settings: Settings, console: Console) -> Summary:
    """Writes `NAME.original.wav` and `NAME.COLUMN.wav`, of the same length and at the decoder's rate; of scores `.mid`.

    Raises:
        UsageError: there is no such item or column, or what made the column cannot decode.
        InputError: the recording cannot be read any more.
    """
    from audioprep.audio import load_audio

    dataset = open_dataset(settings.out)
    column = _column(dataset, settings)
    if dataset.encoders[column].get("symbolic"):
        from audioprep.commands.listen_score import write_scores

        item = _find(dataset, settings.item, [column, *({"track_frames"} & {*dataset.columns})])
        with adding(settings.dest) as folder:
            found = write_scores(dataset, column, item, folder, settings.soundfont)
        there = {name: str(settings.dest / value.name) for name, value in found.items() if isinstance(value, Path)}
        return found | there
    name, chosen = _encoder(dataset, column, settings)
    item = _find(dataset, settings.item, [column])
    decoder = load_encoder(name, chosen)
    if not isinstance(decoder, Decoder):
        raise UsageError(f"{settings.out}: {column} is of {name}, which cannot decode; name another --column")
    decoded = decoder.decode(item[column])
    with local_file(item["uri"]) as path:
        original, rate = load_audio(path, sample_rate=decoder.decoded_rate, channels=len(decoded))
    stem = Path(item["uri"]).stem
    files = {"original": f"{stem}.original.wav", "decoded": f"{stem}.{column}.wav"}
    with adding(settings.dest) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / files["original"], original, rate)
        _write(folder / files["decoded"], decoded[:, : original.shape[1]], rate)
    return {
        "id": item["id"],
        "uri": item["uri"],
        **{what: str(settings.dest / file) for what, file in files.items()},
        "seconds": original.shape[1] / rate,
    }


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would decode."""
    dataset = open_dataset(settings.out)
    column = _column(dataset, settings)
    is_score = dataset.encoders[column].get("symbolic")
    name = dataset.encoders[column]["name"] if is_score else _encoder(dataset, column, settings)[0]
    item = _find(dataset, settings.item, [column])
    return {"id": item["id"], "uri": item["uri"], "column": column, "encoder": name}


def _column(dataset: Dataset, settings: Settings) -> str:
    """The column that is decoded."""
    columns = [name for name, encoder in dataset.encoders.items() if encoder["kind"] != "embedding"]
    column = settings.column or (columns[0] if len(columns) == 1 else None)
    if column not in columns:
        said = f"has no column {column}.{nearest(column, columns)}" if column else "has several columns."
        raise UsageError(f"{settings.out}: {said} Name one with --column: {', '.join(columns)}.")
    return column


def _encoder(dataset: Dataset, column: str, settings: Settings) -> tuple[str, dict[str, Any]]:
    """The name and the settings of the encoder that decodes a column."""
    encoder = dataset.encoders[column]
    name = settings.encoder or encoder.get("encoder")
    if name is None:
        raise UsageError(f"{settings.out}: {column} was imported: say with --encoder what decodes it")
    earlier = encoder.get("encoder_settings", {})
    return name, earlier | settings.settings | {"device": resolve_device(settings.device)}


def _find(dataset: Dataset, wanted: str, columns: list[str]) -> dict[str, Any]:
    """The item's `id`, `uri` and values.

    Raises:
        UsageError: none is called so, or several.
    """
    found: list[dict[str, Any]] = []
    for shard in dataset.shards():
        for table in read_tables(dataset, shard):
            ids, uris = (table.column(name).to_pylist() for name in ("id", "uri"))
            for row, (id_, uri) in enumerate(zip(ids, uris, strict=True)):
                if id_.startswith(wanted) or wanted in (uri, Path(uri).name, Path(uri).stem):
                    found.append(
                        {"id": id_, "uri": uri} | {name: to_values(table.column(name))[row] for name in columns}
                    )
    if len(found) != 1:
        many = f"{len(found)} items are" if found else "no item is"
        some = "; ".join(f"{item['id']} {item['uri']}" for item in found[:5])
        raise UsageError(
            f"{dataset.folder}: {many} called {wanted}{f' ({some})' if found else ''}. Give the first digits of an id, "
            "or a file's name."
        )
    return found[0]


def _write(path: Path, samples: NDArray[np.float32], rate: int) -> None:
    import soundfile

    soundfile.write(path, samples.T, rate, subtype="PCM_24")
