"""Where things lie in an output folder, on a disk or in a store, and the locks on it.

OUT/README.md dataset.json failures.parquet data/ index/     what readers see; also COLUMN.vocab.txt of phonemes,
                                         tokenizer.json of MidiTok's tokens
OUT/.audioprep/lock                      held by the one run that writes; of slices, by the one that plans or assembles
OUT/.audioprep/slices/3-of-8             held by the run of a slice while it works
OUT/.audioprep/run.json                  settings of the stages, compared on every start
OUT/.audioprep/plan/00000.parquet        the corpus; a row group is a part; files are only ever added
OUT/.audioprep/columns/STAGE-DIGEST/     what a stage computed: NNNNN.parquet and its done record NNNNN.json
OUT/.audioprep/shards/00000.json         which files were put together from which parts
OUT/.audioprep/scratch/                  unfinished files; those of a store lie in the system's temporary folder
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from audioprep.engine.commit import write_json
from audioprep.errors import UsageError
from audioprep.storage.files import folders, listing, remove, remove_folder
from audioprep.storage.lock import Held, Lease, holder, locked
from audioprep.storage.places import Place

PUBLIC_FILES = ("README.md", "dataset.json", "failures.parquet", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Slice:
    """The `number`th of `of` slices of a set, from 1: the parts that one run of a job array does."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Slice:
        """The slice that `K/N` names.

        Raises:
            UsageError: there is no such slice.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard-of {text}: write it like --shard-of 3/8: the third of eight, from 1/8 to 8/8")
        return cls(int(match[1]), int(match[2]))

    def __contains__(self, part: int) -> bool:
        return part % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


class Layout:
    """Paths inside one output folder.

    Args:
        out: the folder.
        slice: where the run does a slice of it: its unfinished files lie apart from those of other slices.
    """

    def __init__(self, out: Place, slice: Slice | None = None) -> None:
        out = out.absolute()  # workers may be in another folder
        self.out = out
        self.slice = slice
        self.private = out / ".audioprep"
        self.run = self.private / "run.json"
        self.plan = self.private / "plan"
        self.shards = self.private / "shards"
        self.data = out / "data"
        self.index = out / "index"
        self.dataset = out / "dataset.json"
        self.card = out / "README.md"
        self.failures = out / "failures.parquet"
        self._slices = self.private / "slices"
        # The same of a run and of the next one, which sweeps what the first has left.
        scratch = self.private / "scratch" if isinstance(self.private, Path) else _temporary(self.out)
        self.scratch = scratch.with_name(f"{scratch.name}-{slice}") if slice else scratch

    def columns(self, stage: str, digest: str) -> Place:
        """The folder of what one stage computed with one set of settings."""
        return self.private / "columns" / f"{stage}-{digest[:12]}"

    def stages(self) -> list[Place]:
        """All such folders."""
        return folders(self.private / "columns")

    def claim(self) -> None:
        """Marks the folder as ours, for a command that writes there before the engine does.

        Raises:
            UsageError: the folder holds something that is not ours.
        """
        self._refuse_foreign()
        self._make(self.private)
        if not isinstance(self.private, Path):  # a store has no empty folders
            write_json(self.private / "made-by.json", {"format": "audioprep"}, self.scratch)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Lease]:
        """Holds the folder against a second run; a slice waits for the others to plan and to assemble.

        Raises:
            UsageError: another run holds it, or the folder holds something that is not ours.
        """
        self._refuse_foreign()
        self._make(self.private)
        try:
            with locked(self.private / "lock", waiting=str(self.out) if self.slice else None) as lease:
                for name in listing(self._slices):
                    if not name.endswith(".json") and (self.slice is None or not name.endswith(f"-of-{self.slice.of}")):
                        self._refuse_slice(name)
                yield lease
        except Held as error:
            raise UsageError(
                f"{self.out}: another run is writing here ({error}). Wait for it, stop it, or choose another folder."
            ) from error

    @contextlib.contextmanager
    def slice_lock(self) -> Iterator[Lease]:
        """Holds the slice against a second run of it. Take it under the lock of the folder.

        Raises:
            UsageError: another run holds it.
        """
        self._make(self._slices)
        try:
            with locked(self._slices / str(self.slice)) as lease:
                yield lease
        except Held as error:
            raise UsageError(
                f"{self.out}: another run is doing slice {self.slice} ({error}). Leave it to it."
            ) from error

    def sweep(self) -> None:
        """Removes the unfinished files that a dead run has left. Call it under the lock."""
        mine = self.scratch.name
        for path in self.scratch.parent.glob(f"{mine}*"):
            if path.name == mine or self.slice is None:
                remove_folder(path)

    def clear(self) -> None:
        """Removes all that audioprep wrote here, and nothing else."""
        remove_folder(self.data)
        remove_folder(self.index)
        for name in listing(self.out):
            if name in PUBLIC_FILES or name.endswith(".vocab.txt"):
                remove(self.out / name)
        for folder in folders(self.private):
            if folder.name != self._slices.name:
                remove_folder(folder)
        for name in listing(self.private):
            if not name.startswith("lock"):
                remove(self.private / name)

    def _refuse_foreign(self) -> None:
        if isinstance(self.out, Path) and self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out}: is a file. Choose a folder.")
        within = folders(self.out)
        if self.private not in within and (within or listing(self.out)):
            raise UsageError(f"{self.out}: is not empty and was not made by audioprep. Choose an empty or new folder.")

    def _refuse_slice(self, name: str) -> None:
        if who := holder(self._slices / name):
            raise UsageError(
                f"{self.out}: another run is doing slice {name} of it ({who}). Wait for it, stop it, or do the other "
                f"slices of as many."
            )

    def _make(self, folder: Place) -> None:
        if isinstance(folder, Path):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{self.out}: cannot be created: {error.strerror}. Choose another folder.") from error


def _temporary(out: Place) -> Path:
    name = sha256(str(out).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"audioprep-{os.getuid()}" / name
