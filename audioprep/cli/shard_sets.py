"""The commands that look at shard sets, or make something else of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, guarded, key_values, settings_of
from audioprep.cli.options import Device, DryRun, EncoderSetting, Engine, Json, Quiet, ShardSet, Weights, Workers
from audioprep.cli.report import calibration_table


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
        typer.Option(
            "--for", help="OUT is an export: find what its trainer stumbles over: stable-audio, simpletuner, songbloom."
        ),
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
    codes: Annotated[int | None, typer.Option(min=1, help="songbloom: codes of the model that is trained.")] = None,
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
    options |= {"model_config_file": model_config, "tokenizer": tokenizer, "batch_size": batch_size, "codes": codes}
    execute("verify", options, False, json, quiet)


def listen(
    out: ShardSet,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Its id, the first digits of it, or the file's name.")],
    column: Annotated[str | None, typer.Option(help="Column of tokens or latents. Default: the only one.")] = None,
    dest: Annotated[str, typer.Option(help="Folder for the two files, or its URL.")] = ".",
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
    out: Annotated[str, typer.Option(help="Folder for the lists, or its URL.")],
    against: Annotated[
        list[str] | None,
        typer.Option(help="A test set (a shard set, or audio): drop what is in there, too, and nothing else."),
    ] = None,
    similarity_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="From which similarity on two are the same. Default: 0.66; of histograms 0.95."
        ),
    ] = None,
    min_coverage: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the shorter one that has to lie in the other one.")
    ] = 0.5,
    keep: Annotated[
        str, typer.Option(help="Of copies: longest, highest-bitrate, lossless-first or first (by path).")
    ] = "longest",
    prefer: Annotated[str | None, typer.Option(metavar="REGEX", help="Paths that are kept before all others.")] = None,
    histogram_mode: Annotated[
        str, typer.Option(help="Histograms: per_codebook, joint, first_k, or bigram (codes that follow each other).")
    ] = "per_codebook",
    first_codebooks: Annotated[int, typer.Option(min=1, help="Histograms: how many of first_k.")] = 2,
    weighting: Annotated[str, typer.Option(help="Histograms: none, or idf: rare codes count more.")] = "none",
    correct_sampling: Annotated[bool, typer.Option(help="Histograms: correct for the noise of short ones.")] = True,
    max_audio_seconds: Annotated[float, typer.Option(min=0, help="Histograms: only the first seconds; 0: all.")] = 120,
    second_opinion: Annotated[
        bool, typer.Option(help="Histograms: fingerprints have to agree, where there are any.")
    ] = True,
    column: Annotated[
        str | None, typer.Option(help="Column of tokens. Default: fingerprints, or the only one.")
    ] = None,
    codec: Annotated[
        str, typer.Option(help="Of audio: what encodes it; of any other encoder, histograms are compared.")
    ] = "fingerprint",
    weights: Weights = None,
    exclude_path_format: Annotated[str, typer.Option(help="absolute or relative.")] = "absolute",
    report_pairs: Annotated[
        int, typer.Option(min=0, help="Pairs in report.html, to be heard and seen; 0: no report.")
    ] = 40,
    calibrate: Annotated[
        bool,
        typer.Option(help="Drop nothing: make copies of some recordings, and say from which threshold they are found."),
    ] = False,
    calibrate_files: Annotated[int, typer.Option(min=2, help="Of how many recordings.")] = 50,
    similarity_device: Annotated[str, typer.Option(help="Of the comparison: auto, cpu or cuda.")] = "auto",
    device: Device = "auto",
    engine: Engine = "local",
    workers: Workers = 0,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find copies of the same recording, and list which to leave out.

    Fingerprints find re-encodings, excerpts, shifted cuts, other loudness, speed and pitch. Of a shard set with other
    tokens, histograms of these are compared.

    Example: audioprep dedup ~/music --out dedup

    Example: audioprep dedup ~/music --against ~/test-music --out leaks

    Example: audioprep dedup dac-shards --out dedup --similarity-threshold 0.95
    """
    options = settings_of(locals()) | {"against": against or []}
    execute("dedup", options, dry_run, json, quiet, calibration_table if calibrate and not dry_run else None)


def fad(
    reference: Annotated[str, typer.Argument(metavar="A", help="The reference: a shard set, .npy or .npz.")],
    evaluated: Annotated[str, typer.Argument(metavar="B", help="What to compare with it: likewise.")],
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
