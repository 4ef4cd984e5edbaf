"""Reading pages without their levels: the values are pyarrow's own, or pyarrow is left to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audioprep.shards.columns import array_type, plain_table, to_arrays, to_table
from audioprep.shards.flatpages import read_flat

GROUP = 50

WRITTEN = {
    "defaults": {},
    "as our writer": {"compression": "zstd", "write_page_index": True, "use_content_defined_chunking": True},
    "uncompressed": {"compression": "none"},
    "pages of version 2": {"data_page_version": "2.0"},
    "uncompressed pages of version 2": {"data_page_version": "2.0", "compression": "none"},
    "several pages": {"data_page_size": 300},
    "several pages of version 2": {"data_page_size": 300, "data_page_version": "2.0", "compression": "zstd"},
    "no dictionary": {"use_dictionary": False, "data_page_size": 300},
    "a dictionary that is given up": {"dictionary_pagesize_limit": 64, "data_page_size": 300},
    "delta encoding": {
        "use_dictionary": False,
        "column_encoding": {"tokens.list.element.list.element": "DELTA_BINARY_PACKED"},
    },
    "checksums": {"write_page_checksum": True},
}


FLOATS_WRITTEN = {name: options for name, options in WRITTEN.items() if name != "delta encoding"} | {
    "bytes in streams": {
        "use_dictionary": False,
        "column_encoding": {"tokens.list.element.list.element": "BYTE_STREAM_SPLIT"},
    },
}


def random_table(seed: int, *, shortest: int = 1, floats: bool = False) -> tuple[pa.Table, list[int]]:
    """Random lengths, widths, alphabets and types."""
    rng = np.random.default_rng(seed)
    dtype = (np.uint8, np.uint16)[seed % 2]
    width, codes = int(rng.integers(1, 10)), int(rng.integers(1, np.iinfo(dtype).max + 2))
    if floats:
        dtype = (np.float16, np.float32)[seed % 2]
    lengths = rng.integers(shortest, rng.integers(2, 60), 130)
    lengths[-1] = max(lengths[-1], 1)
    arrays = [(rng.integers(0, codes, (length, width)) / (7 if floats else 1)).astype(dtype) for length in lengths]
    rows = [{"id": str(i), "tokens": array} for i, array in enumerate(arrays)]
    return to_table(
        rows, pa.schema({"id": pa.string(), "tokens": array_type(pa.from_numpy_dtype(np.dtype(dtype)), width)})
    ), [int(length) for length in lengths]


def flat_groups(path: Path, lengths: list[int]) -> list[np.ndarray | None]:
    metadata = pq.read_metadata(path)
    return [
        read_flat(path, metadata, group, "tokens", sum(lengths[group * GROUP : (group + 1) * GROUP]))
        for group in range(metadata.num_row_groups)
    ]


def read_by_pyarrow(path: Path, group: int) -> np.ndarray:
    table = plain_table(pq.ParquetFile(path).read_row_group(group))
    return np.concatenate(to_arrays(table["tokens"]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("options", WRITTEN.values(), ids=WRITTEN)
def test_values_are_those_that_pyarrow_reads(tmp_path: Path, options: dict[str, Any], seed: int) -> None:
    assert_equal(tmp_path, options, *random_table(seed))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("options", FLOATS_WRITTEN.values(), ids=FLOATS_WRITTEN)
def test_floats_are_those_that_pyarrow_reads(tmp_path: Path, options: dict[str, Any], seed: int) -> None:
    assert_equal(tmp_path, options, *random_table(seed, floats=True))


def assert_equal(tmp_path: Path, options: dict[str, Any], table: pa.Table, lengths: list[int]) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=GROUP, **options)
    groups = flat_groups(path, lengths)
    assert len(groups) == 3
    for group, values in enumerate(groups):
        assert values is not None
        expected = read_by_pyarrow(path, group)
        assert values.dtype == expected.dtype
        assert np.array_equal(values, expected)


@pytest.mark.parametrize(
    "options",
    [{"write_statistics": False}, {"compression": "lz4"}, {"compression": "gzip"}, {"compression": "brotli"}],
    ids=str,
)
def test_what_is_not_known_is_left_to_pyarrow(tmp_path: Path, options: dict[str, Any]) -> None:
    table, lengths = random_table(0)
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=GROUP, **options)
    assert flat_groups(path, lengths) == [None, None, None]


def test_empty_lists_are_left_to_pyarrow(tmp_path: Path) -> None:
    table, lengths = random_table(1, shortest=0)
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=GROUP)
    empty = [0 in lengths[start : start + GROUP] for start in range(0, len(lengths), GROUP)]
    assert any(empty)
    assert [values is None for values in flat_groups(path, lengths)] == empty


@pytest.mark.parametrize(
    "rows",
    [
        [[[1, 2]], None, [[3, 4]]],
        [[[1, 2], None], [[3, 4]]],
        [[[1, None], [5, 6]], [[3, 4]]],
        [[[None, None]], [[3, 4]]],
    ],
    ids=["row", "frame", "code", "all codes"],
)
def test_nulls_are_left_to_pyarrow(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"tokens": pa.array(rows, array_type(pa.uint16(), 2))})
    pq.write_table(table, path)
    metadata = pq.read_metadata(path)
    for frames in range(6):
        assert read_flat(path, metadata, 0, "tokens", frames) is None
    assert plain_table(pq.read_table(path))["tokens"].to_pylist() == rows


def test_other_types_are_left_to_pyarrow(tmp_path: Path) -> None:
    for type_ in (pa.int32(), pa.uint32(), pa.float64()):
        path = tmp_path / f"{type_}.parquet"
        table = to_table(
            [{"tokens": np.ones((4, 3), type_.to_pandas_dtype())}], pa.schema({"tokens": array_type(type_, 3)})
        )
        pq.write_table(table, path)
        assert read_flat(path, pq.read_metadata(path), 0, "tokens", 4) is None


def test_a_wrong_number_of_frames_is_left_to_pyarrow(tmp_path: Path) -> None:
    table, lengths = random_table(2)
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    frames = sum(lengths)
    metadata = pq.read_metadata(path)
    assert read_flat(path, metadata, 0, "tokens", frames) is not None
    assert read_flat(path, metadata, 0, "tokens", frames + 1) is None
    assert read_flat(path, metadata, 0, "tokens", 0) is None


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_damaged_pages_never_crash(tmp_path: Path, compression: str) -> None:
    table, lengths = random_table(3)
    path = tmp_path / "t.parquet"
    pq.write_table(table.select(["tokens"]), path, compression=compression, data_page_size=300)
    metadata = pq.read_metadata(path)
    whole = path.read_bytes()
    column = metadata.row_group(0).column(0)
    begin = column.dictionary_page_offset
    rng = np.random.default_rng(4)
    outcomes = set()
    for _ in range(300):
        harmed = bytearray(whole)
        harmed[begin + int(rng.integers(column.total_compressed_size))] ^= int(rng.integers(1, 256))
        path.write_bytes(harmed)
        values = read_flat(path, metadata, 0, "tokens", sum(lengths))
        outcomes.add(values is None)
        assert values is None or values.shape == (sum(lengths), table["tokens"].type.value_type.list_size)
    assert True in outcomes
    path.write_bytes(whole[: begin + 20])
    assert read_flat(path, metadata, 0, "tokens", sum(lengths)) is None


def test_also_where_datasets_is_imported(tmp_path: Path) -> None:
    from audioprep.shards.writers import ParquetWriter

    table, lengths = random_table(5)
    path = tmp_path / "t.parquet"
    writer = ParquetWriter(path, table.schema)
    writer.write(table)
    writer.close()
    import datasets  # noqa: F401  registers the extension type as which Arrow now reads the column

    assert isinstance(pq.read_schema(path).field("tokens").type, pa.ExtensionType)
    values = read_flat(path, pq.read_metadata(path), 0, "tokens", sum(lengths))
    assert values is not None
    assert np.array_equal(values, np.concatenate(to_arrays(table["tokens"])))
    assert plain_table(pq.read_table(path)).equals(table)
    assert plain_table(pq.read_table(path).slice(30, 50)).equals(table.slice(30, 50))
