import pytest
from engine_helpers import QuickContext

from audioprep.engine import pool


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks workers quickly; those of `start` are spawned, as a user's are."""
    context = QuickContext()
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda method: context)
