from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_helpers import RATE, music
from muq import MuQ
from muq_helpers import DEPTH, DIM, W2V2, plain, save_muq
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from audioprep.encoders import muq
from audioprep.errors import UsageError
from audioprep.stages.windows import WindowCutter

WINDOW, OVERLAP = 3.0, 0.6
HOP = 960


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("muq")
    save_muq(path)
    return path


@pytest.fixture(scope="module")
def upstream(folder: Path) -> MuQ:
    return MuQ.from_pretrained(folder).eval()


def load(folder: Path, **settings: Any) -> muq.MuQHidden:
    return muq.load(
        muq.Settings(weights=str(folder), window_seconds=WINDOW, overlap_seconds=OVERLAP, batch_size=2, **settings)
    )


@pytest.fixture
def encoder(folder: Path) -> muq.MuQHidden:
    return load(folder)


@pytest.fixture(params=["row by row", "masked"])
def each_way(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> muq.MuQHidden:
    """As on a CPU, and as on a GPU: there all windows have one shape, and what lies outside a file is masked."""
    if request.param == "masked":
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    return load(folder, compile=request.param == "masked")


def windows_of(encoder: muq.MuQHidden, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    cutter = WindowCutter(encoder.spec)
    found = list(chain(cutter.push(samples), cutter.finish()))
    return np.stack([window.samples for window in found]), np.array([(window.start, window.end) for window in found])


def encode(encoder: muq.MuQHidden, samples: NDArray[np.float32]) -> NDArray[Any]:
    values, valid = windows_of(encoder, samples)
    return np.concatenate(list(encoder.encode(values, valid)))[: encoder.spec.num_frames(samples.shape[1])]


@pytest.mark.parametrize("samples", [1200, 4 * HOP, 10 * HOP + 240, 30_011, 47_999, 3 * RATE])
def test_a_file_within_one_window_is_what_upstream_gives(samples: int, each_way: muq.MuQHidden, upstream: MuQ):
    sound = music(4.0, 0)[:, :samples]
    want = plain(upstream, sound)
    assert len(want) == each_way.spec.num_frames(samples)
    np.testing.assert_allclose(encode(each_way, sound), want, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 239, 959, 1024])
def test_shorter_than_upstream_takes_is_as_if_silence_followed(samples: int, each_way: muq.MuQHidden, upstream: MuQ):
    sound = np.zeros((1, 1025), np.float32)
    sound[:, :samples] = music(4.0, 0)[:, 100 : 100 + samples]
    want = plain(upstream, sound)
    found = encode(each_way, sound[:, :samples])
    assert len(found) == each_way.spec.num_frames(samples)
    np.testing.assert_allclose(found, np.broadcast_to(want, found.shape), atol=1e-5)


def test_a_last_frame_that_has_hardly_begun_repeats_the_one_before(each_way: muq.MuQHidden, upstream: MuQ):
    sound = music(4.0, 0)[:, : 20 * HOP + 239]
    want = plain(upstream, sound)
    found = encode(each_way, sound)
    assert (len(want), len(found)) == (20, 21)
    np.testing.assert_allclose(found, want[[*range(20), 19]], atol=1e-5)


def test_of_each_window_of_a_long_file_the_middle_is_kept(each_way: muq.MuQHidden, upstream: MuQ):
    sound = music(10.0, 1)[:, : 10 * RATE - 500]
    window, context = int(WINDOW * RATE), int(OVERLAP * RATE)
    want: list[NDArray[np.float32]] = []
    for first in range(0, sound.shape[1], window):
        heard = sound[:, max(0, first - context) : first + window + context]
        skipped = min(first, context) // HOP
        want.append(plain(upstream, heard)[skipped : skipped + window // HOP])
    np.testing.assert_allclose(encode(each_way, sound), np.concatenate(want), atol=1e-5)


def test_windows_give_the_same_alone_and_among_any_neighbours(encoder: muq.MuQHidden):
    sounds = [windows_of(encoder, music(10.0, seed)[:, : 200_000 + 7919 * seed]) for seed in range(2)]
    values, valid = (np.concatenate(parts) for parts in zip(*sounds, strict=True))
    together = encoder.encode(values, valid)
    order = np.random.default_rng(0).permutation(len(values))
    np.testing.assert_array_equal(encoder.encode(values[order], valid[order]), together[order])
    for row in range(len(values)):
        alone = encoder.encode(values[[row]], valid[[row]])
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("layer", range(DEPTH + 1))
def test_each_layer_is_upstreams(layer: int, upstream: MuQ, folder: Path):
    sound = music(4.0, 0)[:, : 2 * RATE]
    encoder = load(folder, layer=layer)
    np.testing.assert_allclose(encode(encoder, sound), plain(upstream, sound, layer), atol=1e-5)
    assert encoder.spec.settings["layer"] == layer
    assert len(encoder._model.conformer.layers) == layer  # no more than is needed


def test_the_last_layer_is_the_default(encoder: muq.MuQHidden):
    assert encoder.spec.settings["layer"] == DEPTH


def test_fifty_frames_a_second(tmp_path: Path):
    upstream = save_muq(tmp_path, label_rate=50)
    sound = music(4.0, 0)[:, :50_400]
    encoder = load(tmp_path)
    assert encoder.spec.frame_rate == 50
    np.testing.assert_allclose(encode(encoder, sound), plain(upstream, sound), atol=1e-5)


def test_relative_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    upstream = save_muq(tmp_path, w2v2_config=W2V2 | {"position_embeddings_type": "relative"})
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    sound = music(4.0, 0)[:, :50_400]
    np.testing.assert_allclose(encode(load(tmp_path, compile=True), sound), plain(upstream, sound), atol=1e-5)


def test_what_is_not_finite_stays_with_its_window(each_way: muq.MuQHidden):
    values, valid = windows_of(each_way, music(10.0, 1)[:, : 5 * RATE])
    clean = each_way.encode(values, valid)
    broken = values.copy()
    broken[1, 0, 40_000] = np.nan
    found = each_way.encode(broken, valid)
    assert np.isnan(found[1]).any()
    np.testing.assert_array_equal(found[0], clean[0])


def test_bfloat16_is_near(upstream: MuQ, folder: Path):
    sound = music(4.0, 0)[:, : 2 * RATE]
    found = encode(load(folder, dtype="bfloat16"), sound)
    error = np.abs(found - plain(upstream, sound))
    assert 1e-4 < error.mean() < 0.1


def test_random_numbers_of_the_process_stay_as_they_are(encoder: muq.MuQHidden, folder: Path):
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_describing_imports_no_torch(folder: Path):
    code = (
        "import sys; from audioprep.encoders import muq\n"
        f"spec = muq.describe(muq.Settings(weights={str(folder)!r}))\n"
        f"assert (spec.dim, spec.frame_rate, spec.kind) == ({DIM}, 25.0, 'latents'), spec\n"
        "sys.exit(str({'torch', 'muq', 'transformers'} & set(sys.modules)) if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_that_move_values_are_in_the_spec(folder: Path):
    spec = muq.describe(muq.Settings(weights=str(folder)))
    assert (spec.window, spec.left_context, spec.right_context) == (30 * RATE, 2 * RATE, 2 * RATE)
    assert {"muq", "transformers", "torch", "dtype", "layer"} <= spec.settings.keys()
    assert spec != muq.describe(muq.Settings(weights=str(folder), overlap_seconds=1.0))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_no_such_layer(folder: Path):
    with pytest.raises(UsageError, match="has hidden states 0 to 3, and layer is 4"):
        load(folder, layer=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stat": {}}, "config.json: is no configuration of MuQ .*melspec_2048_mean"),
        ({"label_rate": 10}, "label_rate"),
        ({"encoder_dim": "wide"}, "config.json: is no configuration of MuQ"),
        ({"w2v2_config": {}}, "config.json: MuQ cannot be built from it"),
        ({"encoder_dim": 64}, "model.safetensors: its weights do not fit"),
        ({"encoder_depth": 4}, r"model.safetensors: .* missing: .*conformer.layers.3"),
    ],
)
def test_a_wrong_configuration(changes: dict[str, Any], message: str, tmp_path: Path):
    save_muq(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_weights_without_heads_load_and_damaged_ones_do_not(folder: Path, tmp_path: Path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / "model.safetensors")
    kept = {
        key: value
        for key, value in tensors.items()
        if key.startswith(("model.conv", "model.conformer.l", "model.conformer.e"))
    }
    save_file(kept, tmp_path / "model.safetensors")
    sound = music(4.0, 0)[:, :RATE]
    np.testing.assert_array_equal(encode(load(tmp_path), sound), encode(load(folder), sound))
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="model.safetensors: cannot be read as a checkpoint"):
        load(tmp_path)


def test_a_file_of_weights_finds_its_configuration(folder: Path, tmp_path: Path):
    assert load(folder / "model.safetensors").spec == load(folder).spec
    alone = tmp_path / "model.safetensors"
    alone.write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UsageError, match="config.json: is no configuration of MuQ"):
        load(alone)


def test_a_model_that_is_not_here_and_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="muq: OpenMuQ/no-such-model is not on this machine"):
        muq.describe(muq.Settings(weights="OpenMuQ/no-such-model"))
