"""Local copies of what shard sets behind URLs hold: a shard once, whichever set it is in, under its sha256.

$AUDIOPREP_CACHE (default: ~/.cache/audioprep)/shards/SHA256/data/train-00000.parquet, and of a tar its index beside it;
footer: that of a Parquet file which is not fetched yet. Any of it may be removed while no program reads it.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from audioprep.engine.commit import sha256_of
from audioprep.errors import SYSTEM_ERRNOS, UsageError
from audioprep.storage.faults import to_os_error
from audioprep.storage.listing import no_access
from audioprep.storage.places import cache_folder, is_url, retried, to_url
from audioprep.storage.transfer import download, open_remote

IN_USE_SECONDS = 600.0  # what was used so lately is not removed to make room
FOOTER_THREADS = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """One data file: an entry of `dataset.json`. What is kept of it belongs to its content, not to its place.

    Attributes:
        folder: path or URL of the shard set.
        name: of the file, from there.
        rows: items.
        sha256: of its bytes, in hexadecimal.
    """

    folder: str
    name: str
    rows: int
    sha256: str

    @property
    def is_remote(self) -> bool:
        return is_url(self.folder)

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def path(self) -> Path:
        """The file, or its local copy, which is fetched where it is not there yet.

        Raises:
            UsageError: the store does not give it, it is not what `dataset.json` says, or there is no room.
        """
        return self._copy() if self.is_remote else Path(self.folder, self.name)

    @property
    def index(self) -> Path:
        """The index of a tar."""
        return self.path.parent.parent / "index" / f"{self.stem}.parquet"

    def footer(self) -> pq.FileMetaData:
        """Of a Parquet file; of one in a store that is not fetched yet, it alone is fetched.

        Raises:
            UsageError: see `path`.
            OSError, pyarrow.ArrowInvalid: the file is damaged.
        """
        if not self.is_remote or self._is_here():
            return pq.read_metadata(self.path)
        kept = self._home / "footer"
        if not kept.is_file():
            try:
                footer = retried(self._read_footer)
            except OSError as error:
                raise _no_copy(self.folder, self.name, error) from error
            self._home.mkdir(parents=True, exist_ok=True)
            unfinished = self._home / f"footer-{os.getpid()}-{time.monotonic_ns()}"
            footer.write_metadata_file(unfinished)
            os.replace(unfinished, kept)
        return pq.read_metadata(kept)

    def _read_footer(self) -> pq.FileMetaData:
        with open_remote(f"{self.folder}/{self.name}") as file:
            return pq.read_metadata(file)

    @property
    def _home(self) -> Path:
        return cache_folder() / "shards" / self.sha256

    def _is_here(self) -> bool:
        return (self._home / self.name).is_file()

    def _copy(self) -> Path:
        path = self._home / self.name
        if not self._is_here():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Workers and ranks that want the same shard wait for the one that fetches it.
            with FileLock(self._home / "lock"):
                if not self._is_here():
                    self._fetch(path)
            _make_room()
        if time.time() - path.stat().st_mtime > IN_USE_SECONDS / 10:
            os.utime(path)
        return path

    def _fetch(self, path: Path) -> None:
        unfinished = self._home / "unfinished"
        if path.suffix == ".tar":
            index = f"index/{self.stem}.parquet"
            _download(self.folder, index, unfinished)
            (self._home / "index").mkdir(exist_ok=True)
            os.replace(unfinished, self._home / index)
        _download(self.folder, self.name, unfinished)
        if sha256_of(unfinished) != self.sha256:
            unfinished.unlink()
            (self._home / "footer").unlink(missing_ok=True)
            raise UsageError(
                f"{self.folder}/{self.name}: its sha256 is not the one in dataset.json: the set was changed meanwhile, "
                "or is damaged. Open it again; then see `audioprep verify`."
            )
        os.replace(unfinished, path)


def fetch_footers(shards: list[Shard]) -> None:
    """Fetches the footers of Parquet files of a store side by side: there may be thousands.

    Raises:
        UsageError: the store does not give one.
    """
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        for _ in pool.map(_try_footer, [shard for shard in shards if shard.is_remote]):
            pass


def _try_footer(shard: Shard) -> None:
    try:
        shard.footer()
    except (OSError, pa.ArrowException):
        return  # whoever reads it says what is wrong with it


def fetch_file(folder: str, name: str) -> Path:
    """A copy of another file of a shard set behind a URL, as it is now.

    Raises:
        FileNotFoundError: it is not there.
        UsageError: the store does not give it.
    """
    home = cache_folder() / "sets" / hashlib.sha256(folder.encode()).hexdigest()[:32]
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "lock"):
        _download(folder, name, home / "unfinished")
        os.replace(home / "unfinished", home / name)
    return home / name


def _download(folder: str, name: str, target: Path) -> None:
    try:
        download(to_url(f"{folder}/{name}"), target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _no_copy(folder, name, error) from error


def _no_copy(folder: str, name: str, error: OSError) -> UsageError:
    url = f"{folder}/{name}"
    error = to_os_error(error) or error
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{url}: is not there; copy it again, or run the command that wrote the set again")
    if error.errno in SYSTEM_ERRNOS:
        return UsageError(
            f"{url}: cannot be copied: {error.strerror}. Make room, name a folder on a larger disk in AUDIOPREP_CACHE, "
            "or set AUDIOPREP_CACHE_GB."
        )
    return no_access(url, error)


def _make_room() -> None:
    """Removes the shards that were not used for the longest, beyond $AUDIOPREP_CACHE_GB; without it none."""
    given = os.environ.get("AUDIOPREP_CACHE_GB")
    if not given:
        return
    try:
        limit = float(given) * 1e9
    except ValueError as error:
        raise UsageError(f"AUDIOPREP_CACHE_GB={given}: give a number of gigabytes") from error
    kept = sorted((_used(path), path) for path in (cache_folder() / "shards").glob("*/data/*"))
    total = sum(size for (_, size), _ in kept)
    for (when, size), path in kept:
        if total <= limit or time.time() - when < IN_USE_SECONDS:
            return
        path.unlink(missing_ok=True)
        total -= size


def _used(path: Path) -> tuple[float, int]:
    try:
        status = path.stat()
    except FileNotFoundError:  # another process makes room, too
        return 0.0, 0
    return status.st_mtime, status.st_size
