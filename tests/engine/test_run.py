"""Resume, growth, refusals, retries: what a second run does with what a first one left."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from engine_helpers import Digest, data_bytes, finish, make_corpus, make_job, processed, run_job, start

from audioprep.cli.console import QuietObserver
from audioprep.corpus.exclusions import Exclusions
from audioprep.engine import pool as pool_module
from audioprep.engine import run as run_module
from audioprep.engine.assemble import ShardSettings
from audioprep.engine.layout import Layout
from audioprep.engine.run import Options, preview
from audioprep.errors import SystemFault, UsageError
from audioprep.shards.dataset import open_dataset


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus", items=10)


def rows(out: Path) -> list[dict]:
    return [row for shard in open_dataset(out).shards() for row in pq.read_table(out / shard["path"]).to_pylist()]


def failures(out: Path) -> list[dict]:
    return pq.read_table(out / "failures.parquet").to_pylist()


def test_every_input_is_a_row_or_a_failure(corpus: Path, tmp_path: Path):
    (corpus / "003.wav").write_text("fail here")
    totals = run_job(make_job(corpus, tmp_path / "out"))
    assert (totals["inputs"], totals["rows"], totals["failed"]) == (10, 9, 1)
    assert len(rows(tmp_path / "out")) == 9
    (failure,) = failures(tmp_path / "out")
    assert failure == {
        "uri": str(corpus / "003.wav"), "stage": "digest", "error": "corrupt", "message": "was told to fail"
    }  # fmt: skip


def test_a_second_run_does_nothing(corpus: Path, tmp_path: Path):
    run_job(make_job(corpus, tmp_path / "out"))
    before, stamps = data_bytes(tmp_path / "out"), [p.stat().st_mtime_ns for p in (tmp_path / "out/data").iterdir()]
    assert len(processed(corpus)) == 10
    run_job(make_job(corpus, tmp_path / "out"))
    assert processed(corpus) == []
    assert data_bytes(tmp_path / "out") == before
    assert [p.stat().st_mtime_ns for p in (tmp_path / "out/data").iterdir()] == stamps


def test_new_files_leave_old_shards_as_they_are(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_job(make_job(corpus, out))
    before = data_bytes(out)
    splits = {row["id"]: row["split"] for row in rows(out)}
    processed(corpus)
    make_corpus(corpus, items=8, first=90)
    make_corpus(corpus, items=1, first=5)  # the same content in the middle: nothing new
    totals = run_job(make_job(corpus, out))
    assert totals["inputs"] == totals["rows"] == 18
    assert processed(corpus) == [f"0{n}.wav" for n in range(90, 98)]
    last = max(before)
    after = data_bytes(out)
    assert {name: after[name] for name in before if name[-13:] != last[-13:]} == {
        name: data for name, data in before.items() if name[-13:] != last[-13:]
    }
    assert splits.items() <= {row["id"]: row["split"] for row in rows(out)}.items()


def test_changed_settings_are_refused_by_name(corpus: Path, tmp_path: Path):
    job = make_job(corpus, tmp_path / "out")
    run_job(job)
    before = data_bytes(tmp_path / "out")
    changed = replace(job, stages=(job.stages[0], Digest(str(tmp_path / "log.txt"), version=2)))
    with pytest.raises(UsageError, match=r"other settings:\n  digest.version: 1 → 2\n.*--overwrite"):
        run_job(changed)
    with pytest.raises(UsageError, match=r"digest.version: 1 → 2"):
        preview(changed, Options(), QuietObserver())
    assert data_bytes(tmp_path / "out") == before
    processed(corpus)
    run_job(changed, overwrite=True)
    assert len(processed(corpus)) == 10


def test_another_cut_recomputes_nothing(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    job = make_job(corpus, out)
    run_job(job)
    before = data_bytes(out)
    processed(corpus)
    run_job(replace(job, shards=ShardSettings("webdataset")))
    assert {path.name for path in (out / "data").iterdir()} == {"train-00000.tar"}
    assert {path.name for path in (out / "index").iterdir()} == {"train-00000.parquet"}
    run_job(job)
    assert data_bytes(out) == before and not (out / "index").exists()
    assert processed(corpus) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "removed"])
def test_damaged_results_are_found_and_redone(damage: str, corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_job(make_job(corpus, out))
    before = data_bytes(out)
    processed(corpus)
    part = sorted(Layout(out).private.glob("columns/digest*/*.parquet"))[1]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    match damage:
        case "truncated":
            part.write_bytes(bytes(data[:-1]))
        case "flipped":
            part.write_bytes(bytes(data))
        case "removed":
            part.unlink()
    run_job(make_job(corpus, out), check="sha256" if damage == "flipped" else "size")
    assert processed(corpus) == ["004.wav", "005.wav", "006.wav", "007.wav"]
    assert data_bytes(out) == before


def test_a_damaged_shard_is_found_by_its_sha256(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_job(make_job(corpus, out))
    before = data_bytes(out)
    shard = min((out / "data").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    run_job(make_job(corpus, out))
    assert data_bytes(out) != before
    run_job(make_job(corpus, out), check="sha256")
    assert data_bytes(out) == before


def test_settings_of_a_run_that_did_nothing_bind_nobody(corpus: Path, tmp_path: Path):
    job = make_job(corpus, tmp_path / "out")
    Layout(tmp_path / "out").private.mkdir(parents=True)
    Layout(tmp_path / "out").run.write_text('{"digest": {"settings": {"version": 0}, "origin": {}}}')
    assert run_job(job)["rows"] == 10


def test_changed_inputs_are_told(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run_job(make_job(corpus, tmp_path / "out"))
    assert not caplog.messages
    (corpus / "002.wav").write_text("another song, longer than before")
    assert run_job(make_job(corpus, tmp_path / "out"))["rows"] == 10
    assert caplog.messages == ["1 inputs have changed since they were planned; --overwrite does all of them anew"]


def test_a_missing_shard_is_written_again(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_job(make_job(corpus, out))
    before = data_bytes(out)
    min((out / "data").iterdir()).unlink()
    run_job(make_job(corpus, out))
    assert data_bytes(out) == before


def test_failed_inputs_are_tried_again_on_request(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    (corpus / "009.wav").write_text("fail")
    assert run_job(make_job(corpus, out))["failed"] == 1
    (corpus / "009.wav").write_text("mended")
    processed(corpus)
    assert run_job(make_job(corpus, out))["failed"] == 1
    assert processed(corpus) == []
    totals = run_job(make_job(corpus, out), retry_failed=True)
    assert (totals["rows"], totals["failed"]) == (10, 0)
    assert processed(corpus) == ["008.wav", "009.wav"]
    assert failures(out) == []


def test_two_runs_on_one_output(corpus: Path, tmp_path: Path):
    with Layout(tmp_path / "out").lock():
        code, said = finish(start(corpus, tmp_path / "out", "1"))
    assert code == 1
    assert f"another run is writing here (process {os.getpid()} on" in said
    run_job(make_job(corpus, tmp_path / "out"))


def test_folders_that_are_not_ours_are_left_alone(corpus: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="is not empty and was not made by audioprep"):
        run_job(make_job(corpus, corpus), overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        run_job(make_job(corpus, tmp_path / "file"))
    assert len(list(corpus.iterdir())) == 10


def test_overwrite_removes_only_what_is_ours(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_job(make_job(corpus, out))
    (out / "notes.txt").write_text("mine")
    (corpus / "000.wav").unlink()
    assert run_job(make_job(corpus, out), overwrite=True)["inputs"] == 9
    assert (out / "notes.txt").read_text() == "mine"


def test_no_audio_at_all(tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(UsageError, match="no audio files found"):
        run_job(make_job(tmp_path / "corpus", tmp_path / "out"))


def test_preview_counts_and_writes_nothing(corpus: Path, tmp_path: Path):
    job = make_job(corpus, tmp_path / "out")
    found = preview(job, Options(), QuietObserver())
    assert (found.inputs, found.new_inputs, found.parts, found.parts_done) == (10, 10, 0, 0)
    assert not (tmp_path / "out").exists()
    run_job(job)
    make_corpus(corpus, items=1, first=50)
    found = preview(job, Options(), QuietObserver())
    assert (found.inputs, found.new_inputs, found.parts, found.parts_done) == (11, 1, 3, 3)


def test_limit(corpus: Path, tmp_path: Path):
    assert run_job(make_job(corpus, tmp_path / "out"), limit=3)["inputs"] == 3
    assert run_job(make_job(corpus, tmp_path / "out"))["inputs"] == 10


@pytest.mark.parametrize("order", ["crash", "hang"])
def test_a_file_that_ends_its_worker_is_done_in_isolation(
    order: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pool_module.Pool.__init__, "__defaults__", (4.0,))  # seconds without a sign of life
    (corpus / "005.wav").write_text(order)
    totals = run_job(make_job(corpus, tmp_path / "out"), workers=2)
    assert (totals["rows"], totals["failed"]) == (10, 0)


def test_an_encoder_that_always_crashes_stops_the_run(corpus: Path, tmp_path: Path):
    (corpus / "005.wav").write_text("poison")
    with pytest.raises(SystemFault, match=r"part 1 \(from .*004.wav\) has ended 3 workers, .* exit code -11"):
        run_job(make_job(corpus, tmp_path / "out"))


def test_a_bug_stops_the_run_with_its_traceback(corpus: Path, tmp_path: Path):
    (corpus / "005.wav").write_text("bug")
    with pytest.raises(SystemFault, match=r"(?s)ZeroDivisionError.*Traceback"):
        run_job(make_job(corpus, tmp_path / "out"))


def test_a_mount_that_has_gone_stops_the_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "UNREADABLE_IN_A_ROW", 8)
    for number in range(8):
        (corpus / f"{number:03d}.wav").write_text("absent")
    with pytest.raises(SystemFault, match=r"the last 8 inputs cannot be read .*--retry-failed"):
        run_job(make_job(corpus, tmp_path / "out"))


def test_any_number_of_broken_files_does_not(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "UNREADABLE_IN_A_ROW", 8)
    for number in range(10):
        (corpus / f"{number:03d}.wav").write_text("fail")
    totals = run_job(make_job(corpus, tmp_path / "out"))
    assert (totals["rows"], totals["failed"]) == (0, 10)


def test_no_worker_outlives_a_killed_run(corpus: Path, tmp_path: Path):
    for path in corpus.iterdir():
        path.write_text(f"slow {path.name}")
    process = start(corpus, tmp_path / "out", "2")
    while not (log := tmp_path / "log.txt").exists() or len(log.read_text().split()) < 2:
        time.sleep(0.02)
    process.kill()  # the parent alone
    process.communicate(timeout=60)
    assert finish(start(corpus, tmp_path / "out", "2"))[0] == 0  # the lock is free, and nobody writes beside it
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)


def test_description_and_run_settings(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_job(make_job(corpus, out))
    description = json.loads((out / "dataset.json").read_text())
    assert description["totals"]["rows"] == sum(shard["rows"] for shard in description["shards"]) == 10
    assert list(description["columns"])[:2] == ["id", "uri"]
    assert description["settings"]["digest"] == Digest("").settings
    assert {shard["split"] for shard in description["shards"]} <= {"train", "test"}


def test_excluded_inputs_are_no_rows_and_no_failures(corpus: Path, tmp_path: Path):
    leave_out = Exclusions(frozenset({str(corpus / "003.wav"), "007"}))
    out = tmp_path / "out"
    totals = run_job(make_job(corpus, out), exclude=leave_out)
    assert (totals["inputs"], totals["excluded"], totals["rows"], totals["failed"]) == (8, 2, 8, 0)
    assert {"003.wav", "007.wav"}.isdisjoint(processed(corpus))
    before = data_bytes(out)
    assert run_job(make_job(corpus, out), exclude=leave_out)["excluded"] == 2
    assert (data_bytes(out), processed(corpus)) == (before, [])
    found = preview(make_job(corpus, out), Options(exclude=leave_out), QuietObserver())
    assert (found.inputs, found.excluded, found.new_inputs) == (8, 2, 0)

    # What is there already stays.
    assert run_job(make_job(corpus, out))["rows"] == 10
    totals = run_job(make_job(corpus, out), exclude=leave_out)
    assert (totals["inputs"], totals["excluded"], totals["rows"]) == (10, 2, 10)
