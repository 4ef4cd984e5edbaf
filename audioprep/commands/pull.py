"""`audioprep pull`: a shard set from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.hub.client import Repository, open_hub
from audioprep.hub.pull import Plan, fetch, prepare


class Settings(CommandSettings):
    """Settings of `audioprep pull`."""

    repository: str = Field(description="Data set on the Hub: org/name or org/name@revision.")
    out: Path = Field(description="Folder for the shard set: new, empty, or of an earlier pull.")
    split: str | None = Field(None, description="Only this split. Default: all.")


def run(settings: Settings, console: Console) -> Summary:
    """Downloads what is not there yet, and checks it against `dataset.json`.

    Raises:
        UsageError: see `audioprep.hub.pull.prepare` and `fetch`.
        SystemFault: likewise.
    """
    api = open_hub()
    plan = prepare(api, Repository.parse(settings.repository), settings.out, settings.split)
    with console.counter("Downloading MB") as counter:
        fetch(api, plan, settings.out, lambda done, total: counter(done // 10**6, total // 10**6))
    return _summary(settings, plan)


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would download, and writes nothing."""
    return _summary(settings, prepare(open_hub(), Repository.parse(settings.repository), settings.out, settings.split))


def _summary(settings: Settings, plan: Plan) -> Summary:
    totals = plan.description["totals"]
    return {
        "repository": str(plan.repository),
        "commit": plan.commit,
        "out": str(settings.out),
        "files": len(plan.wanted) + 1,
        "bytes": sum(plan.sizes[path] for path in plan.wanted),
        "rows": totals["rows"],
        "hours": totals["seconds"] / 3600,
        "splits": {name: split["rows"] for name, split in totals["splits"].items()},
    }
