"""How well copies are told from strangers: measured on copies that are made on purpose.

A method gives any two recordings a similarity. What it gives a copy and its original should be more than what it gives
recordings of different pieces, whether copies or originals. Copies of one piece are not compared with each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.dedup.comparison import weakened
from audioprep.dedup.copies import COPIES, make_copy
from audioprep.dedup.counting import binning_of, count_shards, tokens_of
from audioprep.dedup.histograms import Histograms, Mode, inverse_document_frequencies
from audioprep.dedup.search import Library, extract_prints, find_matches
from audioprep.engine.commit import digest
from audioprep.errors import InputError
from audioprep.shards.dataset import Dataset

ORIGINAL = "original"


@dataclass(frozen=True, slots=True)
class Trial:
    """Recordings of which is known what they are.

    Attributes:
        files: originals and copies.
        pieces: int64 `[n]`, ascending: whose recording each is. A piece's original comes before its copies.
        kinds: of each: a name of `COPIES`, or `ORIGINAL`.
    """

    files: list[Path]
    pieces: NDArray[np.int64]
    kinds: list[str]

    @property
    def originals(self) -> NDArray[np.int64]:
        """Of each file the place of its original: itself, if it is one."""
        return np.searchsorted(self.pieces, self.pieces)

    def describe(self, place: int) -> str:
        """What a file is, for a person."""
        original = str(self.files[self.originals[place]])
        return original if self.kinds[place] == ORIGINAL else f"{self.kinds[place]} of {original}"


class Method(Protocol):
    """Gives recordings their similarity."""

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float | None:
        """From which on two are taken for the same; None: there is no habit."""
        ...

    def similarities(self, files: Sequence[Path]) -> NDArray[np.float32]:
        """Of all files `[n, n]`, symmetrical; what cannot be read is like nothing (0)."""
        ...


def make_trial(
    originals: Sequence[Path], folder: Path, kinds: Iterable[str], on_copy: Callable[[int, int], None]
) -> Trial:
    """Makes copies of recordings, several at a time, and keeps those that an earlier call has made.

    Recordings that cannot be decoded are left out.

    Args:
        originals: paths of different pieces.
        folder: for the copies.
        kinds: of copies: names of `COPIES`.
        on_copy: called with the number of recordings done and of all.
    """
    kinds = list(kinds)

    def copies(original: Path) -> list[Path] | None:
        status = original.stat()
        name = digest([str(original), status.st_size, status.st_mtime_ns])[:16]
        try:
            return [_made(kind, original, folder / kind / name) for kind in kinds]
        except InputError:
            return None

    files: list[Path] = []
    pieces: list[int] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (original, made) in enumerate(zip(originals, pool.map(copies, originals), strict=True)):
            if made is not None:
                files += [original, *made]
                pieces += [number] * (1 + len(kinds))
            on_copy(number + 1, len(originals))
    return Trial(files, np.array(pieces, np.int64), [ORIGINAL, *kinds] * (len(files) // (1 + len(kinds))))


def _made(kind: str, original: Path, out: Path) -> Path:
    path = out.with_name(out.name + COPIES[kind].suffix)
    if not path.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        make_copy(kind, original, out.with_name(out.name + ".part")).replace(path)
    return path


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a method made of a trial.

    Attributes:
        copies: by kind, the similarity of each copy and its original.
        strangers: of all two recordings of different pieces, ascending.
        nearest: the most similar strangers, one pair of two pieces: their places in `Trial.files`, and the similarity.
    """

    copies: dict[str, NDArray[np.float32]]
    strangers: NDArray[np.float32]
    nearest: list[tuple[int, int, float]]

    def recall(self, kind: str, threshold: float) -> float:
        """Share of the copies of a kind that are found."""
        return float(np.mean(self.copies[kind] >= threshold))

    def precision(self, threshold: float) -> float:
        """Share of copies in all that is found; 1 where that is nothing."""
        true = sum(int(np.sum(found >= threshold)) for found in self.copies.values())
        false = len(self.strangers) - int(np.searchsorted(self.strangers, np.float32(threshold)))
        return true / (true + false) if true + false else 1.0

    def threshold_at(self, precision: float) -> float:
        """The lowest threshold of at least this precision; infinite where there is none at which anything is found."""
        # Between two copies' similarities more strangers are found the lower it is, and no more copies.
        found = np.sort(np.concatenate(list(self.copies.values())))
        true = len(found) - np.searchsorted(found, found)
        false = len(self.strangers) - np.searchsorted(self.strangers, found)
        good = np.flatnonzero(true >= precision * (true + false))
        return float(found[good[0]]) if good.size else math.inf


def judge(similarities: NDArray[np.float32], trial: Trial, nearest: int = 10) -> Judgement:
    """Sorts what a method gave the files of a trial, `[n, n]`; `nearest` strangers are named."""
    kinds = np.array(trial.kinds)
    copies = {
        kind: similarities[trial.originals[places], places]
        for kind in dict.fromkeys(trial.kinds)
        if kind != ORIGINAL
        for places in [np.flatnonzero(kinds == kind)]
    }
    ones, others = np.nonzero(np.triu(trial.pieces[:, None] != trial.pieces[None, :]))
    strangers = similarities[ones, others]
    named: dict[tuple[int, int], tuple[int, int, float]] = {}
    for place in np.argsort(-strangers, kind="stable"):
        one, other = int(ones[place]), int(others[place])
        named.setdefault((trial.pieces[one], trial.pieces[other]), (one, other, float(strangers[place])))
        if len(named) == nearest:
            break
    return Judgement(copies, np.sort(strangers), list(named.values()))


@dataclass(frozen=True, slots=True)
class FingerprintMethod:
    """What fingerprints have in common; see `audioprep.dedup.matching`.

    Attributes:
        dataset: a shard set that has the files' fingerprints.
        column: of the fingerprints.
        folder: for what is found, which is kept.
        least_coverage: see `audioprep.dedup.comparison.from_matches`.
        workers: processes.
        threshold: that is in use.
        name: as it is shown.
    """

    dataset: Dataset
    column: str
    folder: Path
    least_coverage: float
    workers: int
    threshold: float | None
    name: str = "fingerprints"

    def similarities(self, files: Sequence[Path]) -> NDArray[np.float32]:
        """See `Method`."""
        library = Library(extract_prints(self.dataset, self.column, self.folder, lambda *_: None))
        found = find_matches(
            library, None, self.folder / digest([*map(str, library.paths)]), self.workers, lambda *_: None
        )
        similar = weakened(found, self.least_coverage)
        whole = np.eye(len(library.frames), dtype=np.float32)
        whole[found["one"], found["other"]] = whole[found["other"], found["one"]] = similar
        return _of_files(whole, library.column("uri"), files)


@dataclass(frozen=True, slots=True)
class HistogramMethod:
    """The cosine of histograms of tokens; see `audioprep.dedup.histograms`.

    Attributes:
        name: as it is shown.
        dataset: a shard set that has the files' tokens.
        column: of the tokens.
        folder: for the counts, which are kept.
        mode: which bins are counted.
        first: codebooks of `first_k`.
        idf: whether rare bins count for more.
        corrected: for the noise of short histograms.
        seconds: only the first so many of each recording; 0: all.
        threshold: that is in use.
    """

    name: str
    dataset: Dataset
    column: str
    folder: Path
    mode: Mode = "per_codebook"
    first: int = 2
    idf: bool = False
    corrected: bool = True
    seconds: float = 120.0
    threshold: float | None = 0.95

    def similarities(self, files: Sequence[Path]) -> NDArray[np.float32]:
        """See `Method`."""
        binning = binning_of(tokens_of(self.dataset, self.column), self.mode, self.first)
        paths = count_shards(self.dataset, self.column, binning, self.seconds, self.folder, lambda *_: None)
        weights = inverse_document_frequencies(paths, binning) if self.idf else None
        histograms = Histograms(paths, binning, self.corrected, weights)
        vectors = np.asarray(histograms.vectors(0, len(histograms)))
        return _of_files(vectors @ vectors.T, histograms.column("uri"), files)


def _of_files(similarities: NDArray[np.float32], uris: Sequence[str], files: Sequence[Path]) -> NDArray[np.float32]:
    """Similarities of recordings `[m, m]` to those of files `[n, n]`; 0 where a file is not among them."""
    rows = {_path(uri): row for row, uri in enumerate(uris)}
    places = [place for place, file in enumerate(files) if str(file) in rows]
    chosen = [rows[str(files[place])] for place in places]
    out = np.zeros((len(files), len(files)), np.float32)
    out[np.ix_(places, places)] = similarities[np.ix_(chosen, chosen)]
    return out


def _path(uri: str) -> str:
    return "" if split_embedded(uri) else os.fspath(uri_to_path(uri))


def findings(judgement: Judgement, in_use: float | None, precision: float) -> dict[str, Any]:
    """Plain values of a judgement: at the threshold in use, and at the recommended one, which has this precision.

    Either is None where there is none. Each has `threshold`, `precision`, and `recall` by kind.
    """
    best = judgement.threshold_at(precision)
    return {
        name: None
        if threshold is None
        else {
            "threshold": threshold,
            "precision": judgement.precision(threshold),
            "recall": {kind: judgement.recall(kind, threshold) for kind in judgement.copies},
        }
        for name, threshold in (("in_use", in_use), ("recommended", best if math.isfinite(best) else None))
    }


def draw(path: Path, judgements: Mapping[str, Judgement], found: Mapping[str, dict[str, Any]]) -> None:
    """Draws precision and recall over thresholds: a panel a method, a line a kind of copies."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(judgements) // 2)
    figure = Figure(figsize=(14, 5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis in axes[len(judgements) :]:
        axis.remove()
    for axis, (name, judgement) in zip(axes, judgements.items(), strict=False):
        lowest = min(np.quantile(judgement.strangers, 0.5), *(values.min() for values in judgement.copies.values()))
        thresholds = np.linspace(lowest, max(values.max() for values in judgement.copies.values()), 400)
        for number, kind in enumerate(judgement.copies):
            recall = [judgement.recall(kind, threshold) for threshold in thresholds]
            style = ("-", "--")[number // 10]  # matplotlib has ten colours
            axis.plot(thresholds, recall, style, color=f"C{number % 10}", label=kind, linewidth=1)
        precision = [judgement.precision(threshold) for threshold in thresholds]
        axis.plot(thresholds, precision, color="black", linewidth=2, label="precision")
        for what, style in (("in_use", ":"), ("recommended", "-.")):
            if found[name][what]:
                label = what.replace("_", " ")
                axis.axvline(found[name][what]["threshold"], color="black", linestyle=style, label=label)
        axis.set(xlabel="threshold", ylabel="recall; precision", title=name, ylim=(-0.02, 1.02))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=110)
