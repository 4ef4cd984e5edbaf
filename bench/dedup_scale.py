"""Time and memory of comparing all histograms of a corpus, beside a bare matrix product of the same size.

The recordings are synthetic: each draws its codes from Zipf-like shares of its own, as a variation of one of 64
styles; some are there twice, as two encodings of one. The search runs in a process of its own, whose peak memory is
read at its end. Exits with 1 where it takes more than twice the time of the product, or more memory than stated, or
finds other pairs than those planted.

Run: `python bench/dedup_scale.py [--recordings 5000 20000] [--codebooks 9] [--device cpu] [--json]`. On a GPU:
`python bench/dedup_scale.py --device cuda --recordings 1000000`; the ratio is then one to the card's own rate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from audioprep.dedup.histograms import SCHEMA, Binning, Histograms
from audioprep.dedup.similarity import similar_pairs

LIMIT_RATIO = 2.0
LIMIT_MB = 1500  # two blocks of 256 MiB, torch itself, and what is made on the way
CODES, FRAMES, STYLES = 1024, 10_320, 64  # DAC's codes; 120 s of its frames
SHARD, TILE = 2000, 2048  # recordings a file; rows and columns of one bare product
THRESHOLD, PLANTED = 0.95, 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, nargs="+", default=[20_000])
    parser.add_argument("--codebooks", type=int, default=9, help="of 1024 codes each")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    options = parser.parse_args()

    rows = [measure(count, options.codebooks, options.device) for count in options.recordings]
    if options.json:
        print(json.dumps(rows))
    else:
        print("recordings   bins   search, s   product, s   ratio   of CPU time   peak, MB   found, planted, both")
        for row in rows:
            print(
                "{recordings:10}{bins:7}{seconds:12.1f}{bare:13.1f}{ratio:8.2f}{cpu_ratio:14.2f}{peak_mb:11.0f}"
                "{found:8}{planted:9}{both:6}".format(**row)
            )
    good = (row["ratio"] <= LIMIT_RATIO and row["peak_mb"] <= LIMIT_MB and row["right"] for row in rows)
    return 0 if all(good) else 1


def measure(recordings: int, codebooks: int, device: str) -> dict[str, Any]:
    binning = Binning("per_codebook", codebooks, CODES)
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(Path(folder), recordings, binning, device)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before = pool.apply(bare_product, (recordings, binning.bins, device))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            (seconds, cpu_seconds), peak, pairs = pool.apply(search, (Path(folder), binning, device))
            after = pool.apply(bare_product, (recordings, binning.bins, device))
    bare, cpu_bare = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    found = {(one, other) for one, other, _ in pairs.tolist()}
    return {
        "recordings": recordings,
        "bins": binning.bins,
        "seconds": seconds,
        "bare": bare,
        "ratio": seconds / bare,
        "cpu_ratio": cpu_seconds / cpu_bare,
        "peak_mb": peak,
        "found": len(found),
        "planted": len(planted),
        "both": len(found & planted),
        "right": found == planted,
    }


def search(folder: Path, binning: Binning, device: str) -> tuple[NDArray[np.float64], float, NDArray[np.void]]:
    """Times, peak memory in MB (10^6 bytes) and pairs of a whole search, from the files of counts on."""
    begin = times()
    histograms = Histograms(sorted(folder.glob("*.arrow")), binning, corrected=True)
    found = similar_pairs(histograms, None, THRESHOLD, folder / "pairs", device, lambda done, total: None)
    return times() - begin, peak_mb(), found


def peak_mb() -> float:
    """Peak memory of this process; `ru_maxrss` would begin with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def bare_product(recordings: int, bins: int, device: str) -> NDArray[np.float64]:
    """Times that the products of all pairs take, without anything else; of many recordings reckoned from some."""
    some = min(recordings, 10_000 if device == "cpu" else 100_000)
    tile = TILE if device == "cpu" else 8 * TILE
    vectors = torch.rand(some, bins, device=device, dtype=torch.float32 if device == "cpu" else torch.float16)
    out = torch.empty(tile, tile, device=device, dtype=vectors.dtype)
    products = [(row, column) for row in range(0, some, tile) for column in range(row, some, tile)]
    begin = times()
    for row, column in [(0, 0), *products]:  # the first warms up
        if (row, column) == products[0]:
            begin = times()
        left, right = vectors[row : row + tile], vectors[column : column + tile]
        torch.mm(left, right.T, out=out[: len(left), : len(right)])
    if device != "cpu":
        torch.cuda.synchronize()
    # Of tiles on the diagonal all pairs are computed here, and by the search.
    return (times() - begin) * (recordings + tile) * recordings / ((some + tile) * some)


def times() -> NDArray[np.float64]:
    """Seconds that have passed, and seconds of all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def plant(folder: Path, recordings: int, binning: Binning, device: str) -> set[tuple[int, int]]:
    """Writes the counts of all recordings, and gives those that are there twice."""
    places = np.random.default_rng(0).permutation(recordings)[: 2 * PLANTED].reshape(-1, 2)
    twin = {int(max(pair)): int(min(pair)) for pair in places}
    draws = torch.Generator(device).manual_seed(0)
    ranks = torch.rand(STYLES, binning.codebooks, CODES, device=device, generator=draws).argsort(-1)
    styles = 1 / (ranks + 2.7)
    for start in range(0, recordings, SHARD):
        songs = [twin.get(number, number) for number in range(start, min(start + SHARD, recordings))]
        parts = [counts_of(songs[begin : begin + 250], styles, draws) for begin in range(0, len(songs), 250)]
        write(folder / f"{start:09d}.arrow", np.concatenate(parts))
    return {(one, other) for other, one in twin.items()}


def counts_of(songs: list[int], styles: torch.Tensor, draws: torch.Generator) -> NDArray[np.int32]:
    """How often each code occurs in each recording: `[n, D]`; two of one song differ by chance alone."""
    own = torch.Generator(styles.device)
    varied = [torch.randn(styles.shape[1:], device=styles.device, generator=own.manual_seed(song)) for song in songs]
    shares = styles[[song % STYLES for song in songs]] * torch.stack(varied).mul_(0.6).exp_()
    means = shares * (FRAMES / shares.sum(-1, keepdim=True))
    noise = torch.randn(means.shape, device=styles.device, generator=draws)  # of about Poisson's variance
    return (means + noise * means.sqrt()).round_().clamp_(0).int().flatten(1).cpu().numpy()


def write(path: Path, counts: NDArray[np.int32]) -> None:
    """Writes counts `[n, D]` as a file of `SCHEMA`."""
    rows, bins = counts.nonzero()
    offsets = pa.array(np.searchsorted(rows, np.arange(len(counts) + 1)).astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (bins.astype(np.int32), counts[rows, bins])]
    names = pa.array([""] * len(counts))
    plain = {"id": names, "uri": names, "split": names, "bins": lists[0], "counts": lists[1]}
    zeros = np.zeros(len(counts))
    columns = [plain[field.name] if field.name in plain else pa.array(zeros).cast(field.type) for field in SCHEMA]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))


if __name__ == "__main__":
    sys.exit(main())
