"""The stage that turns audio into tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audioprep.corpus.entry import Entry
from audioprep.encoders.base import Encoder, EncoderSpec
from audioprep.encoders.registry import load_encoder
from audioprep.errors import InputError
from audioprep.shards.columns import array_type
from audioprep.stages.base import Failed, Kept, Outcome, Resources
from audioprep.stages.read_ahead import Facts, read_ahead


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Gives `id duration sample_rate channels`, the token column and `num_frames`.

    Attributes:
        codec: registered name of the encoder.
        codec_settings: its settings, but for the device.
        spec: what `describe_encoder` says of both.
        column: name of the token column.
    """

    codec: str
    codec_settings: dict[str, Any]
    spec: EncoderSpec
    column: str = "audio_tokens"
    name: str = field(default="tokenize", init=False)

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": 1, "column": self.column, "encoder": self.spec.to_dict()}

    @property
    def schema(self) -> pa.Schema:
        codebook_size, num_codebooks = self.spec.codebook_size, self.spec.num_codebooks
        assert codebook_size and num_codebooks
        token = pa.uint8() if codebook_size <= 2**8 else pa.uint16() if codebook_size <= 2**16 else pa.int32()
        return pa.schema(
            [
                ("id", pa.string()),
                ("duration", pa.float64()),
                ("sample_rate", pa.int32()),
                ("channels", pa.int32()),
                (self.column, array_type(token, num_codebooks)),
                ("num_frames", pa.int32()),
            ]
        )

    def run(self, entries: Sequence[Entry], resources: Resources) -> Iterator[Outcome]:
        encoder = _encoder(self.codec, tuple(sorted(self.codec_settings.items())), resources.device)
        batch = _Batch(encoder)
        pending: deque[_Item] = deque()
        todo = [(row, entry) for row, entry in enumerate(entries) if not entry.problem]
        for (row, _), file in zip(todo, read_ahead([e for _, e in todo], self.spec, resources), strict=True):
            item = _Item(row)
            pending.append(item)
            try:
                for window in file:
                    batch.add(window, item)
                    resources.heartbeat(self.spec.window / self.spec.sample_rate)
                item.facts = file.facts
            except InputError as error:
                item.error = error
            yield from self._finished(pending)
        batch.encode()
        yield from self._finished(pending)

    def _finished(self, pending: deque[_Item]) -> Iterator[Outcome]:
        while pending and pending[0].is_finished:
            item = pending.popleft()
            if item.error:
                yield Failed(item.row, item.error)
                continue
            assert item.facts
            frames = self.spec.num_frames(item.facts.samples)
            yield Kept(
                item.row,
                {
                    "id": item.facts.id,
                    "duration": item.facts.duration,
                    "sample_rate": item.facts.sample_rate,
                    "channels": item.facts.channels,
                    self.column: np.concatenate(item.codes)[:frames],
                    "num_frames": frames,
                },
            )


class _Item:
    """An item whose windows are on their way through the encoder."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.codes: list[NDArray[np.generic]] = []
        self.windows = 0
        self.facts: Facts | None = None
        self.error: InputError | None = None

    @property
    def is_finished(self) -> bool:
        return self.error is not None or (self.facts is not None and len(self.codes) == self.windows)


class _Batch:
    """Fills batches of the encoder's one size with windows of many items; silence fills the last one."""

    def __init__(self, encoder: Encoder) -> None:
        spec = encoder.spec
        length = spec.context + spec.window + spec.context
        self._encoder = encoder
        self._samples = np.zeros((spec.batch_size, spec.channels, length), np.float32)
        self._items: list[_Item] = []

    def add(self, window: NDArray[np.float32], item: _Item) -> None:
        self._samples[len(self._items)] = window
        self._items.append(item)
        item.windows += 1
        if len(self._items) == len(self._samples):
            self.encode()

    def encode(self) -> None:
        """Encodes what is there and hands every item its codes."""
        if not self._items:
            return
        self._samples[len(self._items) :] = 0
        for item, codes in zip(self._items, self._encoder.encode(self._samples), strict=False):
            item.codes.append(codes)
        self._items.clear()


@lru_cache(maxsize=1)  # a worker runs one stage over many parts: the model is loaded once
def _encoder(codec: str, settings: tuple[tuple[str, Any], ...], device: str) -> Encoder:
    if device == "cpu":
        import torch

        # One thread a worker: the workers fill the cores, and sums are taken in the same order on any machine.
        torch.set_num_threads(1)
    return load_encoder(codec, dict(settings) | {"device": device})
