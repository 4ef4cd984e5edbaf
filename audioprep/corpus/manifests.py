"""Reads manifests: tables with one input a row, and data sets that hold the audio themselves."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.corpus.entry import Entry, path_to_uri, text_fields
from audioprep.errors import UsageError
from audioprep.storage.faults import to_os_error
from audioprep.storage.listing import join, no_access
from audioprep.storage.places import is_url, name_of, require_store, scheme_of
from audioprep.storage.transfer import local_copy, open_remote

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

# The first of these that a manifest has is the column with the inputs.
PATH_COLUMNS = (
    "uri", "path", "audio_path", "audio_file", "audio_filepath", "audio", "wav", "file", "file_name", "filename",
    "location",
)  # fmt: skip


def read_manifest(path: str) -> Iterator[Entry]:
    """Gives the entries of a CSV, TSV, JSONL or Parquet manifest.

    Relative paths are relative to the manifest's folder; a path can be a URL. The columns `tags lyrics prompt license
    source split` (and usual other names for them) become columns; all others go into `metadata`. A row that names no
    input, or that says itself what its `problem` is, becomes an entry with a `problem`, so that it ends in
    `failures.parquet`.

    Raises:
        UsageError: no column with paths, or the table cannot be read at all.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    return _read_lines(path) if suffix in (".jsonl", ".ndjson") else _read_csv(path)


def suffix_of(path: str) -> str:
    """Of a path or a URL, in small letters."""
    return os.path.splitext(name_of(path))[1].lower()


def is_saved_dataset(path: str) -> bool:
    """Whether a folder was written by `datasets`' `save_to_disk` (of one split or of several)."""
    return os.path.isfile(os.path.join(path, "state.json")) or os.path.isfile(os.path.join(path, "dataset_dict.json"))


def read_saved_dataset(path: str) -> Iterator[Entry]:
    """Gives the rows of a folder that `datasets`' `save_to_disk` wrote; its audio may lie inside it.

    Raises:
        UsageError: the folder's own description cannot be read, or it has no column with audio.
    """
    splits = os.path.join(path, "dataset_dict.json")
    if os.path.isfile(splits):
        for split in _load_json(splits)["splits"]:
            yield from read_saved_dataset(os.path.join(path, split))
        return
    state = _load_json(os.path.join(path, "state.json"))
    for part in state["_data_files"]:
        arrow_file = os.path.join(path, part["filename"])
        with pa.memory_map(arrow_file) as source, pa.ipc.open_stream(source) as reader:
            rows = (row for batch in reader for row in _rows(batch))
            yield from _table_entries(arrow_file, reader.schema, rows, split=state.get("_split") or "")


def read_embedded(url: str) -> Iterator[Entry]:
    """Gives the rows of a Parquet file of a store that holds recordings; none where it holds something else.

    Raises:
        UsageError: it cannot be read.
    """
    with _open_parquet(url) as file:
        embedded = any(_is_embedded_audio(field.type) for field in file.schema_arrow)
    return _read_parquet(url) if embedded else iter(())


def _read_parquet(path: str) -> Iterator[Entry]:
    with _open_parquet(path) as file:
        yield from _table_entries(path, file.schema_arrow, _parquet_rows(file), split="")


@contextmanager
def _open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A file, of a store too: of that only what is asked for is fetched."""
    try:
        if not is_url(path):
            with pq.ParquetFile(path) as file:
                yield file
            return
        with open_remote(path) as remote, pq.ParquetFile(remote, pre_buffer=True) as file:
            yield file
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path}: not a readable Parquet manifest: {error}") from error
    except Exception as error:
        if (meant := to_os_error(error)) is None:
            raise
        if is_url(path):
            raise no_access(path, meant) from error
        raise UsageError(f"{path}: not a readable Parquet manifest: {error}") from error


def _parquet_rows(file: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """The rows, with the paths of embedded audio, and without its bytes, which only the part that decodes needs."""
    wanted: list[str] = []
    embedded: dict[str, None] = {}
    for field in file.schema_arrow:
        if not _is_embedded_audio(field.type):
            wanted.append(field.name)
            continue
        embedded[field.name] = None
        if field.type.get_field_index("path") >= 0:
            wanted.append(f"{field.name}.path")
    if not wanted:
        yield from (dict(embedded) for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(1024, columns=wanted):
        for row in batch.to_pylist():
            yield embedded | row | {name: row[name]["path"] for name in embedded if row.get(name)}


def _rows(batch: pa.RecordBatch) -> Iterable[dict[str, Any]]:
    """A batch's rows without the bytes of embedded audio, which only the part that decodes them needs."""
    names, columns = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if _is_embedded_audio(field.type):
            column = column.field("path") if field.type.get_field_index("path") >= 0 else pa.nulls(len(batch))
        names.append(field.name)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names).to_pylist()


def _table_entries(path: str, schema: pa.Schema, rows: Iterable[dict[str, Any]], split: str) -> Iterator[Entry]:
    column = _path_column(path, schema.names)
    embedded = _is_embedded_audio(schema.field(column).type)
    for index, row in enumerate(rows):
        where = row.pop(column)
        if embedded:
            fields = text_fields({"split": split} | row)
            yield Entry(f"{path_to_uri(path)}#row={index}", **fields)
        else:
            yield _entry(path, f"row={index}", where, {"split": split} | row)


def _is_embedded_audio(type_: pa.DataType) -> bool:
    return pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0


def _read_lines(path: str) -> Iterator[Entry]:
    column = None
    for place, record in _json_records(path):
        if isinstance(record, Entry):
            yield record
            continue
        column = column or _path_column(path, list(record))
        yield _entry(path, place, record.pop(column, None), record)


def _json_records(path: str) -> Iterator[tuple[str, dict[str, Any] | Entry]]:
    """The objects of a file of JSON lines with their places; an entry with a `problem` for a line that is none."""
    with _local(path) as local, open(local, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"line={number}"
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
            except ValueError as error:
                record = _problem(path, place, f"line {number} of the manifest cannot be read: {error}")
            yield place, record


def _read_csv(path: str) -> Iterator[Entry]:
    column = None
    for place, record in _csv_records(path, _path_column):
        column = column or _path_column(path, list(record))
        yield _entry(path, place, record.pop(column, None), record)


def _csv_records(path: str, column_of: Callable[[str, list[str]], str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table with their places; `column_of` looks at the header, and may refuse it."""
    try:
        with _local(path) as local, open(local, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            delimiter = max(",\t|;", key=header.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, restkey="", restval="")
            column_of(path, list(reader.fieldnames or []))
            for record in reader:
                record.pop("", None)
                yield f"line={reader.line_num}", dict(record)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a readable CSV manifest: {error}. Save it as UTF-8.") from error


def read_lyric_table(path: str) -> Iterator[Entry]:
    """Gives an entry for every row of a CSV, TSV, JSONL or Parquet table that has `lyrics`.

    Raises:
        UsageError: no such column, or the table cannot be read at all.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        records = _parquet_records(path)
    else:
        records = _json_records(path) if suffix in (".jsonl", ".ndjson") else _csv_records(path, _lyrics_column)
    column = None
    for place, record in records:
        if isinstance(record, Entry):
            yield record
            continue
        column = column or _lyrics_column(path, list(record))
        if (fields := text_fields(record)).get("lyrics", "").strip():
            yield Entry(f"{path_to_uri(path)}#{place}", **fields)


@contextmanager
def _local(path: str) -> Iterator[str | Path]:
    """The path itself, or a copy of the file behind a URL."""
    if not is_url(path):
        yield path
        return
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(local_copy(path))
        except OSError as error:
            raise no_access(path, error) from error
        yield copy


def _parquet_records(path: str) -> Iterator[tuple[str, dict[str, Any] | Entry]]:
    with _open_parquet(path) as file:
        _lyrics_column(path, file.schema_arrow.names)
        for index, row in enumerate(_parquet_rows(file)):
            yield f"row={index}", row


def _lyrics_column(path: str, names: list[str]) -> str:
    found = next((name for name in names if name.lower() == "lyrics"), None)
    if found is None:
        raise UsageError(
            f"{path}: no column `lyrics`. Found: {', '.join(names) or 'none'}. Call the one with lyrics so."
        )
    return found


def _path_column(path: str, names: list[str]) -> str:
    lower = {name.lower().strip(): name for name in names}
    for wanted in PATH_COLUMNS:
        if wanted in lower:
            return lower[wanted]
    found = ", ".join(names) or "none"
    raise UsageError(
        f"{path}: no column names the audio files. Found: {found}. Call one of them `path` "
        f"(also taken: {', '.join(PATH_COLUMNS)})."
    )


def _entry(manifest: str, place: str, where: object, record: Mapping[str, object]) -> Entry:
    if not isinstance(where, str) or not where.strip():
        return _problem(manifest, place, "the manifest names no file in this row")
    uri = _uri(manifest, where.strip())
    if problem := record.get("problem"):
        return Entry(uri, problem=str(problem))
    return Entry(uri, **text_fields(record))


def _uri(manifest: str, where: str) -> str:
    """What a manifest's row names.

    Raises:
        UsageError: a URL of a kind that cannot be read here.
    """
    if is_url(where):
        require_store(scheme_of(where))
        return where
    path = os.path.expanduser(where)
    if is_url(manifest) and not os.path.isabs(path):
        return join(manifest, path)
    return path_to_uri(os.path.normpath(os.path.join(os.path.dirname(manifest), path)))


def _problem(manifest: str, place: str, detail: str) -> Entry:
    return Entry(f"{path_to_uri(manifest)}#{place}", problem=detail)


def _load_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
