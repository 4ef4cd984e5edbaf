"""The commands for scores and MIDI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, guarded, key_values, settings_of
from audioprep.cli.options import (
    Check,
    DryRun,
    Engine,
    Exclude,
    Format,
    Isolated,
    Json,
    Limit,
    Metrics,
    OutPlace,
    Overwrite,
    PartSize,
    Quiet,
    RetryFailed,
    ShardMb,
    ShardOf,
    Sources,
    Splits,
    TensorBoard,
    Workers,
    splits_of,
)

Tokenizer = Annotated[str, typer.Option(help="remi, cp or miditok:NAME; of midi also emopia-cp.")]
Config = Annotated[
    Path | None, typer.Option(help="A tokenizer.json that MidiTok or `audioprep fit midi-bpe` has saved.")
]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of MidiTok's TokenizerConfig.")
]


def midi(
    source: Sources,
    out: OutPlace,
    tokenizer: Tokenizer = "remi",
    config: Config = None,
    setting: Setting = None,
    meter: Annotated[
        str, typer.Option(help="Of meters other than 4/4: keep, convert (to bars of 4/4, with rests) or reject.")
    ] = "keep",
    chords: Annotated[
        str, typer.Option(help="emopia-cp: auto (of the markers, else of the notes), markers or none.")
    ] = "auto",
    key: Annotated[
        str, typer.Option(help="emopia-cp: none; the ninth class by estimate, or score (its signature, else estimate).")
    ] = "none",
    beats: Annotated[
        str, typer.Option(help="emopia-cp: score, or track: for transcriptions, whose files have no beats.")
    ] = "score",
    column: Annotated[str, typer.Option(help="Column for the tokens.")] = "midi_tokens",
    format: Format = "parquet",
    splits: Splits = "train=1.0",
    shard_mb: ShardMb = 512,
    engine: Engine = "local",
    workers: Workers = 0,
    part_size: PartSize = None,
    limit: Limit = None,
    exclude: Exclude = None,
    check: Check = "size",
    retry_failed: RetryFailed = False,
    isolated: Isolated = False,
    shard_of: ShardOf = None,
    overwrite: Overwrite = False,
    metrics: Metrics = None,
    tensorboard: TensorBoard = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn scores into token shards: .mid .midi .kar .musicxml .mxl .abc .krn.

    Excerpts of one song (EMOPIA's Q1_SONG_0.mid) fall into the same split.

    Example: audioprep midi ~/scores --out shards --tokenizer remi --set use_chords=true

    Example: audioprep midi EMOPIA_1.0/midis --out shards --tokenizer emopia-cp --beats track --key estimate
    """
    options = settings_of(locals())
    options["splits"] = guarded(lambda: splits_of(splits))
    options["tokenizer_settings"] = guarded(lambda: key_values(options.pop("setting") or []))
    execute("midi", options, dry_run, json, quiet)


def fit_midi_bpe(
    source: Sources,
    out: Annotated[str, typer.Option(help="The tokenizer to write (.json), in MidiTok's own form; or its URL.")],
    tokenizer: Tokenizer = "remi",
    config: Config = None,
    setting: Setting = None,
    vocab_size: Annotated[int, typer.Option(min=2, help="Tokens of the trained vocabulary.")] = 10_000,
    model: Annotated[str, typer.Option(help="BPE, Unigram or WordPiece.")] = "BPE",
    limit: Limit = None,
    exclude: Exclude = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer of MidiTok on your own scores: frequent successions of tokens become one.

    Example: audioprep fit midi-bpe ~/scores --out bpe.json --vocab-size 20000, then
    audioprep midi ~/scores --out shards --config bpe.json
    """
    options = settings_of(locals())
    options["tokenizer_settings"] = guarded(lambda: key_values(options.pop("setting") or []))
    execute("fit-midi-bpe", options, dry_run, json, quiet)
