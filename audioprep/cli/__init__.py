"""The command line: parses, calls one library function, prints. All else is imported by the command that runs."""

from __future__ import annotations

from audioprep.cli.app import main

__all__ = ["main"]
