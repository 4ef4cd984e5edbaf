"""The commands for particular corpora, and for one that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.encoding import encoder_choices
from audioprep.cli.execute import execute, guarded, settings_of
from audioprep.cli.options import (
    Device,
    DryRun,
    EncoderSetting,
    Engine,
    Json,
    Metrics,
    OutPlace,
    Overwrite,
    Quiet,
    RetryFailed,
    TensorBoard,
    Weights,
    Workers,
    splits_of,
)


def jacappella(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of the corpus: a copy, or to download to.")],
    out: OutPlace,
    download: Annotated[
        bool, typer.Option(help="Fetch what is missing from the Hub, where the corpus is gated; or use what is there.")
    ] = True,
    audio_type: Annotated[
        str,
        typer.Option(
            help="lead_vocal, mixture, mixture_stereo, soprano, alto, tenor, bass, vocal_percussion: of each song."
        ),
    ] = "lead_vocal",
    musicxml_type: Annotated[
        str, typer.Option(help="The score that lyrics come from: svs (kana), romaji or default (as printed).")
    ] = "svs",
    subsets: Annotated[str, typer.Option(help="Genres, with commas between them. Default: all.")] = "",
    prompt_sec: Annotated[float, typer.Option(help="Length of the prompts that an export cuts.")] = 10.0,
    clean_japanese: Annotated[
        bool, typer.Option("--clean-japanese", help="Take out of lyrics what is neither Japanese nor punctuation.")
    ] = False,
    encoder: Annotated[list[str] | None, typer.Option(help="Can be repeated. Default: mel-rvq.")] = None,
    weights: Weights = None,
    setting: EncoderSetting = None,
    column: Annotated[str | None, typer.Option(help="Column for what comes out. Default: by encoder.")] = None,
    splits: Annotated[str, typer.Option(help="Shares, by song.")] = "train=1.0",
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    engine: Engine = "local",
    workers: Workers = 0,
    device: Device = "auto",
    retry_failed: RetryFailed = False,
    overwrite: Overwrite = False,
    metrics: Metrics = None,
    tensorboard: TensorBoard = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a shard set of the jaCappella corpus, with lyrics as sung, from its scores; scat is kept apart.

    Example: audioprep jacappella ~/jaCappella --out shards --splits train=0.9,validation=0.1

    Example: audioprep jacappella ~/jaCappella --no-download --out shards --subsets ballad,enka --audio-type mixture
    """
    options = settings_of(locals())
    for name in ("encoder", "weights", "setting", "column"):
        del options[name]
    options["source"] = [source]
    options["subsets"] = [subset.strip() for subset in subsets.split(",") if subset.strip()]
    options["splits"] = guarded(lambda: splits_of(splits))
    options["encoders"] = guarded(lambda: encoder_choices(encoder or ["mel-rvq"], weights, column, setting or []))
    execute("jacappella", options, dry_run, json, quiet)


def make_dummy(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    samples: Annotated[int, typer.Option(min=1, help="Songs.")] = 4,
    seconds: Annotated[float, typer.Option(help="Of a song.")] = 30.0,
    prompt_sec: Annotated[float, typer.Option(help="Of a prompt.")] = 10.0,
    sketch_rate: Annotated[float, typer.Option(help="Sketch tokens a second.")] = 25.0,
    codes: Annotated[int, typer.Option(min=1, help="Codes of the model: sketch tokens are below.")] = 129,
    sketch_format: Annotated[str, typer.Option(help="npy or pt.")] = "npy",
    splits: Annotated[str, typer.Option(help="Shares, by song.")] = "train=1.0",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a synthetic data set in the layout of SongBloom's fork, for dry runs: tones, lyrics, random sketches.

    Example: audioprep make-dummy dummy --samples 8 --splits train=0.75,validation=0.25
    """
    options = settings_of(locals())
    options["splits"] = guarded(lambda: splits_of(splits))
    execute("make-dummy", options, dry_run, json, quiet)
