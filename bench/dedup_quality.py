"""Which copies are found, and which songs are wrongly taken for copies: methods side by side.

Different pieces that sound alike (`score_renders.py`), and of each the copies of `audioprep.dedup.copies`. A method
gives all pairs a similarity. Its threshold is the lowest one at which 99.9 % of what it finds are copies: over all
pairs of an original and its copy, and all pairs of recordings of different pieces, copies included. The table has the
share of copies found there, by kind. Below it are pairs that are alike and no copies: covers (the same piece by
another band, in another tempo and key), and different pieces over one loop of drums; they do not move the threshold.

| method | |
| --- | --- |
| chromaprint | fingerprints by the ffmpeg program (`-f chromaprint`) of the first 120 s, as fpcalc makes them; the |
|  | best share of equal bits over all offsets at which the two overlap by at least half of the shorter one |
| fork | `dac_hist_dedup.py` of jxbb824/stable-audio-tools: the cosine of histograms of codes, each codebook's apart, |
|  | at its users' thresholds 0.95 and 0.985, and at the precision; DAC's weights cannot be had here, so |
|  | on tokens of mel-rvq |
| fingerprint | ours: what aligned fingerprints have in common, at any speed and pitch that they are looked for at |
| others | ours: modes of histograms, likewise on tokens of mel-rvq, corrected for the noise of short recordings |

Exits 1 where fingerprints find less of any kind than chromaprint or the fork at that precision, or less than aimed at.

Run: `python bench/dedup_quality.py [--pieces 320] [--renders DIR] [--folder DIR] [--json FILE]`. Copies, tokens and
fingerprints are kept in the folder, 7 GB in all; a second run takes minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from numpy.typing import NDArray
from score_renders import default_folder, make_renders

from audioprep.dedup.calibration import FingerprintMethod, HistogramMethod, Judgement, Method, Trial, judge, make_trial
from audioprep.dedup.copies import COPIES
from audioprep.shards.dataset import Dataset, open_dataset

PRECISION = 0.999
FIRST_SECONDS = 120
BLOCK = 128
ALIKE = ("cover", "loop")
AIMS = dict.fromkeys(("mp3-64k", "ogg", "resample", "gain", "trim", "eq", "noise", "fade"), 0.99)
AIMS |= {"shift": 0.95, "excerpt": 0.95}
Column = dict[str, Any]


@dataclass(frozen=True)
class Chromaprint:
    """Plain chromaprint, aligned."""

    folder: Path
    name: str = "chromaprint"
    threshold: float | None = None

    def similarities(self, files: Sequence[Path]) -> NDArray[np.float32]:
        """The best share of equal bits of all pairs, `[n, n]`.

        Bits are 1 and -1, so the sum of their products at all offsets is a correlation, which is a product of spectra.
        """
        with ThreadPoolExecutor(2) as pool:
            prints = list(pool.map(self._fingerprint, files))
        lengths = np.array([len(one) for one in prints])
        size = 2 ** math.ceil(math.log2(2 * lengths.max()))
        out = np.zeros((len(files), len(files)), np.float32)
        spectra = np.empty((size // 2 + 1, len(files), 32), np.complex64)
        for number, one in enumerate(prints):
            bits = np.unpackbits(one.view(np.uint8).reshape(-1, 4), axis=1).astype(np.float32) * 2 - 1
            spectra[:, number] = np.fft.rfft(bits, size, axis=0)
        for first in range(0, len(files), BLOCK):
            for second in range(first, len(files), BLOCK):
                one, other = slice(first, first + BLOCK), slice(second, second + BLOCK)
                products = spectra[:, one].conj() @ spectra[:, other].transpose(0, 2, 1)
                best = _best(np.fft.irfft(products, size, axis=0), lengths[one], lengths[other])
                out[one, other], out[other, one] = best, best.T
        return out

    def _fingerprint(self, path: Path) -> NDArray[np.uint32]:
        kept = self.folder / f"{path.parent.name}-{path.stem}.npy"
        if not kept.exists():
            form = ["-t", str(FIRST_SECONDS), "-f", "chromaprint", "-fp_format", "raw", "-"]
            command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), *form]
            raw = subprocess.run(command, check=True, capture_output=True).stdout
            np.save(kept, np.frombuffer(raw, np.uint32))
        return np.load(kept)


def _best(sums: NDArray[np.floating], ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
    """The best share of equal bits over the offsets (mod their number) on the first axis of `sums`, `[O, n, m]`."""
    offsets = np.arange(len(sums))
    offsets = np.where(offsets < len(sums) // 2, offsets, offsets - len(sums))[:, None, None]
    ones, others = ones[None, :, None], others[None, None, :]
    overlap = np.minimum(ones, others - offsets) - np.maximum(0, -offsets)
    shares = 0.5 + sums / (64 * np.maximum(overlap, 1))
    return np.where(2 * overlap >= np.minimum(ones, others), shares, 0).max(axis=0).astype(np.float32)


def methods(dataset: Dataset, prints: Dataset, folder: Path) -> list[Method]:
    """All that are compared, on tokens and on fingerprints; the fork's comes second, ours after it."""

    def histograms(name: str, **settings: Any) -> HistogramMethod:
        return HistogramMethod(name, dataset, "audio_tokens", folder / "counts", seconds=FIRST_SECONDS, **settings)

    return [
        Chromaprint(folder / "chromaprint"),
        histograms("fork", corrected=False),
        FingerprintMethod(prints, "audio_tokens", folder / "prints", least_coverage=0.5, workers=0, threshold=0.66),
        histograms("per_codebook"),
        histograms("joint", mode="joint"),
        histograms("first_k", mode="first_k"),
        histograms("bigram", mode="bigram"),
        histograms("per_codebook idf", idf=True),
        histograms("bigram idf", mode="bigram", idf=True),
    ]


def tokenized(codec: str, files: list[Path], folder: Path) -> Dataset:
    """A shard set of tokens; what earlier calls have tokenized is taken over."""
    manifest = folder / "files.jsonl"
    manifest.write_text("".join(json.dumps({"path": str(file)}) + "\n" for file in files), encoding="utf-8")
    options = ["--codec", codec, "--column", "audio_tokens", "--out", folder / codec, "--quiet"]
    command = [sys.executable, "-m", "audioprep", "tokenize", manifest, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return open_dataset(folder / codec)


def column(name: str, judgement: Judgement, threshold: float, alike: dict[str, NDArray[np.float32]]) -> Column:
    """What the table says of one method at one threshold."""
    return {
        "method": name,
        "threshold": threshold if math.isfinite(threshold) else None,
        "precision": judgement.precision(threshold),
        "recall": {kind: judgement.recall(kind, threshold) for kind in judgement.copies},
        "called copies": {why: float(np.mean(found >= threshold)) for why, found in alike.items()},
    }


def compare(method: Method, trial: Trial, files: list[Path], alike_pairs: list[dict[str, str]]) -> list[Column]:
    """The method's columns of the table; `files` are those of the trial, and those of the pairs that are alike."""
    begin = time.perf_counter()
    similarities = method.similarities(files)
    places = {f"{path.parent.name}/{path.name}": place for place, path in enumerate(files)}
    alike: dict[str, NDArray[np.float32]] = {}
    for why in ALIKE:
        pairs = [(places[pair["one"]], places[pair["other"]]) for pair in alike_pairs if pair["why"] == why]
        alike[why] = similarities[tuple(np.array(pairs).T)]
    judgement = judge(similarities[: len(trial.files), : len(trial.files)], trial)
    columns = [column(method.name, judgement, judgement.threshold_at(PRECISION), alike)]
    if method.name == "fork":
        columns = [column(f"fork {habit}", judgement, habit, alike) for habit in (0.95, 0.985)] + columns
    print(f"{method.name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    for one, other, similarity in judgement.nearest[:3]:
        print(f"  {similarity:.4f}: {trial.describe(one)}, {trial.describe(other)}", file=sys.stderr)
    return columns


def table(columns: list[Column]) -> str:
    """Markdown: a row a kind of copies, a column a method."""
    rows = [["copies", *(one["method"] for one in columns)], ["---", *("---:" for _ in columns)]]
    rows += [[kind, *(f"{one['recall'][kind]:.3f}" for one in columns)] for kind in columns[0]["recall"]]
    rows += [[f"called copies: {why}", *(f"{one['called copies'][why]:.3f}" for one in columns)] for why in ALIKE]
    rows += [["precision", *(f"{one['precision']:.4f}" for one in columns)]]
    rows += [["threshold", *("-" if one["threshold"] is None else f"{one['threshold']:.4f}" for one in columns)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Compares, prints the table, and exits with 1 where fingerprints are behind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pieces", type=int, default=320)
    parser.add_argument("--renders", type=Path, default=default_folder())
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "audioprep-dedup-quality")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    renders, folder = arguments.renders.resolve(), arguments.folder.resolve()
    (folder / "chromaprint").mkdir(parents=True, exist_ok=True)
    made = make_renders(renders, arguments.pieces)
    originals = [renders / row["file"] for row in made["pieces"]]
    trial = make_trial(originals, folder / "copies", COPIES, lambda done, total: None)
    alike = {renders / pair[side] for pair in made["alike"] for side in ("one", "other")}
    files = [*trial.files, *sorted(alike - set(originals))]
    tokens, prints = (tokenized(codec, files, folder) for codec in ("mel-rvq", "fingerprint"))
    columns = [
        one for method in methods(tokens, prints, folder) for one in compare(method, trial, files, made["alike"])
    ]
    print(table(columns))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"pieces": len(originals), "columns": columns}, indent=1), encoding="utf-8"
        )
    theirs, fork, ours = columns[0]["recall"], columns[3]["recall"], columns[4]["recall"]
    behind = [kind for kind in ours if ours[kind] < max(theirs[kind], fork[kind], AIMS.get(kind, 0))]
    if behind:
        sys.exit(f"behind: {', '.join(behind)}")


if __name__ == "__main__":
    main()
