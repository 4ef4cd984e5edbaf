"""How many bytes of samples a chunked PCM file declares: decoders read what is there and do not tell."""

from __future__ import annotations

import struct
from typing import BinaryIO

from audioprep.audio.source import Source

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_UNKNOWN = (0, 0xFFFFFFFF)  # what writers to a pipe put, as they cannot come back to the header
_MAX_CHUNKS = 1000


def declared_bytes(source: Source) -> int | None:
    """Bytes of samples that a wav, rf64, w64 or aiff file declares; None where it declares none."""
    with open(source.path, "rb") as file:
        try:
            if source.format == "w64":
                return _w64(file)
            return _iff(file, "little" if source.format in ("wav", "rf64") else "big")
        except struct.error:  # the file ends within a chunk's header
            return None


def _iff(file: BinaryIO, order: str) -> int | None:
    header = "<4sI" if order == "little" else ">4sI"
    size_64: int | None = None
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        name, size = struct.unpack(header, file.read(8))
        if name == b"ds64":
            size_64 = struct.unpack("<QQ", file.read(16))[1]
            file.seek(-16, 1)
        elif name == b"data" and order == "little":
            if size == 0xFFFFFFFF and size_64:
                return size_64
            return None if size in _UNKNOWN else size
        elif name == b"SSND" and order == "big":
            return size - 8 if size > 8 else None
        file.seek(size + size % 2, 1)
    return None


def _w64(file: BinaryIO) -> int | None:
    file.seek(40)
    for _ in range(_MAX_CHUNKS):
        name, size = struct.unpack("<16sQ", file.read(24))
        if name == _W64_DATA:
            return size - 24 if 24 < size < 1 << 62 else None
        if size < 24 or size >= 1 << 62:
            return None
        file.seek((size + 7) // 8 * 8 - 24, 1)
    return None
