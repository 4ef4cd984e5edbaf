"""Feeds shards to a PyTorch trainer: shuffled, padded batches, with a position that can be saved and resumed."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from audioprep.errors import UsageError
from audioprep.shards.order import EpochOrder, OrderSettings, Rows, crop_places, num_batches
from audioprep.shards.reading import Block, ShardReader, nearest, open_split

_STATE_VERSION = 1
_DECODE_THREADS = 2

_Blocks = dict[int, Future[Block]]


class ShardLoader:
    """Iterates over batches of a shard set, one epoch an iteration.

    A batch is a dict. An array column gives a tensor `[B, F, K]` (int64 for tokens, floats as they are stored),
    padded with `pad_id` behind each row's own frames, and `COLUMN_mask`, bool `[B, F]`, true where a frame is real.
    `lengths` is int64 `[B]`, the frames of each row of the first array column. Other columns give lists.

    **Order.** It is a pure function of the data, `seed`, the epoch, `batch_size`, `buffer_size`, `shuffle` and
    `bucket`: see `audioprep.shards.order`. All ranks and workers cut up one common sequence of batches, rank r of R
    taking batches r, r + R, …, so that every row is seen once an epoch, on any number of ranks and workers.

    **DistributedDataParallel.** Where the batches of an epoch do not divide by R, the first ranks get one more than
    the others, and the last batch can be short: use `torch.distributed.algorithms.join`, or `drop_last=True`, with
    which all ranks get equally many full batches; the up to R - 1 batches left out are others in every epoch.

    **Resuming.** `state_dict()` is the position after the last batch that the caller has received, whatever workers
    have prefetched. Save it at the same step on all ranks, or on one rank for all; loaded into a loader with the same
    data and settings on any number of ranks and workers, exactly the remaining batches follow, in order.

    **Memory.** Two windows of about `buffer_size` rows of decoded Parquet, in each worker. Tars are mapped, and only
    what a batch needs is read from them: with very many ranks, each of which decodes whole row groups for its share
    of the batches, they are the better storage.

    Args:
        path: folder of the shard set.
        split: which split.
        batch_size: rows of a batch.
        columns: which columns; None for the array columns and `id`.
        shuffle: another order each epoch; otherwise the order of the shards.
        seed: of the order and the crops, at least 0.
        buffer_size: rows among which is shuffled and bucketed.
        bucket: batch rows of similar length, for less padding.
        max_frames: crops longer rows: with `shuffle` at a place that is a pure function of `seed`, epoch and row
            (for all array columns the same, relative to their length), otherwise to their beginning.
        drop_last: leave out the last short batch, and what would give some ranks more batches than others.
        num_workers: worker processes. With 0, threads of this process decode ahead, which is the fastest for tokens.
        rank: this process among `world_size` that share the epoch; None to take both from `torch.distributed` where
            it is initialized, else from the environment's RANK and WORLD_SIZE, else 0 of 1.
        world_size: see `rank`.
        pad_id: the value of padding.

    Raises:
        UsageError: no shard set, split or column of this name, a missing or damaged file, or a wrong setting. A
            shard's damage may show only when its rows are read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: str = "train",
        batch_size: int,
        columns: Sequence[str] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        buffer_size: int = 8192,
        bucket: bool = False,
        max_frames: int | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        pad_id: int = 0,
    ) -> None:
        smallest = {"batch_size": 1, "seed": 0, "buffer_size": 1, "max_frames": 1, "num_workers": 0}
        given = (batch_size, seed, buffer_size, max_frames, num_workers)
        for (name, least), value in zip(smallest.items(), given, strict=True):
            if value is not None and value < least:
                raise UsageError(f"{name}={value}: give at least {least}")
        self._rank, self._world_size = _place(rank, world_size)
        self._settings = OrderSettings(batch_size, buffer_size, shuffle, bucket, drop_last, seed)
        self._reader = open_split(Path(path), split)
        self._columns = _checked_columns(Path(path), self._reader, columns)
        self._path, self._split = Path(path), split
        self._max_frames, self._pad_id, self._num_workers = max_frames, pad_id, num_workers
        self._epoch = 0
        self._start = 0  # the batch of the epoch at which the iteration begins, or has begun
        self._received = 0
        self._begun = False

    def __len__(self) -> int:
        """Batches that this rank gets from a whole epoch."""
        return len(self._share(0))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of the epoch after `load_state_dict`, otherwise a whole one: each time the next."""
        if self._begun:
            self.set_epoch(self._epoch + 1)
        self._begun = True
        return self._iterate()

    def _iterate(self) -> Iterator[dict[str, Any]]:
        dataset = _Batches(
            self._reader,
            self._columns,
            self._settings,
            self._epoch,
            self._share(self._start),
            self._max_frames,
            self._pad_id,
        )
        batches = dataset
        if self._num_workers:
            batches = DataLoader(
                dataset,
                batch_size=None,
                num_workers=self._num_workers,
                collate_fn=_as_is,
                # Without one, each epoch would draw from the trainer's global generator.
                generator=torch.Generator(),
            )
        memory = Memory()
        for batch in batches:
            self._received += 1
            yield _finish(batch, memory)
        self.set_epoch(self._epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration that of `epoch`, from its start; a position loaded for this epoch stays."""
        if epoch != self._epoch or self._begun:
            self._epoch, self._start, self._received, self._begun = epoch, 0, 0, False

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch received; plain values that JSON can hold."""
        position = min(self._start + self._received * self._world_size, self._num_batches)
        return {"epoch": self._epoch, "batch": position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on at the position of `state`.

        Raises:
            UsageError: the state belongs to other data or other settings; the message names what differs.
        """
        here = self._identity()
        differing = [
            f"{name} (state: {state.get(name)!r}, loader: {value!r})"
            for name, value in here.items()
            if state.get(name) != value
        ]
        if differing:
            raise UsageError(
                f"{self._path}: the state of the loader is of other data or settings: {', '.join(differing)}; open the "
                "loader as it was when the state was saved"
            )
        self._epoch, self._start, self._received, self._begun = state["epoch"], state["batch"], 0, False

    @property
    def _num_batches(self) -> int:
        return num_batches(int(self._reader.block_rows.sum()), self._settings)

    def _share(self, start: int) -> range:
        """The batches of this rank, when all ranks together begin at batch `start`."""
        stop = self._num_batches
        if self._settings.drop_last:
            stop -= (stop - start) % self._world_size
        return range(start + self._rank, stop, self._world_size)

    def _identity(self) -> dict[str, Any]:
        """All that the order of the rows depends on."""
        settings = self._settings
        shards = "\n".join(f"{shard.rows} {shard.sha256}" for shard in self._reader.shards)
        return {
            "version": _STATE_VERSION,
            "split": self._split,
            "shards": hashlib.sha256(shards.encode()).hexdigest(),
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            "buffer_size": settings.buffer_size,
            "shuffle": settings.shuffle,
            "bucket": settings.bucket,
            # Buckets are sorted by the cropped lengths.
            "max_frames": self._max_frames,
        }


class _Stored(NamedTuple):
    """A batch on its way from a worker: arrays are still in the type in which they are stored, a quarter of int64."""

    arrays: dict[str, torch.Tensor]
    lengths: dict[str, NDArray[np.int64]]
    lists: dict[str, list[Any]]


@dataclass
class _Batches(IterableDataset[_Stored]):
    """The batches that one process makes: its worker's share of its rank's share of an epoch."""

    reader: ShardReader
    columns: list[str]
    settings: OrderSettings
    epoch: int
    share: range
    max_frames: int | None
    pad_id: int

    def __iter__(self) -> Iterator[_Stored]:
        worker = get_worker_info()
        share = self.share[worker.id :: worker.num_workers] if worker else self.share
        order = EpochOrder(self.reader.block_rows, self.settings, self.epoch, self._lengths)
        with ThreadPoolExecutor(1 if worker else _DECODE_THREADS) as pool:
            try:
                yield from self._decoded_ahead(pool, _windows(order, share))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _decoded_ahead(self, pool: ThreadPoolExecutor, windows: Iterator[list[Rows]]) -> Iterator[_Stored]:
        """Makes the batches of one window while the blocks of the next are being decoded."""
        window = next(windows, [])
        held = self._submit(pool, window, {})
        while window:
            following = next(windows, [])
            ahead = self._submit(pool, following, held)
            blocks = {block: future.result() for block, future in held.items()}
            for rows in window:
                yield self._batch(rows, blocks)
            window, held = following, ahead

    def _submit(self, pool: ThreadPoolExecutor, window: list[Rows], held: _Blocks) -> _Blocks:
        """The blocks of a window: those that the one before it has as well, and the others to come."""
        blocks = np.unique(self._locate(np.concatenate(window))[0]).tolist() if window else []
        return {
            block: held[block] if block in held else pool.submit(self.reader.read, block, self.columns)
            for block in blocks
        }

    def _batch(self, rows: Rows, held: dict[int, Block]) -> _Stored:
        blocks, places = self._locate(rows)
        parts = [(held[block], place) for block, place in zip(blocks.tolist(), places.tolist(), strict=True)]
        crops = self._crops(blocks, places)
        batch = _Stored({}, {}, {})
        for column in self.columns:
            values = [block[column][place] for block, place in parts]
            if column not in self.reader.array_columns:
                batch.lists[column] = values
                continue
            if crops is not None and self.max_frames is not None:
                values = [_crop(value, self.max_frames, crop) for value, crop in zip(values, crops, strict=True)]
            batch.lengths[column] = np.array([len(value) for value in values])
            batch.arrays[column] = torch.from_numpy(pad_frames(values, self.pad_id))
        return batch

    def _locate(self, rows: Rows) -> tuple[Rows, Rows]:
        """The block of each row, and its place in there."""
        ends = self.reader.block_ends
        blocks = np.searchsorted(ends, rows, side="right")
        return blocks, rows - ends[blocks] + self.reader.block_rows[blocks]

    def _lengths(self, rows: Rows) -> NDArray[np.integer]:
        blocks, places = self._locate(rows)
        lengths = np.zeros(len(rows), np.int64)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            lengths[here] = self.reader.frames(block)[places[here]]
        return lengths if self.max_frames is None else np.minimum(lengths, self.max_frames)

    def _crops(self, blocks: Rows, places: Rows) -> list[float] | None:
        """Where each row is cropped, from 0 at its beginning to 1 at its end; None if none is."""
        if self.max_frames is None:
            return None
        if not self.settings.shuffle:
            return [0.0] * len(blocks)
        seed, sizes = self.settings.seed, self.reader.block_rows
        return [
            float(crop_places(int(sizes[block]), seed, self.epoch, block)[place])
            for block, place in zip(blocks.tolist(), places.tolist(), strict=True)
        ]


def _windows(order: EpochOrder, share: range) -> Iterator[list[Rows]]:
    """The rows of the batches in `share`, window by window; windows without any are left out."""
    while share:
        window = order.window(order.window_of(share[0]))
        here = range(share[0], min(window.stop, share.stop), share.step)
        yield [window.batch(number) for number in here]
        share = share[len(here) :]


def _crop(value: NDArray[np.generic], frames: int, place: float) -> NDArray[np.generic]:
    begin = int(place * (max(len(value) - frames, 0) + 1))
    return value[begin : begin + frames]


def pad_frames(rows: Sequence[NDArray[np.generic]], pad_id: int = 0) -> NDArray[np.generic]:
    """Puts rows `[F_i, K]` into one array `[B, max F_i, K]`, in their own type if that can hold `pad_id`."""
    first = rows[0]
    fits = first.dtype.kind == "f" or np.can_cast(np.min_scalar_type(pad_id), first.dtype)
    shape = (len(rows), max(map(len, rows)), *first.shape[1:])
    out = np.empty(shape, first.dtype if fits else np.int64)
    for padded, row in zip(out, rows, strict=True):
        padded[: len(row)] = row
        padded[len(row) :] = pad_id
    return out


def to_tensors(
    padded: NDArray[np.generic], lengths: NDArray[np.int64], memory: Memory | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch `[B, F, K]` (int64, or the floats that it is), its mask bool `[B, F]`, its lengths int64 `[B]`."""
    # NumPy, as torch would wake its OpenMP threads for each of these: on busy cores they spin for longer than this.
    mask = np.arange(padded.shape[1]) < lengths[:, None]
    values = padded
    if padded.dtype.kind != "f":
        values = memory.empty(padded.shape, np.int64) if memory else np.empty(padded.shape, np.int64)
        np.copyto(values, padded)
    return torch.from_numpy(values), torch.from_numpy(mask), torch.from_numpy(lengths)


class Memory:
    """Memory of batches that nobody holds any more, to use again: new pages take longer than filling them.

    A tensor holds the array of which it was made, and this holds its buffer. So as long as there is the tensor, or
    any view of it, somebody refers to the buffer beside this object.
    """

    _BUFFERS = 4  # the caller's batch and the next one, twice for a caller that looks ahead

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """An array with arbitrary values."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        index = next(filter(self._is_free, range(len(self._buffers))), len(self._buffers))
        if index < len(self._buffers) and len(self._buffers[index]) >= size:
            buffer = self._buffers[index]
        else:
            buffer = np.empty(size, np.uint8)
            self._buffers[index : index + 1] = [buffer] if index < self._BUFFERS else []
        return buffer[:size].view(dtype).reshape(shape)

    def _is_free(self, index: int) -> bool:
        return sys.getrefcount(self._buffers[index]) == 2  # by the list, and as the argument of this call


def _finish(batch: _Stored, memory: Memory) -> dict[str, Any]:
    """Makes the tensors of full size: here, where they need not pass from one process to another."""
    out: dict[str, Any] = {}
    for column, padded in batch.arrays.items():
        tensors = to_tensors(padded.numpy(), batch.lengths[column], memory)
        out[column], out[f"{column}_mask"], lengths = tensors
        out.setdefault("lengths", lengths)
    return out | batch.lists


def _as_is(batch: Any) -> Any:
    return batch


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process among those that share an epoch."""
    if (rank is None) != (world_size is None):
        raise UsageError("rank and world_size belong together: give both, or neither")
    if rank is None or world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise UsageError(f"rank={rank}, world_size={world_size}: ranks count from 0 to world_size - 1")
    return rank, world_size


def _checked_columns(path: Path, reader: ShardReader, columns: Sequence[str] | None) -> list[str]:
    known = reader.columns
    if columns is None:
        return [*reader.array_columns, *(["id"] if "id" in known else [])]
    for column in columns:
        if column not in known:
            raise UsageError(f"{path}: no column {column!r}{nearest(column, known)}; it has: {', '.join(known)}")
    return list(columns)
