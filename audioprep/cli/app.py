"""The commands of `audioprep`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from audioprep.errors import SYSTEM_ERRNOS, AudioprepError

OK, USAGE, FAILED_INPUTS, INTERRUPTED = 0, 1, 3, 130

app = typer.Typer(
    help="Turns audio, scores and lyrics into token shards, and feeds them to trainers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs three times the whole start
    epilog="Exit codes: 0 done, 1 wrong usage or a broken machine, 3 done but some inputs failed (see "
    "failures.parquet), 130 interrupted. The same command again goes on where it stopped.",
)
fit_app = typer.Typer(help="Fit a codebook to your own audio.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(fit_app, name="fit")
export_app = typer.Typer(
    help="Write the layout that another project's trainer reads.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(export_app, name="export")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files; folders; CSV, TSV, JSONL or Parquet manifests with a column `path`; folders saved by datasets.",
    ),
]
ShardSet = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the shard set.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with the summary on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew where something else was made.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:N.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many inputs.")]
Weights = Annotated[
    str | None,
    typer.Option(help="A file, a folder or a repository of the Hub (org/name[@revision]). Default: its own."),
]
EncoderSetting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the encoder's own.")
]
Format = Annotated[str, typer.Option(help="parquet or webdataset.")]
Splits = Annotated[str, typer.Option(help="Shares, by hash of the content.")]
ShardMb = Annotated[int, typer.Option(min=1, help="Size of a shard before compression, in MiB.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0: one a CPU core, or one a GPU.")]
PartSize = Annotated[int | None, typer.Option(min=1, help="Inputs a part: what a crash loses. Default: up to 512.")]
Check = Annotated[str, typer.Option(help="How to check what is done already: size or sha256.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try the failed inputs again.")]
Isolated = Annotated[
    bool, typer.Option("--isolated", help="Decode each file in its own process: for files of unknown origin.")
]


@app.command()
def tokenize(
    source: Sources,
    out: Annotated[Path, typer.Option(help="Folder of the shard set.")],
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
    workers: Workers = 0,
    device: Device = "auto",
    part_size: PartSize = None,
    limit: Limit = None,
    check: Check = "size",
    retry_failed: RetryFailed = False,
    isolated: Isolated = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn audio of any format into token shards.

    Beside NAME.wav may lie NAME.txt (tags), NAME.lyrics, and NAME.json (tags, lyrics, prompt, license, source, …).

    Example: audioprep tokenize ~/music --out shards --splits train=0.98,validation=0.02

    Example: audioprep tokenize ~/music --out shards --codec dac-44khz --num-codebooks 4
    """
    options = _settings(locals())
    del options["setting"]
    options["splits"] = _guarded(lambda: _splits(splits))
    options["codec_settings"] = _guarded(lambda: _key_values(setting or []))
    _run("tokenize", options, dry_run, json, quiet)


@app.command()
def encode(
    out: Annotated[Path, typer.Option(help="Folder of the shard set: a new one, or one that gets new columns.")],
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
    workers: Workers = 0,
    device: Device = "auto",
    part_size: PartSize = None,
    limit: Limit = None,
    check: Check = "size",
    retry_failed: RetryFailed = False,
    isolated: Isolated = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute latents and embeddings, also as new columns of a shard set; the columns that it has are kept.

    --weights, --set and --column are of the one encoder; for several, a recipe gives each its own.

    Example: audioprep encode ~/music --out shards --encoder vae-stable-audio --encoder clap-htsat-unfused

    Example: audioprep encode --out shards --encoder clap --weights music_audioset_epoch_15_esc_90.14.pt
    """
    options = _settings(locals())
    for name in ("encoder", "weights", "setting", "column"):
        del options[name]
    options["source"] = source or []
    options["splits"] = _guarded(lambda: _splits(splits))
    options["encoders"] = _guarded(lambda: _encoder_choices(encoder, weights, column, setting or []))
    _run("encode", options, dry_run, json, quiet)


@fit_app.command("mel-rvq")
def fit_mel_rvq(
    source: Sources,
    out: Annotated[Path, typer.Option(help="The weights file to write (.safetensors).")],
    num_codebooks: Annotated[int, typer.Option(min=1, help="Codebooks, each for what the ones before leave over.")] = 8,
    codebook_size: Annotated[int, typer.Option(min=2, help="Codewords of each codebook.")] = 1024,
    max_frames: Annotated[int, typer.Option(min=1, help="Frames (25 a second) in the random sample.")] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the random sample and of the k-means.")] = 0,
    device: Device = "auto",
    limit: Limit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the codebooks of mel-rvq to your own audio.

    Example: audioprep fit mel-rvq ~/music --out my.safetensors, then audioprep tokenize … --weights my.safetensors
    """
    _run("fit-mel-rvq", _settings(locals()), dry_run, json, quiet)


@fit_app.command("muq-vq")
def fit_muq_vq(
    source: Sources,
    out: Annotated[Path, typer.Option(help="The codebook to write (.safetensors).")],
    weights: Annotated[
        str, typer.Option(help="MuQ: a folder or a repository of the Hub (org/name[@revision]).")
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the codebook of muq-vq to your own audio. A killed run goes on where it was.

    Example: audioprep fit muq-vq ~/music --out my.safetensors --codebook-size 129, then
    audioprep tokenize ~/music --out shards --codec muq-vq --set codebook=my.safetensors
    """
    _run("fit-muq-vq", _settings(locals()), dry_run, json, quiet)


@app.command()
def inspect(
    out: ShardSet,
    plot: Annotated[Path | None, typer.Option(help="Save lengths and codebook usage as a picture (.png).")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in a shard set: items, hours, failures, codebook usage and perplexity."""
    _run("inspect", {"out": out, "plot": plot}, False, json, quiet)


@app.command()
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
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a shard set: checksums, columns, counts, ranges of values. Exit code 1 where something is wrong.

    Example: audioprep verify shards --reencode 50 --set dtype=bfloat16
    """
    settings = _guarded(lambda: _key_values(setting or []))
    options = {"out": out, "reencode": reencode, "codec_settings": settings, "device": device, "target": target}
    _run("verify", options, False, json, quiet)


@export_app.command("stable-audio")
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
    options = _settings(locals()) | {"format": "stable-audio", "root": root or []}
    _run("export", options, dry_run, json, quiet)


@app.command()
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
    _run("fad", _settings(locals()), dry_run, json, quiet)


@app.command("clap-score")
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
    options = _settings(locals())
    options["settings"] = _guarded(lambda: _key_values(options.pop("setting") or []))
    _run("clap-score", options, dry_run, json, quiet)


@app.command()
def train(
    trainer: Annotated[str, typer.Argument(metavar="NAME", help="A bundled trainer, such as token-lm.")],
    shards: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the shard set.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and logs.")],
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer's own.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a bundled trainer on a shard set; the same command again goes on from the last checkpoint.

    Several GPUs: torchrun --nproc-per-node 8 -m audioprep train token-lm OUT --out RUN
    """
    settings = _guarded(lambda: _key_values(setting or []))
    _run("train", {"trainer": trainer, "shards": shards, "out": out, "settings": settings}, dry_run, json, True)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a bundled one's name: demo.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Replace a setting of the recipe; can be repeated."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe: a YAML file with a list of stages. What is done is not done twice."""

    def work() -> tuple[int, Any]:
        from audioprep.bundled import recipe_path
        from audioprep.cli.recipe import run_recipe

        return run_recipe(recipe_path(recipe), setting or [], dry_run, _console(quiet), report=not json)

    code, summaries = _guarded(work)
    _finish(code, summaries, json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors that check YAML."""
    import json

    from audioprep.recipes.model import recipe_model

    typer.echo(json.dumps(recipe_model().model_json_schema(), indent=2, ensure_ascii=False))


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine can do, and what to install for the rest."""
    from audioprep.cli.doctor import examine, report

    found = examine()
    _finish(OK, found, json, None if json else report(found))


def main() -> None:
    """Runs the command line; every error that audioprep knows becomes one message and an exit code."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("audioprep").setLevel(logging.INFO)
    try:
        sys.exit(app(prog_name="audioprep", standalone_mode=False))
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        explain = getattr(error, "format_message", None)  # click's own errors, with the nearest right name
        if explain is None:
            raise
        message = explain()
        if message.startswith("Usage:"):  # no arguments at all: the help
            typer.echo(message, err=True)
        else:
            _say_error(message)
        sys.exit(USAGE)


def _run(command: str, options: dict[str, Any], dry_run: bool, json: bool, quiet: bool) -> None:
    def work() -> tuple[int, Any]:
        from audioprep.cli.recipe import run_command

        return run_command(command, options, dry_run, _console(quiet))

    code, summary = _guarded(work)
    _finish(code, summary, json)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options without those that say how to show its work."""
    return {name: value for name, value in options.items() if name not in ("json", "quiet", "dry_run")}


def _guarded(work: Any) -> Any:
    try:
        return work()
    except AudioprepError as error:
        _say_error(str(error))
        raise typer.Exit(USAGE) from error
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("audioprep"):
            raise
        _say_error(f"this needs the package {error.name}. `audioprep doctor` says which extra brings it.")
        raise typer.Exit(USAGE) from error
    except OSError as error:
        if error.errno not in SYSTEM_ERRNOS:
            raise
        _say_error(f"{error}. Mend that and run the same command again.")
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt as error:
        _say_error("interrupted; the same command goes on from what is done")
        raise typer.Exit(INTERRUPTED) from error


def _say_error(message: str) -> None:
    typer.secho(f"audioprep: {message}", fg="red", err=True)


def _console(quiet: bool) -> Any:
    from audioprep.cli.console import QuietConsole, TerminalConsole

    return QuietConsole() if quiet else TerminalConsole()


def _key_values(settings: list[str]) -> dict[str, Any]:
    import yaml

    from audioprep.errors import UsageError

    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write it like --set steps=500")
        values[key] = yaml.safe_load(value)
    return values


def _splits(splits: str) -> dict[str, float]:
    from audioprep.shards.split import parse_splits

    return parse_splits(splits)


def _encoder_choices(
    names: list[str], weights: str | None, column: str | None, settings: list[str]
) -> list[dict[str, Any]]:
    from audioprep.errors import UsageError

    if len(names) > 1 and (weights or column or settings):
        raise UsageError("--weights, --column and --set go with one --encoder; write a recipe for several")
    own = {"weights": weights, "column": column, "settings": _key_values(settings)}
    return [{"encoder": name} | own for name in names]


def _finish(code: int, summary: Any, json: bool, text: str | None = None) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        raise typer.Exit(code)
    if json:
        from json import dumps

        typer.echo(dumps(summary, ensure_ascii=False, default=str))
    elif text is not None:
        typer.echo(text)
    elif summary is not None:
        from audioprep.cli.report import describe

        typer.echo(describe(summary))
    raise typer.Exit(code)
