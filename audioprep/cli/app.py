"""The command line of `audioprep`: all its commands, in the order of its help."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer

from audioprep.cli import corpora, encoding, exports, hub, lyrics, shard_sets, symbolic
from audioprep.cli.execute import (
    INTERRUPTED,
    OK,
    USAGE,
    console_for,
    execute,
    finish,
    guarded,
    key_values,
    say_error,
)
from audioprep.cli.options import DryRun, Json, Quiet


def train(
    trainer: Annotated[str, typer.Argument(metavar="NAME", help="A bundled trainer, such as token-lm.")],
    shards: Annotated[str, typer.Argument(metavar="OUT", help="Folder of the shard set, or its URL.")],
    out: Annotated[str, typer.Option(help="Folder for checkpoints and logs, or its URL.")],
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainer's own.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a bundled trainer on a shard set; the same command again goes on from the last checkpoint.

    Several GPUs: torchrun --nproc-per-node 8 -m audioprep train token-lm OUT --out RUN
    """
    settings = guarded(lambda: key_values(setting or []))
    execute("train", {"trainer": trainer, "shards": shards, "out": out, "settings": settings}, dry_run, json, True)


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

        return run_recipe(recipe_path(recipe), setting or [], dry_run, console_for(quiet), report=not json)

    code, summaries = guarded(work)
    finish(code, summaries, json)


def schema() -> None:
    """Print the JSON Schema of recipes, for editors that check YAML."""
    import json

    from audioprep.recipes.model import recipe_model

    typer.echo(json.dumps(recipe_model().model_json_schema(), indent=2, ensure_ascii=False))


def doctor(json: Json = False) -> None:
    """Say what this machine can do, and what to install for the rest."""
    from audioprep.cli.doctor import examine, report

    found = examine()
    finish(OK, found, json, None if json else report(found))


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
            say_error(message)
        sys.exit(USAGE)


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


app = typer.Typer(
    help="Turns audio, scores and lyrics into token shards, and feeds them to trainers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs three times the whole start
    epilog="Exit codes: 0 done, 1 wrong usage or a broken machine, 3 done but some inputs failed (see "
    "failures.parquet), 130 interrupted. The same command again goes on where it stopped.",
)
fit = _group("Fit a codebook to your own audio.")
export = _group("Write the layout that another project's trainer reads.")
for command in (
    encoding.tokenize,
    encoding.encode,
    encoding.import_tokens,
    symbolic.midi,
    corpora.jacappella,
    corpora.make_dummy,
    shard_sets.inspect,
    shard_sets.verify,
    shard_sets.listen,
    shard_sets.dedup,
    shard_sets.fad,
    shard_sets.clap_score,
    hub.push,
    hub.pull,
    hub.retry,
    lyrics.lint,
    lyrics.g2p,
    train,
    run,
    schema,
    doctor,
):
    app.command()(command)
fit.command("mel-rvq")(encoding.fit_mel_rvq)
fit.command("muq-vq")(encoding.fit_muq_vq)
fit.command("midi-bpe")(symbolic.fit_midi_bpe)
export.command("emopia")(exports.export_emopia)
export.command("stable-audio")(exports.export_stable_audio)
export.command("simpletuner")(exports.export_simpletuner)
export.command("songbloom")(exports.export_songbloom)
app.add_typer(fit, name="fit")
app.add_typer(export, name="export")
