"""Feeds shards to a PyTorch trainer: shuffled, padded batches, with a position that can be saved and resumed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch.utils.data import DataLoader

from audioprep.corpus.exclusions import Exclusions, read_exclusions
from audioprep.errors import UsageError, nearest
from audioprep.shards.batches import EpochBatches, StoredBatch
from audioprep.shards.collate import to_tensors
from audioprep.shards.order import OrderSettings, num_batches
from audioprep.shards.reading import RemainingReader, ShardReader, open_split
from audioprep.storage.places import Place, to_place

logger = logging.getLogger(__name__)

_STATE_VERSION = 1


class ShardLoader:
    """Iterates over batches of a shard set, one epoch an iteration.

    A batch is a dict. An array column gives a tensor `[B, F, K]` (int64 for tokens, floats as they are stored), padded
    behind each row's own frames to the longest of the batch, `COLUMN_mask`, bool `[B, F]`, true where a frame is real,
    and `COLUMN_lengths`, int64 `[B]`, the frames of each row; `lengths` is that of the first array column of the
    batch. A vector column gives a tensor `[B, D]`. Other columns give lists.

    **Order.** It is a pure function of the data, `seed`, the epoch, `batch_size`, `buffer_size`, `shuffle` and
    `bucket`: see `audioprep.shards.order`. All ranks and workers cut up one common sequence of batches, rank r of R
    taking batches r, r + R, …, so that every row is seen once an epoch, on any number of ranks and workers.

    **DistributedDataParallel.** Where the batches of an epoch do not divide by R, the first ranks get one more than
    the others, and the last batch can be short: use `torch.distributed.algorithms.join`, or `drop_last=True`, with
    which all ranks get equally many full batches; the up to R - 1 batches left out are others in every epoch.

    **Resuming.** `state_dict()` is the position after the last batch that the caller has received, whatever workers
    have prefetched. Save it at the same step on all ranks, or on one rank for all; loaded into a loader with the same
    data and settings on any number of ranks and workers, exactly the remaining batches follow, in order.

    **Memory.** Two windows of about `buffer_size` rows of decoded Parquet, in each worker: give a smaller one for
    latents. Tars are mapped, and only what a batch needs is read from them: with very many ranks, each of which decodes
    whole row groups for its share of the batches, they are the better storage.

    Args:
        path: folder of the shard set, or its URL: its shards are then fetched as they are needed, and kept (see
            `audioprep.shards.cache`).
        split: which split.
        batch_size: rows of a batch.
        columns: which columns; None for those of arrays and vectors, and `id`.
        shuffle: another order each epoch; otherwise the order of the shards.
        seed: of the order and the crops, at least 0.
        buffer_size: rows among which is shuffled and bucketed.
        bucket: batch rows of similar length, for less padding.
        max_frames: crops longer rows: with `shuffle` at a place that is a pure function of `seed`, epoch and row,
            otherwise to their beginning. Counts frames of the array column that `num_frames` counts; an array column
            of another frame rate gives the frames of the same stretch of time, from the one that begins nearest to it.
        drop_last: leave out the last short batch, and what would give some ranks more batches than others.
        num_workers: worker processes. With 0, threads of this process decode ahead, which is the fastest for tokens.
        rank: this process among `world_size` that share the epoch; None to take both from `torch.distributed` where
            it is initialized, else from the environment's RANK and WORLD_SIZE, else 0 of 1.
        world_size: see `rank`.
        pad_id: the value of padding of tokens; that of floats is 0.
        exclude: items to leave out: a file with a path or an id a line, such as `exclude_paths.txt` of `audioprep
            dedup`. Paths in it are absolute, or file names; for those relative to a folder give what
            `audioprep.corpus.exclusions.read_exclusions` makes of it. All else is as if the shards did not have these
            items; each process reads the `uri` of all of them when it opens the shards.

    Raises:
        UsageError: no shard set, split or column of this name, a missing or damaged file, or a wrong setting. A
            shard's damage may show only when its rows are read.
    """

    def __init__(
        self,
        path: str | Place,
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
        exclude: str | Place | Exclusions | None = None,
    ) -> None:
        smallest = {"batch_size": 1, "seed": 0, "buffer_size": 1, "max_frames": 1, "num_workers": 0}
        given = (batch_size, seed, buffer_size, max_frames, num_workers)
        for (name, least), value in zip(smallest.items(), given, strict=True):
            if value is not None and value < least:
                raise UsageError(f"{name}={value}: give at least {least}")
        self._rank, self._world_size = _place(rank, world_size)
        path = to_place(path)
        self._settings = OrderSettings(batch_size, buffer_size, shuffle, bucket, drop_last, seed)
        self._reader = _remaining(open_split(path, split), exclude)
        self._columns = _checked_columns(self._reader, columns)
        if self._reader.counted is None and (bucket or max_frames):
            raise UsageError(f"{path}: has vectors only, which all have one length: leave out bucket and max_frames")
        self._scales = _scales(self._reader, self._columns) if max_frames else {}
        self._path, self._split = path, split
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
        dataset = EpochBatches(
            self._reader,
            self._columns,
            self._settings,
            self._epoch,
            self._share(self._start),
            self._max_frames,
            self._scales,
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
        for batch in batches:
            if isinstance(batch, UsageError):
                raise batch
            self._received += 1
            yield _finish(batch)
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
            "exclude": self._reader.digest if isinstance(self._reader, RemainingReader) else None,
        }


def _finish(batch: StoredBatch) -> dict[str, Any]:
    """Makes the tensors of full size: here, where they need not pass from one process to another."""
    out: dict[str, Any] = {}
    for column, padded in batch.arrays.items():
        tensors = to_tensors(padded.numpy(), batch.lengths[column])
        out[column], out[f"{column}_mask"], out[f"{column}_lengths"] = tensors
        out.setdefault("lengths", tensors[2])
    return out | batch.vectors | batch.lists


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


def _remaining(reader: ShardReader, exclude: str | Place | Exclusions | None) -> ShardReader:
    """What is left of a split without the items on a list."""
    if not isinstance(exclude, Exclusions):
        exclude = read_exclusions(to_place(exclude) if exclude else None, [])
    if not exclude.entries:
        return reader
    left = RemainingReader(reader, exclude)
    items, path = int(reader.block_rows.sum()), reader.dataset.folder
    if items and not len(left.block_rows):
        raise UsageError(f"{path}: all {items} items are on the list of what to exclude; give another one")
    if items == int(left.block_rows.sum()):
        logger.warning("%s: has none of the items to exclude: are their paths relative to a folder?", path)
    return left


def _checked_columns(reader: ShardReader, columns: Sequence[str] | None) -> list[str]:
    known = reader.dataset.columns
    if columns is None:
        return [*reader.array_columns, *reader.vector_columns, *(["id"] if "id" in known else [])]
    for column in columns:
        if column not in known:
            path = reader.dataset.folder
            raise UsageError(f"{path}: has no column {column}.{nearest(column, known)} There are: {', '.join(known)}.")
    return list(columns)


def _scales(reader: ShardReader, columns: list[str]) -> dict[str, Fraction]:
    """How many frames of each array column last as long as one of the counted column."""
    return {column: _scale(reader, column) for column in columns if column in reader.array_columns}


def _scale(reader: ShardReader, column: str) -> Fraction:
    counted, dataset = reader.counted, reader.dataset
    if column == counted or counted is None:
        return Fraction(1)
    rates = dataset.frame_rate(column), dataset.frame_rate(counted)
    if rates[0] is None or rates[1] is None:
        raise UsageError(
            f"{dataset.folder}: max_frames cannot crop {column} together with {counted}, as dataset.json has no frame "
            f"rate of both; leave out max_frames, or {column}"
        )
    return rates[0] / rates[1]
