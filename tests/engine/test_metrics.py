"""Figures of a run: what Prometheus and TensorBoard read, and what a person sees without a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engine_helpers import make_corpus, make_job

from audioprep.cli import console as console_module
from audioprep.cli.console import QuietObserver, TerminalConsole
from audioprep.engine import metrics
from audioprep.engine.metrics import Figure, Meter, measured, prometheus_text
from audioprep.engine.run import Options, run
from audioprep.engine.worker import Progress
from audioprep.errors import UsageError

SAMPLE = re.compile(r'(?P<name>[a-z_]+)\{output="(?P<output>[^"]*)"(?:,(?P<label>[a-z]+="[^"]*"))?\} (?P<value>\S+)')


def read(path: Path) -> dict[str, float]:
    """The samples of a file in Prometheus' text format, by name and label; checks its form."""
    samples: dict[str, float] = {}
    kinds: dict[str, str] = {}
    text = path.read_text()
    for line in text.splitlines():
        if line.startswith("#"):
            _, what, name, said = line.split(" ", 3)
            assert what in ("HELP", "TYPE") and said
            kinds |= {name: said} if what == "TYPE" else {}
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        assert (kinds[found["name"]] == "counter") == found["name"].endswith("_total"), line
        samples[found["name"].removeprefix("audioprep_") + (f" {found['label']}" if found["label"] else "")] = float(
            found["value"]
        )
    return samples


def test_the_figures_of_a_run(tmp_path: Path):
    corpus = make_corpus(tmp_path / "corpus", items=10)
    (corpus / "003.wav").write_text("fail")
    (corpus / "005.wav").write_text("crash")
    path = tmp_path / "metrics" / "audioprep.prom"
    with measured(QuietObserver(), tmp_path / "out", path, tmp_path / "events") as observer:
        assert read(path) == {}  # it is there from the start, and can be written
        totals = run(make_job(corpus, tmp_path / "out"), Options(workers=1, part_size=4), observer)
    found = read(path)
    assert found['items_total result="failed"'] == 1 and found['items_total result="kept"'] >= 9
    assert (found["inputs"], found["parts"], found["parts_done"], found["parts_redone_total"]) == (10, 3, 3, 1)
    assert found['stage_items_total stage="digest"'] == 10
    assert found["encoder_busy_ratio"] == totals["encoder_busy"] == 1
    assert totals["bottleneck"] == "encoder" and totals["inputs_per_worker_second"].keys() == {"text", "digest"}
    assert found["workers"] == 0 and found["audio_seconds_total"] > 0.9
    assert found["start_timestamp_seconds"] <= found["last_success_timestamp_seconds"]
    assert found["last_success_timestamp_seconds"] <= found["heartbeat_timestamp_seconds"]
    assert [file.name for file in path.parent.iterdir()] == ["audioprep.prom"]

    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (events,) = (tmp_path / "events").iterdir()
    scalars = {value.tag: value.tensor.float_val[0] for event in EventFileLoader(str(events)).Load()
               for value in event.summary.value}  # fmt: skip
    assert scalars["items_total/failed"] == 1 and scalars["parts_done"] == 3


def test_a_run_that_fails_says_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "WRITE_SECONDS", 0.0)
    path = tmp_path / "audioprep.prom"
    during: list[dict[str, float]] = []

    class Watch(QuietObserver):
        def assembling(self, done: int, groups: int) -> None:
            during.append(read(path))
            raise KeyboardInterrupt

    corpus = make_corpus(tmp_path / "corpus", items=4)
    with pytest.raises(KeyboardInterrupt), measured(Watch(), tmp_path / "out", path, None) as observer:
        run(make_job(corpus, tmp_path / "out"), Options(workers=1), observer)
    assert during[0]["inputs"] == 4 and during[0]['items_total result="kept"'] == 4  # written while it ran
    assert "last_success_timestamp_seconds" not in read(path)


def test_labels_are_escaped():
    text = prometheus_text([Figure("audioprep_inputs", "gauge", "Inputs.", {"": 2})], 'a "b"\\\nc')
    assert text.splitlines()[-1] == r'audioprep_inputs{output="a \"b\"\\\nc"} 2'


def test_files_that_cannot_be_written_are_refused_before_the_run(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"--metrics .*file/a.prom: cannot be written"),
        measured(QuietObserver(), "out", tmp_path / "file/a.prom", None),
    ):
        pass


@pytest.mark.parametrize(("waited", "bottleneck"), [(0.05, "encoder"), (0.5, "decoding")])
def test_the_bottleneck(waited: float, bottleneck: str):
    meter = Meter(lambda progress: None)
    assert meter.bottleneck is None
    meter(Progress(elapsed=1.0, waited=waited))
    assert meter.bottleneck == bottleneck


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(console_module, "LOG_SECONDS", -1.0)
    with TerminalConsole().observer() as observer:
        clock = console_module.time.monotonic() + 10.0
        observer.planned(110, 20, 2, 10)
        monkeypatch.setattr(console_module.time, "monotonic", lambda: clock)
        observer.workers(2, 1)
        observer.progress(Progress(items=20, seconds=400.0, elapsed=10.0, waited=5.0))
    assert re.fullmatch(
        r"done 30 of 110 inputs, (2|2\.0\d) inputs/s, 40x real time, bottleneck: decoding, 1 parts done again, "
        r"0:00:40 left\n",
        capsys.readouterr().err,
    )
