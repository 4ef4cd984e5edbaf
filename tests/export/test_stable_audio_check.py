from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latent_sets import SilentEncoder, make_item, write_latent_set

from audioprep.export.crops import CropPlan
from audioprep.export.stable_audio import Options, StableAudioExport
from audioprep.export.stable_audio_check import check

MODEL = {
    "sample_rate": 44100,
    "model": {
        "pretransform": {"config": {"latent_dim": 64, "downsampling_ratio": 2048}},
        "conditioning": {"configs": [{"id": name} for name in ("prompt", "seconds_start", "seconds_total")]},
    },
    "training": {"pre_encoded": True},
}


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both layouts, made once; 20 frames of 30 are not a whole number of crops."""
    root = tmp_path_factory.mktemp("exports")
    out = write_latent_set(root / "out", [[make_item(number, 20 + number) for number in range(4)]])
    np.save(root / "given.npy", np.ones((1, 64, 30), np.float32))
    options = Options("sat", CropPlan("grid", 8), silence=root / "given.npy")
    StableAudioExport(out, root / "sat", options).run(False, lambda *_: None)
    sa3 = replace(options, layout="sa3", plan=CropPlan("whole"))
    StableAudioExport(out, root / "sa3", sa3).run(False, lambda *_: None)
    return root


@pytest.fixture
def sat(exports: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(exports / "sat", tmp_path / "sat")
    edit(folder / "dataset_config.json", datasets=[{"id": "sat", "path": str(folder)}])
    return folder


@pytest.fixture
def sa3(exports: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exports / "sa3", tmp_path / "sa3")


def edit(path: Path, *without: str, **changes: Any) -> None:
    """Changes or removes entries of a JSON file."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: inner for name, inner in value.items() if name not in without}))


def samples(folder: Path) -> list[Path]:
    return [folder / name for name in (folder / "filelist.txt").read_text().split()]


def first(folder: Path, suffix: str = ".json") -> Path:
    return samples(folder)[0].with_suffix(suffix)


def model_config(folder: Path, **changes: Any) -> Path:
    path = folder.parent / "model.json"
    path.write_text(json.dumps(MODEL | changes))
    return path


def test_nothing_is_wrong(sat: Path, sa3: Path):
    assert check(sat, model_config=model_config(sat)) == []
    assert check(sa3) == []


def test_tells_how_far_it_is(sa3: Path):
    seen: list[tuple[int, int]] = []
    check(sa3, on_files=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def _latents(*shape: int, dtype: Any = np.float16, value: float = 0.5) -> Callable[[Path], None]:
    return lambda folder: np.save(first(folder, ".npy"), np.full(shape, value, dtype))


def _sidecar(*without: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(first(folder), *without, **changes)


def _config(*without: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "dataset_config.json", *without, **changes)


def _filelist(change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "filelist.txt"
        path.write_text(change(path.read_text()))

    return damage


def _stray(listed: bool) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        np.save(folder / "embedding.npy", np.zeros(512, np.float32))
        if not listed:
            (folder / "filelist.txt").unlink()

    return damage


SAT = {
    "shorter than the crop": (_latents(64, 7), "has 7 frames, fewer than latent_crop_length .8.*--short pad or drop"),
    "lengths differ": (
        lambda folder: (_latents(64, 9)(folder), _config("latent_crop_length")(folder)),
        "has 8 frames, and .* 9: no batch fits both; set latent_crop_length at the top level.*to at most 8",
    ),
    "not finite": (_latents(64, 8, value=np.nan), "not finite.*encode its audio again"),
    "wrong width": (_latents(32, 8), "its channels is 32, and not 64; .*different encoders"),
    "wrong type": (_latents(64, 8, dtype=np.float64), "is float64 of shape .64, 8., and not float16 or float32"),
    "another type": (_latents(64, 8, dtype=np.float32), "its number type is float32, and not float16"),
    "wrong shape": (_latents(1, 64, 8), "is float16 of shape .1, 64, 8."),
    "tokens": (_latents(9, 8, dtype=np.int64), "is int64"),
    "damaged": (lambda folder: first(folder, ".npy").write_bytes(b"\x93NUMPY"), "is no readable .npy file"),
    "lost": (lambda folder: first(folder, ".npy").unlink(), r"\.npy: is not there; the trainer takes a random other"),
    "no sidecar": (lambda folder: first(folder).unlink(), r"\.json: is not there; the trainer takes a random other"),
    "torn sidecar": (lambda folder: first(folder).write_text('{"prompt": "a'), "is not readable JSON"),
    "no mask": (_sidecar("padding_mask"), "has no padding_mask"),
    "empty mask": (_sidecar(padding_mask=[0] * 8), "has no padding_mask, a list of 0 and 1 with at least one 1"),
    "wrong mask": (_sidecar(padding_mask=[[1] * 8]), "has no padding_mask"),
    "mask too long": (_sidecar(padding_mask=[1] * 9), "padding_mask of another length"),
    "no seconds_total": (_sidecar("seconds_total"), "no number seconds_total;.*where all lack it, the trainer crashes"),
    "seconds_total as text": (_sidecar(seconds_total="3"), "no number seconds_total"),
    "no seconds_start": (_sidecar("seconds_start"), "no number seconds_start; the model is conditioned on it"),
    "no prompt": (_sidecar("prompt"), "no text in prompt.*--default-prompt"),
    "null prompt": (_sidecar(prompt=None), "no text in prompt"),
    "another rate": (_sidecar(sample_rate=48000), "its sample_rate is 48000, and not 44100"),
    "another ratio": (_sidecar(seconds_total=6), "lasts longer or shorter than 2048 samples a frame make it"),
    "empty line": (_filelist(lambda text: text.replace("\n", "\n\n", 1)), "filelist.txt: has an empty line"),
    "twice": (_filelist(lambda text: text + text.split("\n")[0] + "\n"), "filelist.txt: names a file twice"),
    "not listed": (_filelist(lambda text: text.partition("\n")[2]), "is not in filelist.txt, so the trainer never"),
    "stray and a list": (_stray(listed=True), r"embedding\.npy: is not in filelist.txt"),
    "stray and no list": (_stray(listed=False), r"embedding\.npy: is float32 of shape .512."),
    "crop in the wrong place": (
        _config("latent_crop_length", datasets=[{"id": "a", "path": "a", "latent_crop_length": 8}]),
        "latent_crop_length is inside `datasets`, where it is ignored; move it to the top level",
    ),
    "wrong type of data set": (_config(dataset_type="audio_dir"), "dataset_type is not pre_encoded"),
    "no id": (_config(datasets=[{"path": "."}]), "an entry of `datasets` lacks its id or path"),
    "moved": (_config(datasets=[{"id": "a", "path": "elsewhere"}]), "its path is not .*: was the folder moved"),
    "exclusions": (_config(exclude_paths_file="exclude_paths.txt"), "exclude_paths_file is known to a fork only"),
    "torn configuration": (lambda folder: (folder / "dataset_config.json").write_text("{"), "not readable JSON; give"),
    "not finished": (lambda folder: (folder / "details.json").unlink(), "the export is not finished; run the same"),
}  # fmt: skip


@pytest.mark.parametrize("trap", SAT)
def test_traps_of_stable_audio_tools(sat: Path, trap: str):
    damage, message = SAT[trap]
    damage(sat)
    problems = check(sat)
    assert [problem for problem in problems if re.search(message, problem)], problems


MODELS = {
    "no training.pre_encoded": ({"training": {}}, "training.pre_encoded is not true"),
    "another ratio": (
        {"model": {"pretransform": {"config": {"latent_dim": 64, "downsampling_ratio": 4096}}}},
        "its samples a frame is 4096, and 2048 here; encode with the model's own autoencoder",
    ),
    "another width": ({"model": {"pretransform": {"config": {"latent_dim": 256}}}}, "its channels is 256, and 64 here"),
    "another rate": ({"sample_rate": 48000}, "its sample_rate is 48000, and 44100 here"),
    "another condition": ({"model": {"conditioning": {"configs": [{"id": "bpm"}]}}}, "has no bpm; the model is cond"),
}


@pytest.mark.parametrize("trap", MODELS)
def test_traps_of_the_models_configuration(sat: Path, trap: str):
    changes, message = MODELS[trap]
    problems = check(sat, model_config=model_config(sat, **changes))
    assert [message in problem for problem in problems] == [True]


def test_a_crop_of_the_trainers_own_moves_no_time(sat: Path):
    edit(sat / "dataset_config.json", random_crop=True)
    assert check(sat) == []
    assert "random_crop leaves seconds_start" in check(sat, model_config=model_config(sat))[0]


def test_a_configuration_from_elsewhere(sat: Path):
    config = sat.parent / "mine.json"
    config.write_text(json.dumps({"dataset_type": "pre_encoded", "datasets": [{"id": "a", "path": str(sat)}]}))
    assert check(sat, dataset_config=config) == []
    edit(config, latent_crop_length=9)
    assert "fewer than latent_crop_length (9)" in check(sat, dataset_config=config)[0]


SA3 = {
    "no silence": (lambda folder: (folder / "silence.npy").unlink(), "silence.npy: is not there or damaged"),
    "flat silence": (
        lambda folder: np.save(folder / "silence.npy", np.zeros((64, 30), np.float16)),
        "silence.npy: is not finite numbers of shape .1, 64, frames.",
    ),
    "no mask": (_sidecar("padding_mask"), "has no padding_mask"),
    "no prompt": (_sidecar("prompt"), "no text in prompt"),
    "no seconds_total": (_sidecar("seconds_total"), "no number seconds_total"),
    "another width": (_latents(32, 20), "its channels is 32, and not 64"),
}


@pytest.mark.parametrize("trap", SA3)
def test_traps_of_stable_audio_3(sa3: Path, trap: str):
    damage, message = SA3[trap]
    damage(sa3)
    assert re.search(message, "\n".join(check(sa3)))


def test_npy_in_the_path(sat: Path):
    folder = sat.rename(sat.parent / "my.npy.latents")
    edit(folder / "dataset_config.json", datasets=[{"id": "sat", "path": str(folder)}])
    assert ["rename the folder" in problem for problem in check(folder)] == [True]


def test_what_many_files_have_is_said_once(sat: Path):
    for path in samples(sat):
        edit(path.with_suffix(".json"), "seconds_total")
    name = first(sat).relative_to(sat)
    assert [f"{name} and {len(samples(sat)) - 1} more: has no number" in problem for problem in check(sat)] == [True]


def test_folders_that_others_made(sat: Path, tmp_path: Path):
    """Upstream's own scripts write no list, no details and no configuration of the data set."""
    shutil.rmtree(sat / ".audioprep")
    for name in ("details.json", "filelist.txt", "dataset_config.json"):
        (sat / name).unlink()
    assert check(sat) == []
    assert check(tmp_path / "none") == [
        f"{tmp_path / 'none'}: is no folder. Give one that `audioprep export stable-audio` has made."
    ]
    (tmp_path / "empty").mkdir()
    assert check(tmp_path / "empty") == [f"{tmp_path / 'empty'}: holds no latents (.npy); export into it"]


def test_a_mix_of_two_encoders_shows_without_details(sat: Path, encoder: SilentEncoder):
    (sat / "details.json").unlink()
    shutil.rmtree(sat / ".audioprep")
    np.save(samples(sat)[-1], np.zeros((256, 8), np.float16))
    assert ["its channels is 256, and not 64" in problem for problem in check(sat)] == [True]
