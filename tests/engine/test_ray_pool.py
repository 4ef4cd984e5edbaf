"""The engine on a Ray cluster of this machine: the bytes of the local one, also where workers are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_helpers import HERE, data_bytes, make_corpus, make_job, processed, run_job

from audioprep.engine import ray_pool
from audioprep.engine.layout import Layout
from audioprep.engine.ray_pool import Share, share_of
from audioprep.errors import SystemFault, UsageError

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of our own, whatever else runs here; its processes find the stages of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(address="local", num_cpus=4, num_gpus=0, include_dashboard=False, log_to_driver=False,
                 logging_level="ERROR", object_store_memory=100 * 2**20)  # fmt: skip
        yield
        ray.shutdown()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus", items=10)


def actors() -> list[psutil.Process]:
    """The processes of actors that this process has started."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("ray::_Actor")]


@pytest.mark.usefixtures("cluster")
def test_two_of_four_workers_are_killed(tmp_path: Path):
    corpus = make_corpus(tmp_path / "corpus", items=120)
    for path in corpus.iterdir():
        path.write_text(f"slow {path.name}")
    killed: list[int] = []

    def kill_two() -> None:
        log = tmp_path / "log.txt"
        for items in (30, 60):
            while not log.exists() or len(log.read_text().split()) < items:
                time.sleep(0.05)
            victim = next(process for process in actors() if process.pid not in killed)
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    killer = threading.Thread(target=kill_two)
    killer.start()
    totals = run_job(make_job(corpus, tmp_path / "ray"), engine="ray", workers=4)
    killer.join()
    seen = processed(corpus)
    assert len(killed) == 2 and (totals["rows"], totals["failed"]) == (120, 0)
    assert 0 < len(seen) - 120 < 12  # items that were processed twice
    run_job(make_job(corpus, tmp_path / "local"), workers=4)
    assert data_bytes(tmp_path / "ray") == data_bytes(tmp_path / "local")


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_crashes_or_stalls_is_replaced(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_pool.RayPool.__init__, "__defaults__", (0, 10.0))  # seconds without a sign of life
    (corpus / "002.wav").write_text("hang")
    (corpus / "005.wav").write_text("crash")
    totals = run_job(make_job(corpus, tmp_path / "out"), engine="ray", workers=2)
    assert (totals["rows"], totals["failed"]) == (10, 0)
    _, alive = psutil.wait_procs(actors(), timeout=20)  # Ray kills them when it comes to it
    assert alive == [] and ray.is_initialized()


@pytest.mark.usefixtures("cluster")
def test_faults_stop_the_run_with_their_message(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (corpus / "005.wav").write_text("bug")
    with pytest.raises(SystemFault, match=r"(?s)ZeroDivisionError.*Traceback"):
        run_job(make_job(corpus, tmp_path / "out"), engine="ray", workers=1)
    (corpus / "005.wav").write_text("poison")
    with pytest.raises(
        SystemFault, match=r"part 1 \(from .*004.wav\) has ended 3 workers, the last \(Worker unexpectedly exits"
    ):
        run_job(make_job(corpus, tmp_path / "out"), engine="ray", workers=1)
    monkeypatch.setattr(ray_pool, "_token_path", lambda layout, token: layout.out / f"of-process-{os.getpid()}")
    with pytest.raises(
        UsageError, match=r"out: the machine .* does not see it. With --engine ray, --out has to lie on"
    ):
        run_job(make_job(corpus, tmp_path / "out"), engine="ray", workers=1)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="the Ray cluster has no GPU"):
        next(ray_pool.RayPool(Layout(tmp_path / "out"), (), gpu=True).run([], print))
    assert not [*(tmp_path / "out/.audioprep").glob("cluster-*")]


def test_no_worker_outlives_an_interrupted_run(corpus: Path, tmp_path: Path):
    """Ctrl-C in a terminal: the whole group gets the signal; the cluster that the run had started ends with it."""
    for path in corpus.iterdir():
        path.write_text(f"slow {path.name}")
    script = (
        "from pathlib import Path; from engine_helpers import *\n"
        f"run_job(make_job(Path({str(corpus)!r}), Path({str(tmp_path / 'out')!r})), engine='ray', workers=2)"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE), "RAY_ADDRESS": "local"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "log.txt").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in started)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_the_local_engine_does_not_import_ray(corpus: Path, tmp_path: Path):
    script = (
        "import sys; from pathlib import Path; from engine_helpers import *\n"
        f"run_job(make_job(Path({str(corpus)!r}), Path({str(tmp_path / 'out')!r})))\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(HERE)}, check=True)


@pytest.mark.parametrize(
    ("nodes", "gpu", "workers", "share"),
    [
        ([{"CPU": 8}], False, 0, Share(1, 0, 8)),
        ([{"CPU": 8}], False, 2, Share(4, 0, 2)),
        ([{"CPU": 2}], False, 4, Share(0.5, 0, 4)),
        ([{"CPU": 4}, {"CPU": 64, "GPU": 8}], True, 0, Share(8, 1, 8)),
        ([{"CPU": 4}, {"CPU": 64, "GPU": 8}], False, 0, Share(1, 0, 68)),
        ([{"CPU": 4, "GPU": 2}, {"CPU": 64, "GPU": 8}], True, 3, Share(2, 1, 3)),
        ([{"CPU": 4}], True, 0, Share(1, 1, 0)),
    ],
)
def test_shares_of_clusters(nodes: list[dict[str, Any]], gpu: bool, workers: int, share: Share):
    assert share_of(nodes, gpu, workers) == share


@pytest.mark.parametrize(
    ("share", "resources"), [((8, 1), ("cuda:0", 7)), ((0.5, 0), ("cpu", 1)), ((1, 1), ("cuda:0", 1))]
)
def test_what_a_worker_has(share: tuple[float, int], resources: tuple[str, int]):
    found = Share(*share, room=1).resources
    assert (found.device, found.decode_threads) == resources
