"""The commands that make shard sets and codebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from audioprep.cli.execute import execute, guarded, key_values, settings_of
from audioprep.cli.options import (
    Check,
    Device,
    DryRun,
    EncoderSetting,
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
    Weights,
    Workers,
    splits_of,
)


def tokenize(
    source: Sources,
    out: OutPlace,
    codec: Annotated[str, typer.Option(help="Name of the encoder; `audioprep doctor` lists them.")] = "mel-rvq",
    weights: Weights = None,
    num_codebooks: Annotated[int | None, typer.Option(min=1, help="Use only the first so many.")] = None,
    setting: EncoderSetting = None,
    column: Annotated[
        str | None, typer.Option(help="Column for the tokens. Default: audio_tokens; of muq-vq sketch_tokens.")
    ] = None,
    format: Format = "parquet",
    splits: Splits = "train=1.0",
    shard_mb: ShardMb = 512,
    engine: Engine = "local",
    workers: Workers = 0,
    device: Device = "auto",
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
    """Turn audio of any format into token shards.

    Beside NAME.wav may lie NAME.txt (tags), NAME.lyrics, and NAME.json (tags, lyrics, prompt, license, source, …).

    Example: audioprep tokenize ~/music --out shards --splits train=0.98,validation=0.02

    Example: audioprep tokenize ~/music --out shards --codec dac-44khz --num-codebooks 4
    """
    options = settings_of(locals())
    del options["setting"]
    options["splits"] = guarded(lambda: splits_of(splits))
    options["codec_settings"] = guarded(lambda: key_values(setting or []))
    execute("tokenize", options, dry_run, json, quiet)


def encode(
    out: Annotated[
        str, typer.Option(help="Folder of the shard set, or its URL: a new one, or one that gets new columns.")
    ],
    encoder: Annotated[
        list[str], typer.Option(help="Name of an encoder; can be repeated. `audioprep doctor` lists them.")
    ],
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="As for tokenize; none: the inputs that the shard set has."),
    ] = None,
    weights: Weights = None,
    setting: EncoderSetting = None,
    column: Annotated[
        str | None, typer.Option(help="Column for what comes out. Default: latents, clap_embedding, …")
    ] = None,
    format: Format = "parquet",
    splits: Splits = "train=1.0",
    shard_mb: ShardMb = 512,
    engine: Engine = "local",
    workers: Workers = 0,
    device: Device = "auto",
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
    """Compute latents and embeddings, also as new columns of a shard set; the columns that it has are kept.

    --weights, --set and --column are of the one encoder; for several, a recipe gives each its own.

    Example: audioprep encode ~/music --out shards --encoder vae-stable-audio --encoder clap-htsat-unfused

    Example: audioprep encode --out shards --encoder clap --weights music_audioset_epoch_15_esc_90.14.pt
    """
    options = settings_of(locals())
    for name in ("encoder", "weights", "setting", "column"):
        del options[name]
    options["source"] = source or []
    options["splits"] = guarded(lambda: splits_of(splits))
    options["encoders"] = guarded(lambda: encoder_choices(encoder, weights, column, setting or []))
    execute("encode", options, dry_run, json, quiet)


def import_tokens(
    source: Sources,
    out: OutPlace,
    codec: Annotated[
        str, typer.Option(help="What made the tokens: heartcodec, dac-44khz, dac-24khz, dac-16khz, encodec-…, mimi.")
    ],
    tokens: Annotated[
        str, typer.Option(help="Where a recording's tokens are: .npy, .npz, or .pt of tensors.")
    ] = "{folder}/{stem}.npy",
    num_codebooks: Annotated[int | None, typer.Option(min=1, help="Codebooks in the files. Default: all.")] = None,
    column: Annotated[str, typer.Option(help="Column for the tokens.")] = "audio_tokens",
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
    """Take over tokens that another tool has made, [frames, codebooks] or the reverse, with their recordings' texts.

    Shape, range and frames a second are checked. A recording without good tokens is a row of failures.parquet.

    Example: audioprep import-tokens ~/songs --out shards --codec heartcodec --tokens '~/tokens/{stem}.npy'
    """
    options = settings_of(locals())
    options["splits"] = guarded(lambda: splits_of(splits))
    execute("import-tokens", options, dry_run, json, quiet)


def fit_mel_rvq(
    source: Sources,
    out: Annotated[str, typer.Option(help="The weights file to write (.safetensors), or its URL.")],
    num_codebooks: Annotated[int, typer.Option(min=1, help="Codebooks, each for what the ones before leave over.")] = 8,
    codebook_size: Annotated[int, typer.Option(min=2, help="Codewords of each codebook.")] = 1024,
    max_frames: Annotated[int, typer.Option(min=1, help="Frames (25 a second) in the random sample.")] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the random sample and of the k-means.")] = 0,
    device: Device = "auto",
    limit: Limit = None,
    exclude: Exclude = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the codebooks of mel-rvq to your own audio.

    Example: audioprep fit mel-rvq ~/music --out my.safetensors, then audioprep tokenize … --weights my.safetensors
    """
    execute("fit-mel-rvq", settings_of(locals()), dry_run, json, quiet)


def fit_muq_vq(
    source: Sources,
    out: Annotated[str, typer.Option(help="The codebook to write (.safetensors), or its URL.")],
    weights: Annotated[
        str, typer.Option(help="MuQ: a folder, a URL, or a repository of the Hub (org/name[@revision]).")
    ] = "OpenMuQ/MuQ-large-msd-iter",
    layer: Annotated[int | None, typer.Option(min=0, help="Which hidden state, from 0. Default: the last.")] = None,
    codebook_size: Annotated[
        int, typer.Option(min=2, help="Codewords: as many as the model has that reads the tokens.")
    ] = 129,
    distance: Annotated[str, typer.Option(help="euclidean or cosine.")] = "euclidean",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the fit.")] = 1000,
    batch_frames: Annotated[int, typer.Option(min=1, help="Frames in each step.")] = 8192,
    decay: Annotated[float, typer.Option(help="Of the moving averages, a step.")] = 0.99,
    dead_code_threshold: Annotated[
        float, typer.Option(help="A code with less than this share of the mean code's frames is put elsewhere.")
    ] = 0.1,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Frames (25 a second) fitted to, of files drawn at random.")
    ] = 1_000_000,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    cache: Annotated[Path | None, typer.Option(help="Folder for hidden states. Default: OUT.frames.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Save a picture of perplexity and usage here (.png).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    device: Device = "auto",
    limit: Limit = None,
    exclude: Exclude = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the codebook of muq-vq to your own audio. A killed run goes on where it was.

    Example: audioprep fit muq-vq ~/music --out my.safetensors --codebook-size 129, then
    audioprep tokenize ~/music --out shards --codec muq-vq --set codebook=my.safetensors
    """
    execute("fit-muq-vq", settings_of(locals()), dry_run, json, quiet)


def encoder_choices(
    names: list[str], weights: str | None, column: str | None, settings: list[str]
) -> list[dict[str, Any]]:
    from audioprep.errors import UsageError

    if len(names) > 1 and (weights or column or settings):
        raise UsageError("--weights, --column and --set go with one --encoder; write a recipe for several")
    own = {"weights": weights, "column": column, "settings": key_values(settings)}
    return [{"encoder": name} | own for name in names]
