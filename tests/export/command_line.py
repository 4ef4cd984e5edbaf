"""Calls the command line in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from audioprep.cli.app import main


def audioprep(*arguments: Any) -> int:
    """Gives the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["audioprep", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0  # pyright: ignore[reportReturnType]
