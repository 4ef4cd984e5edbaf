"""One row of the corpus: where an input is, and what is known of it before it is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa

TEXT_COLUMNS = ("tags", "lyrics", "prompt", "license", "source")

# Files that are lyrics themselves.
LYRIC_SUFFIXES = (".lyrics", ".lrc", ".txt")

# Names under which other tools' manifests and side-cars keep the same things.
ALIASES = {
    "tag": "tags",
    "caption": "prompt",
    "text": "prompt",
    "description": "prompt",
    "licence": "license",
    "subset": "split",
}

ENTRY_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        ("size", pa.int64()),
        ("split", pa.string()),
        *((name, pa.string()) for name in TEXT_COLUMNS),
        ("metadata", pa.string()),
        ("problem", pa.string()),
        pa.field("ordinal", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """An input before it is read. Entries sort by `uri`, then by their text.

    Attributes:
        uri: absolute path, `file:` URL where the path's bytes are no UTF-8, URL of a store as it was found, or
            `CONTAINER#row=N` for audio that lies inside a Parquet or Arrow file.
        size: bytes, where the scan has seen them; 0 where not.
        split: what a manifest says; empty: decided by the hash of the content.
        metadata: further columns of a manifest, as a JSON object; empty where there are none.
        problem: why a row of a manifest names no input; empty where all is well.
        ordinal: 0 for the first entry of this uri, 1 for the second with another text, and so on.
    """

    uri: str
    size: int = 0
    split: str = ""
    tags: str = ""
    lyrics: str = ""
    prompt: str = ""
    license: str = ""
    source: str = ""
    metadata: str = ""
    problem: str = ""
    ordinal: int = 0


def path_to_uri(path: str) -> str:
    """The path itself, or a `file:` URL where it is not valid UTF-8 (columns hold only that)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def uri_to_path(uri: str) -> str:
    """The local path behind a uri that `path_to_uri` made; what is a URL of a store stays one."""
    return os.fsdecode(unquote_to_bytes(uri[len("file://") :])) if uri.startswith("file://") else uri


def split_embedded(uri: str) -> tuple[str, int] | None:
    """The container's uri and the row number, where `uri` names audio inside a Parquet or Arrow file."""
    match = re.fullmatch(r"(.+\.(?:parquet|arrow)(?:\?[^#]*)?)#row=(\d+)", uri, re.DOTALL | re.IGNORECASE)
    return (match[1], int(match[2])) if match else None


def is_table_row(uri: str) -> bool:
    """Whether `uri` names a row of a table, beside which nothing can lie."""
    table = r"\.(?:parquet|arrow|csv|tsv|jsonl|ndjson)(?:\?[^#]*)?#(?:row|line)=\d+$"
    return re.search(table, uri, re.IGNORECASE) is not None


def is_lyric_file(uri: str) -> bool:
    """Whether `uri` names a file of lyrics, and no recording."""
    return uri.lower().endswith(LYRIC_SUFFIXES)


def text_fields(record: Mapping[str, object]) -> dict[str, Any]:
    """Sorts a manifest's or side-car's keys into the columns of an entry.

    Known names (and their aliases) become columns; a list of tags is joined by commas; all else goes into
    `metadata` as JSON.
    """
    fields: dict[str, str] = {}
    rest: dict[str, object] = {}
    for key, value in record.items():
        name = ALIASES.get(key.lower(), key.lower())
        if value is None or value == "":
            continue
        if name not in (*TEXT_COLUMNS, "split") or name in fields:
            rest[key] = value
        elif isinstance(value, list):
            fields[name] = ",".join(str(part) for part in value)
        else:
            fields[name] = str(value)
    if rest:
        fields["metadata"] = json.dumps(rest, ensure_ascii=False, sort_keys=True, default=str)
    return fields
