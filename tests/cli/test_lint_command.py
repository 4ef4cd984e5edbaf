"""`audioprep lint` on a folder with side-cars."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_helpers import Cli


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    texts = {
        "good": ("piano,happy", "[Verse]\nla"),
        "untidy": ("rock, pop", "[Verse 1]\nla"),
        "bad": ("1984", "hey x2"),
    }
    for name, (tags, lyrics) in texts.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), 16_000)
        (tmp_path / f"{name}.txt").write_text(tags)
        (tmp_path / f"{name}.lyrics").write_text(lyrics)
    return tmp_path


def test_it_counts_lists_and_reports(cli: Cli, songs: Path):
    report = songs / "findings.jsonl"
    result = cli("lint", songs, "--report", report, "--json")
    assert result.code == 1
    found = result.json
    assert (found["items"], found["clean"]) == (3, 1)
    assert found["mended_by_normalizing"] == {"spaces": 1, "section": 1}
    assert found["to_be_mended"] == {"numeric": 1, "repeat-mark": 1, "no-sections": 1}
    assert f"{songs}/bad.wav: tags, line 1: numeric: 1984" in found["problems"]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {"uri": f"{songs}/untidy.wav", "field": "lyrics", "line": 1, "rule": "section", "text": "[Verse 1]",
            "fixed": "[Verse]"} in lines  # fmt: skip
    assert len(lines) == 5
    assert {path.suffix for path in songs.iterdir()} == {".wav", ".txt", ".lyrics", ".jsonl"}


def test_what_normalizing_mends_is_no_problem(cli: Cli, songs: Path):
    (songs / "bad.wav").unlink()
    assert cli("lint", songs).code == 0


def test_unreadable_text_is_a_finding(cli: Cli, songs: Path):
    (songs / "good.txt").write_bytes("ã".encode("latin-1"))
    problems = cli("lint", songs, "--json").json["problems"]
    assert any("good.wav" in problem and "UTF-8" in problem for problem in problems)


def test_only_some_problems_are_listed(cli: Cli, tmp_path: Path):
    for number in range(25):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(100), 16_000)
    problems = cli("lint", tmp_path, "--json").json["problems"]
    assert problems[-1] == "and 5 more: --report FILE lists them all"
    assert len(problems) == 21


def test_no_audio_is_an_error(cli: Cli, tmp_path: Path):
    result = cli("lint", tmp_path)
    assert result.code == 1
    assert "holds no audio files" in result.err
