"""Which files of a shard set are public: those that are pushed, and those that a pull takes from a repository."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audioprep.errors import UsageError
from audioprep.shards.dataset import SHARD_NAME, Dataset

CARD = "README.md"
DESCRIPTION = "dataset.json"
FAILURES = "failures.parquet"

# A repository is not trusted: what is not named like one of these is never written to a disk, nor deleted there.
# Splits and shards are named by `audioprep.shards.split` and `audioprep.engine.assemble`.
_INDEX_NAME = re.compile(r"index/\w+-\d{5,}\.parquet", re.ASCII)
_SIDE_NAME = re.compile(r"tokenizer\.json|[a-z][a-z0-9_]*\.vocab\.txt", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublicFile:
    """One file as it is to be in the repository.

    Attributes:
        path: in the repository, with `/`.
        content: a local file, or the bytes themselves.
        size: in bytes.
        sha256: as `dataset.json` has it; None where it does not say.
    """

    path: str
    content: Path | bytes
    size: int
    sha256: str | None = None

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def digest(self, algorithm: str) -> str:
        """The digest of the content, in hexadecimal: `sha256`, or `git` for the name that git gives to it."""
        if algorithm == "sha256":
            if isinstance(self.content, bytes):
                return hashlib.sha256(self.content).hexdigest()
            with open(self.content, "rb", buffering=0) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha1(b"blob %d\0" % self.size + self.read(), usedforsecurity=False).hexdigest()


def is_ours(path: str) -> bool:
    """Whether a file of a repository is named as the shards of a set are, or what lies beside them."""
    return any(name.fullmatch(path) for name in (SHARD_NAME, _INDEX_NAME, _SIDE_NAME)) or path == FAILURES


def is_side_file(path: str) -> bool:
    """Whether it is a vocabulary or a tokenizer."""
    return _SIDE_NAME.fullmatch(path) is not None


def public_files(dataset: Dataset, failures: bool) -> Iterator[PublicFile]:
    """The files of a shard set but for its card; its description is the last one.

    Raises:
        UsageError: one of them is not there, or not as `dataset.json` has it.
    """
    for shard in dataset.shards():
        file = dataset.shard(shard)
        if not file.path.is_file() or file.path.stat().st_size != shard["bytes"]:
            raise UsageError(
                f"{file.path}: is not there, or not as long as dataset.json says. Run the command that made the set "
                "again: it puts its shards together anew."
            )
        yield PublicFile(shard["path"], file.path, shard["bytes"], shard["sha256"])
        if dataset.storage == "webdataset":
            yield _file(f"index/{file.index.name}", file.index)
    for name in sorted(path.name for path in dataset.folder.iterdir()):
        if is_side_file(name) or (failures and name == FAILURES):
            yield _file(name, dataset.file(name))
    yield _file(DESCRIPTION, dataset.file(DESCRIPTION))


def _file(name: str, path: Path) -> PublicFile:
    try:
        return PublicFile(name, path, path.stat().st_size)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Run the command that made the set again.") from error
