"""Tokenizes damaged files with the real command; exits 1 where it hangs, crashes or loses count of them.

Small files of six formats are damaged by flipped bits, truncation, lost or doubled parts and headers of other
files; the same seed damages them alike. Needs the dev group. Run: `python bench/fuzz.py [--inputs 1000] [--seed 0]`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import soundfile

RATE = 44_100
FORMATS = {
    "wav": [],
    "flac": [],
    "mp3": ["-b:a", "96k"],
    "ogg": ["-c:a", "libvorbis"],
    "m4a": ["-c:a", "aac"],
    "opus": ["-c:a", "libopus", "-page_duration", "200000"],
}
SECONDS_AN_INPUT = 2.0  # the command's limit
HEADER_BYTES = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isolated", action="store_true", help="decode each file in a process of its own")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "inputs"), Path(name, "shards")
        source.mkdir()
        valid = valid_files(Path(name))
        for index in range(options.inputs):
            suffix, data = damaged(valid, f"{options.seed}-{index}")
            (source / f"{index:06}.{suffix}").write_bytes(data)
        start = time.perf_counter()
        faults = tokenize(source, out, options.inputs, ["--isolated"] if options.isolated else [])
        seconds = time.perf_counter() - start
    print("\n".join(f"FAULT: {fault}" for fault in faults) or "no faults")
    print(f"{options.inputs} inputs in {seconds:.0f} s")
    return 1 if faults else 0


def valid_files(folder: Path) -> dict[str, bytes]:
    """A second of stereo sweeps in each format, by suffix."""
    times = np.arange(RATE) / RATE
    sweeps = np.stack([0.4 * np.sin(2 * np.pi * (200 + 900 * times * rise) * times) for rise in (1.0, 1.3)])
    wav = folder / "valid.wav"
    soundfile.write(wav, sweeps.T, RATE)
    for suffix, options in FORMATS.items():
        if suffix != "wav":
            encode = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", wav, *options]
            subprocess.run([*encode, wav.with_suffix(f".{suffix}")], check=True)
    return {suffix: wav.with_suffix(f".{suffix}").read_bytes() for suffix in FORMATS}


def damaged(valid: dict[str, bytes], seed: str) -> tuple[str, bytes]:
    """The suffix and the bytes of the damaged file of this seed."""
    draw = random.Random(seed)
    suffix = draw.choice(sorted(valid))
    data = bytearray(valid[suffix])
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(data))
        end = min(len(data), start + draw.randint(1, 4000))
        match draw.randrange(6):
            case 0:  # bits anywhere
                for _ in range(draw.choice((1, 10, 200))):
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case 1:  # bits in the header
                for _ in range(draw.choice((1, 5, 20))):
                    data[draw.randrange(min(HEADER_BYTES, len(data)))] ^= 1 << draw.randrange(8)
            case 2:
                del data[max(1, start) :]
            case 3:
                del data[start : min(end, start + len(data) - 1)]
            case 4:
                data[start:start] = data[start:end]
            case _:
                data[:HEADER_BYTES] = valid[draw.choice(sorted(valid))][: draw.randint(4, HEADER_BYTES)]
    return suffix, bytes(data)


def tokenize(source: Path, out: Path, inputs: int, options: list[str]) -> list[str]:
    """Runs the command, prints what became of the inputs, and tells what is wrong with that."""
    audioprep = [sys.executable, "-m", "audioprep"]
    command = [*audioprep, "tokenize", str(source), "--out", str(out), "--codec", "mel-rvq", "--quiet", *options]
    limit = 60 + SECONDS_AN_INPUT * inputs
    try:
        code = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return [f"tokenize did not end within {limit:.0f} s"]
    if code not in (0, 3):
        return [f"tokenize ended with exit code {code}"]
    rows = pyarrow.dataset.dataset(out / "data", format="parquet").count_rows()
    failures = out / "failures.parquet"
    reasons = Counter(pyarrow.parquet.read_table(failures)["error"].to_pylist() if failures.exists() else [])
    print(f"exit code {code}; {rows} rows; failures: {dict(reasons.most_common())}")
    faults = []
    if rows + reasons.total() != inputs:
        faults.append(f"{rows} rows and {reasons.total()} failures of {inputs} inputs")
    if subprocess.run([*audioprep, "verify", str(out)], stdout=subprocess.DEVNULL).returncode:
        faults.append("verify finds fault with the shards")
    return faults


if __name__ == "__main__":
    sys.exit(main())
