"""A few short recordings that ship with the package, for the demo, the tests and a first try."""

from __future__ import annotations

from pathlib import Path


def sample_folder() -> Path:
    """The folder with the bundled audio files and their side-car texts; it is only to be read."""
    return Path(__file__).parent / "audio"
