"""The commands that look at shard sets, or make something else of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, guarded, key_values, settings_of
from audioprep.cli.options import Device, DryRun, EncoderSetting, Json, Overwrite, Quiet, ShardSet


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
        str | None, typer.Option("--for", help="OUT is an export: find what its trainer stumbles over: stable-audio.")
    ] = None,
    model_config: Annotated[
        Path | None, typer.Option(help="With --for: the trainer's model config, to be checked too.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a shard set: checksums, columns, counts, ranges of values. Exit code 1 where something is wrong.

    Example: audioprep verify shards --reencode 50 --set dtype=bfloat16

    Example: audioprep verify latents --for stable-audio --model-config model_config.json
    """
    settings = guarded(lambda: key_values(setting or []))
    options = {"out": out, "reencode": reencode, "codec_settings": settings, "device": device, "target": target}
    options["model_config_file"] = model_config
    execute("verify", options, False, json, quiet)


def listen(
    out: ShardSet,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Its id, the first digits of it, or the file's name.")],
    column: Annotated[str | None, typer.Option(help="Column of tokens or latents. Default: the only one.")] = None,
    dest: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path(),
    encoder: Annotated[str | None, typer.Option(help="What decodes tokens that were imported.")] = None,
    setting: EncoderSetting = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an item's recording, and beside it what its tokens or latents sound like.

    Example: audioprep listen shards my_song.flac --dest compare
    """
    options = settings_of(locals())
    options["settings"] = guarded(lambda: key_values(options.pop("setting") or []))
    execute("listen", options, dry_run, json, quiet)


def export_stable_audio(
    out: ShardSet,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write to.")],
    layout: Annotated[str, typer.Option(help="sat: for stable-audio-tools; sa3: for stable-audio-3.")] = "sat",
    crop_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a crop: the model config's sample_size / samples a frame.")
    ] = None,
    crops: Annotated[
        str | None, typer.Option(help="grid: all of each track; random; whole. Default: grid; for sa3 whole.")
    ] = None,
    crop_hop: Annotated[
        int | None, typer.Option(min=1, help="grid: frames from one crop to the next. Default: --crop-frames.")
    ] = None,
    tail: Annotated[
        str, typer.Option(help="grid: what is left at a track's end: align (a last crop ends with it), pad or drop.")
    ] = "align",
    crops_per_track: Annotated[int, typer.Option(min=1, help="random: crops of each track.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="random: of the places.")] = 0,
    short: Annotated[
        str, typer.Option(help="Tracks shorter than a crop: pad (with the latents of silence) or drop.")
    ] = "pad",
    silence: Annotated[
        Path | None, typer.Option(help="The latents of silence (.npy, 1 x D x N). Default: the encoder makes them.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    column: Annotated[str, typer.Option(help="The column of latents.")] = "latents",
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    prompt_column: Annotated[
        str | None, typer.Option(help="Column of the prompts. Default: prompt, else tags.")
    ] = None,
    default_prompt: Annotated[str, typer.Option(help="Prompt of the tracks that have none.")] = "",
    exclude: Annotated[
        Path | None, typer.Option(help="File with inputs to leave out (exclude_paths.txt): a path a line.")
    ] = None,
    root: Annotated[list[Path] | None, typer.Option(help="Folder that paths are relative to; can be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tracks.")] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write latents for the trainers of Stable Audio; the same command again goes on where it stopped.

    Example: audioprep export stable-audio shards latents --crop-frames 1024

    Example: audioprep export stable-audio shards latents --crop-frames 1024 --crops random --crops-per-track 4

    Example: audioprep export stable-audio shards latents --layout sa3
    """
    options = settings_of(locals()) | {"format": "stable-audio", "root": root or []}
    execute("export", options, dry_run, json, quiet)


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
