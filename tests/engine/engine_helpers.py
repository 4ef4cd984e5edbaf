"""A stage that needs no model, jobs made with it, and a run in a process of its own."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.context
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from audioprep.cli.console import QuietObserver
from audioprep.corpus.content import content_id
from audioprep.corpus.entry import Entry
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.run import Job, Options, run
from audioprep.errors import AudioprepError, InputError, Reason
from audioprep.shards.columns import array_type
from audioprep.stages.base import Beat, Failed, Kept, Outcome, Resources
from audioprep.stages.text import ReadText
from audioprep.storage.files import read_bytes
from audioprep.storage.places import Place, to_place

HERE = Path(__file__).parent
KILL_POINTS = HERE / "kill_points"


@dataclass(frozen=True)
class Digest:
    """Gives 2 x 8 tokens, the digest of the file's bytes. A file's first word may be an order to fail.

    `fail`: always; `absent`: as if it could not be found; `crash`, `hang`: unless decoded in isolation;
    `poison`: kills every worker; `bug`: raises what no stage should; `slow`: takes a while.
    """

    log: str
    version: int = 1
    name: str = "digest"

    @property
    def settings(self) -> dict[str, Any]:
        return {"version": self.version, "encoder": {"codebook_size": 256}}

    @property
    def uses_gpu(self) -> bool:
        return False

    @property
    def schema(self) -> pa.Schema:
        columns = [("id", pa.string()), ("duration", pa.float64()), ("sample_rate", pa.int32())]
        columns += [("channels", pa.int32()), ("audio_tokens", array_type(pa.uint8(), 2)), ("num_frames", pa.int32())]
        return pa.schema(columns)

    @property
    def origin(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def run(stages: Sequence[Digest], entries: Sequence[Entry], resources: Resources) -> Iterator[tuple[str, Outcome]]:
        for row, entry in enumerate(entries):
            for stage in stages:
                with open(stage.log, "a") as log:
                    log.write(f"{Path(entry.uri).name}\n")
                try:
                    yield stage.name, Kept(row, stage._columns(entry, resources))
                except InputError as error:
                    yield stage.name, Failed(row, error)
            resources.heartbeat(Beat(0.1, 0.1))

    def _columns(self, entry: Entry, resources: Resources) -> dict[str, Any]:
        data = Path(entry.uri).read_bytes()
        order = data.split(b" ")[0].decode()
        if order == "poison" or (order == "crash" and not resources.isolated):
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == "hang" and not resources.isolated:
            time.sleep(60)
        if order == "slow":
            time.sleep(0.15)
        if order == "bug":
            raise ZeroDivisionError("a bug in the stage")
        if order in ("fail", "absent"):
            reason = Reason.CORRUPT if order == "fail" else Reason.NOT_FOUND
            raise InputError(reason, entry.uri, "was told to fail")
        tokens = np.frombuffer(hashlib.sha256(data).digest()[:16], np.uint8).reshape(8, 2)
        facts = {"id": content_id(entry.uri), "duration": 0.1, "sample_rate": 8000, "channels": 1}
        return facts | {"audio_tokens": tokens, "num_frames": 8}


def make_corpus(folder: Path, items: int = 20, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + items):
        (folder / f"{number:03d}.wav").write_bytes(f"song {number}".encode())
    return folder


def make_job(corpus: Path, out: Place, **changes: Any) -> Job:
    """By default a shard holds about two parts."""
    encoders = {"audio_tokens": {"name": "digest", "kind": "tokens", "num_codebooks": 2, "codebook_size": 256,
                                 "frame_rate": 80.0}}  # fmt: skip
    shards = ShardSettings("parquet", {"train": 0.8, "test": 0.2}, shard_bytes=1000)
    job = Job((str(corpus),), out, (ReadText(), Digest(str(corpus.parent / "log.txt"))), encoders, shards)
    return replace(job, **changes)


def run_job(job: Job, **options: Any) -> dict[str, Any]:
    return run(job, replace(Options(workers=1, part_size=4), **options), QuietObserver())


def processed(corpus: Path) -> list[str]:
    """Names of the files that the stage has seen since the last call, sorted."""
    log = corpus.parent / "log.txt"
    names = sorted(log.read_text().split()) if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def data_bytes(out: Place) -> dict[str, bytes]:
    """All that readers read, but for `dataset.json`, `README.md`."""
    folders = [folder for folder in (out / "data", out / "index") if folder.exists()]
    return {f"{folder.name}/{path.name}": read_bytes(path) for folder in folders for path in folder.iterdir()}


def all_bytes(out: Place) -> dict[str, bytes]:
    """All that readers read."""
    return data_bytes(out) | {
        name: read_bytes(out / name) for name in ("dataset.json", "failures.parquet", "README.md")
    }


class QuickContext:
    """Of multiprocessing: forks from a process that has imported everything, with the environment of now."""

    def __init__(self) -> None:
        self._context = multiprocessing.context.ForkServerContext()  # `get_context` is replaced in the tests
        self._context.set_forkserver_preload(["audioprep.engine.run", "engine_helpers", "pandas", "s3fs"])
        self.Pipe = self._context.Pipe

    def Process(self, target: Callable[..., None], args: tuple[Any, ...], **named: Any) -> BaseProcess:  # noqa: N802
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return self._context.Process(target=_with_environment, args=(environment, target, args), **named)


def _with_environment(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    target(*args)


class Beside:
    """A run of `make_job` in a process of its own, forked from one that has imported everything.

    `result()` waits for it: its totals, or the text of its error, or the number of the signal that ended it.
    """

    def __init__(self, corpus: Path, out: Place, **options: Any) -> None:
        context = QuickContext()
        self._pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(_run_beside, (theirs, corpus, out, options))
        self.process.start()
        theirs.close()

    def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        return self._pipe.poll(seconds)

    def result(self) -> dict[str, Any] | str | int:
        try:
            found = self._pipe.recv()
        except EOFError:
            found = None
        self.process.join()
        assert self.process.exitcode is not None
        return found if found is not None else -self.process.exitcode


def _run_beside(pipe: Connection, corpus: Path, out: Place, options: dict[str, Any]) -> None:
    forkserver._forkserver.ensure_running = lambda: None  # the one that has forked this process does for its workers
    context = QuickContext()
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment,return-value]
    try:
        pipe.send(run_job(make_job(corpus, out), **options))
    except AudioprepError as error:
        pipe.send(f"{type(error).__name__}: {error}")


def start(corpus: Path, out: Place, *arguments: str, kill: str = "") -> subprocess.Popen[str]:
    """Starts a run of `make_job` in a process group of its own."""
    path = os.pathsep.join(map(str, (KILL_POINTS, HERE, HERE.parents[1])))
    environment = os.environ | {"PYTHONPATH": path, "AUDIOPREP_KILL": kill}
    command = [sys.executable, str(HERE / "engine_helpers.py"), str(corpus), str(out), *arguments]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a started run and what it said."""
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


if __name__ == "__main__":
    # The class must have the same name here and in the workers.
    from engine_helpers import make_job, run_job  # type: ignore[no-redef]

    try:
        run_job(make_job(Path(sys.argv[1]), to_place(sys.argv[2])), workers=int(sys.argv[3]))
    except AudioprepError as error:
        sys.exit(f"{type(error).__name__}: {error}")
