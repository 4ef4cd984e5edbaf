"""A shard set in a store: the bytes of one on a disk, whatever happens on the way."""

import json
import os
import re
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_helpers import Beside, all_bytes, data_bytes, make_corpus, make_job, processed, run_job
from faulty_proxy import Fault, FaultyProxy, at_random
from upath import UPath

from audioprep.cli.console import QuietObserver
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.layout import Layout
from audioprep.engine.run import Options, preview, recorded_stages
from audioprep.errors import SystemFault, UsageError
from audioprep.storage import places
from audioprep.storage.files import read_bytes
from audioprep.storage.lock import locked
from audioprep.storage.places import to_place


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run_job(make_job(corpus, out))
    return all_bytes(out)


@pytest.fixture
def out(bucket: str) -> UPath:
    place = to_place(f"{bucket}/sets/a set")
    assert isinstance(place, UPath)
    return place


def test_the_bytes_are_those_of_a_local_run(corpus: Path, expected: dict[str, bytes], out: UPath):
    found = preview(make_job(corpus, out), Options(part_size=4), QuietObserver())
    assert (found.inputs, found.new_inputs, found.parts) == (20, 20, 0)
    assert list(out.fs.find(out.path)) == []
    run_job(make_job(corpus, out), workers=2)
    assert all_bytes(out) == expected
    assert not any("lock" in name or "scratch" in name for name in out.fs.find(out.path))
    assert not Layout(out).scratch.exists()

    processed(corpus)
    run_job(make_job(corpus, out), check="sha256")
    assert processed(corpus) == []
    assert all_bytes(out) == expected
    assert recorded_stages(out).keys() == {"text", "digest"}
    found = preview(make_job(corpus, out), Options(), QuietObserver())
    assert (found.inputs, found.new_inputs, found.parts, found.parts_done) == (20, 0, 5, 5)


def test_growth_another_cut_damage_and_overwrite(tmp_path: Path, out: UPath):
    corpus = make_corpus(tmp_path / "corpus", items=10)
    run_job(make_job(corpus, out))
    before = data_bytes(out)
    run_job(make_job(corpus, out, shards=ShardSettings("webdataset")))
    assert data_bytes(out).keys() == {"data/train-00000.tar", "index/train-00000.parquet"}
    run_job(make_job(corpus, out))
    assert data_bytes(out) == before
    processed(corpus)

    damaged = sorted((out / ".audioprep/columns").glob("digest*/*.parquet"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    shard = min((out / "data").iterdir(), key=str)
    shard.unlink()
    run_job(make_job(corpus, out), check="sha256")
    assert processed(corpus) == ["004.wav", "005.wav", "006.wav", "007.wav"]
    assert data_bytes(out) == before

    make_corpus(corpus, items=8, first=90)
    assert run_job(make_job(corpus, out))["rows"] == 18
    assert processed(corpus) == [f"0{n}.wav" for n in range(90, 98)]

    (out / "notes.txt").write_text("mine")
    (corpus / "000.wav").unlink()
    assert run_job(make_job(corpus, out), overwrite=True)["inputs"] == 17
    assert (out / "notes.txt").read_text() == "mine"


def test_what_is_not_ours_is_left_alone(corpus: Path, bucket: str, out: UPath):
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and was not made by audioprep"):
        run_job(make_job(corpus, out), overwrite=True)
    with pytest.raises(UsageError, match="there is no such bucket"):
        run_job(make_job(corpus, to_place("s3://no-such-bucket/out")))


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (r"columns/digest.*/00001\.parquet", "lost"), (r"columns/digest.*/00002\.json", "503"),
        (r"dataset\.json", "lost"),
    ],
)  # fmt: skip
def test_killed_and_resumed(
    key: str, fault: Fault, corpus: Path, expected: dict[str, bytes], out: UPath, bad_network: FaultyProxy,
    make_older: Callable[[UPath, float], None],
):  # fmt: skip
    """Killed before the upload of a file reaches the store (503), or after it (lost)."""
    running: list[Beside] = []

    def kill(method: str, path: str) -> Fault | None:
        if method != "PUT" or not re.search(key, path) or len(running) > 1:
            return None
        assert running[0].process.pid
        os.kill(running[0].process.pid, signal.SIGKILL)
        return fault

    bad_network.choose = kill
    running.append(Beside(corpus, out))
    assert running[0].result() == signal.SIGKILL
    bad_network.choose = lambda method, path: None

    with pytest.raises(UsageError, match=rf"another run is writing here \(process {running[0].process.pid} on"):
        run_job(make_job(corpus, out))
    make_older(out / ".audioprep/lock", 100)
    run_job(make_job(corpus, out))
    assert all_bytes(out) == expected


def test_two_runs_at_once(corpus: Path, expected: dict[str, bytes], out: UPath, tmp_path: Path):
    for place in (tmp_path / "out", out):
        results = [run.result() for run in (Beside(corpus, place), Beside(corpus, place))]
        said = [result for result in results if isinstance(result, str)]
        assert all(re.match(r"UsageError: .*another run is writing here \(process \d+ on", text) for text in said)
        assert len(said) < 2 and all_bytes(place) == expected
    with locked(out / ".audioprep/lock"), pytest.raises(UsageError, match=f"process {os.getpid()} on"):
        run_job(make_job(corpus, out))


def test_a_run_that_lost_its_lease_stops(
    corpus: Path, out: UPath, bad_network: FaultyProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("audioprep.storage.lock.RENEW_SECONDS", 0.05)

    def take_over(method: str, path: str) -> None:
        if method == "PUT" and "columns/digest" in path:
            bad_network.choose = lambda method, path: None
            said = json.dumps({"token": "of another", "who": "process 7 on elsewhere"}).encode()
            (out / ".audioprep/lock").write_bytes(said)

    bad_network.choose = take_over
    with pytest.raises(SystemFault, match=r"another run has taken over \(process 7 on elsewhere\)"):
        run_job(make_job(corpus, out), part_size=1)
    assert b"of another" in read_bytes(out / ".audioprep/lock")


def test_a_bad_network_loses_nothing(
    corpus: Path, expected: dict[str, bytes], out: UPath, bad_network: FaultyProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    bad_network.choose = at_random(0.15, seed=3)
    run_job(make_job(corpus, out))
    bad_network.choose = lambda method, path: None
    assert all_bytes(out) == expected
    assert bad_network.seen.keys() == {"well", "500", "503", "torn", "lost", "slow"}


def test_a_store_that_is_gone_stops_the_run(
    corpus: Path, expected: dict[str, bytes], out: UPath, bad_network: FaultyProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(places, "RETRIES", 2)
    bad_network.choose = lambda method, path: "500" if method == "PUT" and "/data/" in path else None
    with pytest.raises(SystemFault, match=r"the store does not answer as it should: .*Run the same command\s+again"):
        run_job(make_job(corpus, out))
    bad_network.choose = lambda method, path: None
    processed(corpus)
    run_job(make_job(corpus, out))
    assert processed(corpus) == []
    assert all_bytes(out) == expected


def test_records_cost_few_requests(tmp_path: Path, out: UPath, bad_network: FaultyProxy):
    """A run that finds all done asks for each record once, and else a number of times that does not grow."""

    def requests(items: int) -> int:
        corpus = make_corpus(tmp_path / str(items), items=items)
        (tmp_path / "log.txt").unlink(missing_ok=True)
        job = make_job(corpus, out / str(items), shards=ShardSettings())
        run_job(job, part_size=1)
        bad_network.seen.clear()
        run_job(job, part_size=1)
        return bad_network.seen.total()

    assert requests(12) - requests(4) == 2 * (12 - 4)


def test_scratch_of_a_store_is_local_and_swept(corpus: Path, out: UPath):
    scratch = Layout(out).scratch
    assert scratch.is_relative_to(tempfile.gettempdir())
    scratch.mkdir(parents=True)
    (scratch / "left").touch()
    run_job(make_job(corpus, out))
    assert not scratch.exists()
