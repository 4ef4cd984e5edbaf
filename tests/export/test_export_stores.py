"""Exports of a set in a store to a store: the files of an export from a disk to a disk."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from latent_sets import make_item, write_latent_set
from song_sets import make_song, write_song_set
from store_files import files_at, put

from audioprep.cli.console import QuietConsole
from audioprep.commands import export_simpletuner, export_stable_audio


def run(command: ModuleType, **settings: Any) -> dict[str, Any]:
    return command.run(command.Settings.model_validate(settings), QuietConsole())


def assert_equal(command: ModuleType, out: Path, bucket: str, **settings: Any) -> None:
    here = out.with_name("here")
    local = run(command, out=out, dest=here, location="/data/set", **settings)
    url = put(out, f"{bucket}/out")
    for _ in range(2):  # the second finds all done
        remote = run(command, out=url, dest=f"{bucket}/there/here", location="/data/set", **settings)
        assert remote | {"dest": ""} == local | {"dest": ""}
        found = files_at(f"{bucket}/there/here")
        names = {path.relative_to(here).as_posix(): path for path in here.rglob("*") if path.is_file()}
        public = {name: path.read_bytes() for name, path in names.items() if ".audioprep" not in name}
        assert found.keys() == public.keys()
        assert found == public


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOPREP_CACHE", str(tmp_path / "kept"))


@pytest.mark.usefixtures("encoder")
def test_stable_audio(tmp_path: Path, bucket: str):
    items = [make_item(number, frames) for number, frames in enumerate([60, 8, 20])]
    assert_equal(export_stable_audio, write_latent_set(tmp_path / "out", [items]), bucket, crop_frames=8)


@pytest.mark.parametrize("layout", ["folder", "inline", "jsonl"])
def test_simpletuner(tmp_path: Path, bucket: str, layout: str):
    songs = [make_song(number, 440 + number) for number in range(3)]
    assert_equal(export_simpletuner, write_song_set(tmp_path / "out", [songs]), bucket, layout=layout)
