"""Our words and files beside those of EMOPIA's own scripts, on 240 scores; its own data set class reads our export.

Opt-in: `pytest -m interop`. AUDIOPREP_EMOPIA names a checkout of github.com/annahung31/EMOPIA, or a bare clone. The
environment of the scripts and the scores' MIDI files are made once, in pytest's cache or the folder AUDIOPREP_INTEROP.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioprep.cli.console import QuietConsole
from audioprep.commands import export_emopia, midi
from audioprep.shards.columns import to_arrays
from audioprep.shards.dataset import open_dataset
from audioprep.shards.tables import read_tables
from audioprep.symbolic.vocabulary import full_vocabulary

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

BENCH = Path(__file__).parents[2] / "bench"
PACKAGES = ("miditoolkit==1.0.1", "numpy==2.4.6", "matplotlib")
SCORES = 240

Event = list[int | str]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("AUDIOPREP_EMOPIA")
    if not given:
        pytest.skip("AUDIOPREP_EMOPIA names no checkout of EMOPIA (it is on no package registry)")
    if (Path(given) / "dataset").is_dir():
        return Path(given)
    folder = tmp_path_factory.mktemp("EMOPIA")
    tar = str(folder / "it.tar")
    subprocess.run(
        ["git", "-C", given, "archive", "--format=tar", "-o", tar, "HEAD", "dataset", "workspace"], check=True
    )
    shutil.unpack_archive(tar, folder)
    return folder


@pytest.fixture(scope="module")
def python(environment: Callable[..., Path]) -> Path:
    """Python with what the scripts need."""
    return environment("emopia", PACKAGES)


@pytest.fixture(scope="module")
def bench(monkeypatch_module: pytest.MonkeyPatch) -> Any:
    monkeypatch_module.syspath_prepend(str(BENCH))
    return importlib.import_module("midi")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def scores(bench: Any, interop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MIDI as the scripts want it: 480 ticks, tracks named piano, chords as markers."""
    folder = tmp_path_factory.mktemp("scores") / "analysed"
    files = bench.corpus_files(interop_folder / "scores", SCORES)
    assert len(files) >= 200
    bench.analysed(files, folder)
    return folder


def run_scripts(python: Path, checkout: Path, source: Path, work: Path) -> Path:
    command = [str(python), str(BENCH / "emopia_upstream.py"), str(checkout), str(source), str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    return work


def tokenize(source: Path, out: Path) -> Path:
    wanted = {"source": [str(source)], "out": out, "tokenizer": "emopia-cp", "chords": "markers", "workers": 1}
    summary = midi.run(midi.Settings.model_validate(wanted), QuietConsole())
    assert summary["failed"] == 0
    return out


def events_of(shards: Path) -> dict[str, list[Event]]:
    """By file name, the values of our words."""
    dataset, found = open_dataset(shards), {}
    classes = list(full_vocabulary(False).values())
    for shard in dataset.shards():
        for table in read_tables(dataset, shard):
            for uri, words in zip(table.column("uri").to_pylist(), to_arrays(table.column("midi_tokens")), strict=True):
                found[Path(uri).name] = [[values[id_] for values, id_ in zip(classes, row, strict=True)]
                                         for row in words]  # fmt: skip
    return found


def lost_bar(ours: list[Event], theirs: list[Event]) -> bool:
    """Whether all that differs is a last bar that upstream leaves out, though a note begins on its first position."""
    shared, more = ours[: len(theirs) - 2], ours[len(theirs) - 2 :]
    return (
        shared == theirs[:-2]
        and [event[2] for event in more if event[2]][:2] == ["Bar", "Beat_0"]
        and any(event[3] == "Note" for event in more)
        and sum(event[2] == "Bar" for event in more) == 2  # the lost one, and the one at every song's end
    )


@pytest.fixture(scope="module")
def both(python: Path, checkout: Path, scores: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("both")
    return tokenize(scores, folder / "ours"), run_scripts(python, checkout, scores, folder / "theirs")


def test_the_same_events(both: tuple[Path, Path]) -> None:
    ours, theirs = events_of(both[0]), json.loads((both[1] / "events.json").read_text())
    assert ours.keys() == theirs.keys()
    others = [name for name in ours if ours[name] != theirs[name]]
    print(f"{len(ours)} scores: {len(ours) - len(others)} equal, {len(others)} of which upstream loses the last bar")
    assert [name for name in others if not lost_bar(ours[name], theirs[name])] == []
    assert len(ours) - len(others) > len(ours) / 2


def test_the_same_arrays(both: tuple[Path, Path], python: Path, checkout: Path, scores: Path, tmp_path: Path) -> None:
    """On the scores whose last bar upstream does not lose: the dictionary is fitted to all of them."""
    ours, theirs = events_of(both[0]), json.loads((both[1] / "events.json").read_text())
    (tmp_path / "equal").mkdir()
    for name in ours:
        if ours[name] == theirs[name]:
            shutil.copy(scores / name, tmp_path / "equal")
    work = run_scripts(python, checkout, tmp_path / "equal", tmp_path / "work")
    shards = tokenize(tmp_path / "equal", tmp_path / "shards")
    export_emopia.run(
        export_emopia.Settings.model_validate({"out": shards, "dest": tmp_path / "export"}), QuietConsole()
    )

    to_word, _ = pickle.loads((tmp_path / "export" / "dictionary.pkl").read_bytes())  # ours, written above
    assert {name: list(values) for name, values in to_word.items()} == json.loads(
        (work / "dictionary.json").read_text()
    )
    names = [json.loads(path.read_text()) for path in (
        tmp_path / "export" / "emopia_fn2idx_map.json", work / "train_fn2idx_map.json")]  # fmt: skip
    assert names[0]["fn2idx"].keys() == names[1]["fn2idx"].keys()
    with (
        np.load(tmp_path / "export" / "emopia_data.npz") as mine,
        np.load(work / "train_data_linear.npz") as upstream,
    ):
        assert sorted(mine) == sorted(upstream)
        assert {name: mine[name].dtype for name in mine} == {name: upstream[name].dtype for name in upstream}
        assert (mine["seq_len"] == upstream["seq_len"]).all()  # both by length; upstream leaves ties as it lists files
        order = [names[1]["fn2idx"][name] for name in names[0]["fn2idx"]]
        for name in mine:
            assert (mine[name] == upstream[name][order]).all(), name


def test_upstreams_data_set_reads_the_export(both: tuple[Path, Path], checkout: Path, tmp_path: Path) -> None:
    """`PEmoDataset` of `main_cp.py`, word for word, with the paths that `main_cp.py` puts together."""
    import torch

    export_emopia.run(export_emopia.Settings.model_validate({"out": both[0], "dest": tmp_path}), QuietConsole())
    source = (checkout / "workspace" / "transformer" / "main_cp.py").read_text()
    (theirs,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "PEmoDataset"
    ]
    names: dict[str, Any] = {
        "np": np, "torch": torch, "Dataset": torch.utils.data.Dataset,
        "path_train_data": str(tmp_path / "emopia_data.npz"),
        "path_train_data_cls_idx": str(tmp_path / "emopia_data_idx.npz"),
    }  # fmt: skip
    exec(compile(ast.Module([theirs], []), "main_cp.py", "exec"), names)
    to_word, _ = pickle.loads((tmp_path / "dictionary.pkl").read_bytes())
    sizes = torch.tensor([len(values) for values in to_word.values()])
    for task, emotions in (("4-cls", {1, 2, 3, 4}), ("Arousal", {1, 2}), ("Valence", {1, 2})):
        found = names["PEmoDataset"](task)
        assert len(found) == len(events_of(both[0]))
        x, y, mask = found[0]
        assert (x.shape, y.shape, mask.shape) == ((1024, 8), (1024, 8), (1024,))
        assert (x.dtype, y.dtype, mask.dtype) == (torch.int64, torch.int64, torch.float32)
        assert (found.train_x < sizes).all() and (found.train_x >= 0).all()
        assert {int(song[0][-1]) for song in found.train_x} == emotions
