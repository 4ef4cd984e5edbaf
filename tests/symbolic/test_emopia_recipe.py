"""From scores with EMOPIA's names to its trainer's files and a trained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_midi_command import CONSOLE, write_songs

from audioprep.bundled import recipe_path
from audioprep.cli.recipe import run_recipe

SMALL = ("steps=2", "width=16", "depth=1", "heads=2", "max_words=64", "batch_size=4", "device=cpu")


def test_the_recipe_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_songs(tmp_path / "songs", songs=16, excerpts=1)
    monkeypatch.setenv("MIDI", str(tmp_path / "songs"))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    changes = ["midi.workers=1", "midi.splits={train: 0.5, test: 0.5}", *(f"train.settings.{one}" for one in SMALL)]
    code, summaries = run_recipe(recipe_path("emopia"), changes, False, CONSOLE, report=False)
    assert code == 0 and summaries, summaries
    assert summaries["verify"]["problems"] == []
    splits = summaries["midi"]["splits"]
    assert sum(splits.values()) == 16 and summaries["train"]["steps"] == 2
    arrays = np.load(tmp_path / "out/co-representation/emopia_data.npz")
    assert arrays["x"].shape == (splits["train"], 1024, 9)
    names = json.loads((tmp_path / "out/co-representation/emopia_fn2idx_map.json").read_text())["fn2idx"]
    assert len(names) == splits["train"]
    assert (tmp_path / "out/words.png").read_bytes()[:4] == b"\x89PNG"
