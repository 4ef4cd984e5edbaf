"""Runs one command, or the commands of a recipe one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from audioprep.cli.execute import FAILED_INPUTS, OK, USAGE
from audioprep.cli.report import describe
from audioprep.commands.base import Console, Summary
from audioprep.errors import UsageError, nearest
from audioprep.recipes.load import load_recipe
from audioprep.recipes.model import COMMANDS, command_settings


def run_command(command: str, options: dict[str, Any], dry_run: bool, console: Console) -> tuple[int, Summary]:
    """Runs a command with the options of the command line; gives its exit code and summary.

    Raises:
        UsageError: an option has a value that the command does not take.
    """
    module = COMMANDS[command]
    try:
        settings = module.Settings(**options)
    except ValidationError as error:
        raise UsageError(_explain(error)) from error
    summary = module.plan(settings, console) if dry_run else module.run(settings, console)
    return _exit_code(summary), summary


def run_recipe(
    path: Path, settings: Sequence[str], dry_run: bool, console: Console, report: bool
) -> tuple[int, dict[str, Summary] | None]:
    """Runs a recipe's stages in order; with `report`, each summary is printed as soon as it is there.

    A later stage still runs where an earlier one had failed inputs; where one found a fault, the rest does not.
    """
    recipe = load_recipe(path, settings)
    summaries: dict[str, Summary] = {}
    worst = OK
    for number, stage in enumerate(recipe.stages, start=1):
        module = COMMANDS[stage.stage]
        act = module.plan if dry_run else module.run
        if report:
            typer.secho(f"[{number}/{len(recipe.stages)}] {stage.name}", bold=True)
        try:
            summary = act(command_settings(stage), console)
        except UsageError as error:
            if not dry_run or number == 1:
                raise
            summary = {"not_yet": f"needs what a stage above makes: {error}"}
        summaries[stage.name] = summary
        if report:
            typer.echo(describe(summary) + "\n")
        worst = _exit_code(summary) or worst
        if worst == USAGE:
            break
    return worst, None if report else summaries


def _exit_code(summary: Summary) -> int:
    if summary.get("problems"):
        return USAGE
    return FAILED_INPUTS if summary.get("failed") else OK


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    option = "--" + str(first["loc"][0]).replace("_", "-")
    message = f"{option}: {first['msg']}"
    expected = first.get("ctx", {}).get("expected")
    if first["type"] == "literal_error" and expected:
        choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
        given = str(first["input"])
        message = f"{option} {given}: there is {', '.join(choices)}.{nearest(given, choices)}"
    return message
