"""The commands that write another project's layout: one a trainer, each with a module of `audioprep.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, settings_of
from audioprep.cli.options import DryRun, Exclude, Json, Overwrite, Quiet, ShardSet

Dest = Annotated[str, typer.Argument(metavar="DEST", help="Folder to write to, or its URL.")]
Location = Annotated[str | None, typer.Option(help="The folder's path on the trainer's machine. Default: DEST.")]
Split = Annotated[str, typer.Option(help="Which split.")]
Root = Annotated[list[Path] | None, typer.Option(help="Folder that paths are relative to; can be repeated.")]


def export_stable_audio(
    out: ShardSet,
    dest: Dest,
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
    split: Split = "train",
    prompt_column: Annotated[
        str | None, typer.Option(help="Column of the prompts. Default: prompt, else tags.")
    ] = None,
    default_prompt: Annotated[str, typer.Option(help="Prompt of the tracks that have none.")] = "",
    exclude: Exclude = None,
    root: Root = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tracks.")] = None,
    location: Location = None,
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
    execute("export-stable-audio", settings_of(locals()) | {"root": root or []}, dry_run, json, quiet)


def export_emopia(
    out: ShardSet,
    dest: Dest,
    names: Annotated[
        str, typer.Option(help="Of the files: emopia, or train (train_data.npz train_dictionary.pkl train_idx.npz).")
    ] = "emopia",
    prefix: Annotated[str | None, typer.Option(help="What the names begin with. Default: as --names.")] = None,
    vocabulary: Annotated[
        str, typer.Option(help="fitted (what occurs), published (of the released models), full, or a JSON file.")
    ] = "fitted",
    transpose: Annotated[
        list[int] | None, typer.Option(help="A copy so many semitones up, its chords and key with it; can be repeated.")
    ] = None,
    tempo: Annotated[list[float] | None, typer.Option(help="A copy so many times as fast; can be repeated.")] = None,
    velocity: Annotated[list[int] | None, typer.Option(help="A copy so much louder; can be repeated.")] = None,
    column: Annotated[str, typer.Option(help="The column of words, by --tokenizer emopia-cp.")] = "midi_tokens",
    split: Split = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many songs.")] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write compound words for EMOPIA's trainer and those that came of it, with copies in other keys and tempos.

    Example: audioprep export emopia shards co-representation

    Example: audioprep export emopia shards representation --names train --transpose -1 --transpose 1 --tempo 0.95
    """
    options = settings_of(locals())
    options |= {name: options[name] or [] for name in ("transpose", "tempo", "velocity")}
    execute("export-emopia", options, dry_run, json, quiet)


def export_simpletuner(
    out: ShardSet,
    dest: Dest,
    layout: Annotated[
        str, typer.Option(help="folder: Parquet and token files; inline: all in the Parquet; jsonl: a local index.")
    ] = "folder",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows of a step: train_batch_size x GPUs x gradient_accumulation_steps.")
    ] = 1,
    tokens: Annotated[
        str, typer.Option(help="Token files: npy, or pt (which its loader of MiniMax reads, too).")
    ] = "npy",
    ending_rows: Annotated[
        bool, typer.Option("--ending-rows", help="A last row of 8193 at every song's end, to teach endings.")
    ] = False,
    long: Annotated[
        str,
        typer.Option(
            help="Songs that do not fit: segment (where it is known which lyrics a piece has), segment-all (the others "
            "with empty lyrics) or drop."
        ),
    ] = "segment",
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a row, 12.5 a second. Default: what 8192 rows leave.")
    ] = None,
    cut_multiple: Annotated[
        int, typer.Option(min=1, help="Cuts are at multiples of so many frames: HeartCodec's chunk.")
    ] = 372,
    tokenizer: Annotated[
        Path | None, typer.Option(help="HeartMuLa's tokenizer.json, to count prompts; else a byte counts as a token.")
    ] = None,
    column: Annotated[str, typer.Option(help="The column of tokens.")] = "audio_tokens",
    split: Split = "train",
    tags_column: Annotated[str, typer.Option(help="Column of the tags.")] = "tags",
    lyrics_column: Annotated[
        str, typer.Option(help="Column of the lyrics; songs without are instrumentals.")
    ] = "lyrics",
    normalize: Annotated[
        bool, typer.Option(help="Make tags and lyrics what HeartMuLa knows; `audioprep lint` says what that changes.")
    ] = True,
    name: Annotated[
        str | None, typer.Option(help="What the data set's id begins with. Default: the folder's name.")
    ] = None,
    location: Location = None,
    hub: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="inline: the repository that it will be uploaded to.")
    ] = None,
    exclude: Exclude = None,
    root: Root = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many songs.")] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write HeartCodec tokens for SimpleTuner, to train HeartMuLa; the same command again goes on where it stopped.

    Example: audioprep export simpletuner shards heartmula

    Example: audioprep export simpletuner shards heartmula --batch-size 4 --max-frames 2232 --ending-rows

    Example: audioprep export simpletuner shards heartmula --layout inline --hub me/my-songs
    """
    execute("export-simpletuner", settings_of(locals()) | {"root": root or []}, dry_run, json, quiet)


def export_songbloom(
    out: ShardSet,
    dest: Dest,
    model: Annotated[
        Path | None, typer.Option(help="The checkpoint that will be trained: it says how many codes there may be.")
    ] = None,
    codes: Annotated[
        int | None, typer.Option(min=1, help="Codes of the model. Default: the checkpoint's, else the published 129.")
    ] = None,
    lyrics_column: Annotated[
        str, typer.Option(help="Column of the lyrics, or of what g2p --layout songbloom wrote.")
    ] = "lyrics",
    seconds_per_tag: Annotated[
        int, typer.Option(help="What one [intro] [inst] [outro] stands for: 1, or 5 for the 240 s model.")
    ] = 1,
    infer_sections: Annotated[
        bool, typer.Option("--infer-sections", help="Guess sections that nothing in the lyrics says.")
    ] = False,
    align: Annotated[
        str, typer.Option(help="Sketch and latents of other lengths: trim, pad, or error (the song is left out).")
    ] = "trim",
    block: Annotated[int, typer.Option(min=1, help="Lengths are multiples of so many frames.")] = 16,
    max_seconds: Annotated[float, typer.Option(help="What the model makes at most: 150 or 240.")] = 150.0,
    verify_lengths: Annotated[
        bool, typer.Option("--verify-lengths", help="Only say how the lengths agree; write nothing.")
    ] = False,
    verify_lengths_max: Annotated[int | None, typer.Option(min=1, help="Of the first so many songs.")] = None,
    require_length_match: Annotated[
        bool, typer.Option("--require-length-match", help="Stop where lengths differ, before anything is written.")
    ] = False,
    prompt_sec: Annotated[
        float | None, typer.Option(help="Length of the prompts. Default: what the songs say, else 10.")
    ] = None,
    prompt_start: Annotated[float, typer.Option(min=0, help="Where in the song prompts begin, in seconds.")] = 0.0,
    sketch_format: Annotated[str, typer.Option(help="npy or pt.")] = "npy",
    cache: Annotated[bool, typer.Option(help="Write the trainer's cache, where the shard set has latents.")] = True,
    sketch_column: Annotated[str, typer.Option(help="The column of sketch tokens.")] = "sketch_tokens",
    latents_column: Annotated[
        str | None, typer.Option(help="The column of latents. Default: latents, if there are any.")
    ] = None,
    location: Location = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write songs for the Japanese fork of SongBloom; the same command again goes on where it stopped.

    Example: audioprep export songbloom shards songbloom --model songbloom_full_150s.pt --infer-sections

    Example: audioprep export songbloom shards songbloom --verify-lengths --verify-lengths-max 20
    """
    execute("export-songbloom", settings_of(locals()), dry_run, json, quiet)
