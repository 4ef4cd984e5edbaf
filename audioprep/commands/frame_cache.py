"""Frames of many files in one file that grows, so that a killed run goes on with the next one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audioprep.corpus.entry import Entry

_TYPE = np.dtype("<f2")


class FrameCache:
    """Frames float16 `[all, D]` in `frames.f16`, and in `index.jsonl` a line a file that they come from.

    A file's frames are on disk before its line is; what lies beyond the last whole line is cut off.

    Args:
        folder: made where it is missing; one process at a time.
        dim: `D`.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._frames = folder / "frames.f16"
        self._index = folder / "index.jsonl"
        self._dim = dim
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        self._total = 0
        for path in (self._frames, self._index):
            path.touch()
        self._read_index()

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return self._total * self._dim * _TYPE.itemsize

    def count(self, entry: Entry) -> int | None:
        """How many frames a file has; None where it is not here, or was of another size."""
        found = self._places.get((entry.uri, entry.size))
        return found and found[1]

    def append(self, entry: Entry, frames: NDArray[np.floating]) -> None:
        """Commits a file's frames `[F, D]`."""
        _append(self._frames, frames.astype(_TYPE).tobytes())
        line = {"uri": entry.uri, "size": entry.size, "frames": len(frames)}
        _append(self._index, (json.dumps(line, ensure_ascii=False) + "\n").encode())
        self._add(entry.uri, entry.size, len(frames))

    def rows(self, entries: Iterable[Entry], limit: int) -> NDArray[np.int64]:
        """Which rows of `values` are the frames of these files, in this order, up to `limit` of them."""
        ranges = [self._places[entry.uri, entry.size] for entry in entries if (entry.uri, entry.size) in self._places]
        rows = [np.arange(first, first + count) for first, count in ranges]
        return np.concatenate(rows or [np.empty(0, np.int64)])[:limit]

    def values(self) -> NDArray[np.float16]:
        """All frames, `[all, D]`, mapped into memory."""
        if self._total == 0:  # an empty file cannot be mapped
            return np.empty((0, self._dim), _TYPE)
        return np.memmap(self._frames, _TYPE, "r", shape=(self._total, self._dim))

    def _read_index(self) -> None:
        whole = 0
        for line in self._index.read_bytes().splitlines(keepends=True):
            try:
                found = json.loads(line)
                uri, size, count = found["uri"], found["size"], found["frames"]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n") or (self._total + count) * self._dim * _TYPE.itemsize > os.path.getsize(
                self._frames
            ):
                break
            self._add(uri, size, count)
            whole += len(line)
        os.truncate(self._index, whole)
        os.truncate(self._frames, self.bytes)

    def _add(self, uri: str, size: int, count: int) -> None:
        self._places[uri, size] = (self._total, count)
        self._total += count


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
