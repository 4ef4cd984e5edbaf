"""The batches of one epoch that one process makes, decoded ahead in threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from audioprep.errors import UsageError
from audioprep.shards.collate import pad_frames
from audioprep.shards.order import EpochOrder, OrderSettings, Rows, crop_places
from audioprep.shards.reading import Block, ShardReader

_DECODE_THREADS = 2
_FETCH_THREADS = 4  # shards of a store at a time

Array = NDArray[np.generic]
_Blocks = dict[int, Future[Block]]


class StoredBatch(NamedTuple):
    """A batch that may have to pass from a worker process: its tokens are then as narrow as they are stored.

    Attributes:
        arrays: `[B, F, K]` a column, padded.
        lengths: int64 `[B]` a column, the frames of each row.
        vectors: `[B, D]` a column.
        lists: the values of the other columns.
    """

    arrays: dict[str, torch.Tensor]
    lengths: dict[str, NDArray[np.int64]]
    vectors: dict[str, torch.Tensor]
    lists: dict[str, list[Any]]


@dataclass
class EpochBatches(IterableDataset[StoredBatch | UsageError]):
    """The batches that one process makes: its worker's share of its rank's share of an epoch.

    An error comes as the last element: one that a worker raises would reach the user wrapped into another message.

    `scales` says for each array column how many of its frames last as long as one of the counted column; it is needed
    where there is `max_frames`.
    """

    reader: ShardReader
    columns: list[str]
    settings: OrderSettings
    epoch: int
    share: range
    max_frames: int | None
    scales: dict[str, Fraction]
    pad_id: int
    _network: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def __iter__(self) -> Iterator[StoredBatch | UsageError]:
        worker = get_worker_info()
        share = self.share[worker.id :: worker.num_workers] if worker else self.share
        pool = ThreadPoolExecutor(1 if worker else _DECODE_THREADS)
        if any(shard.is_remote for shard in self.reader.shards):
            self._network = ThreadPoolExecutor(_FETCH_THREADS)
        try:
            order = EpochOrder(self.reader.block_rows, self.settings, self.epoch, self._lengths)
            for rows, blocks in self._decoded_ahead(pool, _windows(order, share)):
                yield self._batch(rows, blocks, narrow=worker is not None)
        except UsageError as error:
            yield error
        finally:
            if self._network:
                self._network.shutdown(cancel_futures=True)
                self._network = None
            pool.shutdown()

    def _decoded_ahead(
        self, pool: ThreadPoolExecutor, windows: Iterator[list[Rows]]
    ) -> Iterator[tuple[Rows, dict[int, Block]]]:
        """The rows of each batch and the blocks they are in; the blocks of the next window are being decoded."""
        window = next(windows, [])
        held = self._submit(pool, window, {})
        ahead: _Blocks = {}
        try:
            while window:
                following = next(windows, [])
                ahead = self._submit(pool, following, held)
                blocks = {block: future.result() for block, future in held.items()}
                for rows in window:
                    yield rows, blocks
                window, held = following, ahead
        finally:
            for future in (*held.values(), *ahead.values()):
                future.cancel()

    def _submit(self, pool: ThreadPoolExecutor, window: list[Rows], held: _Blocks) -> _Blocks:
        """The blocks of a window: those that the one before it has as well, and the others to come."""
        blocks = np.unique(self._locate(np.concatenate(window))[0]).tolist() if window else []
        self._fetch(blocks)
        return {
            block: held[block] if block in held else pool.submit(self.reader.read, block, self.columns)
            for block in blocks
        }

    def _fetch(self, blocks: list[int]) -> None:
        """Begins to fetch the shards of a store that these blocks are in; whoever reads a block waits for its shard."""
        if self._network:
            for shard in dict.fromkeys(map(self.reader.shard_of, blocks)):
                self._network.submit(lambda shard=shard: shard.path)

    def _batch(self, rows: Rows, held: dict[int, Block], narrow: bool) -> StoredBatch:
        blocks, places = self._locate(rows)
        parts = [(held[block], place) for block, place in zip(blocks.tolist(), places.tolist(), strict=True)]
        batch = StoredBatch({}, {}, {}, {})
        for column in self.columns:
            values = [block[column][place] for block, place in parts]
            if column in self.reader.array_columns:
                values = self._cropped(column, values, blocks, places)
                dtype = None if narrow or values[0].dtype.kind == "f" else np.int64
                batch.lengths[column] = np.array([len(value) for value in values])
                batch.arrays[column] = torch.from_numpy(pad_frames(values, self.pad_id, dtype))
            elif column in self.reader.vector_columns:
                batch.vectors[column] = torch.from_numpy(np.stack(values))
            else:
                batch.lists[column] = values
        return batch

    def _cropped(self, column: str, values: list[Array], blocks: Rows, places: Rows) -> list[Array]:
        """The frames that last as long as `max_frames` of the counted column, from the nearest to its crop's start."""
        if self.max_frames is None:
            return values
        lengths = np.array([len(value) for value in values])
        counted = lengths if column == self.reader.counted else self._counted(blocks, places)
        starts = self._crop_starts(blocks, places, np.maximum(counted - self.max_frames, 0))
        scale = self.scales[column]
        frames = math.ceil(self.max_frames * scale)
        begins = (2 * starts * scale.numerator + scale.denominator) // (2 * scale.denominator)
        begins = np.minimum(begins, np.maximum(lengths - frames, 0)).tolist()
        return [value[begin : begin + frames] for value, begin in zip(values, begins, strict=True)]

    def _locate(self, rows: Rows) -> tuple[Rows, Rows]:
        """The block of each row, and its place in there."""
        ends = self.reader.block_ends
        blocks = np.searchsorted(ends, rows, side="right")
        return blocks, rows - ends[blocks] + self.reader.block_rows[blocks]

    def _lengths(self, rows: Rows) -> NDArray[np.integer]:
        lengths = self._counted(*self._locate(rows))
        return lengths if self.max_frames is None else np.minimum(lengths, self.max_frames)

    def _counted(self, blocks: Rows, places: Rows) -> Rows:
        """Frames of the counted column in each row."""
        frames = np.zeros(len(blocks), np.int64)
        self._fetch(np.unique(blocks).tolist())
        for block in np.unique(blocks).tolist():
            here = blocks == block
            frames[here] = self.reader.frames(block)[places[here]]
        return frames

    def _crop_starts(self, blocks: Rows, places: Rows, spare: Rows) -> Rows:
        """The frame of the counted column at which each row's crop begins, where it has `spare` frames too many."""
        if not self.settings.shuffle:
            return np.zeros_like(spare)
        seed, sizes = self.settings.seed, self.reader.block_rows
        shares = [
            crop_places(int(sizes[block]), seed, self.epoch, block)[place]
            for block, place in zip(blocks.tolist(), places.tolist(), strict=True)
        ]
        return (np.array(shares) * (spare + 1)).astype(np.int64)


def _windows(order: EpochOrder, share: range) -> Iterator[list[Rows]]:
    """The rows of the batches in `share`, window by window; windows without any are left out."""
    while share:
        window = order.window(order.window_of(share[0]))
        here = range(share[0], min(window.stop, share.stop), share.step)
        yield [window.batch(number) for number in here]
        share = share[len(here) :]
