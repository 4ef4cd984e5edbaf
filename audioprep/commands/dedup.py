"""`audioprep dedup`: which recordings of a corpus are copies of others, and which of them to leave out."""

from __future__ import annotations

import re
from collections import Counter as Tally
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt

from audioprep.commands import tokenize
from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.commands.calibrate import calibrate
from audioprep.dedup.counting import binning_of, count_shards, tokens_of
from audioprep.dedup.groups import Dropped, Keep, Recording, drop_copies, drop_similar, preference
from audioprep.dedup.histograms import Histograms, Mode, inverse_document_frequencies
from audioprep.dedup.outputs import PathFormat, write_outputs
from audioprep.dedup.report import REPORT, write_report
from audioprep.dedup.report_pairs import BELOW, ReportPair, pairs_to_show
from audioprep.dedup.similarity import similar_pairs
from audioprep.encoders.device import resolve_device
from audioprep.engine.commit import digest
from audioprep.engine.layout import Layout
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset, open_dataset


class Settings(CommandSettings):
    """Settings of `audioprep dedup`."""

    source: list[str] = Field(min_length=1, description="A shard set with tokens; or audio, to be tokenized first.")
    out: Path = Field(description="Folder for the lists.")
    against: list[str] = Field([], description="Likewise: drop what is in here, and nothing else.")
    codec: str = Field("mel-rvq", description="Of audio: the encoder.")
    weights: str | None = Field(None, description="Of audio: the encoder's weights. Default: its own.")
    column: str = Field("audio_tokens", description="Of a shard set: the column of tokens.")
    histogram_mode: Mode = Field("per_codebook", description="per_codebook, joint, first_k or bigram.")
    first_codebooks: PositiveInt = Field(2, description="first_k: how many.")
    weighting: Literal["none", "idf"] = Field("none", description="none; or idf: rare codes count for more.")
    correct_sampling: bool = Field(True, description="Correct for the noise of short histograms.")
    similarity_threshold: float = Field(0.95, gt=0, le=1, description="From which cosine on two are the same.")
    max_audio_seconds: NonNegativeFloat = Field(120.0, description="Only the first so many seconds; 0: all.")
    keep: Keep = Field("longest", description="longest, highest-bitrate, lossless-first or first (by path).")
    prefer: str | None = Field(None, description="Regular expression: paths that are kept before all others.")
    exclude_path_format: PathFormat = Field("absolute", description="absolute or relative.")
    report_pairs: int = Field(40, ge=0, description="Pairs in report.html, to be heard and seen; 0: no report.")
    calibrate: bool = Field(False, description="Only measure which copies are found, on copies of some recordings.")
    calibrate_files: PositiveInt = Field(50, description="Of how many.")
    similarity_device: str = Field("auto", description="Of the comparison: auto, cpu or cuda.")
    device: str = Field("auto", description="Of audio: where it is tokenized: auto, cpu, cuda or cuda:N.")
    workers: int = Field(0, ge=0, description="Of audio: processes; 0: one a CPU core, or one a GPU.")


def run(settings: Settings, console: Console) -> Summary:
    """Finds near-duplicates and writes what to leave out; or calibrates. Killed, the same command goes on.

    Raises:
        UsageError: a source is neither audio nor a shard set with such a column, or two have other tokens.
        SystemFault: the disk is full or broken.
    """
    prefer = _pattern(settings.prefer)
    layout = Layout(settings.out)
    with layout.lock():
        if settings.calibrate:
            return calibrate(settings, console)
        corpus = _open(settings, settings.source, "shards", console)
        other = _open(settings, settings.against, "against", console) if settings.against else None
        if other and tokens_of(other, settings.column) != tokens_of(corpus, settings.column):
            raise UsageError(
                f"{other.folder}: its tokens are not made as those of {corpus.folder}; tokenize both alike"
            )
        ones, others = _histograms(settings, [corpus, other] if other else [corpus], layout.private, console)
        candidates = _candidates(settings, ones, others, layout.private, console)
        pairs = candidates[candidates["similarity"] >= settings.similarity_threshold]
        recordings = _recordings(ones)
        if others is None:
            kept_from, order = recordings, preference(recordings, settings.keep, prefer)
            dropped = drop_similar(order, recordings, pairs)
        else:
            kept_from, order = _recordings(others), None
            dropped = drop_copies(recordings, kept_from, pairs)
        summary = _summary(settings, corpus, dropped)
        shown = pairs_to_show(
            recordings, kept_from, order, dropped, candidates, settings.similarity_threshold, settings.report_pairs
        )
        _report(settings, shown, candidates["similarity"], dropped, summary, console)
        write_outputs(settings.out, kept_from, recordings, dropped, summary, settings.exclude_path_format)
    names = ("processed_files", "failed_files", "duplicate_files", "kept_files", "exact_copies", "groups")
    paths = {"exclude": summary["exclude_output"], "report": summary["report_output"]}
    return {name: summary[name] for name in names} | {name: path for name, path in paths.items() if path}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would compare."""
    _pattern(settings.prefer)
    sources = {"source": settings.source, "against": settings.against}
    return {
        name: "shard set" if _is_shard_set(paths) else "audio, to be tokenized first"
        for name, paths in sources.items()
        if paths
    } | {"out": str(settings.out), "threshold": settings.similarity_threshold}


def _pattern(prefer: str | None) -> re.Pattern[str] | None:
    try:
        return None if prefer is None else re.compile(prefer)
    except re.error as error:
        raise UsageError(f"--prefer {prefer}: is no regular expression: {error}") from error


def _is_shard_set(source: list[str]) -> bool:
    return len(source) == 1 and Path(source[0]).expanduser().joinpath("dataset.json").is_file()


def _open(settings: Settings, source: list[str], name: str, console: Console) -> Dataset:
    """The shard set that a source is, or that is made of it in the output folder."""
    if _is_shard_set(source):
        return open_dataset(Path(source[0]).expanduser())
    out = settings.out / name
    chosen = {"codec": settings.codec, "weights": settings.weights, "column": settings.column}
    chosen |= {"device": settings.device, "workers": settings.workers, "source": source, "out": out}
    tokenize.run(tokenize.Settings(**chosen), console)
    return open_dataset(out)


def _histograms(
    settings: Settings, datasets: list[Dataset], private: Path, console: Console
) -> tuple[Histograms, Histograms | None]:
    """Of the corpus, and of the one that it is compared with; both weighted by what is rare in the first."""
    spec = tokens_of(datasets[0], settings.column)
    binning = binning_of(spec, settings.histogram_mode, settings.first_codebooks)
    seconds, folder = settings.max_audio_seconds, private / "counts"
    counted: list[list[Path]] = []
    for dataset in datasets:
        with console.counter("Counting tokens") as counting:
            counted.append(count_shards(dataset, settings.column, binning, seconds, folder, counting))
    weights = inverse_document_frequencies(counted[0], binning) if settings.weighting == "idf" else None
    ones, *others = (Histograms(paths, binning, settings.correct_sampling, weights) for paths in counted)
    return ones, others[0] if others else None


def _candidates(
    settings: Settings, ones: Histograms, others: Histograms | None, private: Path, console: Console
) -> NDArray[np.void]:
    """Similar pairs; what is found of each block lies in a folder named by all that decides about it.

    For the report they are searched from somewhat below the threshold on.
    """
    lowest = max(settings.similarity_threshold - (BELOW if settings.report_pairs else 0), 0)
    what = [one and one.content for one in (ones, others)] + [lowest]
    device = resolve_device(settings.similarity_device)
    with console.counter("Comparing") as comparing:
        folder = private / "pairs" / digest(what)[:16]
        return similar_pairs(ones, others, lowest, folder, device, comparing)


def _recordings(histograms: Histograms) -> list[Recording]:
    columns = (histograms.column(name) for name in ("id", "uri", "seconds", "bytes"))
    return [Recording(*values) for values in zip(*columns, strict=True)]


def _report(
    settings: Settings,
    shown: list[ReportPair],
    similarities: NDArray[np.float64],
    dropped: list[Dropped],
    summary: Summary,
    console: Console,
) -> None:
    path = settings.out / REPORT
    if not settings.report_pairs:
        path.unlink(missing_ok=True)  # an earlier run's, of other results
        return
    tokens = summary["encoder"].get("encoder") or settings.column
    method = f"cosine of {settings.histogram_mode} histograms of the tokens of {tokens}"
    sizes = [1 + count for count in Tally(one.keep for one in dropped).values()]
    with console.counter("Writing the report") as counter:
        write_report(path, shown, similarities, sizes, settings.similarity_threshold, method, summary, counter)


def _summary(settings: Settings, corpus: Dataset, dropped: list[Dropped]) -> dict[str, Any]:
    """`summary.json`, with the names that the Stable Audio fork has for the same things."""
    totals = corpus.totals
    return {
        "dataset_dirs": settings.source,
        "against": settings.against,
        "total_scanned_files": totals["inputs"],
        "processed_files": totals["rows"],
        "encoded_files": totals["rows"],
        "failed_files": totals["failed"],
        "duplicate_files": len(dropped),
        "kept_files": totals["rows"] - len(dropped),
        "exact_copies": sum(one.relation == "exact-copy" for one in dropped),
        "groups": len({one.keep for one in dropped}),
        "similarity_threshold": settings.similarity_threshold,
        "histogram_mode": settings.histogram_mode,
        "weighting": settings.weighting,
        "correct_sampling": settings.correct_sampling,
        "max_audio_seconds": settings.max_audio_seconds,
        "keep": settings.keep,
        "encoder": corpus.encoders[settings.column],
        "exclude_output": str(settings.out / "exclude_paths.txt"),
        "report_output": str(settings.out / REPORT) if settings.report_pairs else None,
        "pairs_output": str(settings.out / "similar_pairs.jsonl"),
        "exclude_path_format": settings.exclude_path_format,
    }
