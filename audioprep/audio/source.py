"""Looks at an input before any decoder does: what it is, whether it can be read, what it holds."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import NoReturn

from audioprep.audio.formats import HEAD_BYTES, id3_size, mp3_declares_frames, sniff
from audioprep.errors import SYSTEM_ERRNOS, InputError, Reason, SystemFault

_REASONS = {
    errno.ENOENT: (Reason.NOT_FOUND, "there is no such file; check the path or scan the folder again"),
    errno.ENOTDIR: (Reason.NOT_FOUND, "there is no such file; check the path or scan the folder again"),
    errno.EACCES: (Reason.NO_PERMISSION, "the file may not be read; change its permissions"),
    errno.EPERM: (Reason.NO_PERMISSION, "the file may not be read; change its permissions"),
    errno.EISDIR: (Reason.NOT_A_FILE, "this is a folder; name the files in it"),
    errno.ENXIO: (Reason.NOT_A_FILE, "this is a socket or a device; copy what it gives into a file first"),
}


@dataclass(frozen=True)
class Source:
    """A readable, non-empty regular file.

    Args:
        uri: the path as the caller gave it, for messages.
        path: the same path, absolute, for decoders.
        size: bytes.
        format: what the first bytes tell (`formats.sniff`), or None.
        declares_frames: False for an mp3 file that does not say how long it is.
    """

    uri: str
    path: str
    size: int
    format: str | None
    declares_frames: bool


def inspect(path: str | os.PathLike[str]) -> Source:
    """Checks that `path` is a non-empty regular file which can be read, and tells its format.

    Raises:
        InputError: NOT_FOUND, NO_PERMISSION, NOT_A_FILE, EMPTY or UNREADABLE.
        SystemFault: the machine is at fault: out of memory or of file descriptors.
    """
    uri = os.fspath(path)
    try:
        # stat comes first, and O_NONBLOCK with it: opening a fifo would wait for its writer for ever.
        _require_regular(os.stat(uri).st_mode, uri)
        descriptor = os.open(uri, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            _require_regular(status.st_mode, uri)
            head = file.read(HEAD_BYTES)
            if tag := id3_size(head):
                file.seek(tag)
                head = file.read(HEAD_BYTES)
    except OSError as error:
        raise_os_error(error, uri)
    except ValueError as error:  # a null character in the name
        raise InputError(Reason.NOT_FOUND, uri, f"this cannot be a path: {error}; check the path") from error
    if status.st_size == 0:
        raise InputError(Reason.EMPTY, uri, "the file is empty (0 bytes); fetch it again or remove it")
    form = sniff(head) or ("mp3" if tag else None)
    return Source(uri, os.path.abspath(uri), status.st_size, form, form != "mp3" or mp3_declares_frames(head))


def raise_os_error(error: OSError, uri: str) -> NoReturn:
    """Raises the InputError or SystemFault that `error` amounts to."""
    if error.errno in SYSTEM_ERRNOS:
        raise SystemFault(f"{uri}: {error.strerror or error}; this is the machine's fault, not the file's") from error
    reason, detail = _REASONS.get(
        error.errno or 0,
        (
            Reason.UNREADABLE,
            f"it cannot be read ({error.strerror or error}); check the disk or the mount",
        ),
    )
    raise InputError(reason, uri, detail) from error


def _require_regular(mode: int, uri: str) -> None:
    if stat.S_ISDIR(mode):
        raise InputError(Reason.NOT_A_FILE, uri, "this is a folder; name the files in it")
    if not stat.S_ISREG(mode):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket or a device"
        raise InputError(Reason.NOT_A_FILE, uri, f"this is {kind}; copy what it gives into a file first")
