from pathlib import Path

import pytest
from engine_helpers import QuickContext, make_corpus

from audioprep.engine import pool


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks workers quickly; those of `start` are spawned, as a user's are."""
    context = QuickContext()
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda method: context)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen inputs and a bad one."""
    folder = make_corpus(tmp_path_factory.mktemp("inputs") / "corpus", items=19)
    (folder / "bad.wav").write_text("fail")
    return folder
