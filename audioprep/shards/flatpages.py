"""Reads an array column from a Parquet row group without its levels, several times as fast as pyarrow for tokens.

Parquet stores beside each value of `list<fixed_size_list<uint16, K>>` two levels that say where the lists begin.
pyarrow walks through them one by one, which takes two thirds of its time. But all inner lists have K values, and the
rows' lengths are known from `num_frames`. So a flat Parquet file is made in memory, of the same pages without the
levels, and pyarrow decodes that. Whatever is not plainly as expected is left to the ordinary reader.

Pages and headers: the Parquet format's README.md and parquet.thrift; their coding: Thrift's
doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audioprep.shards.columns import plain_type

# Types of Thrift's compact protocol.
_TRUE, _FALSE, _I32, _I64, _BINARY, _LIST, _STRUCT = 1, 2, 5, 6, 8, 9, 12
# Parquet's enums.
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_REQUIRED, _UNCOMPRESSED, _RLE = 0, 0, 3
# How a footer declares a required column: its physical type, sometimes its length, converted or logical type.
_NAMED = [(3, _I32, _REQUIRED), (4, _BINARY, b"v")]
_LEAVES = {
    "uint8": [(1, _I32, 1), *_NAMED, (6, _I32, 11)],
    "uint16": [(1, _I32, 1), *_NAMED, (6, _I32, 12)],
    "float": [(1, _I32, 4), *_NAMED],
    "halffloat": [(1, _I32, 7), (2, _I32, 2), *_NAMED, (10, _STRUCT, [(15, _STRUCT, [])])],
}
_CODECS = {"UNCOMPRESSED": None, "SNAPPY": "snappy", "ZSTD": "zstd"}


def read_flat(
    path: Path, metadata: pq.FileMetaData, group: int, column: str, frames: int
) -> NDArray[np.generic] | None:
    """Reads all values of one array column of a row group.

    Args:
        path: the file.
        metadata: its footer.
        group: which row group.
        column: an array column, see `audioprep.shards.columns`.
        frames: how many frames its rows have together.

    Returns:
        Values `[frames, K]`. None where the ordinary reader has to do it: values other than uint8, uint16, float16 or
        float32, nulls, empty lists, pages that are damaged or of an unusual kind.
    """
    type_ = plain_type(metadata.schema.to_arrow_schema().field(column).type).value_type
    row_group = metadata.row_group(group)
    chunks = (row_group.column(index) for index in range(row_group.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    statistics = chunk.statistics
    if (
        str(type_.value_type) not in _LEAVES
        or chunk.compression not in _CODECS
        or statistics is None
        or not statistics.has_null_count
        or statistics.null_count
        # A null or empty list has levels of its own, which count as one more value.
        or not 0 < chunk.num_values == frames * type_.list_size
    ):
        return None
    try:
        with pa.memory_map(str(path)) as file:
            file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
            pages = memoryview(file.read_buffer(chunk.total_compressed_size)).cast("B")
            flat = _flat_file(pages, chunk, _LEAVES[str(type_.value_type)])
        table = pq.ParquetFile(pa.BufferReader(flat)).read(use_threads=False)
        return table[0].combine_chunks().to_numpy().reshape(frames, type_.list_size)
    except (IndexError, KeyError, TypeError, ValueError, OSError, pa.ArrowException):
        return None  # the ordinary reader says what is wrong with the file


def _flat_file(data: memoryview, chunk: pq.ColumnChunkMetaData, leaf: list[tuple[int, int, Any]]) -> bytes:
    """A Parquet file with one required column, whose pages are those of `chunk` without levels.

    Raises:
        IndexError, KeyError, TypeError, ValueError, OSError: the pages are damaged or of an unknown kind.
    """
    name = _CODECS[chunk.compression]
    codec = pa.Codec(name) if name else None
    parts: list[Any] = [b"PAR1"]
    size, at, counted, dictionary, first_data_page = 4, 0, 0, None, None
    while at < len(data):
        header, begin = _read_struct(data, at)
        at = begin + header[3]
        body = data[begin:at]
        if len(body) != header[3]:
            raise ValueError("a page ends outside of its column")
        if header[1] == _DICTIONARY_PAGE:
            dictionary, (count, page) = size, _dictionary_page(header, body, codec)
        else:
            first_data_page = first_data_page or size
            count, page = _data_page(header, body, codec)
            counted += count
        parts += page
        size += sum(map(len, page))
    if counted != chunk.num_values:
        raise ValueError("the pages have not all the values of their column")
    pages = size - 4
    places = [(9, _I64, first_data_page), *([(11, _I64, dictionary)] if dictionary else [])]
    column = [
        *[leaf[0], (2, _LIST, (_I32, [_RLE])), (3, _LIST, (_BINARY, [b"v"])), (4, _I32, _UNCOMPRESSED)],
        *[(5, _I64, counted), (6, _I64, pages), (7, _I64, pages), *places],
    ]
    root = [(4, _BINARY, b"r"), (5, _I32, 1)]
    columns = [[(2, _I64, 0), (3, _STRUCT, column)]]
    row_group = [(1, _LIST, (_STRUCT, columns)), (2, _I64, pages), (3, _I64, counted)]
    schema, row_groups = (_STRUCT, [root, leaf]), (_STRUCT, [row_group])
    footer = _write_struct([(1, _I32, 1), (2, _LIST, schema), (3, _I64, counted), (4, _LIST, row_groups)])
    return b"".join([*parts, footer, len(footer).to_bytes(4, "little"), b"PAR1"])


def _dictionary_page(header: dict[int, Any], body: memoryview, codec: pa.Codec | None) -> tuple[int, list[Any]]:
    values = _decompress(body, header[2], codec)
    count, encoding = header[7][1], header[7][2]
    fields = [(1, _I32, count), (2, _I32, encoding)]
    return count, [_page_header(_DICTIONARY_PAGE, len(values), (7, _STRUCT, fields)), values]


def _data_page(header: dict[int, Any], body: memoryview, codec: pa.Codec | None) -> tuple[int, list[Any]]:
    """From a data page of version 1 or 2 the number of its values, and a page of version 1 without levels."""
    if header[1] == _DATA_PAGE:
        count, encoding, *levels = (header[5][field] for field in (1, 2, 3, 4))
        if levels != [_RLE, _RLE]:
            raise ValueError("the levels have an encoding that was given up long ago")
        values = _decompress(body, header[2], codec)
        for _ in levels:  # each after its length
            values = values[4 + int.from_bytes(values[:4], "little") :]
    elif header[1] == _DATA_PAGE_V2:
        count, encoding, levels_size = header[8][1], header[8][4], header[8][5] + header[8][6]
        compressed = header[8].get(7, True)
        values = _decompress(body[levels_size:], header[2] - levels_size, codec if compressed else None)
    else:
        raise ValueError(f"a page of the unknown type {header[1]}")
    fields = [(1, _I32, count), (2, _I32, encoding), (3, _I32, _RLE), (4, _I32, _RLE)]
    return count, [_page_header(_DATA_PAGE, len(values), (5, _STRUCT, fields)), values]


def _decompress(body: memoryview, size: int, codec: pa.Codec | None) -> memoryview:
    return memoryview(codec.decompress(body, size)).cast("B") if codec and size else body


def _page_header(kind: int, size: int, page: tuple[int, int, Any]) -> bytes:
    return _write_struct([(1, _I32, kind), (2, _I32, size), (3, _I32, size), page])


def _read_struct(data: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol, as a dict from field number to value, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        kind, step = head & 15, head >> 4
        if not step:
            raise ValueError("a field number that no page header has")
        number, at = number + step, at + 1
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        elif kind in (_I32, _I64):
            value, at = _read_varint(data, at)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == _BINARY:
            size, at = _read_varint(data, at)
            at += size
        elif kind == _STRUCT:
            fields[number], at = _read_struct(data, at)
        else:
            raise ValueError(f"a field of Thrift's type {kind}, which no page header has")
    return fields, at + 1


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _write_struct(fields: list[tuple[int, int, Any]]) -> bytes:
    """The inverse, from (field number, type, value) in rising order; a list's value is (type of elements, elements)."""
    out, last = bytearray(), 0
    for number, kind, value in fields:
        out.append((number - last) << 4 | kind)
        out += _write_value(kind, value)
        last = number
    return bytes(out) + b"\0"


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
    return bytes([*out, value])
