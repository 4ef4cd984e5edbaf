"""The decoding backends, and which of them comes first for each format."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from audioprep.audio.backends.base import Backend

NAMES = ("soundfile", "pyav", "ffmpeg")

# Fastest first, as `bench/decode.py` measures them; libsndfile is the fastest for PCM alone.
_PCM = {"wav", "rf64", "w64", "aiff"}
_ORDER = ("pyav", "ffmpeg")


def order(container: str | None) -> tuple[str, ...]:
    """Names of the backends to try for a sniffed format, in order."""
    return ("soundfile", *_ORDER) if container in _PCM else _ORDER


def load(name: str) -> Backend:
    """The backend's module; its library is imported at its first use."""
    return cast(Backend, import_module(f"{__name__}.{name}"))


def decoders() -> dict[str, str]:
    """Each backend's name with its version, or with why it cannot be used. Imports all of them: slow."""
    found = {}
    for name in NAMES:
        try:
            found[name] = load(name).version()
        except (ImportError, OSError) as error:
            found[name] = f"unavailable: {error}"
    return found
