"""The folder that an export writes: one at a time, whole or not at all, and resumable."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audioprep.engine.commit import read_json, write_json
from audioprep.engine.layout import Layout
from audioprep.errors import SystemFault, UsageError
from audioprep.storage.files import remove_folder


class Destination:
    """A folder with what was exported from a shard set, shard by shard, beside records of what is done.

    Args:
        folder: new, empty, or made by an earlier export.
        settings: all that decides what comes out, as plain values; another export may not mix with them.
        extras: names of the files that describe the whole; they are there only while it is complete.
        made: the names (from `folder`) of all that is made from single shards, and of nothing else.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], extras: Collection[str], made: re.Pattern[str]) -> None:
        self.folder = folder
        self.private = folder / ".audioprep"
        self._layout = Layout(folder)
        self._records = self.private / "done"
        self._settings_file = self.private / "export.json"
        self._settings = settings
        self._extras = extras
        self._made = made

    @contextmanager
    def writing(self, overwrite: bool) -> Iterator[None]:
        """Holds the folder for this run.

        Raises:
            UsageError: another run holds it, or it was made by something else or with other settings.
        """
        with self._layout.lock():
            if overwrite:
                self._clear()
            self.refuse_other_settings()
            remove_folder(self._layout.scratch)
            self._layout.scratch.mkdir()
            write_json(self._settings_file, self._settings, self._layout.scratch)
            yield
            remove_folder(self._layout.scratch)

    def refuse_other_settings(self) -> None:
        """
        Raises:
            UsageError: the folder was made by something else or with other settings; says which.
        """
        before = read_json(self._settings_file)
        if before is None:
            if {path.name for path in self.private.glob("*")} - {"lock", "lock.json", "scratch"}:
                raise UsageError(f"{self.folder}: holds something else that audioprep made. Choose another folder.")
            return
        old, new = dict(_flat(before)), dict(_flat(self._settings))
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        if names:
            changes = [f"  {name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}" for name in names]
            raise UsageError(
                f"{self.folder}: was exported with other settings:\n" + "\n".join(changes) + "\nGo back to the old "
                "ones, choose another folder, or start anew here with --overwrite."
            )

    def record(self, shard: str, digest: str) -> dict[str, Any] | None:
        """What `commit` was told of a shard, if that is still so and its files are there."""
        record = read_json(self._records / f"{shard}.json")
        if record is None or record["digest"] != digest:
            return None
        if not all((self.folder / name).is_file() for name in record["files"]):
            return None
        return record

    def reopen(self) -> None:
        """Takes away what says that the folder is complete."""
        for name in self._extras:
            (self.folder / name).unlink(missing_ok=True)

    def put(self, name: str, data: bytes) -> None:
        """Writes a file, which is there whole or not at all; `commit` makes it last.

        Raises:
            SystemFault: it cannot be written.
        """
        with self.new(name) as unfinished:
            unfinished.write_bytes(data)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Gives a path to write a file to, which then gets its name: it is there whole or not at all.

        Raises:
            SystemFault: it cannot be written.
        """
        target, unfinished = self.folder / name, self._layout.scratch / name.replace("/", "_")
        try:
            yield unfinished
            try:
                os.replace(unfinished, target)
            except FileNotFoundError:  # its folder is new
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(unfinished, target)
        except OSError as error:
            raise SystemFault(
                f"{target}: cannot be written: {error.strerror or error}. Mend that (make room, or choose another "
                "folder) and run the same command again: it goes on from here."
            ) from error

    def commit(self, shard: str, digest: str, files: list[str], counts: dict[str, Any]) -> dict[str, Any]:
        """Records that all files of a shard are written.

        Args:
            shard: its name.
            digest: of all that its files depend on.
            files: their names.
            counts: what is to be known of them later.
        """
        os.sync()  # once for some thousand files: an fsync for each of them would take far longer
        record = {"digest": digest, "files": files, "counts": counts}
        write_json(self._records / f"{shard}.json", record, self._layout.scratch)
        return record

    def remove_others(self, files: Collection[str]) -> None:
        """Removes what earlier exports of shards left here that is none of `files`."""
        wanted = set(files)
        # From the leaves up, so that a folder which has become empty is met after its files.
        for parent, _, names in os.walk(self.folder, topdown=False):
            paths = [Path(parent, name) for name in names]
            others = [path for path in paths if self._is_made(path) and self._name(path) not in wanted]
            for path in others:
                path.unlink()
            if others and not os.listdir(parent) and Path(parent) != self.folder:
                os.rmdir(parent)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _is_made(self, path: Path) -> bool:
        return self._made.fullmatch(self._name(path)) is not None

    def _clear(self) -> None:
        """Removes what exports wrote here, and nothing else."""
        if self._settings_file.exists():
            self.reopen()
            self.remove_others(())
            for path in self.private.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif not path.name.startswith("lock"):
                    path.unlink()


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
