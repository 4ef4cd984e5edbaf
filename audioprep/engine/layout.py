"""Where things lie in an output folder, and the lock on it.

OUT/README.md dataset.json failures.parquet data/ index/     what readers see; also COLUMN.vocab.txt of phonemes,
                                         tokenizer.json of MidiTok's tokens
OUT/.audioprep/lock                      held by the one run that writes
OUT/.audioprep/run.json                  settings of the stages, compared on every start
OUT/.audioprep/plan/00000.parquet        the corpus; a row group is a part; files are only ever added
OUT/.audioprep/columns/STAGE-DIGEST/     what a stage computed: NNNNN.parquet and its done record NNNNN.json
OUT/.audioprep/shards/00000.json         which files were put together from which parts
OUT/.audioprep/scratch/                  unfinished files
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from audioprep.errors import UsageError

PUBLIC = ("data", "index", "README.md", "dataset.json", "failures.parquet", "tokenizer.json")


class Layout:
    """Paths inside one output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.private = out / ".audioprep"
        self.run = self.private / "run.json"
        self.plan = self.private / "plan"
        self.shards = self.private / "shards"
        self.scratch = self.private / "scratch"
        self.data = out / "data"
        self.index = out / "index"
        self.dataset = out / "dataset.json"
        self.card = out / "README.md"
        self.failures = out / "failures.parquet"

    def columns(self, stage: str, digest: str) -> Path:
        """The folder of what one stage computed with one set of settings."""
        return self.private / "columns" / f"{stage}-{digest[:12]}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder against a second run; the system frees it when the process ends, however it ends.

        Raises:
            UsageError: another run holds it, or the folder holds something that is not ours.
        """
        self._refuse_foreign()
        try:
            self.private.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.out}: cannot be created: {error.strerror}. Choose another folder.") from error
        holder = self.private / "lock.json"
        lock = FileLock(self.private / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            who = holder.read_text().strip() if holder.exists() else "unknown"
            raise UsageError(
                f"{self.out}: another run is writing here ({who}). Wait for it, stop it, or choose another folder."
            ) from error
        try:
            holder.write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def clear(self) -> None:
        """Removes all that audioprep wrote here, and nothing else."""
        for path in (*(self.out / name for name in PUBLIC), *self.out.glob("*.vocab.txt")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for path in self.private.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith("lock"):
                path.unlink()

    def _refuse_foreign(self) -> None:
        if not self.out.exists() or self.private.is_dir():
            return
        if not self.out.is_dir():
            raise UsageError(f"{self.out}: is a file. Choose a folder.")
        if any(self.out.iterdir()):
            raise UsageError(f"{self.out}: is not empty and was not made by audioprep. Choose an empty or new folder.")
