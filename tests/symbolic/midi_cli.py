"""Calls the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from audioprep.cli.app import main


def run_cli(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[object]) -> int:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["audioprep", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code
