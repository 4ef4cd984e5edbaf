"""`audioprep dedup`: which recordings of a corpus are copies of others, and which of them to leave out."""

from __future__ import annotations

import re
from collections import Counter as Tally
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from audioprep.commands import calibrate
from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.commands.dedup_comparison import column_of, compare, open_source, shard_set
from audioprep.dedup.comparison import Comparison
from audioprep.dedup.groups import Dropped, Keep, drop_copies, drop_similar, preference
from audioprep.dedup.histograms import Mode
from audioprep.dedup.outputs import PathFormat, write_outputs
from audioprep.dedup.report import REPORT, write_report
from audioprep.dedup.report_pairs import pairs_to_show
from audioprep.dedup.sound import tell_remasters
from audioprep.encoders import fingerprint
from audioprep.engine.layout import Layout
from audioprep.engine.run import Engine
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset
from audioprep.storage.fields import PlaceField
from audioprep.storage.publish import publishing


class Settings(CommandSettings):
    """Settings of `audioprep dedup`."""

    source: list[str] = Field(min_length=1, description="A shard set with tokens; or audio, to be tokenized first.")
    out: PlaceField = Field(description="Folder for the lists, or its URL.")
    against: list[str] = Field([], description="Likewise: drop what is in here, and nothing else.")
    codec: str = Field("fingerprint", description="Of audio: the encoder; of another one histograms are compared.")
    weights: str | None = Field(None, description="Of audio: the encoder's weights. Default: its own.")
    column: str | None = Field(None, description="Column of tokens. Default: fingerprints, or the only one.")
    similarity_threshold: float | None = Field(
        None, gt=0, le=1, description="From which similarity on two are the same. Default: 0.66; of histograms 0.95."
    )
    min_coverage: float = Field(
        0.5, gt=0, le=1, description="Share of the shorter one that two have in common if they are the same."
    )
    second_opinion: bool = Field(True, description="Of histograms: fingerprints have to agree, where there are any.")
    histogram_mode: Mode = Field("per_codebook", description="per_codebook, joint, first_k or bigram.")
    first_codebooks: PositiveInt = Field(2, description="first_k: how many.")
    weighting: Literal["none", "idf"] = Field("none", description="none; or idf: rare codes count for more.")
    correct_sampling: bool = Field(True, description="Correct histograms for the noise of short recordings.")
    max_audio_seconds: NonNegativeFloat = Field(120.0, description="Of histograms: only the first seconds; 0: all.")
    keep: Keep = Field("longest", description="longest, highest-bitrate, lossless-first or first (by path).")
    prefer: str | None = Field(None, description="Regular expression: paths that are kept before all others.")
    exclude_path_format: PathFormat = Field("absolute", description="absolute or relative.")
    report_pairs: int = Field(40, ge=0, description="Pairs in report.html, to be heard and seen; 0: no report.")
    calibrate: bool = Field(False, description="Only measure which copies are found, on copies of some recordings.")
    calibrate_files: PositiveInt = Field(50, description="Of how many.")
    similarity_device: str = Field("auto", description="Of the comparison: auto, cpu or cuda.")
    device: str = Field("auto", description="Of audio: where it is tokenized: auto, cpu, cuda or cuda:N.")
    engine: Engine = Field("local", description="Of the encoding: local, or ray for a Ray cluster.")
    workers: int = Field(0, ge=0, description="Their number; 0: one a CPU core, or one a GPU.")


def run(settings: Settings, console: Console) -> Summary:
    """Finds near-duplicates and writes what to leave out; or calibrates. Killed, the same command goes on.

    Raises:
        UsageError: a source is neither audio nor a shard set with such a column, or two have other tokens.
        SystemFault: the disk is full or broken.
    """
    prefer = _pattern(settings.prefer)
    with publishing(settings.out) as out:
        return _run(settings, prefer, out, console)


def _run(settings: Settings, prefer: re.Pattern[str] | None, out: Path, console: Console) -> Summary:
    layout = Layout(out)
    with layout.lock():
        if settings.calibrate:
            return calibrate.run(settings, out, console)
        corpus = open_source(settings, settings.source, out / "shards", console)
        other = open_source(settings, settings.against, out / "against", console) if settings.against else None
        column = column_of(settings, corpus)
        comparison = compare(settings, corpus, other, column, out / ".audioprep", console)
        recordings, pairs = comparison.recordings, comparison.pairs[comparison.same]
        if comparison.kept_from is None:
            order = preference(recordings, settings.keep, prefer)
            dropped = drop_similar(order, recordings, pairs)
        else:
            order = None
            dropped = drop_copies(recordings, comparison.kept_from, pairs)
        dropped = comparison.described(dropped)
        with console.counter("Listening") as counter:
            dropped = tell_remasters(dropped, recordings, comparison.others, counter)
        summary = _summary(settings, corpus, column, comparison, dropped)
        _report(settings, out, comparison, order, dropped, summary, console)
        write_outputs(out, comparison.others, recordings, dropped, summary, settings.exclude_path_format)
    names = ("processed_files", "failed_files", "duplicate_files", "kept_files", "exact_copies", "groups")
    paths = {"exclude": summary["exclude_output"], "report": summary["report_output"]}
    return {name: summary[name] for name in names} | {name: path for name, path in paths.items() if path}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would compare."""
    _pattern(settings.prefer)
    if settings.calibrate:
        return calibrate.plan(settings)
    sources = {"source": settings.source, "against": settings.against}
    return {
        name: "shard set" if shard_set(paths) else f"audio, to be tokenized first by {settings.codec}"
        for name, paths in sources.items()
        if paths
    } | {"out": str(settings.out)}


def _pattern(prefer: str | None) -> re.Pattern[str] | None:
    try:
        return None if prefer is None else re.compile(prefer)
    except re.error as error:
        raise UsageError(f"--prefer {prefer}: is no regular expression: {error}") from error


def _report(
    settings: Settings,
    out: Path,
    comparison: Comparison,
    order: list[int] | None,
    dropped: list[Dropped],
    summary: Summary,
    console: Console,
) -> None:
    path = out / REPORT
    if not settings.report_pairs:
        path.unlink(missing_ok=True)  # an earlier run's, of other results
        return
    shown = pairs_to_show(comparison, order, dropped, settings.report_pairs)
    similarities = comparison.pairs["similarity"]
    sizes = [1 + count for count in Tally(one.keep for one in dropped).values()]
    with console.counter("Writing the report") as counter:
        write_report(path, shown, similarities, sizes, comparison.threshold, summary["method"], summary, counter)


def _summary(
    settings: Settings, corpus: Dataset, column: str, comparison: Comparison, dropped: list[Dropped]
) -> dict[str, Any]:
    """`summary.json`, with the names that the Stable Audio fork has for the same things."""
    totals = corpus.totals
    encoder = corpus.encoders[column]
    if encoder["name"] == fingerprint.NAME:
        method, chosen = "fingerprints", {"min_coverage": settings.min_coverage}
    else:
        method = f"cosine of {settings.histogram_mode} histograms of the tokens of {encoder['name']}"
        names = ("histogram_mode", "weighting", "correct_sampling", "max_audio_seconds")
        chosen = {name: getattr(settings, name) for name in names} | {"second_opinion": bool(comparison.matches)}
    return {
        "dataset_dirs": sorted(settings.source),
        "against": settings.against,
        "total_scanned_files": totals["inputs"],
        "processed_files": totals["rows"],
        "encoded_files": totals["rows"],
        "failed_files": totals["failed"],
        "duplicate_files": len(dropped),
        "kept_files": totals["rows"] - len(dropped),
        "exact_copies": sum(one.relation == "exact-copy" for one in dropped),
        "groups": len({one.keep for one in dropped}),
        "relations": dict(sorted(Tally(one.relation for one in dropped).items())),
        "method": method,
        "similarity_threshold": comparison.threshold,
        **chosen,
        "keep": settings.keep,
        "encoder": encoder,
        "exclude_output": str(settings.out / "exclude_paths.txt"),
        "report_output": str(settings.out / REPORT) if settings.report_pairs else None,
        "pairs_output": str(settings.out / "similar_pairs.jsonl"),
        "exclude_path_format": settings.exclude_path_format,
    }
