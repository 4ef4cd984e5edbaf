"""Exports for SimpleTuner on the command line and in a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import audioprep
from song_sets import make_song, write_song_set
from song_traps import table_rows, write_table


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_song_set(tmp_path / "out", [[make_song(0, 60), make_song(1, 90, tags="7"), make_song(2, 1200)]])


def test_an_export_and_its_check(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dest = tmp_path / "songs"
    command = ("export", "simpletuner", out, dest, "--max-frames", 800, "--long", "segment-all", "--ending-rows")
    assert audioprep(*command, "--dry-run", "--json") == 0
    planned = {"dest": str(dest), "layout": "folder", "items": 3, "long": "segment-all"}
    assert json.loads(capsys.readouterr().out) == planned and not dest.exists()

    assert audioprep(*command, "--json", "--quiet") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["lyrics_emptied"], summary["left_out"]) == (3, 2, {"numeric-tags": 1})
    assert summary["train_with"] == f"simpletuner train env={dest}/config.json"
    assert [row["num_frames"] for row in table_rows(dest)] == [60, 744, 456]

    assert audioprep("verify", dest, "--for", "simpletuner", "--quiet") == 0
    write_table(dest, [row | {"tags": ""} for row in table_rows(dest)])
    capsys.readouterr()
    assert audioprep("verify", dest, "--for", "simpletuner", "--json", "--quiet") == 1
    assert "has no tags" in json.loads(capsys.readouterr().out)["problems"][0]


def test_a_recipe(out: Path, tmp_path: Path):
    dest = tmp_path / "songs"
    stages = [
        {"stage": "export-simpletuner", "out": str(out), "dest": str(dest), "layout": "jsonl", "limit": 1},
        {"stage": "verify", "out": str(dest), "target": "simpletuner"},
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert audioprep("run", tmp_path / "recipe.yaml") == 0
    assert len((dest / "songs.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "foldr"], "--layout foldr: there is folder, inline, jsonl. Did you mean folder?"),
        (["--long", "cut"], "--long cut: there is segment, segment-all, drop."),
        (["--tokens", "npz"], "--tokens npz: there is npy, pt."),
        (["--hub", "me/songs"], "--hub: goes with --layout inline"),
        (["--tokenizer", "none.json"], "none.json: is no tokenizer"),
    ],
)
def test_wrong_options(out: Path, tmp_path: Path, options: list[Any], message: str, capsys: pytest.CaptureFixture[str]):
    assert audioprep("export", "simpletuner", out, tmp_path / "songs", *options) == 1
    assert message in capsys.readouterr().err
