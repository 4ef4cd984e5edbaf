"""The few exception classes of audioprep. Every message names the input and the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from enum import StrEnum

SYSTEM_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says that the machine is at fault, and not the file that it happened to."""


class AudioprepError(Exception):
    """Base of all errors that audioprep raises on purpose."""


class UsageError(AudioprepError):
    """A wrong option, recipe, manifest or output folder: the user can mend it (exit code 1)."""


class SystemFault(AudioprepError):
    """A full disk, a broken device, a dying worker: not one file's fault, so the run stops.

    What was committed stays, and the same command goes on from there.
    """


class Reason(StrEnum):
    """Why one input could not be processed: the `error` column of `failures.parquet`."""

    NOT_FOUND = "not-found"
    NO_PERMISSION = "no-permission"
    NOT_A_FILE = "not-a-file"
    EMPTY = "empty"
    NOT_AUDIO = "not-audio"
    NO_SAMPLES = "no-samples"
    NO_NOTES = "no-notes"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    NON_FINITE = "non-finite"
    UNSUPPORTED = "unsupported"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    TOKENS = "tokens"
    LYRICS = "lyrics"
    SCORE = "score"


class InputError(AudioprepError):
    """One input's own fault. It becomes a row of `failures.parquet`, and the run goes on.

    Args:
        reason: what is wrong with the input.
        uri: the input's path or URL; it is put before the message.
        detail: what was seen, and where possible what to do about it.
    """

    def __init__(self, reason: Reason, uri: str, detail: str) -> None:
        super().__init__(reason, uri, detail)
        self.reason = reason
        self.uri = uri
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.uri}: {self.detail}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a misspelt name: ` Did you mean …?`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
