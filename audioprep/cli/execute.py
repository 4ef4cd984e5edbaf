"""Runs what a command asks for: errors become one message and an exit code, the summary goes to stdout."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import typer

from audioprep.errors import SYSTEM_ERRNOS, AudioprepError

OK, USAGE, FAILED_INPUTS, INTERRUPTED = 0, 1, 3, 130


def execute(
    command: str,
    options: dict[str, Any],
    dry_run: bool,
    json: bool,
    quiet: bool,
    text: Callable[[dict[str, Any]], str] | None = None,
) -> None:
    """Runs a command; `text` makes what is printed of its summary, where that is more than its lines."""

    def work() -> tuple[int, Any]:
        from audioprep.cli.recipe import run_command

        return run_command(command, options, dry_run, console_for(quiet))

    code, summary = guarded(work)
    finish(code, summary, json, text(summary) if text else None)


def settings_of(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options without those that say how to show its work."""
    return {name: value for name, value in options.items() if name not in ("json", "quiet", "dry_run")}


def guarded(work: Any) -> Any:
    try:
        return work()
    except AudioprepError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("audioprep"):
            raise
        say_error(f"this needs the package {error.name}. `audioprep doctor` says which extra brings it.")
        raise typer.Exit(USAGE) from error
    except OSError as error:
        if error.errno not in SYSTEM_ERRNOS:
            raise
        say_error(f"{error}. Mend that and run the same command again.")
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt as error:
        say_error("interrupted; the same command goes on from what is done")
        raise typer.Exit(INTERRUPTED) from error


def say_error(message: str) -> None:
    typer.secho(f"audioprep: {message}", fg="red", err=True)


def console_for(quiet: bool) -> Any:
    from audioprep.cli.console import QuietConsole, TerminalConsole

    return QuietConsole() if quiet else TerminalConsole()


def key_values(settings: list[str]) -> dict[str, Any]:
    import yaml

    from audioprep.errors import UsageError

    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write it like --set steps=500")
        values[key] = yaml.safe_load(value)
    return values


def finish(code: int, summary: Any, json: bool, text: str | None = None) -> None:
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
