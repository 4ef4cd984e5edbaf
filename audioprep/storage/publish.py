"""Destinations behind URLs: work goes on in a local folder, and what has changed in it is sent when it is done.

In $AUDIOPREP_CACHE, for each URL, by its digest:

destinations/DIGEST/NAME       the folder (or file); it stays, so that the same command goes on from there, and sends
                               only what is new
destinations/DIGEST/sent.json  what was sent: size and time of each file
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout
from upath import UPath

from audioprep.errors import UsageError
from audioprep.storage.files import asked, remove, send
from audioprep.storage.places import Place, cache_folder, to_url

PRIVATE = {".audioprep", "calibration"}  # folders that only the next run of the same command reads stay here
UPLOADS = 8

_Sent = dict[str, list[int]]


def working_path(dest: Place) -> Path:
    """Where work for `dest` is done: there itself, or for a URL in a folder that stays."""
    if isinstance(dest, Path):
        return dest
    url = str(dest).rstrip("/")
    return cache_folder() / "destinations" / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rpartition("/")[2]


@contextlib.contextmanager
def publishing(dest: Place) -> Iterator[Path]:
    """Gives `working_path(dest)`, and without an error sends what has changed in there since it was sent last.

    A folder's own files, which tell of the whole, are sent after those in its folders; what has gone is removed.

    Raises:
        UsageError: another run is at work there; the URL holds what was not sent from here; or its store refuses.
        SystemFault: the store does not answer; the same command again sends the rest.
    """
    folder = working_path(dest)
    if isinstance(dest, Path):
        yield folder
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.parent / "lock", timeout=0):
            record = folder.parent / "sent.json"
            if not record.exists():
                _refuse_foreign(dest)
            yield folder
            _send(folder, dest, record)
    except Timeout as error:
        raise UsageError(f"{dest}: another run on this machine is writing there. Wait for it, or stop it.") from error


@contextlib.contextmanager
def adding(dest: Place) -> Iterator[Path]:
    """Gives a folder whose files are put into the folder `dest`, beside what is there: for a URL, a temporary one."""
    if isinstance(dest, Path):
        yield dest
        return
    with tempfile.TemporaryDirectory(prefix="audioprep-") as folder:
        yield Path(folder)
        for path in sorted(Path(folder).iterdir()):
            _upload(path, dest, path.name)


@contextlib.contextmanager
def publishing_file(dest: Place) -> Iterator[Path]:
    """Gives a path whose file, once it is written, is sent to `dest`; what is beside it stays for the next run."""
    path = working_path(dest)
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    if not isinstance(dest, Path):
        send(path, dest)
        path.unlink()


def require_location(dest: Place, location: str | None) -> None:
    """
    Raises:
        UsageError: what is written to a URL has paths of its own files, and nobody says where a trainer finds them.
    """
    if not isinstance(dest, Path) and not location:
        raise UsageError(
            f"{dest}: the export names its own files: say with --location in which folder the trainer will find them"
        )


def _refuse_foreign(dest: UPath) -> None:
    try:
        found = asked(dest, lambda: dest.fs.ls(dest.path, detail=False))
    except FileNotFoundError:
        return
    if found:
        raise UsageError(f"{dest}: is not empty, and was not filled from this machine. Choose an empty or new place.")


def _send(folder: Path, dest: UPath, record: Path) -> None:
    sent: _Sent = json.loads(record.read_text()) if record.exists() else {}
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    here = {name.as_posix(): _state(path) for name, path in files.items() if PRIVATE.isdisjoint(name.parts)}
    changed = [name for name, state in here.items() if sent.get(name) != state]
    gone = [name for name in sent if name not in here]
    try:
        # Until all is there, nothing says so.
        for name in [name for name in (*changed, *gone) if name in sent and "/" not in name]:
            remove(dest / name)
            del sent[name]
        with ThreadPoolExecutor(UPLOADS) as pool:

            def send_one(name: str) -> None:
                _upload(folder / name, dest, name)
                sent[name] = here[name]

            for _ in pool.map(send_one, [name for name in changed if "/" in name]):
                pass
        for name in (name for name in gone if name in sent):
            remove(dest / name)
            del sent[name]
        for name in (name for name in changed if "/" not in name):
            send_one(name)
    finally:
        record.write_text(json.dumps(sent))


def _upload(path: Path, dest: UPath, name: str) -> None:
    send(path, to_url(f"{str(dest).rstrip('/')}/{name}"))


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
