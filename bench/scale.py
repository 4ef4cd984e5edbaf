"""How the engine scales: more workers, on both engines; and more inputs.

Workers: parts of four inputs go through one, two and four workers, as processes and as Ray actors. `wait` is a stage
that sleeps a quarter of a second a part, as a worker does whose GPU computes: its efficiency is that of the engine,
and what a part takes longer is the engine's overhead. `mel-rvq` tokenizes ten seconds of sound an input, and needs a
CPU core a worker. The rate is that of the parts in the middle of a run, when all workers have started; the seconds
until the first part is done are told beside it. Efficiency is the rate a worker, to that of one local worker; over
more workers than cores it means something for `wait` alone.

Inputs: a Parquet manifest of so many recordings that do not exist goes through scan, plan, commit and assembly, with a
stage that makes tokens up. Each size has a process of its own, whose peak memory is read at its end (that of its one
worker does not depend on the size). Exits with 1 where a hundred times the inputs take more than 150 times as long, or
memory grows by more than half a kB an input.

Run: `python bench/scale.py [--workers 1 2 4] [--stages wait mel-rvq] [--inputs 10000 100000 1000000] [--json]`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from audioprep.cli.console import QuietObserver
from audioprep.corpus.entry import Entry
from audioprep.encoders.registry import describe_encoder
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.ray_pool import connected
from audioprep.engine.run import Job, Options, run
from audioprep.shards.columns import array_type
from audioprep.stages.base import Beat, Kept, Outcome, Resources, Stage
from audioprep.stages.encode import Encode
from audioprep.stages.text import ReadText

ITEMS_A_PART = 4
PART_SECONDS = 0.25
LIMIT_GROWTH = 1.5  # of the time an input takes
LIMIT_BYTES = 512  # an input
SPEC = {"name": "made-up", "kind": "tokens", "num_codebooks": 2, "codebook_size": 256, "frame_rate": 4.0}


@dataclass(frozen=True)
class MakeUp:
    """Gives 8 x 2 tokens that depend on the input's name alone, after a while."""

    seconds: float = 0.0  # an input
    name: str = "audio_tokens"
    uses_gpu: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        return {"encoder": SPEC}

    @property
    def origin(self) -> dict[str, Any]:
        return {}

    @property
    def schema(self) -> pa.Schema:
        columns = [("id", pa.string()), ("duration", pa.float64()), ("sample_rate", pa.int32())]
        columns += [("channels", pa.int32()), ("audio_tokens", array_type(pa.uint8(), 2)), ("num_frames", pa.int32())]
        return pa.schema(columns)

    @staticmethod
    def run(stages: Sequence[MakeUp], entries: Sequence[Entry], resources: Resources) -> Iterator[tuple[str, Outcome]]:
        (stage,) = stages
        facts = {"duration": 2.0, "sample_rate": 8000, "channels": 1, "num_frames": 8}
        for row, entry in enumerate(entries):
            time.sleep(stage.seconds)
            name = hashlib.sha256(entry.uri.encode()).hexdigest()[:16]
            tokens = np.frombuffer(name.encode(), np.uint8).reshape(8, 2)
            yield stage.name, Kept(row, facts | {"id": name, "audio_tokens": tokens})
            resources.heartbeat(Beat(2.0, stage.seconds))


class Clock(QuietObserver):
    """Notes when parts were done, and when each phase of a run ended."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.parts: list[float] = []
        self.phases: dict[str, float] = {}

    def _now(self) -> float:
        return time.perf_counter() - self.began

    def planned(self, entries: int, parts: int, parts_done: int, entries_done: int) -> None:
        self.phases["plan"] = self._now()

    def part_done(self, entries: int, failed: int) -> None:
        assert not failed
        self.parts.append(self._now())
        self.phases["work"] = self._now()

    def end(self) -> None:
        self.phases["assemble"] = self._now()

    def rate(self, workers: int) -> float:
        """Parts a second, while all workers had started and none had ended."""
        middle = self.parts[2 * workers : len(self.parts) - workers]
        return (len(middle) - 1) / (middle[-1] - middle[0])


def make_corpus(folder: Path, inputs: int) -> Path:
    """Recordings of ten seconds at 16 kHz."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(inputs):
        soundfile.write(folder / f"{number:04d}.wav", 0.1 * random.standard_normal(160_000), 16_000)
    return folder


def timed(corpus: Path, out: Path, stage: Stage, engine: Any, workers: int) -> Clock:
    clock = Clock()
    encoders = {stage.name: stage.settings["encoder"]}
    job = Job((str(corpus),), out, (ReadText(), stage), encoders, ShardSettings())
    run(job, Options(engine=engine, workers=workers, part_size=ITEMS_A_PART), clock)
    clock.end()
    return clock


def stage_of(name: str) -> Stage:
    if name == "wait":
        return MakeUp(PART_SECONDS / ITEMS_A_PART)
    return Encode(name, {}, describe_encoder(name, {}), "audio_tokens")


def scaling(folder: Path, stages: list[str], workers: list[int], parts: int) -> list[dict[str, Any]]:
    corpus = make_corpus(folder / "corpus", parts * ITEMS_A_PART)
    rows: list[dict[str, Any]] = []
    for engine in ("local", "ray"):
        with connected() if engine == "ray" else nullcontext():
            for stage, number in product(stages, workers):
                clock = timed(corpus, folder / f"{stage}-{engine}-{number}", stage_of(stage), engine, number)
                first = clock.parts[0] - clock.phases["plan"]
                rate = clock.rate(number)
                alone = next((row["rate"] for row in rows if row["stage"] == stage), rate / number)
                row = {"stage": stage, "engine": engine, "workers": number, "first_part": first, "rate": rate}
                row["efficiency"] = rate / number / alone
                row["overhead_ms"] = 1000 * (number / rate - PART_SECONDS) if stage == "wait" else None
                rows.append(row)
    return rows


def growth(inputs: int, folder: str, pipe: Any) -> None:
    """One process: runs a manifest of so many inputs, and sends the seconds of each phase and its peak memory."""
    manifest = Path(folder) / f"{inputs}.parquet"
    schema = pa.schema([("path", pa.string()), ("tags", pa.string())])
    with pq.ParquetWriter(manifest, schema) as writer:
        for first in range(0, inputs, 10_000):
            # Not in the order of their names, as hashed names of files are not.
            paths = [f"/music/{n * 2654435761 % 2**32:08x}.mp3" for n in range(first, min(first + 10_000, inputs))]
            writer.write_table(pa.table({"path": paths, "tags": ["pop"] * len(paths)}, schema))
    clock = Clock()
    job = Job((str(manifest),), Path(folder) / str(inputs), (ReadText(), MakeUp()), {"audio_tokens": SPEC})
    run(job, Options(workers=1), clock)
    clock.end()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    scan, work, end = (clock.phases[name] for name in ("plan", "work", "assemble"))
    pipe.send({"inputs": inputs, "scan_and_plan": scan, "commit": work - scan, "assemble": end - work, "peak": peak})


def in_process(inputs: int, folder: Path) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=growth, args=(inputs, str(folder), theirs))
    process.start()
    theirs.close()
    row = ours.recv()
    process.join()
    return row


def grows_well(rows: list[dict[str, Any]]) -> bool:
    """Whether the largest of several sizes takes about as long an input as the smallest, and little more memory."""
    small, large = rows[0], rows[-1]
    more = large["inputs"] / small["inputs"]
    times = all(large[name] <= LIMIT_GROWTH * more * small[name] for name in ("scan_and_plan", "commit", "assemble"))
    return times and large["peak"] - small["peak"] <= LIMIT_BYTES * (large["inputs"] - small["inputs"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="begin with 1")
    parser.add_argument("--stages", nargs="+", default=["wait", "mel-rvq"])
    parser.add_argument("--parts", type=int, default=60, help="of a run with workers")
    parser.add_argument("--inputs", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        workers = scaling(folder, options.stages, options.workers, options.parts) if options.workers else []
        inputs = [in_process(count, folder) for count in sorted(options.inputs)]
    if options.json:
        print(json.dumps({"workers": workers, "inputs": inputs}))
    else:
        print("stage     engine  workers  first part, s   parts/s   efficiency   overhead, ms a part")
        for row in workers:
            overhead = "-" if row["overhead_ms"] is None else f"{row['overhead_ms']:.0f}"
            print("{stage:10}{engine:8}{workers:7}{first_part:15.1f}{rate:10.2f}{efficiency:13.2f}".format(**row)
                  + f"{overhead:>22}")  # fmt: skip
        print("\n   inputs   scan and plan, s   commit, s   assemble, s   peak, MB")
        for row in inputs:
            print("{inputs:9}{scan_and_plan:19.1f}{commit:12.1f}{assemble:14.1f}".format(**row)
                  + f"{row['peak'] / 1e6:11.0f}")  # fmt: skip
    return 0 if not inputs or grows_well(inputs) else 1


if __name__ == "__main__":
    sys.exit(main())
