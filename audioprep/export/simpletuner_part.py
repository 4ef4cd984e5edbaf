"""What one shard gives to an export for SimpleTuner: token files, and its part of the table."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audioprep.export.base import Destination
from audioprep.export.heartmula import CODEBOOKS, EXPLAINED, Fault, without_ending
from audioprep.export.simpletuner_config import LayoutName
from audioprep.export.simpletuner_rows import Row
from audioprep.export.source import Item

TokenFormat = Literal["npy", "pt"]
ROWS = 128
"""Rows that are written, and kept in memory, at once."""

_COLUMNS = {"tags": pa.string(), "lyrics": pa.string()}
_MORE = {"duration": pa.float64(), "num_frames": pa.int32(), "id": pa.string()} | {
    name: pa.string() for name in ("license", "source")
}


@dataclass
class Counts:
    """What became of the items of a shard, or of all; `frames` without endings, `segmented`: songs cut into pieces."""

    items: int = 0
    excluded: int = 0
    rows: int = 0
    frames: int = 0
    segmented: int = 0
    without_lyrics: int = 0
    lyrics_emptied: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    licenses: dict[str, int] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        for name, value in asdict(other).items():
            own = getattr(self, name)
            added = dict(sorted((Counter(own) + Counter(value)).items())) if isinstance(value, dict) else own + value
            setattr(self, name, added)


def schema_of(layout: LayoutName) -> pa.Schema:
    """The columns of the table: `tags, lyrics, audio_tokens_path | audio_tokens, duration, …`."""
    inline = {"audio_tokens": pa.list_(pa.list_(pa.int32()))}
    return pa.schema(_COLUMNS | (inline if layout == "inline" else {"audio_tokens_path": pa.string()}) | _MORE)


class Part:
    """The rows of one shard, as they come.

    Attributes:
        table: name of the file with the rows.
        reasons: name of the file with what was left out, and why.
        files: names of all files.
        counts: what became of the items.
        content: of all that the trainer will see.
    """

    def __init__(self, shard: str, layout: LayoutName, token_format: TokenFormat, destination: Destination) -> None:
        self.table, self.reasons = (f".audioprep/parts/{shard}.{suffix}" for suffix in ("parquet", "jsonl"))
        self.files = [self.table]
        self.counts = Counts()
        self.content = hashlib.sha256()
        self._shard = shard
        self._layout = layout
        self._token_format: TokenFormat = token_format
        self._destination = destination
        self._schema = schema_of(layout)
        self._rows: list[dict[str, Any]] = []
        self._left_out: list[dict[str, str]] = []
        self._names: Counter[str] = Counter()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the table open; all is written when it is left."""
        with self._destination.new(self.table) as path, pq.ParquetWriter(path, self._schema) as self._writer:
            yield
            self._flush()
        lines = "".join(json.dumps(entry) + "\n" for entry in self._left_out)
        self._destination.put(self.reasons, lines.encode("ascii"))
        self.files.append(self.reasons)

    def add(self, item: Item, rows: list[Row | Fault]) -> None:
        """Adds the rows of one item."""
        self.counts.segmented += len(rows) > 1
        self._names[item["id"]] += 1
        copy = f"_{self._names[item['id']]}" if self._names[item["id"]] > 1 else ""
        if any(isinstance(row, Row) for row in rows):
            license = item.get("license") or "not stated"
            self.counts.licenses[license] = self.counts.licenses.get(license, 0) + 1
        for row in rows:
            if isinstance(row, Fault):
                self.counts.left_out[row] = self.counts.left_out.get(row, 0) + 1
                self._left_out.append({"id": item["id"], "uri": item["uri"], "reason": row, "what": EXPLAINED[row]})
                continue
            start = f"-{row.piece.start:06d}" if len(rows) > 1 else ""
            self._add(f"{item['id']}{copy}{start}", item, row)

    def _add(self, name: str, item: Item, row: Row) -> None:
        frames = len(without_ending(row.tokens))
        values = {"tags": row.tags, "lyrics": row.lyrics, "duration": row.seconds, "num_frames": frames, "id": name}
        values |= {column: item.get(column) for column in ("license", "source")}
        if self._layout != "inline":
            values["audio_tokens_path"] = f"tokens/{self._shard}/{name}.{self._token_format}"
            self._put(values["audio_tokens_path"], _encoded(row.tokens, self._token_format))
        self.content.update(json.dumps(values).encode() + row.tokens.tobytes())
        if self._layout == "jsonl":  # SimpleTuner wants an audio file of each row, and never opens it
            self._put(f"audio/{self._shard}/{name}.wav", b"")
        self.counts.rows += 1
        self.counts.frames += frames
        self.counts.without_lyrics += not row.lyrics
        self.counts.lyrics_emptied += row.emptied
        self._rows.append(values | {"audio_tokens": row.tokens})
        if len(self._rows) == ROWS:
            self._flush()

    def _put(self, name: str, data: bytes) -> None:
        self._destination.put(name, data)
        self.files.append(name)

    def _flush(self) -> None:
        columns = []
        for column in self._schema:
            values = [row[column.name] for row in self._rows]
            columns.append(_nested(values) if column.name == "audio_tokens" else pa.array(values, column.type))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows = []


def _nested(tokens: list[NDArray[np.int16]]) -> pa.ListArray:
    """Arrays `[frames, 8]` as lists of lists."""
    flat = np.concatenate([np.empty((0, CODEBOOKS), np.int16), *tokens]).astype(np.int32)
    frames = pa.ListArray.from_arrays(pa.array(np.arange(0, flat.size + 1, CODEBOOKS), pa.int32()), flat.ravel())
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *map(len, tokens)]), pa.int32()), frames)


def _encoded(tokens: NDArray[np.int16], token_format: TokenFormat) -> bytes:
    """A token file."""
    buffer = io.BytesIO()
    if token_format == "npy":
        np.save(buffer, tokens, allow_pickle=False)
    else:
        import torch

        torch.save(torch.from_numpy(tokens.astype(np.int64)), buffer)
    return buffer.getvalue()
