"""The first half of `audioprep dedup`: from its sources, shard sets or audio, to pairs of recordings that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audioprep.commands.base import Console
from audioprep.commands.encoding import EncoderChoice, RunSettings, run_encoders
from audioprep.dedup.comparison import Comparison, from_matches
from audioprep.dedup.counting import binning_of, count_shards, tokens_of
from audioprep.dedup.groups import Recording
from audioprep.dedup.histograms import Histograms, inverse_document_frequencies
from audioprep.dedup.search import Library, confirm_pairs, extract_prints, find_matches
from audioprep.dedup.similarity import similar_pairs
from audioprep.encoders import fingerprint
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import default_column
from audioprep.engine.commit import digest
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.storage.places import to_place

if TYPE_CHECKING:
    from audioprep.commands.dedup import Settings

THRESHOLDS = {"fingerprint": 0.66, "histogram": 0.95}
"""The one of histograms is the habit of the fork's users."""
_BELOW = 0.05  # how far below the threshold pairs of histograms are searched for the report


def shard_set(source: Sequence[str]) -> Dataset | None:
    """The shard set that a source is; None where it is audio."""
    one = to_place(source[0])
    return open_dataset(one) if len(source) == 1 and (one / "dataset.json").is_file() else None


def open_source(settings: Settings, source: Sequence[str], out: Path, console: Console) -> Dataset:
    """The shard set that a source is, or that is made of it in a folder.

    Raises:
        UsageError: the source cannot be encoded so.
        SystemFault: the disk is full or broken.
    """
    if shards := shard_set(source):
        return shards
    chosen = [{"encoder": settings.codec, "weights": settings.weights, "column": settings.column}]
    device = settings.device
    if settings.codec == fingerprint.NAME:
        device = "cpu"
    elif settings.second_opinion:
        chosen.append({"encoder": fingerprint.NAME})
    made = {"source": source, "out": out, "device": device, "engine": settings.engine, "workers": settings.workers}
    run_encoders(RunSettings.model_validate(made), [EncoderChoice.model_validate(one) for one in chosen], console)
    return open_dataset(out)


def column_of(settings: Settings, dataset: Dataset) -> str:
    """The column of tokens that is compared.

    That is the one which was asked for; of audio, the encoder's; of a shard set, fingerprints, or else the only one.

    Raises:
        UsageError: there is none, or which of several is meant is not said.
    """
    if settings.column or not shard_set(settings.source):
        return settings.column or default_column(settings.codec, "tokens")
    if found := fingerprints_of(dataset):
        return found
    tokens = [name for name, spec in dataset.encoders.items() if spec["kind"] == "tokens"]
    if len(tokens) > 1:
        raise UsageError(f"{dataset.folder}: has tokens in {', '.join(tokens)}; say which are compared with --column")
    return tokens[0] if tokens else "audio_tokens"


def fingerprints_of(dataset: Dataset) -> str | None:
    """The column of fingerprints, if there is one."""
    names = [name for name, spec in dataset.encoders.items() if spec["name"] == fingerprint.NAME]
    return names[0] if names else None


def compare(
    settings: Settings, corpus: Dataset, other: Dataset | None, column: str, private: Path, console: Console
) -> Comparison:
    """Compares the recordings of a corpus with each other, or with those of another one, by a column of tokens.

    Raises:
        UsageError: there is no such column, or the two have other tokens.
        SystemFault: the disk is full or broken.
    """
    if other and tokens_of(other, column) != tokens_of(corpus, column):
        raise UsageError(f"{other.folder}: its tokens are not made as those of {corpus.folder}; tokenize both alike")
    datasets = [corpus, other] if other else [corpus]
    by = _by_fingerprints if tokens_of(corpus, column).name == fingerprint.NAME else _by_histograms
    return by(settings, datasets, column, private, console)


def threshold_of(settings: Settings, dataset: Dataset, column: str) -> float:
    """The threshold that was given, or that of the method."""
    kind = "fingerprint" if dataset.encoders[column]["name"] == fingerprint.NAME else "histogram"
    return THRESHOLDS[kind] if settings.similarity_threshold is None else settings.similarity_threshold


def _by_fingerprints(
    settings: Settings, datasets: list[Dataset], column: str, private: Path, console: Console
) -> Comparison:
    libraries = [_library(dataset, column, private, console) for dataset in datasets]
    ones, others = libraries[0], libraries[1] if len(libraries) > 1 else None
    folder = private / "matches" / digest([[path.name for path in library.paths] for library in libraries])[:16]
    with console.counter("Comparing") as counter:
        found = find_matches(ones, others, folder, settings.workers, counter)
    threshold = threshold_of(settings, datasets[0], column)
    kept_from = None if others is None else _recordings(others)
    return from_matches(_recordings(ones), kept_from, found, threshold, settings.min_coverage)


def _library(dataset: Dataset, column: str, private: Path, console: Console) -> Library:
    with console.counter("Reading fingerprints") as counter:
        return Library(extract_prints(dataset, column, private / "prints", counter))


def _by_histograms(
    settings: Settings, datasets: list[Dataset], column: str, private: Path, console: Console
) -> Comparison:
    ones, others = _histograms(settings, datasets, column, private, console)
    threshold = threshold_of(settings, datasets[0], column)
    pairs = _similar(settings, ones, others, threshold, private, console)
    recordings, kept_from = _recordings(ones), None if others is None else _recordings(others)
    same = pairs["similarity"] >= threshold
    seen = [(dataset, name) for dataset in datasets if (name := fingerprints_of(dataset))]
    if not settings.second_opinion or len(seen) < len(datasets):
        return Comparison(recordings, kept_from, pairs, same, threshold)
    libraries = [_library(dataset, name, private, console) for dataset, name in seen]
    with console.counter("Aligning") as counter:
        found = confirm_pairs(pairs, libraries[0], libraries[-1], counter)
    looked = from_matches(recordings, kept_from, found, THRESHOLDS["fingerprint"], settings.min_coverage)
    confirmed = {(pair["one"], pair["other"]) for pair in looked.pairs[looked.same]}
    same &= np.array([(pair["one"], pair["other"]) in confirmed for pair in pairs], bool)
    return replace(looked, pairs=pairs, same=same, threshold=threshold)


def _histograms(
    settings: Settings, datasets: list[Dataset], column: str, private: Path, console: Console
) -> tuple[Histograms, Histograms | None]:
    """Of the corpus, and of the one that it is compared with; both weighted by what is rare in the first."""
    binning = binning_of(tokens_of(datasets[0], column), settings.histogram_mode, settings.first_codebooks)
    seconds, folder = settings.max_audio_seconds, private / "counts"
    counted: list[list[Path]] = []
    for dataset in datasets:
        with console.counter("Counting tokens") as counting:
            counted.append(count_shards(dataset, column, binning, seconds, folder, counting))
    weights = inverse_document_frequencies(counted[0], binning) if settings.weighting == "idf" else None
    ones, *others = (Histograms(paths, binning, settings.correct_sampling, weights) for paths in counted)
    return ones, others[0] if others else None


def _similar(
    settings: Settings, ones: Histograms, others: Histograms | None, threshold: float, private: Path, console: Console
) -> NDArray[np.void]:
    """Similar pairs; what is found of each block lies in a folder named by all that decides about it.

    For the report they are searched from somewhat below the threshold on.
    """
    lowest = max(threshold - (_BELOW if settings.report_pairs else 0), 0)
    what = [None if one is None else one.content for one in (ones, others)] + [lowest]
    device = resolve_device(settings.similarity_device)
    with console.counter("Comparing") as comparing:
        return similar_pairs(ones, others, lowest, private / "pairs" / digest(what)[:16], device, comparing)


def _recordings(of: Histograms | Library) -> list[Recording]:
    names = ["id", "uri", "seconds", "bytes"] + ["sound"] * isinstance(of, Library)
    return [Recording(*values) for values in zip(*map(of.column, names), strict=True)]
