"""Reads the text that lies beside an audio file: `NAME.txt` tags, `NAME.lyrics`, `NAME.json`."""

from __future__ import annotations

import json
import os

from audioprep.corpus.entry import TEXT_COLUMNS, Entry, split_embedded, text_fields, uri_to_path
from audioprep.errors import InputError, Reason

_PLAIN = {".txt": "tags", ".lyrics": "lyrics"}
_MAX_BYTES = 10 * 2**20  # a side-car larger than this is something else under the same name


def read_text(entry: Entry) -> dict[str, str]:
    """Gives the text columns of an entry: what its manifest says, else what lies beside the file.

    Returns:
        Values for `tags lyrics prompt license source split metadata`; an absent one is missing.

    Raises:
        InputError: a side-car is there but cannot be read. Training without the lyrics that a user has
            written would be a silent loss, so the item fails by name.
    """
    found: dict[str, str] = {}
    if split_embedded(entry.uri) is None:
        stem = os.path.splitext(uri_to_path(entry.uri))[0]
        described = _read(entry.uri, stem + ".json")
        if described:
            found |= text_fields(_parse(entry.uri, stem + ".json", described))
        for suffix, column in _PLAIN.items():
            text = _read(entry.uri, stem + suffix).strip()
            if text:
                found[column] = text
    columns = (*TEXT_COLUMNS, "split", "metadata")
    return found | {name: value for name in columns if (value := getattr(entry, name))}


def _read(uri: str, path: str) -> str:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise InputError(Reason.UNSUPPORTED, uri, f"side-car {path} is over 10 MiB: is it text?")
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InputError(Reason.CORRUPT, uri, f"side-car {path} is not UTF-8: save it as UTF-8") from error
    except OSError as error:
        raise InputError(Reason.UNREADABLE, uri, f"side-car {path} cannot be read: {error.strerror}") from error


def _parse(uri: str, path: str, text: str) -> dict[str, object]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(Reason.CORRUPT, uri, f"side-car {path} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputError(Reason.CORRUPT, uri, f"side-car {path} is not a JSON object")
    return record
