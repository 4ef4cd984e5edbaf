"""Environments of their own for the projects that ours is compared with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def interop_folder(request: pytest.FixtureRequest) -> Path:
    """Where environments and what else takes long to make are kept: AUDIOPREP_INTEROP, or pytest's cache."""
    given = os.environ.get("AUDIOPREP_INTEROP")
    assert request.config.cache is not None
    return Path(given) if given else request.config.cache.mkdir("interop")


@pytest.fixture(scope="session")
def environment(interop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes an environment, once for the same packages, and gives its interpreter."""

    def make(name: str, packages: Sequence[str], alone: Sequence[str] = (), overrides: str = "") -> Path:
        """`alone` are installed without what they need; `overrides` are lines for uv's file of that name."""
        uv = shutil.which("uv")
        if uv is None:
            pytest.skip("needs uv")
        folder = interop_folder / name
        python, done = folder / "bin" / "python", folder / "done"
        wanted = "\n".join([*packages, *alone])
        if not done.exists() or done.read_text() != wanted:
            overriding = tmp_path_factory.mktemp("uv") / "overrides.txt"
            overriding.write_text(overrides)
            install = [uv, "pip", "install", "--python", str(python)]
            commands = [
                [uv, "venv", "--clear", "--python", sys.executable, str(folder)],
                [*install, "--override", str(overriding), *packages],
            ]
            for command in commands + [[*install, "--no-deps", *alone]] * bool(alone):
                made = subprocess.run(command, capture_output=True, text=True, check=False)
                if made.returncode:
                    pytest.skip(f"no environment with {name}: {made.stderr[-500:]}")
            done.write_text(wanted)
        return python

    return make
