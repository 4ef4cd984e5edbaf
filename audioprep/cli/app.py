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


@app.command()
def tokenize(
    source: Sources,
    out: Annotated[Path, typer.Option(help="Folder of the shard set.")],
    codec: Annotated[str, typer.Option(help="Name of the encoder; `audioprep doctor` lists them.")] = "mel-rvq",
    weights: Annotated[Path | None, typer.Option(help="The encoder's weights. Default: its own.")] = None,
    num_codebooks: Annotated[int | None, typer.Option(min=1, help="Use only the first so many.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the encoder's own.")
    ] = None,
    format: Annotated[str, typer.Option(help="parquet or webdataset.")] = "parquet",
    splits: Annotated[str, typer.Option(help="Shares, by hash of the content.")] = "train=1.0",
    shard_mb: Annotated[int, typer.Option(min=1, help="Size of a shard before compression, in MiB.")] = 512,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one a CPU core, or one a GPU.")] = 0,
    device: Device = "auto",
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Inputs a part: what a crash loses. Default: up to 512.")
    ] = None,
    limit: Limit = None,
    check: Annotated[str, typer.Option(help="How to check what is done already: size or sha256.")] = "size",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try the failed inputs again.")] = False,
    isolated: Annotated[
        bool,
        typer.Option("--isolated", help="Decode each file in its own process: for files of unknown origin."),
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn audio of any format into token shards.

    Beside NAME.wav may lie NAME.txt (tags), NAME.lyrics, and NAME.json (tags, lyrics, prompt, license, source, …).

    Example: audioprep tokenize ~/music --out shards --splits train=0.98,validation=0.02
    """
    options = _settings(locals())
    del options["setting"]
    from audioprep.shards.split import parse_splits

    options["splits"] = _guarded(lambda: parse_splits(splits))
    options["codec_settings"] = _guarded(lambda: _key_values(setting or []))
    _run("tokenize", options, dry_run, json, quiet)


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
    _run("fit", _settings(locals()), dry_run, json, quiet)


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
def verify(out: ShardSet, json: Json = False, quiet: Quiet = False) -> None:
    """Check a shard set: checksums, columns, counts, token ranges. Exit code 1 where something is wrong."""
    _run("verify", {"out": out}, False, json, quiet)


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
