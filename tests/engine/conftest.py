import multiprocessing

import pytest

from audioprep.engine import pool


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks workers from a process that has imported everything; those of `start` are spawned, as a user's are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audioprep.engine.run", "engine_helpers", "pandas"])
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda method: context)
