"""The stage that turns audio into tokens, latents or embeddings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.corpus.entry import Entry
from audioprep.encoders.base import Encoder, EncoderSpec
from audioprep.encoders.registry import load_encoder
from audioprep.errors import InputError, UsageError
from audioprep.shards.columns import array_type, vector_type
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources
from audioprep.stages.batches import Batches, Item
from audioprep.stages.meter import Meter
from audioprep.stages.read_ahead import read_ahead
from audioprep.stages.windows import WindowCutter


@dataclass(frozen=True, slots=True)
class Encode:
    """Gives `id duration sample_rate channels`, one column of an encoder, and `num_frames`.

    Attributes:
        encoder: its registered name.
        encoder_settings: its settings, but for the device.
        spec: what `describe_encoder` says of both.
        column: name of the column, and of the stage.
    """

    encoder: str
    encoder_settings: dict[str, Any]
    spec: EncoderSpec
    column: str

    @property
    def name(self) -> str:
        return self.column

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 2, "encoder": self.spec.to_dict()}

    @property
    def origin(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "encoder_settings": self.encoder_settings}

    @property
    def schema(self) -> pa.Schema:
        return item_schema(self.column, self.spec)

    @property
    def uses_gpu(self) -> bool:
        return self.spec.settings.get("device", "cpu") != "cpu"

    @staticmethod
    def run(stages: Sequence[Encode], entries: Sequence[Entry], resources: Resources) -> Iterator[tuple[str, Outcome]]:
        lanes = [_Lane(stage, resources.device if stage.uses_gpu else "cpu") for stage in stages]
        meter = Meter()
        todo = [(row, entry) for row, entry in enumerate(entries) if not entry.problem]
        files = read_ahead([entry for _, entry in todo], [stage.spec for stage in stages], resources)
        for (row, entry), file in zip(todo, files, strict=True):
            items = [lane.batches.begin(row, entry.uri) for lane in lanes]
            try:
                for number, window in meter.waiting_for(file):
                    lanes[number].batches.add(window, items[number])
                    spec = lanes[number].stage.spec
                    # Several encoders hear the same seconds.
                    seconds = spec.window / spec.sample_rate if number == 0 else 0.0
                    resources.heartbeat(Beat(seconds, *meter.read(), _fewer_rows(lanes)))
                for number, item in enumerate(items):
                    item.end(file.facts, file.facts.samples[number])
            except InputError as error:
                for item in items:
                    item.error = error
            for lane in lanes:
                yield from lane.outcomes()
        for lane in lanes:
            lane.batches.finish()
            yield from lane.outcomes()
        resources.heartbeat(Beat(0.0, *meter.read(), _fewer_rows(lanes)))


class _Lane:
    """One stage, its encoder, and the items on their way through it."""

    def __init__(self, stage: Encode, device: str) -> None:
        self.stage = stage
        self.encoder = _encoder(stage.encoder, tuple(sorted(stage.encoder_settings.items())), device)
        _check_spec(stage, self.encoder.spec)
        self.batches = Batches(self.encoder, in_flight=2 if device.startswith("cuda") else 1)

    def outcomes(self) -> Iterator[tuple[str, Outcome]]:
        """Those of the items that are finished, in order."""
        for item in self.batches.finished():
            yield self.stage.name, self._outcome(item)

    def _outcome(self, item: Item) -> Outcome:
        if item.error:
            return Failed(item.row, item.error)
        facts, spec = item.facts, self.stage.spec
        frames = spec.num_frames(item.samples)
        values = np.concatenate(item.values)[:frames]
        return Kept(
            item.row,
            {
                "id": facts.id,
                "duration": item.samples / spec.sample_rate,
                "sample_rate": facts.sample_rate,
                "channels": facts.channels,
                self.stage.column: mean_direction(values) if spec.pooling else values,
                "num_frames": frames,
            },
        )


def _check_spec(stage: Encode, now: EncoderSpec) -> None:
    """
    Raises:
        UsageError: a column that is there would go on with values of another kind.
    """
    if stage.spec != now:
        old, new = ({**spec.to_dict(), **spec.settings, "settings": None} for spec in (stage.spec, now))
        changes = [f"{name}: {old[name]} → {new.get(name)}" for name in old if old[name] != new.get(name)]
        raise UsageError(
            f"{stage.column}: its encoder {stage.encoder} is not what it was ({'; '.join(changes)}). Run this where it "
            "was made, or make all anew with --overwrite."
        )


def encode_samples(encoder: Encoder, samples: NDArray[np.float32]) -> NDArray[Any]:
    """Encodes a recording that is in memory, as the stage would encode its file (but for pooling).

    Args:
        encoder: of `load_encoder`.
        samples: float32 `[C, T]` at the encoder's rate.

    Returns:
        `[F, K or D]`.

    Raises:
        InputError: the encoder gives values that are not finite.
    """
    batches, cutter = Batches(encoder), WindowCutter(encoder.spec)
    item = batches.begin(0, "samples")
    for window in chain(cutter.push(samples), cutter.finish()):
        batches.add(window, item)
    batches.finish()
    if item.error:
        raise item.error
    return np.concatenate(item.values)[: encoder.spec.num_frames(samples.shape[1])]


def mean_direction(embeddings: NDArray[np.generic]) -> NDArray[np.float32]:
    """The mean of embeddings `[F, D]`, made one long: float32 `[D]`. Where it is zero, so is the result."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    return (mean / (np.linalg.norm(mean) or 1.0)).astype(np.float32)


def item_schema(column: str, spec: EncoderSpec) -> pa.Schema:
    """What a stage gives that reads audio: what is known of the file, and a column of what an encoder makes."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("duration", pa.float64()),
            ("sample_rate", pa.int32()),
            ("channels", pa.int32()),
            (column, _column_type(spec)),
            ("num_frames", pa.int32()),
        ]
    )


def _column_type(spec: EncoderSpec) -> pa.DataType:
    if spec.kind == "tokens":
        size, width = spec.codebook_size, spec.num_codebooks
        assert size and width
        return array_type(pa.uint8() if size <= 2**8 else pa.uint16() if size <= 2**16 else pa.int32(), width)
    assert spec.dim
    if spec.pooling:
        return vector_type(pa.float32(), spec.dim)
    return array_type(pa.float16() if spec.kind == "latents" else pa.float32(), spec.dim)


def _fewer_rows(lanes: Sequence[_Lane]) -> dict[str, int]:
    """By column, how many windows its encoder takes at once, where that is less than its spec says."""
    rows = {lane.stage.column: getattr(lane.encoder, "rows", lane.stage.spec.batch_size) for lane in lanes}
    return {lane.stage.column: rows[lane.stage.column] for lane in lanes
            if rows[lane.stage.column] < lane.stage.spec.batch_size}  # fmt: skip


@lru_cache(maxsize=16)  # a worker runs its stages over many parts: a model is loaded once
def _encoder(name: str, settings: tuple[tuple[str, Any], ...], device: str) -> Encoder:
    encoder = load_encoder(name, dict(settings) | {"device": device})
    if device == "cpu" and (torch := sys.modules.get("torch")):
        # One thread a worker: the workers fill the cores, and sums are taken in the same order on any machine.
        torch.set_num_threads(1)
    return encoder
