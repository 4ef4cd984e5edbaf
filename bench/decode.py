"""Decodes one file with audioprep and with its peers, side by side; exits 1 where audioprep is too slow.

Every contender gives float32 `[channels, samples]`, contiguous, at the file's own rate, on one thread: the peers the
whole recording at once, audioprep block by block, as its pipeline takes it. "whole" is audioprep's `load_audio`, for
those who want one array: it pays for fresh memory like the peers, and is not what the exit code tells of. They take
turns within each repeat, in a random order, and their medians are compared. Needs the dev group and the ffmpeg program.

Run: `python bench/decode.py [--seconds 300] [--repeats 9] [--formats wav,mp3] [--json]`.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioprep.audio import load_audio, open_audio
from audioprep.audio.backends.ffmpeg import program

Samples = NDArray[np.float32]
RATE = 44_100
FLOOR = 0.95
FORMATS = {
    "wav": [],
    "flac": [],
    "mp3": ["-b:a", "192k"],
    "ogg": ["-c:a", "libvorbis", "-q:a", "5"],
    "m4a": ["-c:a", "aac", "-b:a", "160k"],
    "opus": ["-c:a", "libopus", "-b:a", "128k"],
}


def by_blocks(path: str) -> int:
    with open_audio(path) as stream:
        return sum(block.shape[1] for block in stream)


def whole(path: str) -> Samples:
    return load_audio(path)[0]


def with_soundfile(path: str) -> Samples:
    import soundfile

    return np.ascontiguousarray(soundfile.read(path, dtype="float32", always_2d=True)[0].T, np.float32)


def with_torchcodec(path: str) -> Samples:
    from torchcodec.decoders import AudioDecoder

    return AudioDecoder(path).get_all_samples().data.contiguous().numpy()


def with_torchaudio(path: str) -> Samples:
    import torchaudio

    return torchaudio.load(path)[0].contiguous().numpy()


def with_pyav(path: str) -> Samples:
    import av

    with av.open(path) as container:
        stream = container.streams.audio[0]
        context: Any = stream.codec_context
        context.thread_type = "NONE"
        parts = [frame.to_ndarray() for frame in container.decode(stream)]
        channels, planar, kind = stream.channels, stream.format.is_planar, stream.format.bytes
    samples = np.concatenate(parts, axis=1)
    if not planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype.kind == "i":
        samples = samples * np.float32(2.0 ** (1 - 8 * kind))
    return np.ascontiguousarray(samples, np.float32)


def with_ffmpeg(path: str) -> Samples:
    reading, writing = ["-v", "error", "-nostdin", "-threads", "1"], ["-f", "f32le", "-ac", "2", "-"]
    data = subprocess.run([program(), *reading, "-i", path, *writing], check=True, capture_output=True).stdout
    return np.ascontiguousarray(np.frombuffer(data, np.float32).reshape(-1, 2).T)


OURS: dict[str, Callable[[str], Any]] = {"audioprep": by_blocks, "whole": whole}
PEERS: dict[str, Callable[[str], Samples]] = {
    "soundfile": with_soundfile,
    "torchcodec": with_torchcodec,
    "torchaudio": with_torchaudio,
    "pyav": with_pyav,
    "ffmpeg": with_ffmpeg,
}


def write_music(path: Path, seconds: float) -> None:
    """A music-like stereo file: a chord under slow envelopes, and noise in beats."""
    times = np.arange(int(RATE * seconds)) / RATE
    random = np.random.default_rng(0)
    channels = []
    for detune in (1.0, 1.003):
        wave = random.normal(0, 0.02, times.size) * np.abs(np.sin(4 * np.pi * times))
        for index, pitch in enumerate((55, 110, 165, 220, 330, 440, 660, 880, 1320, 2640, 5280)):
            swell = 0.5 + 0.5 * np.sin(2 * np.pi * times * (0.3 + 0.1 * index))
            wave += 0.06 * np.sin(2 * np.pi * pitch * detune * times + index) * swell
        channels.append(wave)
    import soundfile

    soundfile.write(path, np.stack(channels, axis=1).astype(np.float32), RATE, subtype="PCM_16")


def measure(path: str, repeats: int) -> dict[str, float]:
    """Median seconds of every contender that can read the file."""
    contenders = {**OURS, **PEERS}
    times: dict[str, list[float]] = {}
    for name in list(contenders):
        try:
            contenders[name](path)  # imports its library and fills the file cache
        except Exception as error:
            print(f"  {name} cannot: {str(error).splitlines()[0]}", file=sys.stderr)
            del contenders[name]
    draw = random.Random(0)
    for _ in range(repeats):
        for name in draw.sample(sorted(contenders), len(contenders)):
            gc.collect()
            start = time.perf_counter()
            samples = contenders[name](path)
            times.setdefault(name, []).append(time.perf_counter() - start)
            del samples
    return {name: median(taken) for name, taken in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "music.wav")
        write_music(wav, options.seconds)
        for suffix in options.formats.split(","):
            path = wav.with_suffix(f".{suffix}")
            if path != wav:
                encode = [program(), "-v", "error", "-nostdin", "-i", wav, *FORMATS[suffix], path]
                subprocess.run(encode, check=True)
            results[suffix] = measure(str(path), options.repeats)
    ratios = {
        suffix: min(taken for name, taken in times.items() if name in PEERS) / times["audioprep"]
        for suffix, times in results.items()
    }
    if options.json:
        print(json.dumps({"audio_seconds": options.seconds, "median_seconds": results, "ratios": ratios}))
    else:
        print_table(results, ratios, options.seconds)
    return 0 if min(ratios.values()) >= FLOOR else 1


def print_table(results: dict[str, dict[str, float]], ratios: dict[str, float], seconds: float) -> None:
    print("times real time" + "".join(f"{name:>12}" for name in (*OURS, *PEERS)) + "     ratio to best peer")
    for suffix, times in results.items():
        cells = (f"{seconds / times[name]:.0f}x" if name in times else "-" for name in (*OURS, *PEERS))
        verdict = "" if ratios[suffix] >= FLOOR else f"  below {FLOOR}"
        print(f"{suffix:15}" + "".join(f"{cell:>12}" for cell in cells) + f"     {ratios[suffix]:.2f}{verdict}")


if __name__ == "__main__":
    sys.exit(main())
