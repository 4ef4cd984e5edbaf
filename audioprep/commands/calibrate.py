"""`audioprep dedup --calibrate`: which copies of a user's own recordings are found, and from which threshold on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from audioprep.commands.base import Console, Summary
from audioprep.commands.dedup_comparison import (
    THRESHOLDS,
    column_of,
    fingerprints_of,
    open_source,
    shard_set,
    threshold_of,
)
from audioprep.corpus.content import content_id
from audioprep.corpus.entry import split_embedded, uri_to_path
from audioprep.corpus.scan import scan
from audioprep.dedup.calibration import (
    FingerprintMethod,
    HistogramMethod,
    Judgement,
    Method,
    draw,
    findings,
    judge,
    make_trial,
)
from audioprep.dedup.copies import COPIES
from audioprep.dedup.counting import tokens_of
from audioprep.dedup.histograms import Mode
from audioprep.encoders.device import resolve_device
from audioprep.encoders.registry import describe_encoder
from audioprep.engine.commit import write_json
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset
from audioprep.shards.tables import read_tables

if TYPE_CHECKING:
    from audioprep.commands.dedup import Settings

PRECISION = 0.999


def run(settings: Settings, out: Path, console: Console) -> Summary:
    """Makes copies of some recordings, and measures each method on them. Killed, the same command goes on.

    Writes `calibration.json` and `calibration.png` into `out`; copies and tokens stay in its folder `calibration`.

    Raises:
        UsageError: there are not two recordings to copy, or a shard set's tokens cannot be made anew.
        SystemFault: the disk is full or broken.
    """
    folder = Path(os.path.abspath(out / "calibration"))
    with console.counter("Making copies") as counter:
        trial = make_trial(_sample(settings), folder / "copies", COPIES, counter)
    if len(np.unique(trial.pieces)) < 2:
        raise UsageError(f"{', '.join(settings.source)}: calibrating takes two different recordings at least")
    dataset, column = _encoded(settings, [str(file) for file in trial.files], folder / "shards", console)
    judgements: dict[str, Judgement] = {}
    with console.counter("Comparing") as counter:
        for number, method in enumerate(methods := _methods(settings, dataset, column, folder / "compared"), start=1):
            judgements[method.name] = judge(method.similarities(trial.files), trial)
            counter(number, len(methods))
    found = {method.name: findings(judgements[method.name], method.threshold, PRECISION) for method in methods}
    best = max(found, key=lambda name: sum((found[name]["recommended"] or {"recall": {}})["recall"].values()))
    recordings = len(np.unique(trial.pieces))
    summary = {
        "recordings": recordings,
        "copies": len(trial.files) - recordings,
        "aim": PRECISION,
        "methods": found,
        "best": best,
        "most_similar_strangers": [
            {"similarity": similarity, "one": trial.describe(one), "other": trial.describe(other)}
            for one, other, similarity in judgements[best].nearest
            if similarity > 0
        ],
        "picture": str(settings.out / "calibration.png"),
    }
    draw(out / "calibration.png", judgements, found)
    write_json(out / "calibration.json", summary, folder / "scratch")
    return summary


def plan(settings: Settings) -> Summary:
    """Says what `run` would do."""
    return {"recordings": len(_sample(settings)), "copies_of_each": len(COPIES), "out": str(settings.out)}


def _sample(settings: Settings) -> list[Path]:
    """Recordings that lie evenly in the sorted corpus; others for those that have the bytes of one before them."""
    uris = sorted(_uris(settings.source))
    count = min(settings.calibrate_files, len(uris))
    evenly = np.linspace(0, len(uris) - 1, count).round().astype(int).tolist() if count else []
    files: dict[str, Path] = {}
    for place in dict.fromkeys([*evenly, *range(len(uris))]):
        path = Path(uri_to_path(uris[place]))
        if len(files) < count and os.access(path, os.R_OK):
            files.setdefault(content_id(str(path)), path)
    return sorted(files.values())


def _uris(source: list[str]) -> list[str]:
    if shards := shard_set(source):
        tables = (table for shard in shards.shards() for table in read_tables(shards, shard, ["uri"]))
        uris = {uri for table in tables for uri in table.column("uri").to_pylist()}
    else:
        uris = {entry.uri for entry in scan(source) if not entry.problem}
    return [uri for uri in uris if not split_embedded(uri)]


def _encoded(settings: Settings, files: list[str], out: Path, console: Console) -> tuple[Dataset, str]:
    """The files' tokens, made as those of the corpus, and their column."""
    codec, column = settings.codec, settings.column
    if shards := shard_set(settings.source):
        column = column_of(settings, shards)
        spec = tokens_of(shards, column)
        given = {} if settings.weights is None else {"weights": settings.weights}
        again = describe_encoder(spec.name, given | {"device": resolve_device(settings.device)})
        if (again.fingerprint, again.num_codebooks) != (spec.fingerprint, spec.num_codebooks):
            raise UsageError(f"{shards.folder}: its tokens are made with other weights; name them with --weights")
        codec = spec.name
    like_corpus = settings.model_copy(update={"source": files, "codec": codec, "column": column})
    dataset = open_source(like_corpus, files, out, console)
    return dataset, column_of(like_corpus, dataset)


def _methods(settings: Settings, dataset: Dataset, column: str, folder: Path) -> list[Method]:
    """All modes of histograms with the other settings as they are, the chosen mode first; and fingerprints."""
    methods: list[Method] = []
    if prints := fingerprints_of(dataset):
        threshold = threshold_of(settings, dataset, prints) if prints == column else THRESHOLDS["fingerprint"]
        methods = [FingerprintMethod(dataset, prints, folder, settings.min_coverage, settings.workers, threshold)]
    if prints == column:
        return methods
    modes = sorted(get_args(Mode), key=lambda mode: mode != settings.histogram_mode)
    return [
        HistogramMethod(
            name=mode,
            dataset=dataset,
            column=column,
            folder=folder,
            mode=mode,
            first=settings.first_codebooks,
            idf=settings.weighting == "idf",
            corrected=settings.correct_sampling,
            seconds=settings.max_audio_seconds,
            threshold=threshold_of(settings, dataset, column),
        )
        for mode in modes
    ] + methods
