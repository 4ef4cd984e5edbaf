"""The engine on several machines of a Ray cluster, all of them on this one: some are lost, others join."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_helpers import HERE, data_bytes, make_corpus, make_job, processed, run_job
from upath import UPath

from audioprep.engine import ray_pool

ray = pytest.importorskip("ray")

SMALL: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


@pytest.fixture
def machines(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster: a head without work, and two machines of one CPU core that reach the store."""
    from ray.cluster_utils import Cluster

    assert bucket
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **SMALL)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def works(node: Any) -> bool:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any(child.name().startswith("ray::_Actor") for child in raylet.children())


def test_a_machine_is_lost_and_another_one_joins(
    machines: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_pool, "GROW_SECONDS", 0.5)
    corpus = make_corpus(tmp_path / "corpus", items=80)
    for path in corpus.iterdir():
        path.write_text(f"slow {path.name}")
    out = UPath(f"{bucket}/out")

    with ThreadPoolExecutor(1) as beside:
        run = beside.submit(run_job, make_job(corpus, out), engine="ray", workers=0)
        log = tmp_path / "log.txt"
        while not (log.exists() and all(map(works, machines.worker_nodes))):
            assert not run.done(), run.result()
            time.sleep(0.05)
        machines.remove_node(next(iter(machines.worker_nodes)), allow_graceful=False)
        machines.add_node(num_cpus=1, **SMALL)
        totals = run.result()
    assert (totals["rows"], totals["failed"]) == (80, 0)
    assert 0 <= len(processed(corpus)) - 80 <= 4  # the part that the machine was doing
    run_job(make_job(corpus, tmp_path / "local"))
    assert data_bytes(out) == data_bytes(tmp_path / "local")
