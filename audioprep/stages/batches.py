"""Fills an encoder's batches with windows of many items, and hands each item what comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from audioprep.encoders.base import Encoder
from audioprep.errors import InputError, Reason
from audioprep.stages.read_ahead import Facts
from audioprep.stages.windows import Window


class Item:
    """An item whose windows are on their way through an encoder.

    Attributes:
        row: its place in the part.
        values: what came out so far, `[F, K or D]` a window.
        facts: set when its last window is under way.
        samples: that it has, at the encoder's rate.
        error: why it has failed.
    """

    facts: Facts

    def __init__(self, row: int, uri: str) -> None:
        self.row = row
        self.uri = uri
        self.values: list[NDArray[np.generic]] = []
        self.samples = 0
        self.error: InputError | None = None
        self._windows = 0
        self._ended = False

    def begin_window(self) -> None:
        self._windows += 1

    def end(self, facts: Facts, samples: int) -> None:
        """No more windows follow."""
        self.facts, self.samples, self._ended = facts, samples, True

    @property
    def is_finished(self) -> bool:
        return self.error is not None or (self._ended and len(self.values) == self._windows)


class Batches:
    """The batches of one encoder, all of the size in its spec; silence fills the last one.

    Args:
        encoder: its `encode` is called from threads where more than one batch is in flight.
        in_flight: batches on their way at once. On a GPU two: one is copied while the other is computed.
    """

    def __init__(self, encoder: Encoder, in_flight: int = 1) -> None:
        self._encoder = encoder
        self._spec = encoder.spec
        self._in_flight = in_flight
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="encode") if in_flight > 1 else None
        self._results: deque[tuple[Future[NDArray[np.generic]], list[Item]]] = deque()
        self._pending: deque[Item] = deque()
        self._new_batch()

    def begin(self, row: int, uri: str) -> Item:
        """An item whose windows will follow; items finish in this order."""
        item = Item(row, uri)
        self._pending.append(item)
        return item

    def add(self, window: Window, item: Item) -> None:
        """Puts a window into the batch, and encodes the batch when it is full."""
        row = len(self._items)
        self._samples[row] = window.samples
        self._valid[row] = window.start, window.end
        self._items.append(item)
        item.begin_window()
        if len(self._items) == self._spec.batch_size:
            self._encode()

    def finish(self) -> None:
        """Encodes what is left and waits for all."""
        if self._items:
            self._samples[len(self._items) :] = 0
            self._encode()
        while self._results:
            self._collect()
        if self._pool:
            self._pool.shutdown()

    def finished(self) -> Iterator[Item]:
        """Items that have all that is theirs, in order; each is given once."""
        while self._pending and self._pending[0].is_finished:
            yield self._pending.popleft()

    def _new_batch(self) -> None:
        size = self._spec.batch_size
        self._samples = np.empty((size, self._spec.channels, self._spec.length), np.float32)
        self._valid = np.zeros((size, 2), np.int64)
        self._items: list[Item] = []

    def _encode(self) -> None:
        if self._pool is None:
            self._hand_out(self._encoder.encode(self._samples, self._valid), self._items)
        else:
            self._results.append((self._pool.submit(self._encoder.encode, self._samples, self._valid), self._items))
            if len(self._results) > self._in_flight:
                self._collect()
        self._new_batch()

    def _collect(self) -> None:
        future, items = self._results.popleft()
        self._hand_out(future.result(), items)

    def _hand_out(self, found: NDArray[np.generic], items: list[Item]) -> None:
        for values, item in zip(found, items, strict=False):
            if self._spec.kind == "latents":
                with np.errstate(over="ignore"):  # too large for float16: infinite, and found below
                    values = values.astype(np.float16)
            is_whole = np.isfinite(values).all() if values.dtype.kind == "f" else (values >= 0).all()
            if not is_whole:
                where = len(item.values) * self._spec.window / self._spec.sample_rate
                detail = f"{self._spec.name} gave values that are not finite at {where:.1f} s; listen to it there"
                item.error = InputError(Reason.NON_FINITE, item.uri, detail)
            item.values.append(values)
