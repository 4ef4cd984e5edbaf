"""Brings a shard set from the Hub into a folder. Nothing that a repository says is trusted.

Files arrive in `OUT/.pull`, where a torn download goes on, and move to their place once their sha256 is the one in
`dataset.json`, which itself comes last: a folder with a `dataset.json` is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from audioprep.engine.commit import read_json, sha256_of
from audioprep.errors import UsageError
from audioprep.hub.client import Repository, description_of, download, files_of, hub_errors
from audioprep.hub.files import CARD, DESCRIPTION, FAILURES, is_ours, is_side_file
from audioprep.shards.dataset import SCHEMA_VERSION, SHARD_NAME, Dataset, sums_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ARRIVALS = ".pull"
DOWNLOADS = 8  # files at a time
_MARK = "audioprep-pull.json"

OnBytes = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull brings.

    Attributes:
        repository: with the branch that was asked for.
        commit: that it stood at.
        description: `dataset.json`, of the splits that are pulled.
        wanted: paths in the repository, with the sha256 that each has to have; None: nothing says.
        sizes: bytes of each.
    """

    repository: Repository
    commit: str
    description: dict[str, Any]
    wanted: dict[str, str | None]
    sizes: dict[str, int]


class _Shard(BaseModel):
    path: str
    split: str
    rows: int = Field(ge=0)
    seconds: float
    num_frames: int
    bytes: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Description(BaseModel):
    format: Literal["audioprep"]
    schema_version: int = Field(le=SCHEMA_VERSION)
    storage: Literal["parquet", "webdataset"]
    columns: dict[str, str]
    encoders: dict[str, dict[str, Any]]
    totals: dict[str, Any]
    shards: list[_Shard]


def prepare(api: HfApi, repository: Repository, out: Path, split: str | None) -> Plan:
    """Reads what a repository says of itself; writes nothing.

    Raises:
        UsageError: `out` holds something else; the repository is no shard set, names files that no shard set has, or
            has no such split; see `hub_errors` for the rest.
    """
    _refuse_other(out)
    with hub_errors(repository, "download it"):
        commit = api.repo_info(repository.id, repo_type="dataset", revision=repository.revision).sha
        assert commit
        there = replace(repository, revision=commit)
        sizes = {path: file.size for path, file in files_of(api, there).items()}
        if DESCRIPTION not in sizes:
            raise UsageError(f"{repository}: holds no dataset.json, so it is no shard set that audioprep has pushed")
        description = description_of(api, there)
    dataset = Dataset(out, _checked(repository, description))
    wanted: dict[str, str | None] = {}
    for shard in dataset.shards(split):
        wanted[shard["path"]] = shard["sha256"]
        if dataset.storage == "webdataset":
            wanted[f"index/{PurePosixPath(shard['path']).stem}.parquet"] = None
    wanted |= {path: None for path in sizes if is_side_file(path) or path == CARD}
    if split is None and FAILURES in sizes:
        wanted[FAILURES] = None
    if missing := sorted(wanted.keys() - sizes):
        raise UsageError(f"{repository}: lacks {missing[0]}, which its dataset.json lists: is it being pushed to?")
    return Plan(repository, commit, _of_split(dataset.description, split), wanted, sizes)


def fetch(api: HfApi, plan: Plan, out: Path, on_bytes: OnBytes) -> None:
    """Downloads what is not in `out` yet, checks it, and removes what an earlier pull left that is no longer wanted.

    Args:
        api: the client.
        plan: as `prepare` gives it.
        out: the folder.
        on_bytes: called with the bytes that are there and those of all files.

    Raises:
        UsageError: a file is not what `dataset.json` says.
        SystemFault: the connection, the Hub or the disk fails; the same call goes on where it was.
    """
    arrivals = _arrivals(out, plan.repository)
    (out / DESCRIPTION).unlink(missing_ok=True)  # it comes back when all is there
    done, total = 0, sum(plan.sizes[path] for path in plan.wanted)
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        futures = {pool.submit(_bring, api, plan, path, arrivals, out): path for path in plan.wanted}
        try:
            for future in as_completed(futures):
                future.result()
                done += plan.sizes[futures[future]]
                on_bytes(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for path in _public(out):
        if path not in plan.wanted and path != DESCRIPTION:
            (out / path).unlink()
    text = json.dumps(plan.description, indent=2, ensure_ascii=False) + "\n"
    (arrivals / DESCRIPTION).write_text(text, encoding="utf-8")
    os.replace(arrivals / DESCRIPTION, out / DESCRIPTION)
    shutil.rmtree(arrivals)


def _refuse_other(out: Path) -> None:
    """
    Raises:
        UsageError: the folder holds what no pull has written.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out}: is a file. Choose a folder.")
    if (out / ".audioprep").exists():
        raise UsageError(f"{out}: a shard set was made here. Choose an empty or new folder.")
    names = {path.name for path in out.iterdir()}
    if names and ARRIVALS not in names and (read_json(out / DESCRIPTION) or {}).get("format") != "audioprep":
        raise UsageError(f"{out}: is not empty and holds no shard set. Choose an empty or new folder.")


def _arrivals(out: Path, repository: Repository) -> Path:
    """The folder for what arrives; that of another repository's torn pull is emptied."""
    arrivals = out / ARRIVALS
    if arrivals.exists() and (read_json(arrivals / _MARK) or {}).get("repository") != repository.id:
        shutil.rmtree(arrivals)
    try:
        arrivals.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be created: {error.strerror}. Choose another folder.") from error
    (arrivals / _MARK).write_text(json.dumps({"repository": repository.id}))
    return arrivals


def _checked(repository: Repository, description: dict[str, Any] | None) -> dict[str, Any]:
    """
    Raises:
        UsageError: the description is none, or names files outside of the folder.
    """
    try:
        said = _Description.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{repository}: its dataset.json cannot be read: {where}: {first['msg']}") from error
    suffix = "parquet" if said.storage == "parquet" else "tar"
    for shard in said.shards:
        name = SHARD_NAME.fullmatch(shard.path)
        if name is None or name["split"] != shard.split or name["suffix"] != suffix:
            raise UsageError(f"{repository}: its dataset.json names a shard {shard.path!r}, as audioprep names none")
    assert description
    return description


def _of_split(description: dict[str, Any], split: str | None) -> dict[str, Any]:
    """The description of one split; its failures are those of all, and are left out."""
    if split is None:
        return description
    shards = [shard for shard in description["shards"] if shard["split"] == split]
    sums = sums_of(shards)
    totals = {"inputs": sums["rows"], "failed": 0} | sums | {"splits": {split: sums}}
    return description | {"totals": totals, "shards": shards}


def _bring(api: HfApi, plan: Plan, path: str, arrivals: Path, out: Path) -> None:
    """One file, to its place, unless it is there."""
    target, sha256 = out / path, plan.wanted[path]
    if sha256 and target.is_file() and target.stat().st_size == plan.sizes[path] and sha256_of(target) == sha256:
        return
    with hub_errors(plan.repository, f"download {path}"):
        arrived = download(api, replace(plan.repository, revision=plan.commit), path, arrivals)
    if sha256 and sha256_of(arrived) != sha256:
        arrived.unlink()
        raise UsageError(
            f"{plan.repository}: {path} is not what its dataset.json says. If the set is being pushed to, pull again "
            "later; otherwise tell its owner."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(arrived, target)


def _public(out: Path) -> Iterator[str]:
    for path in (*out.glob("*"), *out.glob("data/*"), *out.glob("index/*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and is_ours(name):
            yield name
