"""Peak memory of `audioprep tokenize` on a short and on an hours-long file; exits 1 where it grows with the length.

The resident memory of the command and all its processes is added up, twenty times a second; pages that they
share count in each. Needs the dev group. Run: `python bench/memory.py [--hours 6] [--codec mel-rvq] [--json]`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import psutil

LIMIT_MB = 400  # by which the long file's peak may be above the short one's
SAMPLING_SECONDS = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=6.0, help="length of the long file")
    parser.add_argument("--codec", default="mel-rvq")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    options, further = parser.parse_known_args()  # what it does not know is for `audioprep tokenize`

    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder, "minute.mp3"), Path(folder, "hours.mp3")
        write_minute(short)
        ffmpeg("-stream_loop", str(round(options.hours * 60) - 1), "-i", short, "-c", "copy", long)
        peaks = {path.stem: peak_of_tokenize(path, options.codec, further) for path in (short, long)}
    growth = peaks["hours"] - peaks["minute"]
    if options.json:
        print(json.dumps({"hours": options.hours, "codec": options.codec, "peak_mb": peaks, "growth_mb": growth}))
    else:
        print(f"peak of 1 minute    {peaks['minute']:7.0f} MB")
        print(f"peak of {options.hours:g} hours     {peaks['hours']:7.0f} MB")
        print(f"difference          {growth:7.0f} MB (at most {LIMIT_MB})")
    return 0 if growth <= LIMIT_MB else 1


def write_minute(path: Path) -> None:
    """A stereo mp3 of a tone with noise, which every codec has to work on."""
    tone, noise = (
        "sine=frequency=220:duration=60:sample_rate=44100",
        "anoisesrc=amplitude=0.05:sample_rate=44100:seed=1",
    )
    ffmpeg("-f", "lavfi", "-i", tone, "-f", "lavfi", "-i", noise, "-filter_complex", "amerge", "-t", "60", path)


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", *arguments]
    subprocess.run(command, check=True)


def peak_of_tokenize(path: Path, codec: str, further: list[str]) -> float:
    """The greatest resident memory, in MB (10^6 bytes), of one worker that tokenizes one file."""
    out = path.with_suffix(".shards")
    arguments = ["tokenize", str(path), "--out", str(out), "--codec", codec, "--workers", "1", "--quiet", *further]
    process = psutil.Popen([sys.executable, "-m", "audioprep", *arguments], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(map(resident_bytes, [process, *process.children(recursive=True)])))
        time.sleep(SAMPLING_SECONDS)
    if process.returncode:
        raise SystemExit(f"audioprep ended with exit code {process.returncode}")
    return peak / 1e6


def resident_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:  # it ended since it was listed
        return 0


if __name__ == "__main__":
    sys.exit(main())
