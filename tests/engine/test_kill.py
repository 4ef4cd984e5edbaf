"""A run that is killed anywhere, and run again, gives the bytes of one that was not."""

from pathlib import Path

import pytest
from engine_helpers import data_bytes, finish, make_job, processed, run_job, start

from audioprep.engine.layout import Layout

# When, and at the first commit of which file; `bench/kill.py` goes through all of them.
POINTS = {
    "while computing": (
        "before:*/plan/*.parquet", "torn:*/columns/digest*.parquet", "after:*/columns/digest*.parquet",
        "before:*/columns/digest*.json",
    ),
    "while writing": (
        "torn:*/data/*.parquet", "after:*/data/*.parquet", "before:*/shards/*.json", "before:*/dataset.json",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run_job(make_job(corpus, out))
    return data_bytes(out)


@pytest.mark.parametrize(
    ("phase", "workers"), [("while computing", "1"), ("while computing", "2"), ("while writing", "1")]
)
def test_killed_at_named_points(phase: str, workers: str, corpus: Path, expected: dict[str, bytes], tmp_path: Path):
    """One output folder, killed at one point after the other; each run goes on where the last was killed."""
    out = tmp_path / "out"
    for point in POINTS[phase]:
        code, said = finish(start(corpus, out, workers, kill=point))
        assert code == -9, f"not killed at {point}: {said}"
    code, said = finish(start(corpus, out, workers))
    assert code == 0, said
    assert data_bytes(out) == expected
    assert not Layout(out).scratch.exists()


def test_several_workers_give_the_same_bytes(corpus: Path, expected: dict[str, bytes], tmp_path: Path):
    for workers in (2, 4):
        run_job(make_job(corpus, tmp_path / str(workers)), workers=workers)
        assert data_bytes(tmp_path / str(workers)) == expected


def test_work_that_was_committed_is_not_done_again(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    processed(corpus)
    assert finish(start(corpus, out, "1", kill="before:*/data/*.parquet"))[0] == -9
    assert len(processed(corpus)) == 20
    run_job(make_job(corpus, out))
    assert processed(corpus) == []


def test_a_full_disk_stops_the_run_and_it_resumes(corpus: Path, expected: dict[str, bytes], tmp_path: Path):
    out = tmp_path / "out"
    for pattern in ("*/columns/digest*.parquet", "*/data/*.parquet"):
        code, said = finish(start(corpus, out, "2", kill=f"full:{pattern}"))
        assert code == 1 and "SystemFault" in said and "No space left on device. Make room" in said
        assert "Traceback" not in said
    assert finish(start(corpus, out, "2"))[0] == 0
    assert data_bytes(out) == expected
