"""The benchmarks of the encoders run, with tiny models."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from audioprep.samples import sample_folder


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))


def test_both_contenders_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    bench = importlib.import_module("encoders")
    monkeypatch.setattr(bench, "measure", lambda contender, device: contender())  # without a process for each
    threads = torch.get_num_threads()
    try:
        assert bench.main(["--tiny", "--files", "2", "--minutes", "0.01", "--encoders", "mimi"]) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("  ")[0] for line in lines if line[0] != " "]
    assert names == ["mimi: loop", "mimi: audioprep"]


def test_what_bfloat16_changes_is_measured(capsys: pytest.CaptureFixture[str]):
    bench = importlib.import_module("precision")
    assert bench.main(["--tiny", "--seconds", "1", "--encoders", "encodec", "xcodec", "clap"]) == 0
    tokens, others, values = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"encodec +dtype=bfloat16 +(?!0.00%)[\d.]+% of codes; first codebook .*", tokens)
    assert others.startswith("xcodec")
    assert re.fullmatch(r"clap +dtype=bfloat16 +relative error [\d.]+e-0[123], smallest cosine 0\.9\d+", values)


def test_quality_of_fewer_codebooks_is_lower(capsys: pytest.CaptureFixture[str]):
    bench = importlib.import_module("heartcodec_quality")
    music = sample_folder() / "music" / "bach_chorale_bwv269.flac"
    encoders = ["--encoder", "mel-rvq", "--encoder", "mel-rvq,num_codebooks=1"]
    assert bench.main([str(music), "--seconds", "3", *encoders]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["log-mel", "STFT"]
    all_, one = (float(row.split()[1]) for row in rows)
    assert 0 < all_ < one
