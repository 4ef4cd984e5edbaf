"""Shard sets behind URLs: what they give is what they give here, each shard is fetched once, and as it is described."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faulty_proxy import FaultyProxy, at_random
from loader_helpers import SCHEMA, make_items, write_parquet_set, write_tar_set
from store_files import put
from typer.testing import CliRunner
from upath import UPath

from audioprep.cli.app import app
from audioprep.errors import UsageError
from audioprep.shards import cache
from audioprep.shards.dataset import open_dataset
from audioprep.shards.loader import ShardLoader
from audioprep.shards.tables import read_tables
from audioprep.storage import places

runner = CliRunner()
ITEMS = make_items(90)
SHARDS = [ITEMS[:30], ITEMS[30:60], ITEMS[60:]]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIOPREP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept/shards"


Sets = Callable[[str], tuple[Path, str]]


@pytest.fixture
def sets(tmp_path: Path, bucket: str) -> Sets:
    """Gives a folder and a URL of the same shards, stored one way or the other."""

    def make(storage: str) -> tuple[Path, str]:
        write, name = {"parquet": (write_parquet_set, "set #1"), "webdataset": (write_tar_set, "tars")}[storage]
        folder = write(tmp_path / name, SHARDS)
        failures = pa.table({"uri": [], "error": []}, pa.schema({"uri": pa.string(), "error": pa.string()}))
        pq.write_table(failures, folder / "failures.parquet")
        return folder, put(folder, f"{bucket}/sets/{name}")

    return make


def batches(path: str | Path, **settings: Any) -> list[dict[str, Any]]:
    settings = {"batch_size": 7, "buffer_size": 20, "seed": 3} | settings
    return list(ShardLoader(path, **settings))


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["id"] == other["id"]
        assert torch.equal(one["audio_tokens"], other["audio_tokens"])


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_the_loader_gives_the_same(sets: Sets, storage: str, kept: Path):
    folder, url = sets(storage)
    expected = batches(folder, bucket=True, max_frames=9)
    assert_same(batches(url, bucket=True, max_frames=9, num_workers=2), expected)
    assert len(list(kept.glob("*/data/*"))) == 3
    for name in ("data", "index"):  # no request is needed but for dataset.json
        for path in UPath(url, use_listings_cache=False).joinpath(name).glob("*"):
            path.unlink()
    assert_same(batches(url, bucket=True, max_frames=9), expected)


def test_only_what_is_read_is_fetched_and_a_grown_set_fetches_what_is_new(sets: Sets, kept: Path, tmp_path: Path):
    _, url = sets("parquet")
    loader = iter(ShardLoader(url, batch_size=5, buffer_size=5, shuffle=False))
    next(loader)
    loader.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(list(kept.glob("*/data/*"))) == 1 and len(list(kept.glob("*/footer"))) == 3
    batches(url)
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*/data/*")}
    grown = write_parquet_set(tmp_path / "grown", [*SHARDS, make_items(10, seed=9)])
    put(grown, url)
    assert sum(len(batch["id"]) for batch in batches(url)) == 100
    after = {path: path.stat().st_mtime_ns for path in kept.glob("*/data/*")}
    assert len(after) == 4 and before.items() <= after.items()


def test_many_at_once_fetch_a_shard_once(sets: Sets, monkeypatch: pytest.MonkeyPatch):
    folder, url = sets("parquet")
    dataset = open_dataset(url)
    fetched: list[Path] = []
    download = cache.download
    monkeypatch.setattr(cache, "download", lambda *args: (fetched.append(args[0]), download(*args))[1])
    shard = dataset.shard(dataset.shards()[0])
    threads = [threading.Thread(target=lambda: shard.path) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1 and shard.path.read_bytes() == (folder / "data/train-00000.parquet").read_bytes()


def test_a_bad_network_gives_the_same(sets: Sets, bad_network: FaultyProxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    folder, url = sets("webdataset")
    bad_network.choose = at_random(0.3, seed=1, faults=("500", "503", "torn", "lost"))
    assert_same(batches(url), batches(folder))
    assert sum(count for fault, count in bad_network.seen.items() if fault != "well") > 2


def damaged(url: str) -> None:
    place = UPath(f"{url}/data/train-00001.parquet", use_listings_cache=False)
    place.write_bytes(place.read_bytes()[:-9] + b"x" * 9)


def removed(url: str) -> None:
    UPath(f"{url}/data/train-00001.parquet", use_listings_cache=False).unlink()


@pytest.mark.parametrize(("harm", "said"), [(damaged, "cannot be read|its sha256 is not"), (removed, "is not there")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_not_as_described(sets: Sets, harm: Callable[[str], None], said: str, workers: int):
    _, url = sets("parquet")
    harm(url)
    with pytest.raises(UsageError, match=f"train-00001.parquet: .*{said}"):
        batches(url, num_workers=workers)


@pytest.mark.parametrize("hostile", [{"path": "data/../../../x.parquet"}, {"sha256": "../" * 20}])
def test_a_description_does_not_choose_where_copies_are_kept(sets: Sets, hostile: dict[str, str]):
    _, url = sets("parquet")
    place = UPath(f"{url}/dataset.json", use_listings_cache=False)
    description = json.loads(place.read_text())
    description["shards"][0] |= hostile
    place.write_text(json.dumps(description))
    with pytest.raises(UsageError, match="as no shard set has"):
        open_dataset(url)


def test_a_set_that_is_not_there(bucket: str):
    for url in (f"{bucket}/nothing", "s3://no-such-bucket-here/set"):
        with pytest.raises(UsageError, match="holds no dataset.json"):
            open_dataset(url)


def test_no_room_says_where_to_make_some(sets: Sets, monkeypatch: pytest.MonkeyPatch):
    from audioprep.storage import transfer

    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: transfer.shutil._ntuple_diskusage(9, 5, 4))
    with pytest.raises(UsageError, match="AUDIOPREP_CACHE"):
        batches(sets("parquet")[1])


def test_what_was_not_used_for_long_makes_room(sets: Sets, kept: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = open_dataset(sets("parquet")[1])
    shards = [dataset.shard(entry) for entry in dataset.shards()]
    for age, shard in zip((5000, 9000), shards[:2], strict=True):
        then = shard.path.stat().st_mtime - age
        os.utime(shard.path, (then, then))
    monkeypatch.setenv("AUDIOPREP_CACHE_GB", str(2.5 * shards[0].path.stat().st_size / 1e9))
    assert shards[2].path.is_file()
    assert {path.parent.parent.name for path in kept.glob("*/data/*")} == {shards[0].sha256, shards[2].sha256}


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_commands_take_the_url(sets: Sets, storage: str):
    folder, url = sets(storage)
    found = [say("inspect", str(out)) for out in (folder, url)]
    assert found[0] | {"out": ""} == found[1] | {"out": ""} and found[1]["rows"] == 90
    assert say("verify", url)["problems"] == []
    UPath(f"{url}/data/stray.parquet", use_listings_cache=False).write_bytes(b"x")
    assert say("verify", url, code=1)["problems"] == ["data/stray.parquet: not in dataset.json"]
    assert "copy it first" in runner.invoke(app, ["verify", url, "--for", "simpletuner"]).output


def say(*words: str, code: int = 0) -> dict[str, Any]:
    result = runner.invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_datasets_streams_it(sets: Sets, bucket: str):
    datasets = pytest.importorskip("datasets")
    url = put(sets("parquet")[0], f"{bucket}/plain")
    rows = datasets.load_dataset("parquet", data_files=f"{url}/data/*.parquet", streaming=True, split="train")
    assert [row["id"] for row in rows] == [item["id"] for item in ITEMS]


def test_tables_of_a_url(sets: Sets):
    for storage in ("parquet", "webdataset"):
        _, url = sets(storage)
        dataset = open_dataset(url)
        tables = [table for entry in dataset.shards() for table in read_tables(dataset, entry)]
        assert pa.concat_tables(tables).column("id").to_pylist() == [item["id"] for item in ITEMS]
        assert tables[0].schema.names == SCHEMA.names
        assert json.loads(dataset.file("dataset.json").read_text()) == dataset.description
