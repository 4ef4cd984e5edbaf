"""Reads the text that lies beside an audio file: `NAME.txt` tags, `NAME.lyrics`, `NAME.json`; and files of lyrics."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

from audioprep.corpus.beside import TEXT_SUFFIXES, sizes_beside
from audioprep.corpus.content import raise_store_error
from audioprep.corpus.encodings import decode
from audioprep.corpus.entry import TEXT_COLUMNS, Entry, is_lyric_file, is_table_row, text_fields, uri_to_path
from audioprep.errors import InputError, Reason
from audioprep.storage.places import HTTP, is_url, scheme_of, to_url
from audioprep.storage.transfer import read_bytes

_PLAIN = {".txt": "tags", ".lyrics": "lyrics"}
_MAX_BYTES = 10 * 2**20  # a side-car larger than this is something else under the same name


def read_text(entry: Entry) -> dict[str, str]:
    """Gives the text columns of an entry: what its manifest says, else what lies beside the file, or what the file is.

    Returns:
        Values for `tags lyrics prompt license source split metadata`; an absent one is missing.

    Raises:
        InputError: a side-car is there but cannot be read. Training without the lyrics that a user has
            written would be a silent loss, so the item fails by name.
    """
    found: dict[str, str] = {}
    if is_lyric_file(entry.uri):
        path = uri_to_path(entry.uri)
        if not is_url(path) and not os.path.exists(path):
            raise InputError(Reason.NOT_FOUND, entry.uri, "the file is not there any more")
        found["lyrics"] = _fetch(entry.uri, path, None) if is_url(path) else _read(entry.uri, path, "the file")
    elif not is_table_row(entry.uri):
        stem = _stem(entry.uri)
        texts = _texts_beside(entry.uri, stem) if is_url(stem) else {p: _read(entry.uri, p) for p in _names(stem)}
        if described := texts.get(stem + ".json"):
            found |= text_fields(_parse(entry.uri, stem + ".json", described))
        for suffix, column in _PLAIN.items():
            if text := texts.get(stem + suffix, "").strip():
                found[column] = text
    columns = (*TEXT_COLUMNS, "split", "metadata")
    return found | {name: value for name in columns if (value := getattr(entry, name))}


def _names(stem: str) -> list[str]:
    return [stem + suffix for suffix in TEXT_SUFFIXES]


def _stem(uri: str) -> str:
    """Path or URL without its suffix; what HTTP has behind the path is not of the text files beside."""
    path = uri_to_path(uri)
    if is_url(path) and scheme_of(path) in HTTP:
        path = urlsplit(path)._replace(query="", fragment="").geturl()
    return os.path.splitext(path)[0]


def _texts_beside(uri: str, stem: str) -> dict[str, str]:
    """The texts beside a recording of a store, by their URLs."""
    try:
        sizes = sizes_beside(stem)
    except OSError as error:
        raise_store_error(error, uri)
    texts: dict[str, str] = {}
    for url, size in sizes.items():
        try:
            texts[url] = _fetch(uri, url, size)
        except InputError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
    return texts


def _fetch(uri: str, url: str, size: int | None) -> str:
    called = "the file" if uri == url else f"side-car {url}"
    if size is not None and size > _MAX_BYTES:
        raise InputError(Reason.UNSUPPORTED, uri, f"{called} is over 10 MiB: is it text?")
    try:
        return decode(read_bytes(to_url(url)))
    except ValueError as error:
        raise InputError(Reason.CORRUPT, uri, f"{called} {error}") from error
    except OSError as error:
        raise_store_error(error, uri)


def _read(uri: str, path: str, called: str = "") -> str:
    called = called or f"side-car {path}"
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise InputError(Reason.UNSUPPORTED, uri, f"{called} is over 10 MiB: is it text?")
        with open(path, "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise InputError(Reason.CORRUPT, uri, f"{called} {error}") from error
    except OSError as error:
        raise InputError(Reason.UNREADABLE, uri, f"{called} cannot be read: {error.strerror}") from error


def _parse(uri: str, path: str, text: str) -> dict[str, object]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(Reason.CORRUPT, uri, f"side-car {path} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputError(Reason.CORRUPT, uri, f"side-car {path} is not a JSON object")
    return record
