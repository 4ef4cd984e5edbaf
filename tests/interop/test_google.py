"""Google's storage, as an emulator speaks it: from there and to there, the bytes of a run on a disk.

Opt-in: `pytest -m interop`. gcsfs is not among our locked packages, as it holds those of S3 back. The emulator does
not know conditional writes, so the lock is not tested.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audioprep.samples import sample_folder

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
PACKAGES = ("--editable", f"{ROOT}[gs]", "gcp-storage-emulator==2026.7.19")
READ = "import fsspec, sys; sys.stdout.buffer.write(fsspec.open(sys.argv[1]).open().read())"
SEND = "import fsspec, sys; fsspec.filesystem('gs').put(sys.argv[1] + '/', sys.argv[2], recursive=True)"


@pytest.fixture(scope="module")
def python(environment: Callable[..., Path]) -> Path:
    return environment("google", PACKAGES)


@pytest.fixture(scope="module")
def address(python: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", "songs"]
    server = subprocess.Popen([python, "-m", "gcp_storage_emulator", "start", *options], stderr=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


Run = Callable[..., bytes]


@pytest.fixture
def run(python: Path, address: str) -> Run:
    """Runs that Python with arguments, and gives what it prints."""
    # Else gcsfs asks Google who we are, and what kind of bucket it is.
    anonymous = {"FSSPEC_GS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    variables = os.environ | anonymous | {"STORAGE_EMULATOR_HOST": address}

    def run(*arguments: str | Path) -> bytes:
        done = subprocess.run([python, *map(str, arguments)], env=variables, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


def tokenize(run: Run, source: str | Path, out: str | Path) -> dict[str, Any]:
    options = ["--codec", "fingerprint", "--part-size", "1", "--workers", "2", "--json", "--quiet"]
    return json.loads(run("-m", "audioprep", "tokenize", source, "--out", out, *options))


def test_the_bytes_are_those_of_a_local_run(run: Run, tmp_path: Path):
    songs = sample_folder() / "speech"
    expected = tokenize(run, songs, tmp_path / "out")
    tokenize(run, songs, "gs://songs/from a disk")
    for path in [*(tmp_path / "out/data").iterdir(), tmp_path / "out/dataset.json"]:
        there = f"gs://songs/from a disk/{path.relative_to(tmp_path / 'out')}"
        assert run("-c", READ, there) == path.read_bytes()
    run("-c", SEND, songs, "gs://songs/speech")
    for _ in range(2):
        found = tokenize(run, "gs://songs/speech", "gs://songs/set")
        assert (found["rows"], found["failed"]) == (expected["rows"], expected["failed"])
    run("-m", "audioprep", "verify", "gs://songs/set")
