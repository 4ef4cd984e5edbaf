"""Makes the helpers of these tests importable, and the engine's workers quick."""

import multiprocessing
import sys
from pathlib import Path

import pytest

from audioprep.engine import pool

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _quick_workers():
    """Forks workers from a process that has imported everything; `tests/cli` spawns them, as a user's are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audioprep.engine.run", "audioprep.stages.symbolic"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.multiprocessing, "get_context", lambda method: context)
        yield
