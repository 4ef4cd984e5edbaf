"""One writer at a time: a lock of the system on a local path, a lease on a store.

A lease is an object that is made only where there is none, and is written anew every 20 s. One that has not been for
90 s, by the store's own clock, is of a run that has died: it is taken over by a write that succeeds only if nobody
else has written it meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from upath import UPath

from audioprep.errors import AudioprepError, SystemFault, UsageError
from audioprep.storage.files import asked, errors_told, read_bytes, remove
from audioprep.storage.places import Place, retried

logger = logging.getLogger(__name__)

RENEW_SECONDS = 20.0
STALE_SECONDS = 90.0
POLL_SECONDS = 1.0  # of a store; a local lock costs nothing to look at
_UNKNOWN = "unknown"


class Held(AudioprepError):
    """Another run holds the lock; the message says which."""


class Lease:
    """A lock that is held. That of a local path cannot get lost."""

    def check(self) -> None:
        """
        Raises:
            SystemFault: it got lost: another run works now.
        """


@contextlib.contextmanager
def locked(place: Place, waiting: str | None = None) -> Iterator[Lease]:
    """Holds the lock `place`.

    Args:
        place: a file in a folder that is there; on a store, an object.
        waiting: for what, where it is to be waited for; it is told in the log.

    Raises:
        Held: it is not waited for, and another run holds it.
    """
    watch = _Watch()
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                lease = stack.enter_context(_local(place) if isinstance(place, Path) else _leased(place, watch))
                break
            except Held as error:
                if waiting is None:
                    raise
                if not told:
                    logger.warning("%s: waits for another run (%s)", waiting, error)
                    told = True
                time.sleep(POLL_SECONDS / 5 if isinstance(place, Path) else POLL_SECONDS)
        yield lease


def holder(place: Place) -> str | None:
    """Who holds the lock `place`; None where nobody does."""
    if isinstance(place, Path):
        try:
            with _local(place):
                return None
        except Held as error:
            return str(error)
    found = _Found.at(place)
    return found.who if found and not _is_stale(place, found) else None


@contextlib.contextmanager
def _local(place: Path) -> Iterator[Lease]:
    said = place.with_name(f"{place.name}.json")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Held(said.read_text().strip() if said.exists() else _UNKNOWN) from error
    try:
        said.write_text(f"{_me()}\n")
        yield Lease()
    finally:
        said.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _leased(place: UPath, watch: _Watch) -> Iterator[Lease]:
    lease = _StoreLease(place)
    lease.acquire(watch)
    renewing = threading.Thread(target=lease.keep, daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        lease.ended.set()
        renewing.join()
        lease.release()


class _Found:
    """A lock object as it was found."""

    def __init__(self, info: dict[str, Any], said: dict[str, Any]) -> None:
        self.info = info
        self.token = said.get("token", "")
        self.who = said.get("who", _UNKNOWN)

    @classmethod
    def at(cls, place: UPath) -> _Found | None:
        """None where there is none."""
        try:
            info = asked(place, lambda: place.fs.info(place.path))
            data = read_bytes(place)
        except FileNotFoundError:
            return None
        try:
            return cls(info, json.loads(data))
        except ValueError:
            return cls(info, {})


@dataclass
class _Watch:
    """What a run that waits has seen of a lock. So it asks one question a look, until the lock changes."""

    found: _Found | None = None
    since: float = 0.0

    def still_held(self, place: UPath) -> bool:
        if self.found is None or time.monotonic() - self.since > STALE_SECONDS:
            return False
        try:
            info = asked(place, lambda: place.fs.info(place.path))
        except FileNotFoundError:
            return False
        return info == self.found.info


class _StoreLease(Lease):
    def __init__(self, place: UPath) -> None:
        self._place = place
        self._token = uuid.uuid4().hex
        self._beats = 0
        self._renewed = time.monotonic()
        self._version: str | None = None
        self._lost: str | None = None
        self.ended = threading.Event()

    def acquire(self, watch: _Watch) -> None:
        if watch.found and watch.still_held(self._place):
            raise Held(watch.found.who)
        if not self._write(mode="create"):
            found = _Found.at(self._place)
            if found is None:
                raise Held(f"{_UNKNOWN}, and has just ended")
            if found.token != self._token:  # not a write of ours whose answer was lost
                if not _is_stale(self._place, found):
                    watch.found, watch.since = found, time.monotonic()
                    raise Held(f"{found.who}; if it has died, its lock is free {STALE_SECONDS:.0f} s later")
                self._take_over(found)
        found = _Found.at(self._place)
        if found is None or found.token != self._token:
            raise Held(found.who if found else _UNKNOWN)
        self._version = found.info.get("ETag")

    def keep(self) -> None:
        """Renews the lease until it is ended."""
        while not self.ended.wait(RENEW_SECONDS):
            try:
                self._renew()
            except Exception as error:  # the store does not answer: the lease lasts a while without it
                if time.monotonic() - self._renewed > STALE_SECONDS:
                    self._lost = f"the lock could not be renewed for {STALE_SECONDS:.0f} s: {error}"
            if self._lost:
                return

    def check(self) -> None:
        if self._lost:
            raise SystemFault(f"{self._place}: {self._lost}. Run the same command again: it goes on from here.")

    def release(self) -> None:
        # Whatever has happened, the lock of another run stays where it is.
        with contextlib.suppress(AudioprepError, OSError):
            found = _Found.at(self._place)
            if found and found.token == self._token:
                remove(self._place)

    def _renew(self) -> None:
        started = time.monotonic()
        if not self._write(**self._condition(self._version)):
            found = _Found.at(self._place)
            if found is None or found.token != self._token:
                self._lost = f"another run has taken over ({found.who if found else _UNKNOWN})"
                return
            self._version = found.info.get("ETag")
        self._renewed = started

    def _take_over(self, found: _Found) -> None:
        if not _has_conditional_writes(self._place):
            raise Held(f"{found.who}; it seems to have died: if so, remove {self._place}")
        if not self._write(**self._condition(found.info.get("ETag"))):
            raise Held("another run, which has taken over from one that has died")
        logger.warning("%s: taken over from a run that has died (%s)", self._place, found.who)

    def _condition(self, version: str | None) -> dict[str, Any]:
        if _has_conditional_writes(self._place):
            return {"IfMatch": version}
        found = _Found.at(self._place)
        if found is None or found.token != self._token:
            raise OSError("the lock is no longer ours")
        return {}

    def _write(self, **condition: Any) -> bool:
        """Writes the object; False where the condition does not hold."""
        self._beats += 1
        data = json.dumps({"token": self._token, "who": _me(), "beats": self._beats}).encode()
        fs, path = self._place.fs, self._place.path

        def put() -> bool:
            try:
                written = fs.pipe_file(path, data, **condition)
            except FileExistsError:
                return False
            except OSError as error:
                if _refused(error):
                    return False
                raise
            self._version = written.get("ETag") if isinstance(written, dict) else None
            return True

        try:
            with errors_told(self._place):
                return retried(put)
        except FileNotFoundError as error:
            if "IfMatch" in condition:
                return False
            raise UsageError(f"{self._place}: there is no such bucket. Make it, or choose another --out.") from error


def _is_stale(place: UPath, found: _Found) -> bool:
    """Whether a lock has not been renewed for long, by the clock of the store."""
    clock = place.with_name(f"{place.name}-clock-{uuid.uuid4().hex}")
    asked(clock, lambda: clock.fs.pipe_file(clock.path, b""))
    try:
        now = asked(clock, lambda: clock.fs.modified(clock.path))
        then = found.info.get("LastModified") or asked(place, lambda: place.fs.modified(place.path))
    except FileNotFoundError:
        return False  # it has just been released
    finally:
        remove(clock)
    return now - then > timedelta(seconds=STALE_SECONDS)


def _has_conditional_writes(place: UPath) -> bool:
    return "s3" in place.fs.protocol


def _refused(error: OSError) -> bool:
    """Whether the store did not write because a condition does not hold."""
    said = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
    return said in ("PreconditionFailed", "ConditionalRequestConflict", "412")


def _me() -> str:
    return f"process {os.getpid()} on {os.uname().nodename}"
