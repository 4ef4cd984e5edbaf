"""Reads a split of a shard set block by block: row groups of Parquet files, runs of items of tars.

A block is a dict from column to a sequence with one entry a row: the entries of array and vector columns are numpy
views `[frames, width]` and `[width]` into the decoded row group or the mapped tar, the others are plain values.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audioprep.corpus.exclusions import Exclusions
from audioprep.errors import UsageError
from audioprep.shards.cache import Shard, fetch_footers
from audioprep.shards.columns import is_array, is_vector, plain_table, to_values
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.flatpages import read_flat
from audioprep.storage.places import Place

Block = dict[str, Sequence[Any]]

NUM_FRAMES = "num_frames"  # the column with the frames of each row, of one array column
TAR_BLOCK = 512  # items; what is read in one go from a tar is this module's choice


class Ragged(Sequence[NDArray[np.generic]]):
    """Arrays `[frames, width]` one after the other in `values` `[all frames, width]`, cut at `offsets`."""

    def __init__(self, values: NDArray[np.generic], offsets: NDArray[np.integer]) -> None:
        self.values = values
        self.offsets: list[int] = offsets.tolist()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.generic]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class ShardReader(ABC):
    """One split of a shard set.

    Attributes:
        dataset: the shard set.
        shards: its data files.
        array_columns: columns with arrays `[frames, width]`.
        vector_columns: columns with vectors `[width]`.
        counted: the array column that gives the rows their lengths, if there is one.
        block_rows: int64 `[N]`, rows of each block.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        shards = [dataset.shard(entry) for entry in dataset.shards(split)]
        for shard in shards:
            if not shard.is_remote and not shard.path.is_file():
                raise UsageError(
                    f"{shard.path}: the shard is listed in dataset.json but is not there; copy it again, or run "
                    "the command that wrote the set again: it goes on from what is left"
                )
        self.dataset = dataset
        self.shards = shards
        self.array_columns: list[str] = []
        self.vector_columns: list[str] = []
        self.counted = dataset.num_frames_of
        self.block_rows = np.zeros(0, np.int64)

    @cached_property
    def block_ends(self) -> NDArray[np.int64]:
        """The row of the split before which each block ends: int64 `[N]`."""
        return np.cumsum(self.block_rows)

    @abstractmethod
    def shard_of(self, block: int) -> Shard:
        """The data file that a block is in."""

    @abstractmethod
    def read(self, block: int, columns: Sequence[str]) -> Block:
        """Reads these columns of one block; called from several threads at a time."""

    @abstractmethod
    def frames(self, block: int) -> NDArray[np.integer]:
        """Frames of the counted column in each row of a block."""


class RemainingReader(ShardReader):
    """What a list of inputs leaves of a split: the rows of another reader whose `uri` or `id` is not on it.

    Attributes:
        digest: sha256 of the places of the rows that are left.
    """

    def __init__(self, reader: ShardReader, exclude: Exclusions) -> None:
        for name in ("dataset", "shards", "array_columns", "vector_columns", "counted"):
            setattr(self, name, getattr(reader, name))
        self._reader = reader
        rows = [self._remaining(block, exclude) for block in range(len(reader.block_rows))]
        self._blocks = [(block, left) for block, left in enumerate(rows) if len(left)]
        self.block_rows = np.array([len(left) for _, left in self._blocks], np.int64)
        self.digest = hashlib.sha256(b"".join(len(left).to_bytes(8) + left.tobytes() for left in rows)).hexdigest()

    def shard_of(self, block: int) -> Shard:
        return self._reader.shard_of(self._blocks[block][0])

    def read(self, block: int, columns: Sequence[str]) -> Block:
        number, rows = self._blocks[block]
        return {column: [values[row] for row in rows] for column, values in self._reader.read(number, columns).items()}

    def frames(self, block: int) -> NDArray[np.integer]:
        number, rows = self._blocks[block]
        return self._reader.frames(number)[rows]

    def _remaining(self, block: int, exclude: Exclusions) -> NDArray[np.int64]:
        names = self._reader.read(block, [name for name in ("uri", "id") if name in self.dataset.columns])
        left_out = [exclude.match(uri) for uri in names.get("uri", [])]
        listed = [id_ in exclude.entries for id_ in names.get("id", [])]
        rows = int(self._reader.block_rows[block])
        return np.flatnonzero(~(np.array(left_out or [False] * rows) | np.array(listed or [False] * rows)))


class ParquetReader(ShardReader):
    """Parquet files; a block is a row group."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        super().__init__(dataset, split)
        self._groups: list[tuple[Shard, int]] = []
        rows: list[int] = []
        fetch_footers(self.shards)
        for shard in self.shards:
            metadata = _footer(shard)
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            _check_rows(shard, sum(sizes))
            self._groups += [(shard, group) for group, size in enumerate(sizes) if size]
            rows += [size for size in sizes if size]
        self.block_rows = np.array(rows, np.int64)
        if self.shards:
            schema = _footer(self.shards[0]).schema.to_arrow_schema()
            self.array_columns = [field.name for field in schema if is_array(field.type)]
            self.vector_columns = [field.name for field in schema if is_vector(field.type)]

    def shard_of(self, block: int) -> Shard:
        return self._groups[block][0]

    def read(self, block: int, columns: Sequence[str]) -> Block:
        shard, group = self._groups[block]
        out: Block = {}
        with _naming(shard):
            if self.counted is not None and self.counted in columns:
                frames = self.frames(block)
                values = read_flat(shard.path, _footer(shard), group, self.counted, int(frames.sum()))
                if values is not None:
                    out[self.counted] = Ragged(values, np.concatenate([[0], np.cumsum(frames)]))
            rest = [column for column in columns if column not in out]
            table = _read_group(shard, group, rest) if rest else None
        for column in rest:
            assert table is not None
            out[column] = to_values(table[column])
        return out

    def frames(self, block: int) -> NDArray[np.integer]:
        return _frames(*self._groups[block])


class TarReader(ShardReader):
    """Tars with an index; a block is a run of items. Pages that no batch needs are never read from the disk."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        super().__init__(dataset, split)
        self._runs: list[tuple[Shard, int, int]] = []
        for shard in self.shards:
            if not shard.is_remote:  # one of a store comes with its index
                if not shard.index.is_file():
                    raise UsageError(
                        f"{shard.index}: the index of {shard.path.name} is not there; copy it again, or run the "
                        "command that wrote the set again"
                    )
                with _naming(shard):
                    _check_rows(shard, pq.read_metadata(shard.index).num_rows)
            starts = range(0, shard.rows, TAR_BLOCK)
            self._runs += [(shard, start, min(start + TAR_BLOCK, shard.rows)) for start in starts]
        self.block_rows = np.array([stop - start for _, start, stop in self._runs], np.int64)
        if self.shards:
            tar = _open_tar(self.shards[0])
            self.array_columns = [name for name in tar.arrays if name in tar.frames]
            self.vector_columns = [name for name in tar.arrays if name not in tar.frames]

    def shard_of(self, block: int) -> Shard:
        return self._runs[block][0]

    def read(self, block: int, columns: Sequence[str]) -> Block:
        shard, start, stop = self._runs[block]
        tar = _open_tar(shard)
        out: Block = {name: tar.arrays[name][start:stop] for name in columns if name in tar.arrays}
        plain = [column for column in columns if column not in out]
        if plain == ["id"]:
            out["id"] = tar.ids(start, stop)
        elif plain:
            with _naming(shard):
                items = [tar.item(row) for row in range(start, stop)]
                out |= {column: [item[column] for item in items] for column in plain}
        return out

    def frames(self, block: int) -> NDArray[np.integer]:
        shard, start, stop = self._runs[block]
        assert self.counted
        return _open_tar(shard).frames[self.counted][start:stop]


class _TarArrays(Sequence[NDArray[np.generic]]):
    """One column of arrays or vectors of a tar, as views into the mapped file.

    Args:
        data: the tar.
        dtype: of the values.
        shape: `(-1, width)` of arrays, `(width,)` of vectors.
        offsets: where the values of each row begin.
        counts: how many there are.
    """

    def __init__(
        self,
        data: mmap.mmap,
        dtype: np.dtype,
        shape: tuple[int, ...],
        offsets: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> None:
        self._data, self._dtype, self._shape = data, dtype, shape
        self._offsets, self._counts = offsets, counts

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return _TarArrays(self._data, self._dtype, self._shape, self._offsets[row], self._counts[row])
        values = np.frombuffer(self._data, self._dtype, int(self._counts[row]), int(self._offsets[row]))
        return values.reshape(self._shape)


class _Tar:
    """One mapped tar and its index.

    Attributes:
        arrays: its columns of arrays and vectors.
        frames: int32 `[rows]` of each of its array columns.
    """

    def __init__(self, shard: Shard) -> None:
        index = pq.read_table(shard.index)
        _check_rows(shard, len(index))
        with shard.path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._keys = index["key"]
        self._json_offsets = index["json_offset"].to_numpy()
        self._json_sizes = index["json_size"].to_numpy()
        names = [name.removesuffix(".offset") for name in index.column_names if name.endswith(".offset")]
        framed = [name for name in names if f"{name}.frames" in index.column_names]
        self.frames: dict[str, NDArray[np.int32]] = {name: index[f"{name}.frames"].to_numpy() for name in framed}
        self.arrays = {name: self._arrays(name, index[f"{name}.offset"].to_numpy()) for name in names}

    def _arrays(self, name: str, offsets: NDArray[np.int64]) -> _TarArrays:
        if not len(offsets):
            return _TarArrays(self._data, np.dtype(np.uint16), (-1, 1), offsets, offsets)
        dtype, (*first, width) = _npy_header(self._data, int(offsets[0]))
        frames = self.frames.get(name)
        counts = np.full(len(offsets), width) if frames is None else frames.astype(np.int64) * width
        ends = offsets + counts * dtype.itemsize
        if first != ([] if frames is None else [frames[0]]) or ends.max() > len(self._data):
            raise ValueError(f"its index does not belong to it (column {name})")
        return _TarArrays(self._data, dtype, (width,) if frames is None else (-1, width), offsets, counts)

    def ids(self, start: int, stop: int) -> list[str]:
        """The ids of items; a key that may be an id repeated in this tar (`ID_2`) is looked up in its JSON."""
        keys: list[str] = self._keys.slice(start, stop - start).to_pylist()
        return [self.item(start + i)["id"] if re.search(r"_\d+$", key) else key for i, key in enumerate(keys)]

    def item(self, row: int) -> dict[str, Any]:
        """Scalars and text of one item."""
        begin = int(self._json_offsets[row])
        return json.loads(self._data[begin : begin + int(self._json_sizes[row])])


def open_split(root: str | Place, split: str) -> ShardReader:
    """Opens one split of the shard set in the folder, or behind the URL, `root`.

    Raises:
        UsageError: there is no shard set, no such split, a file is missing, or one is not what dataset.json says.
    """
    dataset = open_dataset(root)
    reader = {"parquet": ParquetReader, "webdataset": TarReader}.get(dataset.storage)
    if reader is None:
        raise UsageError(f"{dataset.folder / 'dataset.json'}: storage {dataset.storage!r} is not parquet or webdataset")
    return reader(dataset, split)


class _naming:  # noqa: N801 (used like a function)
    """Turns what a damaged file makes its reader raise into an error that names the file."""

    def __init__(self, shard: Shard) -> None:
        self._path = f"{shard.folder}/{shard.name}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | pa.ArrowException | ValueError | KeyError | EOFError | IndexError):
            raise UsageError(
                f"{self._path}: cannot be read ({error}); see `audioprep verify`, then copy the shard again or run "
                "the command that wrote the set again"
            ) from error


def _check_rows(shard: Shard, rows: int) -> None:
    if rows != shard.rows:
        raise UsageError(
            f"{shard.folder}/{shard.name}: has {rows} rows, dataset.json says {shard.rows}; see `audioprep verify`, "
            "then copy the shard again or run the command that wrote the set again"
        )


@lru_cache(maxsize=256)
def _footer(shard: Shard) -> pq.FileMetaData:
    with _naming(shard):
        return shard.footer()


def _read_group(shard: Shard, group: int, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(shard.path, metadata=_footer(shard), memory_map=True) as file:
        # Arrow's own threads would take the cores from the other blocks that are being decoded.
        return plain_table(file.read_row_group(group, columns=columns, use_threads=False))


@lru_cache(maxsize=4096)
def _frames(shard: Shard, group: int) -> NDArray[np.integer]:
    with _naming(shard):
        return _read_group(shard, group, [NUM_FRAMES])[NUM_FRAMES].to_numpy()


@lru_cache(maxsize=64)
def _open_tar(shard: Shard) -> _Tar:
    with _naming(shard):
        return _Tar(shard)


def _npy_header(data: mmap.mmap, offset: int) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of the array whose values begin at `offset`: the header lies right before them."""
    begin = data.rfind(np.lib.format.MAGIC_PREFIX, max(0, offset - 4096), offset)
    if begin < 0:
        raise ValueError("its index does not belong to it (no array where the index says one is)")
    data.seek(begin)
    version = np.lib.format.read_magic(data)  # pyright: ignore[reportArgumentType]
    read: Callable[..., Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(data)
    if fortran or len(shape) not in (1, 2) or data.tell() != offset:
        raise ValueError("an array in it is neither frames in C order nor a vector")
    return dtype, shape
