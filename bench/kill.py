"""Kills `audioprep tokenize` at every named point and at random instants; the bytes must be as if nothing had happened.

The bundled samples are tokenized without interruption with 1, 2 and 4 workers; then into one folder with a kill -9 of
the whole run at the first commit of each kind of file (half written, before the rename, after it); then with kills at
random instants, resumed each time. All `data/` folders must be equal. Exits 1 where they are not.

Run: `python bench/kill.py [--kills 20] [--seed 0] [--format parquet|webdataset]`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from audioprep.samples import sample_folder

KILL_POINTS = Path(__file__).parent.parent / "tests/engine/kill_points"
FILES = (
    "*/plan/*.parquet", "*/run.json", "*/columns/text*.parquet", "*/columns/text*.json", "*/columns/tokenize*.parquet",
    "*/columns/tokenize*.json", "*/data/*", "*/shards/*.json", "*/failures.parquet", "*/README.md", "*/dataset.json",
)  # fmt: skip
DONE = 3  # one of the samples is broken on purpose


def start(out: Path, storage: str, workers: int, kill: str = "") -> subprocess.Popen[bytes]:
    """Starts a run in a process group of its own; `kill` is a named point (see tests/engine/kill_points)."""
    options = ["--workers", str(workers), "--part-size", "2", "--format", storage, "--splits", "train=0.7,test=0.3"]
    command = [sys.executable, "-m", "audioprep", "tokenize", str(sample_folder()), "--out", str(out), *options, "-q"]
    path = os.pathsep.join([str(KILL_POINTS), str(KILL_POINTS.parents[2])])
    environment = os.environ | {"PYTHONPATH": path, "AUDIOPREP_KILL": kill}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def data_bytes(out: Path) -> dict[str, bytes]:
    files = [*(out / "data").iterdir(), *(out / "index").glob("*")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def kill_at_random(out: Path, storage: str, kills: int, random_: random.Random, seconds: float) -> None:
    """Kills runs at instants spread over a whole run's length; one that ended before its kill gets its work again."""
    killed = 0
    while killed < kills:
        process = start(out, storage, workers=1 + killed % 2)
        time.sleep(random_.uniform(0, seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            for path in [*out.glob(".audioprep/columns/*/*"), *out.glob("data/*")]:
                path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=["parquet", "webdataset"], default="parquet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = {}
        began = time.perf_counter()
        for workers in (1, 2, 4):
            out = folder / f"{workers}-workers"
            assert start(out, options.format, workers).wait() == DONE
            results[f"{workers} workers"] = data_bytes(out)
        seconds = (time.perf_counter() - began) / 3

        out = folder / "named"
        points = [f"{when}:{pattern}" for pattern in FILES for when in ("torn", "before", "after")]
        missed = [point for point in points if start(out, options.format, 2, kill=point).wait() != -signal.SIGKILL]
        assert start(out, options.format, 2).wait() == DONE
        results[f"{len(points) - len(missed)} kills at named points"] = data_bytes(out)

        out = folder / "random"
        kill_at_random(out, options.format, options.kills, random.Random(options.seed), seconds)
        assert start(out, options.format, 2).wait() == DONE
        results[f"{options.kills} kills at random instants"] = data_bytes(out)

    expected = results["1 workers"]
    for name, found in results.items():
        print(f"{name:30} {'equal' if found == expected else 'DIFFERENT'}  ({len(found)} files)")
    if missed:
        print(f"never reached: {', '.join(missed)}")
    return int(bool(missed) or any(found != expected for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
