"""Lines of Japanese lyrics to phonemes: `audioprep g2p` beside the library called in a loop, as scripts do.

The corpus is made of the gold list's lines with numbers put in, so that a song's lines are all different, but for its
chorus: the last quarter of its lines, which comes `--choruses` times. The loop calls `pyopenjtalk.g2p` for every line,
in one process that has loaded its dictionary; audioprep's time is that of the whole command, with the start of its
workers, its shards and checksums. Exits 1 where audioprep is less than 1.8 times as fast, or where its phonemes are
others than the loop's.

Run: `python bench/g2p.py [--songs 800] [--lines-a-song 40] [--choruses 3] [--workers 2] [--repeats 3] [--json]`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

GOLD = Path(__file__).parent.parent / "tests/text/japanese_gold.tsv"
FLOOR = 1.8
# One process that calls the library, so that both sides start from nothing: songs in, phonemes and seconds out.
LOOP = """
import json, sys, time
songs = json.load(open(sys.argv[1]))
import pyopenjtalk
pyopenjtalk.g2p("あ")
start = time.perf_counter()
read = [[pyopenjtalk.g2p(line) for line in song] for song in songs]
json.dump({"seconds": time.perf_counter() - start, "read": read}, open(sys.argv[2], "w"))
"""


def make_songs(songs: int, lines: int, choruses: int) -> list[list[str]]:
    """Songs of different lines; the last quarter of each comes `choruses` times."""
    kinds = [row.split("\t") for row in GOLD.read_text("utf-8").splitlines()]
    # What audioprep reads in another way on purpose (English words, ruby, spellings of songs) is not compared.
    texts = [text for kind, text, _ in kinds if kind not in ("english", "spelling")]
    made = []
    for song in range(songs):
        first = song * lines
        body = [
            f"{texts[number % len(texts)]}と{number}の{texts[number * 7 % len(texts)]}"
            for number in range(first, first + lines)
        ]
        made.append(body + body[-(lines // 4) :] * (choruses - 1))
    return made


def run_loop(songs: list[list[str]], folder: Path) -> tuple[float, list[str]]:
    given, taken = folder / "songs.json", folder / "read.json"
    given.write_text(json.dumps(songs))
    subprocess.run([sys.executable, "-c", LOOP, str(given), str(taken)], check=True, stdout=subprocess.DEVNULL)
    result = json.loads(taken.read_text())
    return result["seconds"], ["\n".join(song) for song in result["read"]]


def run_audioprep(songs: list[list[str]], folder: Path, workers: int) -> tuple[float, list[str]]:
    table, out = folder / "songs.jsonl", folder / "out"
    table.write_text("".join(json.dumps({"lyrics": "\n".join(song)}) + "\n" for song in songs))
    options = ["--devoiced", "--punctuation", "drop", "--language", "ja", "--workers", str(workers), "-q"]
    command = [sys.executable, "-m", "audioprep", "g2p", str(table), "--out", str(out), *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    found = pq.read_table(out / "data", columns=["uri", "phonemes"]).to_pylist()
    found.sort(key=lambda row: int(row["uri"].rpartition("=")[2]))
    return seconds, [row["phonemes"] for row in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=800)
    parser.add_argument("--lines-a-song", type=int, default=40)
    parser.add_argument("--choruses", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    songs = make_songs(options.songs, options.lines_a_song, options.choruses)
    lines = sum(map(len, songs))
    loops: list[float] = []
    ours: list[float] = []
    equal = True
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory(prefix="audioprep-bench-") as folder:
            seconds, wanted = run_loop(songs, Path(folder))
            loops.append(seconds)
            seconds, read = run_audioprep(songs, Path(folder), options.workers)
            ours.append(seconds)
            equal &= read == wanted
    speeds = {"loop": lines / median(loops), "audioprep": lines / median(ours)}
    result = {"lines": lines, "lines_a_second": speeds, "ratio": speeds["audioprep"] / speeds["loop"], "equal": equal}
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{lines} lines, {options.workers} workers, lines a second:")
        print(f"loop {speeds['loop']:.0f}, audioprep {speeds['audioprep']:.0f}")
        print(f"ratio {result['ratio']:.2f} (at least {FLOOR}); phonemes {'equal' if equal else 'DIFFERENT'}")
    return 0 if equal and result["ratio"] >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
