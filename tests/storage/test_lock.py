"""Locks: one holder at a time, on a disk and on a store; a dead one's lease is taken over, a living one's is not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from upath import UPath

from audioprep.errors import SystemFault, UsageError
from audioprep.storage import lock as lock_module
from audioprep.storage.files import read_bytes
from audioprep.storage.lock import Held, Lease, holder, locked
from audioprep.storage.places import Place, to_place


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path / "lock" if request.param == "local" else to_place(request.getfixturevalue("bucket")) / "set/lock"


@pytest.fixture
def on_store(bucket: str) -> UPath:
    place = to_place(bucket) / "set/lock"
    assert isinstance(place, UPath)
    return place


@pytest.fixture
def dead(on_store: UPath, make_older: Callable[[UPath, float], None]) -> Callable[[float], None]:
    """Leaves the lock of a run that has not renewed it for so many seconds."""

    def leave(seconds: float) -> None:
        on_store.write_bytes(json.dumps({"token": "of another", "who": "process 7 on elsewhere"}).encode())
        make_older(on_store, seconds)

    return leave


def others(place: Place) -> list[str]:
    return [path.name for path in place.parent.iterdir()] if place.parent.exists() else []


def test_one_holds_it_and_the_other_is_told_who(place: Place):
    assert holder(place) is None
    with locked(place) as lease:
        assert "process" in str(holder(place))
        with pytest.raises(Held, match=r"process \d+ on "), locked(place):
            pass
        lease.check()
    assert holder(place) is None
    with locked(place):
        pass


def test_it_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(lock_module, "POLL_SECONDS", 0.05)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(place):
            held.set()
            assert free.wait(20)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert held.wait(20)
        threading.Timer(0.3, free.set).start()
        with locked(place, waiting="the set"):
            assert free.is_set()
        holding.result()
    assert [message.partition(" (")[0] for message in caplog.messages] == ["the set: waits for another run"]


def test_a_living_lock_is_left_alone(on_store: UPath, dead: Callable[[float], None]):
    dead(60)
    assert holder(on_store) == "process 7 on elsewhere"
    with pytest.raises(Held, match="process 7 on elsewhere"), locked(on_store):
        pass
    assert others(on_store) == ["lock"]


def test_a_stale_lock_is_taken_over_by_one(on_store: UPath, dead: Callable[[float], None]):
    dead(100)
    assert holder(on_store) is None
    start, end = threading.Barrier(6), threading.Barrier(6)

    def take() -> bool:
        start.wait()
        try:
            with locked(on_store):
                end.wait()
                return True
        except Held:
            end.wait()
            return False

    with ThreadPoolExecutor(6) as pool:
        results = [pool.submit(take) for _ in range(6)]
        assert sorted(result.result() for result in results) == [False] * 5 + [True]
    assert others(on_store) == []


def test_a_lease_is_renewed(on_store: UPath, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_module, "RENEW_SECONDS", 0.05)
    with locked(on_store) as lease:
        first = json.loads(read_bytes(on_store))
        deadline = time.monotonic() + 20
        while json.loads(read_bytes(on_store))["beats"] < first["beats"] + 2:
            assert time.monotonic() < deadline
        lease.check()


def check_for_seconds(lease: Lease, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lease.check()
        time.sleep(0.02)


def test_a_run_that_lost_its_lease_finds_out(on_store: UPath, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_module, "RENEW_SECONDS", 0.05)
    with locked(on_store) as lease:
        on_store.write_bytes(json.dumps({"token": "of another", "who": "process 7 on elsewhere"}).encode())
        with pytest.raises(SystemFault, match=r"another run has taken over \(process 7 on elsewhere\)"):
            check_for_seconds(lease, 20)
    assert json.loads(read_bytes(on_store))["token"] == "of another"


def test_a_lease_lasts_a_while_without_the_store(
    bad_network: FaultyProxy, on_store: UPath, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr("audioprep.storage.places.RETRIES", 1)
    with locked(on_store) as lease:
        bad_network.choose = lambda method, path: "500"
        time.sleep(0.3)
        lease.check()
        monkeypatch.setattr(lock_module, "STALE_SECONDS", 0.2)
        with pytest.raises(SystemFault, match="the lock could not be renewed for"):
            check_for_seconds(lease, 20)
        bad_network.choose = lambda method, path: None


def test_a_lock_whose_answer_was_lost_is_ours(bad_network: FaultyProxy, on_store: UPath):
    faults = iter(["lost"])
    bad_network.choose = lambda method, path: next(faults, None) if method == "PUT" else None  # pyright: ignore
    with locked(on_store):
        assert holder(on_store)
    assert bad_network.seen["lost"] == 1


def test_no_bucket_is_told(on_store: UPath):
    with pytest.raises(UsageError, match=r"there is no such bucket\. Make it"), locked(to_place("s3://no-bucket/lock")):
        pass


def test_a_store_without_conditional_writes(monkeypatch: pytest.MonkeyPatch):
    place = to_place("memory://set/lock")
    with locked(place), pytest.raises(Held), locked(place):
        pass
    place.write_bytes(b'{"token": "of another", "who": "process 7 on elsewhere"}')
    monkeypatch.setattr(lock_module, "STALE_SECONDS", -1.0)
    with pytest.raises(Held, match="seems to have died: if so, remove memory"), locked(place):
        pass
    place.unlink()
