"""Encodes items of a shard set once more, each alone, and says how far the values differ from the stored ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.commands.base import Console
from audioprep.corpus.entry import Entry
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import describe_encoder, prefers_cpu
from audioprep.errors import UsageError
from audioprep.shards.columns import to_values
from audioprep.shards.dataset import Dataset
from audioprep.shards.tables import read_tables
from audioprep.stages.base import Failed, Resources
from audioprep.stages.encode import Encode


@dataclass
class Comparison:
    """How far one column's values differ from newly encoded ones.

    Attributes:
        same_settings: the encoder is just what it was, so that they should not differ at all.
        items: compared.
        unreadable: items whose files are no longer there, or no longer the same.
        values: compared.
        changed: values that differ.
        largest: difference of two values.
    """

    same_settings: bool
    items: int = 0
    unreadable: int = 0
    values: int = 0
    changed: int = 0
    largest: float = 0.0

    def add(self, old: NDArray[np.generic], new: NDArray[np.generic]) -> None:
        """Compares one item's values; where their number differs, all of them have changed."""
        self.items += 1
        self.values += old.size
        if old.shape != new.shape:
            self.changed += old.size
            return
        difference = np.abs(old.astype(np.float64) - new.astype(np.float64))
        self.changed += int(np.count_nonzero(difference))
        self.largest = max(self.largest, float(difference.max(initial=0.0)))

    @property
    def difference(self) -> str:
        """What differs, in words; empty where nothing does."""
        if not self.changed:
            return ""
        return f"{self.changed / self.values:.4%} of {self.values} values differ, by at most {self.largest:g}"

    def describe(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "unreadable": self.unreadable,
            "values": self.values,
            "changed": self.changed,
            "changed_share": self.changed / self.values if self.values else 0.0,
            "largest_difference": self.largest,
            "same_settings": self.same_settings,
        }


def reencode(
    dataset: Dataset, count: int, device: str, settings: dict[str, Any], console: Console
) -> dict[str, Comparison]:
    """Encodes `count` items again, for every column that an encoder made.

    Args:
        dataset: the shard set.
        count: items; chosen by their ids, which are hashes: at random, but always the same.
        device: to encode on, or `auto`: the one that `tokenize` would choose.
        settings: of the encoder, where they shall be others than those of the set.
        console: shows how far it is.

    Raises:
        UsageError: an encoder cannot be loaded, or there is none.
    """
    # Imported tokens have no encoder.
    encoders = {column: encoder for column, encoder in dataset.encoders.items() if "encoder" in encoder}
    stages = [_stage(column, encoder, device, settings) for column, encoder in encoders.items()]
    if not stages:
        raise UsageError(f"{dataset.folder}: its tokens were imported: there is no encoder to compare them with")
    found = {
        stage.column: Comparison(stage.spec == EncoderSpec.from_dict(dataset.encoders[stage.column]))
        for stage in stages
    }
    chosen = heapq.nsmallest(count, _items(dataset), key=lambda item: (item["id"], item["uri"]))
    with console.counter("Encoding again") as counter:
        for done, item in enumerate(chosen):
            for name, outcome in Encode.run(stages, [Entry(item["uri"])], Resources(resolve_device(device))):
                if isinstance(outcome, Failed) or outcome.columns["id"] != item["id"]:
                    found[name].unreadable += 1
                else:
                    found[name].add(item[name], outcome.columns[name])
            counter(done + 1, len(chosen))
    return found


def _stage(column: str, encoder: dict[str, Any], device: str, settings: dict[str, Any]) -> Encode:
    name, settings = encoder["encoder"], encoder["encoder_settings"] | settings
    spec = describe_encoder(name, settings | {"device": "cpu" if device == "auto" and prefers_cpu(name) else device})
    return Encode(name, settings, spec, column)


def _items(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The id, the URI and the encoded columns of every item."""
    for shard in dataset.shards():
        for table in read_tables(dataset, shard):
            columns: dict[str, Any] = {name: table.column(name).to_pylist() for name in ("id", "uri")}
            columns |= {name: to_values(table.column(name)) for name in dataset.encoders}
            for row in range(len(table)):
                yield {name: values[row] for name, values in columns.items()}
