from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from audioprep.cli.app import main
from audioprep.shards.dataset import open_dataset


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


class Cli:
    """Calls the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str | Path) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["audioprep", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Result(code, said.out, said.err)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Starts the command line in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "audioprep", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"TERM": "dumb"},
        # A background job of a shell is born deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def audioprep(*arguments: str | Path) -> Result:
    """Calls the command line as a user does, in a process of its own."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of a Parquet shard set by file name."""
    tables = (pq.read_table(out / shard["path"]) for shard in open_dataset(out).shards())
    return {Path(row["uri"]).name: row for table in tables for row in table.to_pylist()}


def failures(out: Path) -> dict[str, dict[str, str]]:
    table = pq.read_table(out / "failures.parquet")
    return {Path(row["uri"]).name: row for row in table.to_pylist()}
