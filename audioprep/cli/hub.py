"""The commands that send shard sets to the Hub, bring them from it, and try failed inputs again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioprep.cli.execute import execute, settings_of
from audioprep.cli.options import Device, DryRun, Isolated, Json, Quiet, ShardSet, Workers


def push(
    out: ShardSet,
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="Data set on the Hub: org/name.")],
    public: Annotated[bool, typer.Option("--public", help="Everyone may read it. Default: private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch; it is made where it is not there. Default: main.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of changing the branch.")
    ] = False,
    failures: Annotated[
        bool, typer.Option(help="Send failures.parquet too: paths and errors of inputs that are not in the set.")
    ] = False,
    card: Annotated[bool, typer.Option(help="Write README.md anew, or leave the one that is there as it is.")] = True,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Send all the same: restricted (licences that forbid to pass items on), unlicensed (to a public "
            "repository), paths (of this machine, to a public repository). Can be repeated."
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send a shard set to the Hugging Face Hub, and check it there. Only what the repository lacks is sent.

    Log in with `hf auth login`, or set HF_TOKEN. The same command again goes on where it was torn.

    Example: audioprep push shards org/name --dry-run

    Example: audioprep push shards org/name --revision v2 --create-pr
    """
    execute("push", settings_of(locals()) | {"allow": allow or []}, dry_run, json, quiet)


def pull(
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="Data set on the Hub: org/name or org/name@revision.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder: new, empty, or of an earlier pull.")],
    split: Annotated[str | None, typer.Option(help="Only this split. Default: all.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a shard set from the Hugging Face Hub, and check each file. Only what OUT lacks is downloaded.

    Example: audioprep pull org/name@v2 shards --split train
    """
    execute("pull", settings_of(locals()), dry_run, json, quiet)


def retry(
    out: ShardSet,
    workers: Workers = 0,
    device: Device = "auto",
    isolated: Isolated = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try the failed inputs of a shard set again, with the settings that it was made with.

    Example: audioprep retry shards --isolated
    """
    execute("retry", settings_of(locals()), dry_run, json, quiet)
