"""The benchmark of HeartCodec runs, with a tiny model and without heartlib."""

import importlib
from pathlib import Path

import pytest
import torch


def test_both_contenders_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    monkeypatch.delenv("AUDIOPREP_HEARTLIB", raising=False)
    encoders, bench = importlib.import_module("encoders"), importlib.import_module("heartcodec")
    monkeypatch.setattr(encoders, "measure", lambda contender, device: contender())  # without a process for each
    threads = torch.get_num_threads()
    try:
        assert bench.main(["--tiny", "--files", "2", "--minutes", "0.01"]) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if line[0] != " "] == ["heartcodec: loop", "heartcodec: audioprep"]
