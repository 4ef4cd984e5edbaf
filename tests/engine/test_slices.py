"""Slices of one set, in any order and beside each other: the set that one run makes."""

import random
import re
from pathlib import Path

import pytest
from engine_helpers import Beside, all_bytes, make_job, processed, run_job

from audioprep.engine.layout import Layout, Slice
from audioprep.errors import UsageError
from audioprep.storage.places import Place, to_place


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run_job(make_job(corpus, out), part_size=2)
    return all_bytes(out)


@pytest.fixture(params=["local", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path / "out" if request.param == "local" else to_place(request.getfixturevalue("bucket")) / "out"


def test_eight_slices_in_any_order_two_of_them_twice(corpus: Path, expected: dict[str, bytes], out: Place):
    numbers = [*range(1, 9), 3, 6]
    random.Random(5).shuffle(numbers)
    runs = [Beside(corpus, out, part_size=2, slice=Slice(number, 8)) for number in numbers]
    results = [run.result() for run in runs]
    refused = [result for result in results if isinstance(result, str)]
    assert all(re.search(r"another run is doing slice [36]-of-8 \(process \d+ on", text) for text in refused)
    assert len(refused) <= 2 and all(isinstance(result, dict) for result in results if result not in refused)
    assert all_bytes(out) == expected
    assert not list(Layout(out).scratch.parent.glob(f"{Layout(out).scratch.name}*"))


def test_one_after_the_other(corpus: Path, expected: dict[str, bytes], tmp_path: Path):
    out = tmp_path / "out"
    processed(corpus)
    assert run_job(make_job(corpus, out), part_size=2, slice=Slice(2, 3)) == {
        "inputs": 20, "parts_done": 3, "parts_left": 7, "excluded": 0
    }  # fmt: skip
    # Parts 1, 4 and 7 of two files each; `bad.wav` is the last of all.
    assert processed(corpus) == ["002.wav", "003.wav", "008.wav", "009.wav", "014.wav", "015.wav"]
    assert run_job(make_job(corpus, out), part_size=2, slice=Slice(3, 3))["parts_left"] == 4
    assert not (out / "data").exists()
    assert run_job(make_job(corpus, out), part_size=2, slice=Slice(1, 3))["rows"] == 19
    assert all_bytes(out) == expected
    processed(corpus)
    for slice in (Slice(1, 3), Slice(2, 2), None):
        assert run_job(make_job(corpus, out), part_size=2, slice=slice)["rows"] == 19
    assert processed(corpus) == []


def test_what_a_living_slice_forbids(corpus: Path, expected: dict[str, bytes], out: Place):
    run_job(make_job(corpus, out), part_size=2, slice=Slice(1, 3))
    with Layout(out, Slice(1, 3)).slice_lock():
        for slice in (None, Slice(1, 4)):
            with pytest.raises(UsageError, match=r"another run is doing slice 1-of-3 of it \(process \d+ on"):
                run_job(make_job(corpus, out), slice=slice)
        with pytest.raises(UsageError, match=r"another run is doing slice 1-of-3 \(process \d+ on"):
            run_job(make_job(corpus, out), slice=Slice(1, 3))
        scratch = Layout(out, Slice(1, 3)).scratch
        scratch.mkdir(parents=True)
        (scratch / "unfinished").touch()
        assert run_job(make_job(corpus, out), slice=Slice(2, 3))["parts_left"] == 3
        assert (scratch / "unfinished").exists()
    assert run_job(make_job(corpus, out))["rows"] == 19
    assert all_bytes(out) == expected
    assert not scratch.exists()


def test_a_slice_waits_while_another_plans(corpus: Path, out: Place):
    with Layout(out).lock():
        run = Beside(corpus, out, slice=Slice(1, 2))
        assert not run.wait(1.0)
    assert isinstance(run.result(), dict)


def test_overwrite_is_of_the_whole(corpus: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="--overwrite would remove what other slices do"):
        run_job(make_job(corpus, tmp_path / "out"), slice=Slice(1, 2), overwrite=True)


def test_names_of_slices():
    assert Slice.parse("3/8") == Slice(3, 8) and str(Slice(3, 8)) == "3-of-8"
    assert [number for number in range(10) if number in Slice(2, 4)] == [1, 5, 9]
    for wrong in ("0/8", "9/8", "3", "3/8/2", "a/b", "-1/8", "1/0"):
        with pytest.raises(UsageError, match=f"--shard-of {wrong}: write it like --shard-of 3/8"):
            Slice.parse(wrong)
