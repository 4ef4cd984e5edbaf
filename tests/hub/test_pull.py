"""`audioprep pull` against a server on loopback, and what else reads a repository that was pushed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_helpers import make_set, pushed, tree
from hub_server import HubServer

from audioprep.cli.console import QuietConsole
from audioprep.commands import inspect, pull, verify
from audioprep.errors import SystemFault, UsageError
from audioprep.shards.dataset import open_dataset
from audioprep.shards.loader import ShardLoader
from audioprep.shards.tables import read_tables

GET = r"GET /datasets/alice/songs/resolve/.*/data/"


def pulled(out: Path, repository: str = "alice/songs", **settings: Any) -> dict[str, Any]:
    wanted = {"out": out, "repository": repository} | settings
    return pull.run(pull.Settings.model_validate(wanted), QuietConsole())


def problems(out: Path) -> list[str]:
    return verify.run(verify.Settings.model_validate({"out": out}), QuietConsole())["problems"]


def ids(out: Path) -> list[str]:
    loader = ShardLoader(out, split="train", batch_size=3, shuffle=False)
    return [item for batch in loader for item in batch["id"]]


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_what_was_pushed_comes_back(hub: HubServer, tmp_path: Path, storage: Any) -> None:
    made = make_set(tmp_path / "made", 3, storage=storage)
    (made / "phonemes.vocab.txt").write_text("a\n")
    pushed(made)
    out = tmp_path / "out"
    summary = pulled(out)
    assert (summary["rows"], summary["splits"]) == (12, {"test": 4, "train": 8})
    there, before = tree(out), tree(made)
    assert there.keys() == {path for path in before if not path.startswith(".")} - {"failures.parquet"}
    assert {path for path in there if there[path] != before[path]} == {"README.md"}
    assert problems(out) == []
    assert ids(out) == ids(made)
    assert inspect.run(inspect.Settings.model_validate({"out": out}), QuietConsole())["rows"] == 12

    hub.forget()
    pulled(out)
    assert hub.requests(GET) == []


def test_a_grown_set_brings_what_is_new(hub: HubServer, tmp_path: Path) -> None:
    made, out = make_set(tmp_path / "made", 2, last_rows=2), tmp_path / "out"
    pushed(made, failures=True)
    pulled(out)
    assert (out / "failures.parquet").exists()
    pushed(make_set(made, 3))
    hub.forget()
    pulled(out)
    assert len(hub.requests(GET)) == 2
    assert problems(out) == []
    assert not (out / "failures.parquet").exists()  # it is no longer there either
    pushed(make_set(tmp_path / "small", 1))
    pulled(out)
    assert [path.name for path in (out / "data").iterdir()] == ["test-00000.parquet"]


def test_one_split(hub: HubServer, tmp_path: Path) -> None:
    pushed(make_set(tmp_path / "made", 3), failures=True)
    out = tmp_path / "out"
    assert pulled(out, split="train")["rows"] == 8
    assert sorted(path.name for path in (out / "data").iterdir()) == ["train-00001.parquet", "train-00002.parquet"]
    assert problems(out) == []
    with pytest.raises(UsageError, match="has no split trian. Did you mean train"):
        pulled(tmp_path / "other", split="trian")


def test_a_torn_download_goes_on(hub: HubServer, tmp_path: Path) -> None:
    made, out = make_set(tmp_path / "made", 4), tmp_path / "out"
    pushed(made)
    hub.faults = lambda request: 403 if request.startswith(("GET", "HEAD")) and "train-00003" in request else None
    with pytest.raises(UsageError):
        pulled(out)
    assert not (out / "dataset.json").exists()
    had = {path.name for path in (out / "data").iterdir()}
    hub.faults = lambda request: None
    hub.forget()
    pulled(out)
    fetched = {request.rpartition("/")[2] for request in hub.requests(GET)}
    assert fetched == {path.name for path in (made / "data").iterdir()} - had
    assert problems(out) == []


def test_a_folder_of_something_else(hub: HubServer, tmp_path: Path) -> None:
    made = make_set(tmp_path / "made", 1)
    pushed(made)
    with pytest.raises(UsageError, match="a shard set was made here"):
        pulled(made)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        pulled(tmp_path / "other")
    assert tree(tmp_path / "other") == {"thesis.tex": b"mine"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../data/train-00000.parquet", "names a shard '../data"),
        ("data/../../train-00000.parquet", "names a shard"),
        ("/data/train-00000.parquet", "names a shard"),
        ("data/train-00000.tar", "names a shard"),
        ("data/test-00000.parquet", "names a shard"),
        ("data/train-00000.parquet\n", "names a shard"),
        ("data/train-00009.parquet", "lacks data/train-00009.parquet"),
        (7, "shards.0.path"),
    ],
)
def test_a_repository_is_not_trusted(hub: HubServer, tmp_path: Path, path: Any, message: str) -> None:
    made, out = make_set(tmp_path / "made", 2), tmp_path / "deep" / "out"
    pushed(made)
    repo = hub.repos["alice/songs"]
    files = repo.files()
    description = json.loads(files["dataset.json"])
    description["shards"] = [description["shards"][1] | {"path": path}]
    files["dataset.json"] = json.dumps(description).encode()
    files[str(path)] = files["data/train-00001.parquet"] if "9" not in str(path) else b""
    if "9" in str(path):
        del files[str(path)]
    repo.commit("main", files, "by someone")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        pulled(out)
    assert tree(tmp_path) == before


def test_contents_are_checked(hub: HubServer, tmp_path: Path) -> None:
    pushed(make_set(tmp_path / "made", 2))
    repo = hub.repos["alice/songs"]
    repo.commit("main", repo.files() | {"data/train-00001.parquet": b"PAR1 of another"}, "by someone")
    with pytest.raises(UsageError, match=r"data/train-00001.parquet is not what its dataset.json says"):
        pulled(tmp_path / "out")
    assert not (tmp_path / "out" / "data" / "train-00001.parquet").exists()


def test_repositories_that_are_none(hub: HubServer, tmp_path: Path) -> None:
    hub.add("alice/songs", files={"train.csv": b"a,b"})
    with pytest.raises(UsageError, match=r"holds no dataset.json"):
        pulled(tmp_path / "out")
    with pytest.raises(UsageError, match="alice/sings: there is no such data set"):
        pulled(tmp_path / "out", "alice/sings")
    with pytest.raises(UsageError, match="has no such branch"):
        pulled(tmp_path / "out", "alice/songs@v9")
    hub.close()
    with pytest.raises(SystemFault, match="cannot download it"):
        pulled(tmp_path / "out")
    assert not (tmp_path / "out").exists()


READ = """
import json
from datasets import load_dataset
for name in ("alice/songs", "alice/tars"):
    for streaming in (False, True):
        found = []
        for row in load_dataset(name, split="train", streaming=streaming):
            said = row.get("json", row)
            tokens = row["audio_tokens.npy" if "json" in row else "audio_tokens"]
            found.append([said["id"], said["license"], said["lyrics"], [[int(id) for id in frame] for frame in tokens]])
        print(json.dumps(found))
"""


def test_datasets_reads_what_was_pushed(hub: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
    """Downloaded, and as a stream."""
    made = make_set(tmp_path / "made", 3)
    pushed(made)
    pushed(make_set(tmp_path / "tars", 3, storage="webdataset"), "alice/tars")
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=environment | {"USE_TORCH": "0", "USE_TF": "0", "USE_JAX": "0"},  # torch's import takes seconds
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dataset = open_dataset(made)
    expected = [
        [row["id"], row["license"], row["lyrics"], row["audio_tokens"]]
        for shard in dataset.shards("train")
        for table in read_tables(dataset, shard)
        for row in table.to_pylist()
    ]
    assert len(expected) == 8
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected] * 4


LOAD = """
import json
from audioprep.shards.loader import ShardLoader
for name in ("alice/songs", "alice/songs@v1"):
    batches = ShardLoader(f"hf://datasets/{name}", batch_size=3, shuffle=False, num_workers=1)
    print(json.dumps([id for batch in batches for id in batch["id"]]))
"""


def test_the_loader_reads_what_was_pushed(hub: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
    made = make_set(tmp_path / "made", 2)
    pushed(made, revision="v1")
    pushed(make_set(tmp_path / "made", 3))
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=environment | {"AUDIOPREP_CACHE": str(tmp_path / "kept")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dataset = open_dataset(made)
    ids = [table.column("id").to_pylist() for shard in dataset.shards("train") for table in read_tables(dataset, shard)]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [ids[0] + ids[1], ids[0]]
