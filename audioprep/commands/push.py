"""`audioprep push`: a shard set to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from audioprep.commands.base import CommandSettings, Console, Summary
from audioprep.encoders.registry import weights_of
from audioprep.errors import UsageError
from audioprep.hub.client import Repository, open_hub
from audioprep.hub.files import CARD, PublicFile, public_files
from audioprep.hub.licences import Survey, license_metadata, restriction, survey
from audioprep.hub.push import Changes, Target, compare, look, send
from audioprep.shards.card import Published, data_card
from audioprep.shards.dataset import Dataset, open_dataset
from audioprep.storage.fields import PlaceField

Allowed = Literal["restricted", "unlicensed", "paths"]


class Settings(CommandSettings):
    """Settings of `audioprep push`."""

    out: PlaceField = Field(description="Folder of the shard set, or its URL.")
    repository: str = Field(description="Data set on the Hub: org/name. It is made where it is not there.")
    public: bool = Field(False, description="Everyone may read it. Default: private.")
    revision: str | None = Field(None, description="Branch, which is made where it is not there. Default: main.")
    create_pr: bool = Field(False, description="Open a pull request instead of changing the branch.")
    failures: bool = Field(False, description="Send failures.parquet too: paths and errors of what is not in the set.")
    card: bool = Field(True, description="Write the card anew; otherwise one that is there is left as it is.")
    allow: list[Allowed] = Field([], description="Send all the same: restricted, unlicensed, paths.")


def run(settings: Settings, console: Console) -> Summary:
    """Sends what the repository does not have, and checks what it has then against `dataset.json`.

    Raises:
        UsageError: no shard set; items that must not be passed on; see `audioprep.hub.push.send` for the rest.
        SystemFault: see there.
    """
    push = _prepare(settings)
    if problems := list(_problems(settings, push)):
        raise UsageError(f"{settings.out}: is not pushed:\n" + "\n".join(f"- {problem}" for problem in problems))
    with console.counter("Uploading MB") as counter:
        pushed = send(
            open_hub(),
            push.target,
            push.changes,
            private=not settings.public,
            create_pr=settings.create_pr,
            message=f"Push {push.dataset.totals['rows']} items with audioprep",
            on_bytes=lambda done, total: counter(done // 10**6, total // 10**6),
        )
    return _summary(settings, push) | {"commit": pushed.commit, "url": pushed.url}


def plan(settings: Settings, console: Console) -> Summary:
    """Says what `run` would send, and sends nothing."""
    push = _prepare(settings)
    return _summary(settings, push) | {
        "files": [
            *(f"send    {file.size:>14,}  {file.path}" for file in push.changes.send),
            *(f"there   {file.size:>14,}  {file.path}" for file in push.changes.keep),
            *(f"delete  {'':>14}  {path}" for path in push.changes.delete),
        ],
        "problems": list(_problems(settings, push)),
    }


@dataclass(frozen=True, slots=True)
class _Push:
    dataset: Dataset
    survey: Survey
    paths: list[str]
    target: Target
    changes: Changes


def _prepare(settings: Settings) -> _Push:
    repository = Repository.parse(settings.repository)
    if repository.revision and settings.revision:
        raise UsageError(f"{settings.repository}: names a branch, and so does --revision: leave one of them out")
    repository = Repository(repository.id, repository.revision or settings.revision)
    dataset = open_dataset(settings.out)
    files = list(public_files(dataset, settings.failures))
    try:
        found = survey(dataset)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{settings.out}: a shard cannot be read: {error}. `audioprep verify` says which.") from error
    target = look(open_hub(), repository)
    if settings.card or CARD not in target.files:
        card = _card(dataset, repository, found, settings.failures)
        files.insert(-1, PublicFile(CARD, card, len(card)))  # before the description, which comes last
    paths = [found.local_example] if found.local_paths else []
    paths += [text for text in _texts(dataset.description["encoders"]) if text.startswith("/")]
    return _Push(dataset, found, paths, target, compare(target, files))


def _card(dataset: Dataset, repository: Repository, found: Survey, failures: bool) -> bytes:
    weights = {
        column: weights_of(spec["encoder"], spec["encoder_settings"]) or ""
        for column, spec in dataset.encoders.items()
        if "encoder" in spec
    }
    published = Published(
        repository=repository.id,
        revision=repository.revision,
        licenses=found.licenses,
        license_metadata=license_metadata(list(found.licenses)),
        weights={column: Path(name).name if name.startswith("/") else name for column, name in weights.items()},
        failures=failures,
    )
    return data_card(dataset.description, published).encode()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _problems(settings: Settings, push: _Push) -> Iterator[str]:
    """Why a set should not go where it is to go, as far as nobody has said that it may."""
    target, found = push.target, push.survey
    if target.private is not None and target.private == settings.public:
        is_now, remedy = ("private", "leave --public out") if target.private else ("public", "add --public")
        yield (
            f"{target.repository.id} is {is_now} on the Hub: {remedy} if that is meant, or change it in the "
            "repository's settings there"
        )
    if found.restricted and "restricted" not in settings.allow:
        for name, examples in found.restricted.items():
            yield (
                f"the licence of {found.licenses[name]} items {restriction(name)}: {name!r}, such as "
                f"{', '.join(examples)}. Leave them out, or say --allow restricted if you have the right"
            )
    if settings.public and found.unlicensed and "unlicensed" not in settings.allow:
        yield (
            f"{found.unlicensed} items state no licence. Say it in the manifest or in NAME.json (license), or "
            "--allow unlicensed if you have the right to publish them"
        )
    if settings.public and push.paths and "paths" not in settings.allow:
        yield (
            f"paths of this machine would be published: {found.local_paths} items have one in `uri`, and dataset.json "
            f"may, such as {push.paths[0]}. Say --allow paths if everyone may see them"
        )


def _summary(settings: Settings, push: _Push) -> Summary:
    found, changes = push.survey, push.changes
    return {
        "out": str(settings.out),
        "repository": str(push.target.repository),
        "visibility": "public" if settings.public else "private",
        "rows": push.dataset.totals["rows"],
        "hours": push.dataset.totals["seconds"] / 3600,
        "licenses": {name or "not stated": rows for name, rows in found.licenses.most_common()},
        "restricted": found.restricted_items,
        "local_paths": f"{push.paths[0]} and such: readers see them" if push.paths else "none",
        "new_files": len(changes.send),
        "new_bytes": sum(file.size for file in changes.send),
        "unchanged_files": len(changes.keep),
        "deleted_files": len(changes.delete),
    }
