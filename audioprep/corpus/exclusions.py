"""Lists of inputs to leave out, as deduplication writes them (`exclude_paths.txt`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audioprep.errors import UsageError
from audioprep.storage.places import Place, to_place
from audioprep.storage.transfer import read_bytes


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Paths to leave out; matched as the Stable Audio fork jxbb824/stable-audio-tools matches them.

    An entry stands for an input whose absolute path, file name, file name without suffix, path relative to a root, or
    that without suffix it is.

    Attributes:
        entries: normalized paths.
        roots: folders that relative entries are relative to.
    """

    entries: frozenset[str] = frozenset()
    roots: tuple[str, ...] = ()

    def match(self, uri: str) -> bool:
        """Whether an input is to be left out."""
        if not self.entries:
            return False
        name = os.path.basename(uri)
        relative = [os.path.normpath(os.path.relpath(uri, root)) for root in self.roots]
        stems = [os.path.splitext(path)[0] for path in (name, *relative)]
        return not self.entries.isdisjoint([os.path.normpath(uri), name, *relative, *stems])


NOTHING = Exclusions()


def read_exclusions(path: Place | None, roots: Sequence[Place]) -> Exclusions:
    """Reads a list: a path a line; empty lines and lines that begin with `#` say nothing. No file, no exclusions.

    Raises:
        UsageError: the file cannot be read, or has paths in folders that are relative to a root that is not given.
    """
    try:
        lines = [line.strip() for line in read_bytes(path).decode().splitlines()] if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}. Give a text file with a path a line.") from error
    entries = frozenset(os.path.normpath(line) for line in lines if line and not line.startswith("#"))
    for entry in sorted(entries) if not roots else ():
        if "/" in entry and not os.path.isabs(entry) and ":/" not in entry:  # the last is a URL's, normalized
            raise UsageError(f"{path}: {entry} is relative: say with --root to which folder")
    return Exclusions(entries, tuple(os.path.abspath(str(to_place(root))) for root in roots))


def read_exclusions_of(path: Place | None, sources: Sequence[str]) -> Exclusions:
    """Reads a list for what is found in sources; relative entries are so to the folders that are or hold a source.

    Raises:
        UsageError: see `read_exclusions`; or there is a list and no source.
    """
    if path and not sources:
        raise UsageError(f"{path}: goes with SOURCE alone: what the shard set has already stays in it")
    return read_exclusions(path, [_folder(to_place(source)) for source in sources])


def _folder(source: Place) -> Place:
    if isinstance(source, Path):
        return source if source.is_dir() else source.parent
    return source.parent if source.suffix else source  # a store is not asked for this alone
