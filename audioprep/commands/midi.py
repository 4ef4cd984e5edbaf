"""`audioprep midi`: scores and MIDI to token shards."""

from __future__ import annotations

from collections import Counter as Tally
from pathlib import Path
from typing import Any

from pydantic import Field

from audioprep.commands.base import Console, Summary
from audioprep.commands.encoding import ShardSetSettings, check_column, plan_job, run_job
from audioprep.corpus.scan import scan_scores
from audioprep.engine.commit import write_text
from audioprep.engine.layout import Layout
from audioprep.engine.run import Job, recorded_stages
from audioprep.errors import UsageError
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.shards.tables import read_tables
from audioprep.stages.symbolic import TokenizeScores
from audioprep.stages.text import ReadText
from audioprep.storage.places import Place
from audioprep.symbolic.song import MeterPolicy
from audioprep.symbolic.tokenizers import EMOPIA, BeatSource, ChordSource, KeySource, MidiTokTokenizer, load_tokenizer

TOKENIZER_FILE = "tokenizer.json"


class Settings(ShardSetSettings):
    """Settings of `audioprep midi`."""

    source: list[str] = Field(min_length=1, description="Scores and MIDI files, folders, manifests.")
    tokenizer: str = Field("remi", description="remi, cp, miditok:NAME or emopia-cp.")
    config: Path | None = Field(None, description="MidiTok's file of a tokenizer (tokenizer.json), trained or not.")
    tokenizer_settings: dict[str, Any] = Field({}, description="Fields of MidiTok's TokenizerConfig.")
    meter: MeterPolicy = Field("keep", description="Of meters other than 4/4: keep, convert or reject.")
    chords: ChordSource = Field("auto", description="emopia-cp: auto, markers or none.")
    key: KeySource = Field("none", description="emopia-cp: none, estimate or score.")
    beats: BeatSource = Field("score", description="emopia-cp: score, or track for transcriptions without beats.")
    column: str = Field("midi_tokens", description="Column for the tokens.")


def run(settings: Settings, console: Console) -> Summary:
    """Tokenizes what is not yet tokenized.

    Raises:
        UsageError: no such tokenizer, settings that do not go together, or see `audioprep.engine.run.run`.
        SystemFault: see there.
    """
    stage = _stage(settings)
    done = run_job(settings, _job(settings, stage), settings.options("cpu"), console)
    if "parts_left" in done:
        return done
    if stage.saved:
        write_text(settings.out / TOKENIZER_FILE, stage.saved, Layout(settings.out).scratch)
    return done | {"meters": _meters(settings.out)}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would do, and writes nothing."""
    stage = _stage(settings)
    tokenizer = {"tokenizer": stage.spec.name, "vocabulary_sizes": list(stage.spec.vocabulary_sizes)}
    return tokenizer | plan_job(settings, _job(settings, stage), settings.options("cpu"), console)


def remade_job(settings: ShardSetSettings, recorded: dict[str, dict[str, Any]]) -> Job:
    """The job that an earlier run had, from the `recorded_stages` of a set of scores.

    Raises:
        UsageError: the tokenizer's file has gone.
    """
    ((column, origin),) = ((name, stage["origin"]) for name, stage in recorded.items() if stage["origin"])
    name, values = origin["tokenizer"], origin["tokenizer_settings"]
    saved, one_stream = "", True
    if name != EMOPIA:
        try:
            saved = (settings.out / TOKENIZER_FILE).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{settings.out / TOKENIZER_FILE}: {error.strerror}. Run `audioprep midi` with --retry-failed."
            ) from error
    tokenizer = load_tokenizer(name, tuple(sorted(values.items())), saved)
    if isinstance(tokenizer, MidiTokTokenizer):
        one_stream = tokenizer.one_stream
    return _job(settings, TokenizeScores(name, values, saved, tokenizer.spec, column, one_stream))


def _job(settings: ShardSetSettings, stage: TokenizeScores) -> Job:
    others = {*recorded_stages(settings.out)} - {ReadText().name, stage.column}
    if others and not settings.overwrite:
        raise UsageError(f"{settings.out}: holds the column {others.pop()} of something else; choose another --out")
    return Job(
        sources=tuple(settings.source),
        out=settings.out,
        stages=(ReadText(), stage),
        encoders={stage.column: stage.spec.to_dict()},
        shards=settings.shards,
        find=scan_scores,
    )


def _stage(settings: Settings) -> TokenizeScores:
    column = check_column(settings.column)
    if settings.tokenizer == EMOPIA:
        if settings.config or settings.tokenizer_settings:
            raise UsageError("--config and --set are of MidiTok's tokenizers; emopia-cp has options of its own")
        values: dict[str, Any] = {
            "meter": settings.meter, "chords": settings.chords, "key": settings.key, "beats": settings.beats,
        }  # fmt: skip
        tokenizer = load_tokenizer(EMOPIA, tuple(sorted(values.items())), "")
        return TokenizeScores(EMOPIA, values, "", tokenizer.spec, column)
    for name in ("chords", "key", "beats"):
        if getattr(settings, name) != Settings.model_fields[name].default:
            raise UsageError(f"--{name}: goes with --tokenizer emopia-cp; MidiTok's own are fields of --set")
    saved = miditok_file(settings.tokenizer, settings.config, settings.tokenizer_settings)
    tokenizer = load_tokenizer("miditok", (("meter", settings.meter),), saved)
    assert isinstance(tokenizer, MidiTokTokenizer)
    return TokenizeScores(
        "miditok", {"meter": settings.meter}, saved, tokenizer.spec, column, one_stream=tokenizer.one_stream
    )


def miditok_file(tokenizer: str, config: Path | None, settings: dict[str, Any]) -> str:
    """The text of MidiTok's file of a tokenizer: a new one's, or that of a file.

    Raises:
        UsageError: see `new_tokenizer`; or the file cannot be read, or is that of another tokenizer.
    """
    from audioprep.symbolic.miditok_files import load, new_tokenizer, saved_text

    if config is None:
        return new_tokenizer(tokenizer, settings)
    if settings:
        raise UsageError("--set: the file of --config has all settings")
    try:
        return saved_text(load(config.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{config}: cannot be read: {error}") from error


def _meters(out: Place) -> dict[str, int]:
    """How many items have which meters, the most frequent first."""
    dataset = open_dataset(out)
    tally: Tally[str] = Tally()
    for shard in dataset.shards():
        for table in read_tables(dataset, shard):
            tally.update(name or "none" for name in table.column("meters").to_pylist())
    return dict(tally.most_common())


def tokenizer_text(dataset: Dataset, column: str) -> str:
    """What MidiTok has saved of the tokenizer of a column; empty for EMOPIA's words, which need none.

    Raises:
        UsageError: the file has gone.
    """
    if dataset.encoders[column]["name"] == EMOPIA:
        return ""
    try:
        return dataset.file(TOKENIZER_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{dataset.folder}: {TOKENIZER_FILE} has gone: {error}") from error
