"""Reads a column of integer arrays from a Parquet row group without its repetition levels, 2.5 times as fast.

Parquet stores beside each value of `list<fixed_size_list<uint16, K>>` two levels that say where the lists begin.
pyarrow walks through them one by one, and that is two thirds of its time; but all lists have K values, and the
rows' lengths are known from `num_frames`. So the column chunk's pages are taken as they are, without the levels,
as those of a flat column, and pyarrow decodes that.

Pages and their headers: the Parquet format's README.md and parquet.thrift; their coding: Thrift's
doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

# Thrift's compact types.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
# Parquet's enums, and the number that parquet.thrift gives the converted type of each kind of value.
_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = range(4)
_INT32, _REQUIRED, _UNCOMPRESSED, _RLE = 1, 0, 0, 3
_CONVERTED_TYPES = {"uint8": 11, "uint16": 12}

_Struct = dict[int, Any]


def read_flat(
    path: Path, metadata: pq.FileMetaData, group: int, column: str, frames: int
) -> NDArray[np.unsignedinteger] | None:
    """Reads all values of one array column of a row group.

    Args:
        path: the file.
        metadata: its footer.
        group: which row group.
        column: a top-level column of type `list<fixed_size_list<T, K>>`.
        frames: how many frames its rows have together.

    Returns:
        Values `[frames, K]`; None where the chunk is not plainly all values of uint8 or uint16, without nulls or
        empty lists: there only the levels tell what is what.

    Raises:
        ValueError, pyarrow.ArrowException: the pages are damaged.
    """
    type_ = metadata.schema.to_arrow_schema().field(column).type.value_type
    value_type, width = str(type_.value_type), type_.list_size
    chunk = _column_chunk(metadata.row_group(group), column)
    statistics = chunk.statistics
    no_nulls = statistics is not None and statistics.has_null_count and statistics.null_count == 0
    # A null or empty list has levels of its own, which count as one more value.
    if value_type not in _CONVERTED_TYPES or not frames or not no_nulls or chunk.num_values != frames * width:
        return None
    with path.open("rb") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        pages = file.read(chunk.total_compressed_size)
    try:
        flat = _flat_file(pages, chunk, _CONVERTED_TYPES[value_type])
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"column {column}, row group {group}: a page header is damaged") from error
    table = pq.ParquetFile(pa.BufferReader(flat)).read(use_threads=False)
    return table[0].combine_chunks().to_numpy().reshape(frames, width)


def _column_chunk(row_group: pq.RowGroupMetaData, column: str) -> pq.ColumnChunkMetaData:
    chunks = (row_group.column(index) for index in range(row_group.num_columns))
    return next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)


def _flat_file(data: bytes, chunk: pq.ColumnChunkMetaData, converted_type: int) -> bytes:
    """A Parquet file with one required column, whose pages are those of `chunk` without levels."""
    codec = None if chunk.compression == "UNCOMPRESSED" else pa.Codec(chunk.compression.lower())
    parts = [b"PAR1"]
    size, position, first_data_page = 4, 0, 0
    while position < len(data):
        header, begin = _read_struct(data, position)
        position = begin + header[3]
        if not begin <= position <= len(data):
            raise ValueError("a page ends outside of its column")
        body = memoryview(data)[begin:position]
        if header[1] == _DICTIONARY_PAGE:
            page = _dictionary_page(header, body, codec)
        else:
            first_data_page = first_data_page or size
            page = _data_page(header, body, codec)
        parts += page
        size += sum(map(len, page))
    values = chunk.num_values
    column = [
        (1, _I32, _INT32),
        (2, _LIST, (_I32, [_RLE])),
        (3, _LIST, (_BINARY, [b"v"])),
        (4, _I32, _UNCOMPRESSED),
        (5, _I64, values),
        (6, _I64, size - 4),
        (7, _I64, size - 4),
        (9, _I64, first_data_page),
        *([(11, _I64, 4)] if first_data_page > 4 else []),
    ]
    root = [(4, _BINARY, b"r"), (5, _I32, 1)]
    leaf = [(1, _I32, _INT32), (3, _I32, _REQUIRED), (4, _BINARY, b"v"), (6, _I32, converted_type)]
    row_group = [
        (1, _LIST, (_STRUCT, [[(2, _I64, 0), (3, _STRUCT, column)]])),
        (2, _I64, size - 4),
        (3, _I64, values),
    ]
    footer = _write_struct(
        [
            (1, _I32, 1),
            (2, _LIST, (_STRUCT, [root, leaf])),
            (3, _I64, values),
            (4, _LIST, (_STRUCT, [row_group])),
        ]
    )
    return b"".join([*parts, footer, len(footer).to_bytes(4, "little"), b"PAR1"])


def _dictionary_page(header: _Struct, body: memoryview, codec: pa.Codec | None) -> list[Any]:
    values = _decompress(body, header[2], codec)
    page = [(1, _I32, header[7][1]), (2, _I32, header[7][2])]
    return [_page_header(_DICTIONARY_PAGE, len(values), (7, _STRUCT, page)), values]


def _data_page(header: _Struct, body: memoryview, codec: pa.Codec | None) -> list[Any]:
    """A data page of version 1, without levels, from one of either version."""
    if header[1] == _DATA_PAGE:
        count, encoding = header[5][1], header[5][2]
        values = _decompress(body, header[2], codec)
        for _ in range(2):  # repetition and definition levels, each after its length
            values = values[4 + int.from_bytes(values[:4], "little") :]
    elif header[1] == _DATA_PAGE_V2:
        count, encoding, levels = header[8][1], header[8][4], header[8][5] + header[8][6]
        compressed = header[8].get(7, True)
        values = _decompress(body[levels:], header[2] - levels, codec if compressed else None)
    else:
        raise ValueError(f"a page of the unknown type {header[1]}")
    page = [(1, _I32, count), (2, _I32, encoding), (3, _I32, _RLE), (4, _I32, _RLE)]
    return [_page_header(_DATA_PAGE, len(values), (5, _STRUCT, page)), values]


def _decompress(body: memoryview, size: int, codec: pa.Codec | None) -> memoryview:
    return memoryview(codec.decompress(body, size)) if codec and size else body


def _page_header(kind: int, size: int, page: tuple[int, int, Any]) -> bytes:
    return _write_struct([(1, _I32, kind), (2, _I32, size), (3, _I32, size), page])


def _read_struct(data: bytes, at: int) -> tuple[_Struct, int]:
    """One struct in Thrift's compact protocol, as a dict from field number to value, and where it ends."""
    out: _Struct = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_zigzag(data, at)
        out[number], at = _read_value(data, at, head & 15)
    return out, at + 1


def _read_value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in (_I16, _I32, _I64):
        return _read_zigzag(data, at)
    if kind == _BINARY:
        size, at = _read_varint(data, at)
        return data[at : at + size], at + size
    if kind == _STRUCT:
        return _read_struct(data, at)
    raise ValueError(f"a page header that holds Thrift's type {kind}, which Parquet does not use there")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _read_zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _write_struct(fields: list[tuple[int, int, Any]]) -> bytes:
    """The inverse, from (field number, type, value) in rising order; a list's value is (type of elements, elements)."""
    out, last = bytearray(), 0
    for number, kind, value in fields:
        out.append((number - last) << 4 | kind)
        out += _write_value(kind, value)
        last = number
    out.append(0)
    return bytes(out)


def _write_value(kind: int, value: Any) -> bytes:
    if kind in (_I32, _I64):
        return _write_varint(value << 1)  # zigzag; nothing here is negative
    if kind == _BINARY:
        return _write_varint(len(value)) + value
    if kind == _STRUCT:
        return _write_struct(value)
    element, elements = value
    return bytes([len(elements) << 4 | element]) + b"".join(_write_value(element, each) for each in elements)


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
