"""The commands that look at shard sets, or make something else of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, guarded, key_values, settings_of
from audioprep.cli.options import Device, DryRun, EncoderSetting, Json, Quiet, ShardSet, Weights, Workers


def inspect(
    out: ShardSet,
    plot: Annotated[Path | None, typer.Option(help="Save lengths and codebook usage as a picture (.png).")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in a shard set: items, hours, failures, codebook usage and perplexity."""
    execute("inspect", {"out": out, "plot": plot}, False, json, quiet)


def verify(
    out: ShardSet,
    reencode: Annotated[int, typer.Option(min=0, help="Encode so many items again, each alone, and compare.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --reencode: say what another setting would change."),
    ] = None,
    device: Device = "auto",
    target: Annotated[
        str | None,
        typer.Option("--for", help="OUT is an export: find what its trainer stumbles over: stable-audio, simpletuner."),
    ] = None,
    model_config: Annotated[
        Path | None, typer.Option(help="stable-audio: the trainer's model config, to be checked too.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="simpletuner: HeartMuLa's tokenizer.json, to count prompts exactly.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="simpletuner: rows of a step. Default: what its config.json says.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a shard set: checksums, columns, counts, ranges of values. Exit code 1 where something is wrong.

    Example: audioprep verify shards --reencode 50 --set dtype=bfloat16

    Example: audioprep verify latents --for stable-audio --model-config model_config.json

    Example: audioprep verify heartmula --for simpletuner
    """
    settings = guarded(lambda: key_values(setting or []))
    options = {"out": out, "reencode": reencode, "codec_settings": settings, "device": device, "target": target}
    options |= {"model_config_file": model_config, "tokenizer": tokenizer, "batch_size": batch_size}
    execute("verify", options, False, json, quiet)


def listen(
    out: ShardSet,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Its id, the first digits of it, or the file's name.")],
    column: Annotated[str | None, typer.Option(help="Column of tokens or latents. Default: the only one.")] = None,
    dest: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path(),
    encoder: Annotated[str | None, typer.Option(help="What decodes tokens that were imported.")] = None,
    setting: EncoderSetting = None,
    soundfont: Annotated[Path | None, typer.Option(help="Of scores: play them with this .sf2 or .sf3, too.")] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an item's recording, and beside it what its tokens or latents sound like; of scores, MIDI.

    Example: audioprep listen shards my_song.flac --dest compare

    Example: audioprep listen scores Q1_0vLPYiPN7qY_0.mid --soundfont piano.sf2
    """
    options = settings_of(locals())
    options["settings"] = guarded(lambda: key_values(options.pop("setting") or []))
    execute("listen", options, dry_run, json, quiet)


def dedup(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="A shard set with tokens; or audio, to be tokenized first.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the lists.")],
    against: Annotated[
        list[str] | None,
        typer.Option(help="A test set (a shard set, or audio): drop what is in there, too, and nothing else."),
    ] = None,
    similarity_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="From which cosine of two histograms on they are the same recording.")
    ] = 0.95,
    keep: Annotated[
        str, typer.Option(help="Of copies: longest, highest-bitrate, lossless-first or first (by path).")
    ] = "longest",
    prefer: Annotated[str | None, typer.Option(metavar="REGEX", help="Paths that are kept before all others.")] = None,
    histogram_mode: Annotated[
        str, typer.Option(help="per_codebook, joint, first_k, or bigram (pairs of codes that follow each other).")
    ] = "per_codebook",
    first_codebooks: Annotated[int, typer.Option(min=1, help="first_k: how many.")] = 2,
    weighting: Annotated[str, typer.Option(help="none, or idf: what occurs in few recordings counts more.")] = "none",
    correct_sampling: Annotated[bool, typer.Option(help="Correct for the noise of short histograms.")] = True,
    max_audio_seconds: Annotated[float, typer.Option(min=0, help="Only the first so many seconds; 0: all.")] = 120,
    column: Annotated[str, typer.Option(help="Of a shard set: the column of tokens.")] = "audio_tokens",
    codec: Annotated[str, typer.Option(help="Of audio: the encoder.")] = "mel-rvq",
    weights: Weights = None,
    exclude_path_format: Annotated[str, typer.Option(help="absolute or relative.")] = "absolute",
    similarity_device: Annotated[str, typer.Option(help="Of the comparison: auto, cpu or cuda.")] = "auto",
    device: Device = "auto",
    workers: Workers = 0,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find copies of the same recording, by how often each token occurs, and list which to leave out.

    Example: audioprep dedup shards --out dedup --similarity-threshold 0.95

    Example: audioprep dedup ~/music --against ~/test-music --out leaks
    """
    execute("dedup", settings_of(locals()) | {"against": against or []}, dry_run, json, quiet)


def fad(
    reference: Annotated[Path, typer.Argument(metavar="A", help="The reference: a shard set, .npy or .npz.")],
    evaluated: Annotated[Path, typer.Argument(metavar="B", help="What to compare with it: likewise.")],
    column: Annotated[str, typer.Option(help="Column with the embeddings.")] = "clap_embedding",
    split: Annotated[str | None, typer.Option(help="Only this split of the shard sets. Default: all.")] = None,
    model: Annotated[str | None, typer.Option(help="Whose statistics to take from a .npz of several.")] = None,
    infinity: Annotated[
        bool, typer.Option("--infinity", help="Also extrapolate to endlessly many embeddings (FAD-inf).")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the subsets for the extrapolation.")] = 0,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute the Fréchet audio distance of B to A, from embeddings that `audioprep encode` has made.

    Example: audioprep fad real-music generated-music --infinity

    Example: audioprep fad fma_pop.npz generated-music --model clap-laion-music
    """
    execute("fad", settings_of(locals()), dry_run, json, quiet)


def clap_score(
    out: ShardSet,
    column: Annotated[str, typer.Option(help="Column with the recordings' embeddings.")] = "clap_embedding",
    text_column: Annotated[str, typer.Option(help="Column with the texts.")] = "prompt",
    split: Annotated[str | None, typer.Option(help="Only this split. Default: all.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="The encoder's weights. Default: where they were when it was used.")
    ] = None,
    setting: EncoderSetting = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say how well recordings go with their own texts: the mean cosine of their embeddings by CLAP.

    Example: audioprep clap-score shards --text-column prompt
    """
    options = settings_of(locals())
    options["settings"] = guarded(lambda: key_values(options.pop("setting") or []))
    execute("clap-score", options, dry_run, json, quiet)
