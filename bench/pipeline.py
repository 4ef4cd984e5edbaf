"""Wall time of the whole pipeline beside that of its encoder alone, on the same audio and the same cores.

An hour of mp3 (60 songs of a minute, 44.1 kHz stereo, 192 kbit/s) is tokenized. "Alone" means: the encoder in as
many processes, each with its share of the windows already in memory. Both are timed from the moment when the
processes have loaded the model; the pipeline ends when its last shard is in place.

Two encoders: an EnCodec of its original size (`transformers`' own class with random weights: speed does not depend on
them), registered as a plug-in, which stands for neural codecs; and the bundled `mel-rvq`, which on a CPU takes less
time than decoding the mp3 does, so that its ratio can only be that of decoding and encoding to encoding. Exits 1
where the pipeline takes over 1.10 times as long as EnCodec alone.

Run: `python bench/pipeline.py [--minutes 60] [--workers 2] [--repeats 1] [--codecs encodec mel-rvq]`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from decode import write_music
from numpy.typing import NDArray

from audioprep.audio import load_audio
from audioprep.audio.backends.ffmpeg import program
from audioprep.cli.console import QuietObserver
from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.registry import describe_encoder, load_encoder
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.run import Job, Options, run
from audioprep.engine.worker import Progress
from audioprep.stages.encode import Encode
from audioprep.stages.text import ReadText
from audioprep.stages.windows import Window, WindowCutter

CEILING = 1.10
SONG_MINUTES = 1
SETTINGS = {"device": "cpu"}


def make_corpus(folder: Path, minutes: int) -> Path:
    """Songs that differ in their first seconds, so that none is a copy."""
    folder.mkdir()
    wav = folder.parent / "song.wav"
    write_music(wav, SONG_MINUTES * 60)
    for number in range(max(1, minutes // SONG_MINUTES)):
        encode = [program(), "-v", "error", "-nostdin", "-i", wav, "-af", f"volume={1 - number / 100}"]
        subprocess.run([*encode, "-b:a", "192k", folder / f"{number:03d}.mp3"], check=True)
    return folder


def windows_of(paths: list[Path], spec: EncoderSpec) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All windows of some files, float32 `[N, C, length]`, and what of each is the file's own, int64 `[N, 2]`."""
    windows: list[Window] = []
    for path in paths:
        samples, _ = load_audio(path, sample_rate=spec.sample_rate, channels=spec.channels)
        cutter = WindowCutter(spec)
        windows += [*cutter.push(samples), *cutter.finish()]
    return np.stack([w.samples for w in windows]), np.array([(w.start, w.end) for w in windows])


def encode_alone(codec: str, paths: list[Path], ready: Any, finished: Any) -> None:
    """One process: loads its windows and the model, waits for the others, encodes."""
    import torch

    torch.set_num_threads(1)
    encoder = load_encoder(codec, SETTINGS)
    samples, valid = windows_of(paths, encoder.spec)
    size = encoder.spec.batch_size
    batches = [slice(first, first + size) for first in range(0, len(samples) - size + 1, size)]
    encoder.encode(samples[batches[0]], valid[batches[0]])
    ready.wait()
    for batch in batches:
        encoder.encode(samples[batch], valid[batch])
    finished.wait()


def seconds_alone(codec: str, corpus: Path, workers: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready, finished = context.Barrier(workers + 1), context.Barrier(workers + 1)
    paths = sorted(corpus.iterdir())
    shares = [paths[worker::workers] for worker in range(workers)]
    processes = [context.Process(target=encode_alone, args=(codec, share, ready, finished)) for share in shares]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    finished.wait()
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return seconds


class Clock(QuietObserver):
    """Notes when the first window has gone through a worker."""

    started: float | None = None

    def progress(self, progress: Progress) -> None:
        if progress.seconds:  # reading tags and lyrics comes before the model is loaded
            self.started = self.started or time.perf_counter()


def seconds_of_pipeline(codec: str, corpus: Path, out: Path, workers: int) -> tuple[float, float]:
    """Seconds of the running pipeline, and with the start of its processes."""
    stage = Encode(codec, {}, describe_encoder(codec, SETTINGS), "audio_tokens")
    encoders = {stage.column: stage.spec.to_dict()}
    job = Job((str(corpus),), out, (ReadText(), stage), encoders, ShardSettings())
    clock = Clock()
    start = time.perf_counter()
    totals = run(job, Options(workers=workers, device="cpu"), clock)
    end = time.perf_counter()
    if totals["failed"] or clock.started is None:
        sys.exit(f"{totals['failed']} inputs failed")
    return end - clock.started, end - start


def install_plugin(folder: Path) -> None:
    """Makes `bench/encodec_plugin.py` an installed package with an entry point, here and in child processes."""
    info = folder / "encodec_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: encodec-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[audioprep.encoders]\nencodec = encodec_plugin\n")
    sys.path.append(str(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--codecs", nargs="+", default=["encodec", "mel-rvq"])
    options = parser.parse_args()
    ratios = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        install_plugin(folder)
        corpus = make_corpus(folder / "corpus", options.minutes)
        print(f"{'':10}{'encoder alone':>15}{'pipeline':>12}{'with start':>12}{'ratio':>8}")
        for codec in options.codecs:
            alone, running, whole = [], [], []
            for turn in range(options.repeats):
                alone.append(seconds_alone(codec, corpus, options.workers))
                seconds = seconds_of_pipeline(codec, corpus, folder / f"{codec}-{turn}", options.workers)
                running.append(seconds[0])
                whole.append(seconds[1])
            ratios[codec] = median(running) / median(alone)
            cells = f"{median(alone):14.1f}s{median(running):11.1f}s{median(whole):11.1f}s"
            print(f"{codec:10}{cells}{ratios[codec]:8.3f}", flush=True)
    return int(ratios.get("encodec", 0) > CEILING)


if __name__ == "__main__":
    sys.exit(main())
