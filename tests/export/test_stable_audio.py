from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latent_sets import HOP, RATE, SPEC, Item, SilentEncoder, latents_of, make_item, write_latent_set

from audioprep.corpus.exclusions import Exclusions
from audioprep.errors import SystemFault, UsageError
from audioprep.export.crops import CropPlan
from audioprep.export.silence import encode_silence
from audioprep.export.stable_audio import Options, StableAudioExport
from audioprep.export.stable_audio_check import check
from audioprep.shards.writers import Format

LENGTHS = [60, 8, 20, 33, 100]
GRID = Options("sat", CropPlan("grid", 8))
SA3 = Options("sa3", CropPlan("whole"))


def items(lengths: list[int] = LENGTHS, **changes: Any) -> list[list[Item]]:
    """Two shards."""
    made = [make_item(number, frames, **changes) for number, frames in enumerate(lengths)]
    return [made[:3], made[3:]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_latent_set(tmp_path / "out", items())


def export(out: Path, folder: Path, options: Options = GRID, overwrite: bool = False) -> dict[str, Any]:
    return StableAudioExport(out, folder, options).run(overwrite, lambda done, total: None)


def listed(folder: Path) -> list[str]:
    return (folder / "filelist.txt").read_text().splitlines()


def sidecar(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).with_suffix(".json").read_text())


def everything(folder: Path) -> dict[str, bytes]:
    """All that the trainers may read."""
    names = [path for path in folder.rglob("*") if path.is_file() and ".audioprep" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_every_frame_of_every_item_is_there(tmp_path: Path, storage: Format):
    out = write_latent_set(tmp_path / "out", items(), storage=storage)
    details = export(out, tmp_path / "sat")
    frames = {number: np.zeros(length) for number, length in enumerate(LENGTHS)}
    for name in listed(tmp_path / "sat"):
        latents = np.load(tmp_path / "sat" / name)
        assert (latents.dtype, latents.shape, latents.flags.c_contiguous) == (np.float16, (64, 8), True)
        number, start = int(latents[1, 0]), int(latents[0, 0])
        np.testing.assert_array_equal(latents.T, latents_of(number, LENGTHS[number], 64)[start : start + 8])
        frames[number][start : start + 8] += 1
    assert all(counts.all() for counts in frames.values())
    assert (details["items"], details["files"]) == (5, len(listed(tmp_path / "sat")))
    assert check(tmp_path / "sat") == []


@pytest.mark.parametrize("plan", [CropPlan("grid", 8, 5), CropPlan("random", 8, per_item=3, seed=4)])
def test_every_piece_knows_where_it_begins(tmp_path: Path, out: Path, plan: CropPlan):
    export(out, tmp_path / "sat", Options("sat", plan))
    begins = []
    for name in listed(tmp_path / "sat"):
        found, latents = sidecar(tmp_path / "sat", name), np.load(tmp_path / "sat" / name)
        number, start = int(latents[1, 0]), int(latents[0, 0])
        begins.append(found["seconds_start"])
        assert found["seconds_start"] == int(start * HOP / RATE)
        assert found["seconds_total"] == -(-(LENGTHS[number] * HOP - 100) // RATE)
        assert found["timestamps"] == [start / LENGTHS[number], (start + 8) / LENGTHS[number]]
        assert name.endswith(f"-{start:06d}.npy")
    assert max(begins) == 4 or plan.mode == "random"
    assert len(set(begins)) > 2


def test_a_sidecar_says_what_upstreams_does(tmp_path: Path, out: Path):
    export(out, tmp_path / "sat")
    name = next(name for name in listed(tmp_path / "sat") if name.startswith("train-00001/"))
    assert sidecar(tmp_path / "sat", name) == {
        "path": "/music/01/3.mp3",
        "relpath": "3.mp3",
        "timestamps": [0.0, 8 / 33],
        "seconds_start": 0,
        "seconds_total": 2,
        "padding_mask": [1] * 8,
        "sample_rate": 44100,
        "prompt": "Song number 3",
        "id": make_item(3, 33)["id"],
        "license": "CC BY 4.0",
    }


def test_the_data_sets_configuration(tmp_path: Path, out: Path):
    details = export(out, tmp_path / "sat")
    config = {
        "dataset_type": "pre_encoded",
        "datasets": [{"id": "sat", "path": str(tmp_path / "sat")}],
        "latent_crop_length": 8,
        "random_crop": False,
        "drop_last": False,
    }
    assert json.loads((tmp_path / "sat/dataset_config.json").read_text()) == config
    assert json.loads((tmp_path / "sat/details.json").read_text()) == details
    stated = {name: details[name] for name in ("layout", "sample_rate", "downsampling_ratio", "latent_dim", "dtype")}
    assert stated == {
        "layout": "sat", "sample_rate": RATE, "downsampling_ratio": HOP, "latent_dim": 64, "dtype": "float16",
    }  # fmt: skip
    assert details["licenses"] == {"CC BY 4.0": 2, "not stated": 3}
    assert details["hours"] == pytest.approx(details["frames"] * HOP / RATE / 3600)


def test_whole_items_that_the_trainer_cuts(tmp_path: Path, encoder: SilentEncoder):
    out = write_latent_set(tmp_path / "out", items([30, 5]))
    details = export(out, tmp_path / "sat", Options("sat", CropPlan("whole", 8)))
    assert [np.load(tmp_path / "sat" / name).shape for name in listed(tmp_path / "sat")] == [(64, 30), (64, 8)]
    assert json.loads((tmp_path / "sat/dataset_config.json").read_text())["random_crop"] is True
    assert (details["shortest"], details["longest"], details["padded"]) == (8, 30, 1)
    assert check(tmp_path / "sat") == []


def test_short_items_are_filled_up_with_silence(tmp_path: Path, encoder: SilentEncoder):
    out = write_latent_set(tmp_path / "out", items([5, 12]))
    details = export(out, tmp_path / "sat", Options("sat", CropPlan("grid", 8, tail="pad")))
    short, _, tail = listed(tmp_path / "sat")
    silence = encode_silence(encoder, 8).astype(np.float16)
    np.testing.assert_array_equal(np.load(tmp_path / "sat" / short)[:, 5:].T, silence[5:])
    np.testing.assert_array_equal(np.load(tmp_path / "sat" / tail)[:, 4:].T, silence[4:])
    assert sidecar(tmp_path / "sat", short)["padding_mask"] == [1] * 5 + [0] * 3
    assert sidecar(tmp_path / "sat", short)["timestamps"] == [0.0, 1.0]
    assert sidecar(tmp_path / "sat", tail)["timestamps"] == [8 / 12, 1.0]
    assert (details["padded"], details["frames"]) == (2, 17)
    assert check(tmp_path / "sat") == []


def test_short_items_are_left_out(tmp_path: Path):
    out = write_latent_set(tmp_path / "out", items([5, 12]))
    details = export(out, tmp_path / "sat", replace(GRID, short="drop"))
    assert (details["too_short"], details["files"]) == (1, 2)
    out = write_latent_set(tmp_path / "short", items([5, 6]))
    with pytest.raises(UsageError, match="nothing is left to export: of 2 items 0 are excluded and 2 too short"):
        export(out, tmp_path / "none", replace(GRID, short="drop"))


def test_silence_from_a_file(tmp_path: Path):
    out = write_latent_set(tmp_path / "out", items([5]))
    silence = np.random.default_rng(0).standard_normal((1, 64, 9)).astype(np.float32)
    np.save(tmp_path / "silence.npy", silence)
    options = replace(GRID, silence=tmp_path / "silence.npy")
    export(out, tmp_path / "sat", options)
    found = np.load(tmp_path / "sat" / listed(tmp_path / "sat")[0])
    np.testing.assert_array_equal(found[:, 5:], silence[0, :, 5:8].astype(np.float16))

    write_latent_set(tmp_path / "out", items([5, 6]))
    np.save(tmp_path / "silence.npy", silence + 1)
    with pytest.raises(UsageError, match=r"silence\.npy: is not the silence used so far.*--overwrite"):
        export(out, tmp_path / "sat", options)


def test_without_the_encoder_only_padding_fails_and_the_same_call_goes_on(tmp_path: Path):
    out = write_latent_set(tmp_path / "out", items([20, 8, 9, 5]))
    with pytest.raises(UsageError, match=r"--silence FILE\.npy"):
        export(out, tmp_path / "sat")
    np.save(tmp_path / "silence.npy", np.zeros((1, 64, 8), np.float32))
    assert export(out, tmp_path / "sat", replace(GRID, silence=tmp_path / "silence.npy"))["padded"] == 1


@pytest.mark.parametrize(("encoder_name", "model"), [("same-s", "small-music-base"), ("same-l", "medium-base")])
def test_latents_of_same_are_for_a_model_of_its_size(tmp_path: Path, encoder_name: str, model: str):
    out = write_latent_set(tmp_path / "out", items([20]))
    description = json.loads((out / "dataset.json").read_text())
    description["encoders"]["latents"]["encoder"] = encoder_name
    (out / "dataset.json").write_text(json.dumps(description))
    np.save(tmp_path / "silence.npy", np.zeros((1, 64, 6144), np.float32))
    details = export(out, tmp_path / "sa3", replace(SA3, silence=tmp_path / "silence.npy"))
    assert details["train_with"].endswith(f"--model {model}")


def test_sa3(tmp_path: Path, out: Path, encoder: SilentEncoder):
    details = export(out, tmp_path / "sa3", replace(SA3, dtype="float32"))
    folder = tmp_path / "sa3"
    found = [np.load(folder / name) for name in listed(folder)]
    assert [latents.shape for latents in found] == [(64, frames) for frames in LENGTHS]
    assert {latents.dtype for latents in found} == {np.dtype(np.float32)}
    assert not any("/" in name for name in listed(folder))
    silence = np.load(folder / "silence.npy")
    assert (silence.shape, silence.dtype) == ((1, 64, 6144), np.float32)
    np.testing.assert_array_equal(silence[0].T, encode_silence(encoder, 6144))
    assert sidecar(folder, listed(folder)[0])["padding_mask"] == [1] * 60
    assert details["train_with"].endswith(f"--encoded_dir {folder} --duration 4.65 --model medium-base")
    assert int(4.65 * RATE) // HOP == 100
    assert not (folder / "dataset_config.json").exists()
    assert check(folder) == []


def test_sa3_in_pieces_leaves_padding_to_the_trainer(tmp_path: Path, encoder: SilentEncoder):
    out = write_latent_set(tmp_path / "out", items([5, 12]))
    export(out, tmp_path / "sa3", Options("sa3", CropPlan("grid", 8, tail="pad")))
    shapes = [np.load(tmp_path / "sa3" / name).shape[1] for name in listed(tmp_path / "sa3")]
    assert shapes == [5, 8, 4]
    assert check(tmp_path / "sa3") == []


def test_prompts(tmp_path: Path):
    made = items([8] * 4)[0] + [make_item(9, 8, prompt=None), make_item(10, 8, prompt="", tags=None)]
    out = write_latent_set(tmp_path / "out", [made])

    def prompts(name: str, **changes: Any) -> list[str]:
        details = export(out, tmp_path / name, replace(GRID, **changes))
        found = [sidecar(tmp_path / name, file)["prompt"] for file in listed(tmp_path / name)]
        assert details["without_prompt"] == found.count("")
        return found

    assert prompts("a")[-3:] == ["Song number 2", "tag9", ""]
    assert prompts("b", prompt_column="tags", default_prompt="music")[-3:] == ["tag2", "tag9", "music"]
    with pytest.raises(UsageError, match=r"no text in a column promt\. Did you mean prompt\?"):
        prompts("c", prompt_column="promt")


def test_excluded_inputs_are_not_written(tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture):
    exclusions = Exclusions(frozenset({"00/2.mp3", "4"}), ("/music",))
    details = export(out, tmp_path / "sat", replace(GRID, exclusions=exclusions))
    found = [sidecar(tmp_path / "sat", name) for name in listed(tmp_path / "sat")]
    assert {entry["relpath"] for entry in found} == {"00/0.mp3", "01/1.mp3", "01/3.mp3"}
    assert (details["items"], details["excluded"]) == (5, 2)
    config = json.loads((tmp_path / "sat" / "dataset_config.json").read_text())
    assert config["exclude_paths_file"] == str(tmp_path / "sat" / "exclude_paths.txt")
    assert (tmp_path / "sat" / "exclude_paths.txt").read_text() == "00/2.mp3\n4\n"
    assert check(tmp_path / "sat") == []

    with caplog.at_level(logging.WARNING):
        export(out, tmp_path / "none", replace(GRID, exclusions=Exclusions(frozenset({"9.mp3"}))))
    assert "none of the paths to exclude is an input" in caplog.text


def test_exact_copies_have_names_of_their_own(tmp_path: Path):
    made = [make_item(0, 8), make_item(0, 8, uri="/music/copy.mp3", prompt="Copy"), make_item(0, 8)]
    out = write_latent_set(tmp_path / "out", [made[:2], made[2:]])
    export(out, tmp_path / "sat")
    export(out, tmp_path / "sa3", replace(GRID, layout="sa3", silence=_silence(tmp_path)))
    key = made[0]["id"]
    first = [f"{key}-000000.npy", f"{key}_2-000000.npy"]
    assert listed(tmp_path / "sat") == [f"train-00000/{name}" for name in first] + [f"train-00001/{first[0]}"]
    assert listed(tmp_path / "sa3") == [f"train-00000_{name}" for name in first] + [f"train-00001_{first[0]}"]
    assert sidecar(tmp_path / "sat", f"train-00000/{first[1]}")["prompt"] == "Copy"


def _silence(tmp_path: Path) -> Path:
    np.save(tmp_path / "given.npy", np.zeros((1, 64, 20), np.float32))
    return tmp_path / "given.npy"


@pytest.mark.parametrize("layout", ["sat", "sa3"])
def test_an_interrupted_export_goes_on_to_the_same_bytes(
    tmp_path: Path, out: Path, layout: Any, monkeypatch: pytest.MonkeyPatch
):
    options = replace(GRID, layout=layout, silence=_silence(tmp_path))
    export(out, tmp_path / "at_once", options)
    here = tmp_path / "sat"
    for stop_after in (1, 2, 20, 21, 45):
        with monkeypatch.context() as patch:
            _stop_after(stop_after, patch)
            with pytest.raises(KeyboardInterrupt):
                export(out, here, options)
        assert any("the export is not finished" in problem for problem in check(here))
    export(out, here, options)
    expected = everything(tmp_path / "at_once")
    found = everything(here)
    for name in ("dataset_config.json", "details.json"):  # they name the folder
        for files in (found, expected):
            files.pop(name, None)
    assert found == expected
    assert check(here) == []


def _stop_after(files: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just before another file would be renamed into its place."""
    left = iter(range(files))

    def replace_or_stop(source: Any, target: Any, rename: Any = os.replace) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(source, target)

    patch.setattr(os, "replace", replace_or_stop)


def test_what_is_done_is_not_done_again(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    export(out, tmp_path / "sat")
    before = everything(tmp_path / "sat")
    monkeypatch.setattr(StableAudioExport, "_item", lambda *_: pytest.fail("an item was written again"))
    export(out, tmp_path / "sat")
    assert everything(tmp_path / "sat") == before


def test_a_file_that_was_lost_comes_back(tmp_path: Path, out: Path):
    export(out, tmp_path / "sat")
    before = everything(tmp_path / "sat")
    (tmp_path / "sat" / listed(tmp_path / "sat")[3]).unlink()
    export(out, tmp_path / "sat")
    assert everything(tmp_path / "sat") == before


@pytest.mark.parametrize("layout", ["sat", "sa3"])
def test_a_shard_set_that_has_grown(tmp_path: Path, layout: Any):
    options = replace(GRID, layout=layout, silence=_silence(tmp_path))
    out = write_latent_set(tmp_path / "out", items())
    here = tmp_path / "here"
    export(out, here, options)
    first, second = items()
    write_latent_set(out, [first, [*second[1:], make_item(7, 50)], [make_item(8, 9)]])
    export(out, here, options)
    export(out, tmp_path / "new", options)
    assert listed(here) == listed(tmp_path / "new")
    assert everything(here).keys() == everything(tmp_path / "new").keys()
    assert check(here) == []

    write_latent_set(out, [first])
    export(out, here, options)
    assert {name[:11] for name in listed(here)} == {"train-00000"}
    assert len([path for path in here.rglob("*.npy") if path.name != "silence.npy"]) == len(listed(here))


def test_a_limit_can_be_raised_and_lowered(tmp_path: Path, out: Path):
    assert export(out, tmp_path / "sat", replace(GRID, limit=2))["items"] == 2
    assert export(out, tmp_path / "sat", replace(GRID, limit=4))["items"] == 4
    export(out, tmp_path / "sat")
    export(out, tmp_path / "all")
    assert listed(tmp_path / "sat") == listed(tmp_path / "all")
    export(out, tmp_path / "sat", replace(GRID, limit=1))
    assert len(list((tmp_path / "sat").rglob("*.npy"))) == len(listed(tmp_path / "sat")) == 8


def test_other_settings_are_refused(tmp_path: Path, out: Path):
    export(out, tmp_path / "sat")
    before = everything(tmp_path / "sat")
    other = replace(GRID, plan=CropPlan("grid", 16))
    with pytest.raises(UsageError, match=r"was exported with other settings:\n  crops.frames: 8 → 16\n.*--overwrite"):
        export(out, tmp_path / "sat", other)
    assert everything(tmp_path / "sat") == before
    (tmp_path / "sat/mine.txt").write_text("kept")
    export(out, tmp_path / "sat", replace(GRID, plan=CropPlan("random", 8)), overwrite=True)
    assert len(list((tmp_path / "sat").rglob("*.npy"))) == 5
    assert (tmp_path / "sat/mine.txt").exists()


def test_latents_of_another_encoder_are_not_mixed_in(tmp_path: Path, out: Path):
    export(out, tmp_path / "sat")
    write_latent_set(out, items(), spec=replace(SPEC, hop_length=4096, window=4 * 4096, dim=256))
    with pytest.raises(UsageError, match=r"(?s)encoder.dim: 64 → 256\n.*  encoder.hop_length: 2048 → 4096"):
        export(out, tmp_path / "sat")


@pytest.mark.parametrize("layout", ["sat", "sa3"])
def test_says_which_models_the_latents_are_for(tmp_path: Path, layout: Any, caplog: pytest.LogCaptureFixture):
    spec = replace(SPEC, hop_length=4096, window=4 * 4096, dim=256)
    out = write_latent_set(tmp_path / "out", items(hop=4096), spec=spec)
    np.save(tmp_path / "silence.npy", np.zeros((256, 20), np.float32))
    with caplog.at_level(logging.WARNING):
        export(out, tmp_path / "here", replace(GRID, layout=layout, silence=tmp_path / "silence.npy"))
    assert ("published models of the layout sat are for 44100 Hz, 2048 samples" in caplog.text) is (layout == "sat")
    assert check(tmp_path / "here") == []


def test_folders_that_will_not_do(tmp_path: Path, out: Path):
    with pytest.raises(UsageError, match=r"`.npy` wherever it is in a path"):
        export(out, tmp_path / "my.npy" / "sat")
    with pytest.raises(UsageError, match="not empty and was not made by audioprep"):
        export(out, out)
    (out / ".audioprep").mkdir()
    (out / ".audioprep/run.json").write_text("{}")
    with pytest.raises(UsageError, match="holds something else that audioprep made"):
        export(out, out)


def test_columns_that_are_not_there(tmp_path: Path, out: Path):
    with pytest.raises(UsageError, match=r"no latents in a column latens\. Did you mean latents\?"):
        export(out, tmp_path / "sat", replace(GRID, column="latens"))
    with pytest.raises(UsageError, match="has no split validation"):
        export(out, tmp_path / "sat", replace(GRID, split="validation"))
    description = json.loads((out / "dataset.json").read_text())
    description["encoders"] = {"audio_tokens": {"kind": "tokens"}}
    (out / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match="Add one: `audioprep encode"):
        export(out, tmp_path / "sat")


def test_a_full_disk_stops_it(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemFault, match="No space left on device.*goes on from here"):
        export(out, tmp_path / "sat")


def test_another_layout_leaves_nothing_of_the_first(out: Path, tmp_path: Path):
    export(out, tmp_path / "latents", replace(SA3, silence=_silence(tmp_path)))
    assert (tmp_path / "latents" / "silence.npy").exists()
    export(out, tmp_path / "latents", GRID, overwrite=True)
    assert not (tmp_path / "latents" / "silence.npy").exists()
    assert check(tmp_path / "latents") == []
