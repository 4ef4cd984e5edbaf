"""The benchmark of the encoders runs, with a tiny model."""

import importlib
from pathlib import Path

import pytest
import torch


def test_both_contenders_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    bench = importlib.import_module("encoders")
    monkeypatch.setattr(bench, "FILES", 2)
    monkeypatch.setattr(bench, "measure", lambda contender, device: contender())  # without a process for each
    threads = torch.get_num_threads()
    try:
        assert bench.main(["--tiny", "--minutes", "0.01", "--encoders", "mimi"]) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("  ")[0] for line in lines if line[0] != " "]
    assert names == ["mimi: loop", "mimi: audioprep"]
