import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dac_helpers import (
    BOOKS,
    HOP,
    RATE,
    WINDOW,
    all_at_once,
    load,
    noise,
    published,
    save_folder,
    save_pth,
    upstream,
    upstream_decoded,
)
from safetensors.torch import load_file, save_file

from audioprep.encoders import dac, dac_layers
from audioprep.encoders.base import Decoder, Encoder
from audioprep.encoders.dac_checkpoint import find_checkpoint, load_part
from audioprep.encoders.registry import describe_encoder
from audioprep.errors import InputError, UsageError
from audioprep.stages.batches import Batches
from audioprep.stages.encode import encode_samples
from audioprep.stages.windows import WindowCutter

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning"
)  # the published package calls torch's older weight_norm


@pytest.fixture(scope="session")
def model() -> Any:
    return published()


@pytest.fixture(scope="session")
def pth(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pth(model, tmp_path_factory.mktemp("dac") / "weights.pth")


@pytest.fixture(scope="session")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(model, tmp_path_factory.mktemp("dac-folder"))


@pytest.fixture(scope="session")
def encoder(pth: Path) -> dac.Dac:
    return load(pth)


# --- the same codes as upstream's, for the whole file ---

LENGTHS = [1, HOP - 1, HOP, HOP + 1, 25 * HOP, WINDOW - 3, WINDOW, WINDOW + 1, 2 * WINDOW + 17, 3 * WINDOW - 10 * HOP]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("at_once", [False, True])
def test_codes_are_those_of_the_whole_file(model: Any, pth: Path, length: int, at_once: bool) -> None:
    encoder = load(pth, batch_size=2)
    sound = noise(length, seed=length)
    found = encode_samples(all_at_once(encoder, pth) if at_once else encoder, sound)
    np.testing.assert_array_equal(found, upstream(model, sound))


@pytest.mark.parametrize("at_once", [False, True])
def test_codes_stay_the_same_in_batches_of_mixed_lengths(model: Any, pth: Path, at_once: bool) -> None:
    sounds = [noise(length, seed) for seed, length in enumerate([7, 2 * WINDOW + 5, HOP, WINDOW, 900, WINDOW + 33])]
    encoder = load(pth, batch_size=4)
    encoder = all_at_once(encoder, pth) if at_once else encoder
    for order in (range(6), [5, 1, 0, 3, 4, 2]):
        batches = Batches(encoder)
        items = []
        for row in order:
            items.append(batches.begin(row, "sound"))
            cutter = WindowCutter(encoder.spec)
            for window in chain(cutter.push(sounds[row]), cutter.finish()):
                batches.add(window, items[-1])
        batches.finish()
        for row, item in zip(order, items, strict=True):
            expected = upstream(model, sounds[row])
            np.testing.assert_array_equal(np.concatenate(item.values)[: len(expected)], expected)


def test_the_codes_are_worth_comparing(model: Any) -> None:
    codes = upstream(model, noise(WINDOW))
    assert min(len(np.unique(column)) for column in codes.T) > 20


def test_silence_is_encoded(encoder: dac.Dac, model: Any) -> None:
    silence = np.zeros((1, 3 * HOP + 5), np.float32)
    np.testing.assert_array_equal(encode_samples(encoder, silence), upstream(model, silence))


@pytest.mark.parametrize(
    ("strides", "changes"),
    [
        ((2, 4, 8, 8), {"encoder_dim": 4}),  # 44.1 kHz
        ((2, 4, 5, 8), {"encoder_dim": 4}),  # 16 and 24 kHz
        ((3, 2), {"latent_dim": 20, "codebook_dim": 8, "codebook_size": 128}),  # 44.1 kHz at 16 kbit/s has a latent_dim
    ],
)
def test_other_configurations(tmp_path: Path, strides: tuple[int, ...], changes: dict[str, Any]) -> None:
    model = published(strides, **changes)
    hop = int(np.prod(strides))
    sound = noise(500 * hop + 1)
    expected = upstream(model, sound)
    folder, pth = save_folder(model, tmp_path / "folder"), save_pth(model, tmp_path / "model.pth")
    np.testing.assert_array_equal(encode_samples(load(folder), sound), expected)
    np.testing.assert_array_equal(encode_samples(all_at_once(load(pth), pth), sound), expected)


@pytest.mark.parametrize("strides", [(2, 4, 8, 8), (2, 4, 5, 8), (3, 5)])
def test_context_is_the_receptive_field(tmp_path: Path, strides: tuple[int, ...]) -> None:
    model = published(strides, encoder_dim=2).double()
    architecture = find_checkpoint(str(save_pth(model.float(), tmp_path / "model.pth"))).architecture
    context, hop = architecture.encoder_context(), architecture.hop_length
    samples = torch.zeros(1, 1, (2 * context + 3) * hop, dtype=torch.float64, requires_grad=True)
    model.double().encoder(samples)[0, :, context + 1].sum().backward()
    assert samples.grad is not None
    frames = samples.grad[0, 0].nonzero() // hop
    assert (int(frames.min()), int(frames.max())) == (1, 2 * context + 1)


@pytest.mark.parametrize("strides", [(2, 4, 5), (3, 2)])
def test_slices_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strides: tuple[int, ...]) -> None:
    model = published(strides)
    path = save_pth(model, tmp_path / "model.pth")
    monkeypatch.setattr(dac_layers, "_SLICE", 2048)
    sliced = dac_layers.SlicedEncoder(load_part(find_checkpoint(str(path)), "encoder").encoder)
    samples = torch.from_numpy(noise(60 * int(np.prod(strides))))[None]
    with torch.inference_mode():
        torch.testing.assert_close(sliced(samples), model.encoder(samples), atol=2e-6, rtol=1e-5)


def test_equal_and_empty_codewords_are_chosen_as_upstream_does(tmp_path: Path) -> None:
    model = published(codebook_size=8)
    for codewords in (value for name, value in model.named_parameters() if name.endswith("codebook.weight")):
        codewords[5] = codewords[2]
        codewords[4] = 0
    sound = noise(200 * HOP)
    expected = upstream(model, sound)
    assert np.isin([2, 4], expected).all()
    np.testing.assert_array_equal(encode_samples(load(save_pth(model, tmp_path / "m.pth")), sound), expected)


# --- layouts, backends, settings ---


@pytest.mark.parametrize("safe", [False, True])
def test_folder_of_transformers_gives_the_same_codes(model: Any, tmp_path: Path, safe: bool) -> None:
    folder = save_folder(model, tmp_path, safe_serialization=safe)
    assert (folder / "model.safetensors").is_file() is safe
    sound = noise(WINDOW + 100)
    np.testing.assert_array_equal(encode_samples(load(folder), sound), upstream(model, sound))


def test_newer_weight_norm_gives_the_same_codes(model: Any, pth: Path, tmp_path: Path) -> None:
    content = torch.load(pth, weights_only=True)
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    split = ((key.rpartition("."), tensor) for key, tensor in content["state_dict"].items())
    content["state_dict"] = {f"{layer}.{new.get(name, name)}": tensor for (layer, _, name), tensor in split}
    torch.save(content, tmp_path / "new.pth")
    sound = noise(3000)
    np.testing.assert_array_equal(encode_samples(load(tmp_path / "new.pth"), sound), upstream(model, sound))


@pytest.mark.parametrize("at_once", [False, True])
def test_published_package_as_backend(model: Any, pth: Path, at_once: bool) -> None:
    encoder = load(pth, backend="descript", num_codebooks=3)
    encoder = all_at_once(encoder, pth, "descript") if at_once else encoder
    sound = noise(2 * WINDOW + 17)
    expected = upstream(model, sound)
    np.testing.assert_array_equal(encode_samples(encoder, sound), expected[:, :3])
    whole = upstream_decoded(model, expected[:300, :3])
    np.testing.assert_allclose(encoder.decode(expected[:300, :3])[:, : whole.shape[1]], whole, atol=1e-4)
    assert encoder.spec.settings["backend"] == "descript" and "descript-audio-codec" in encoder.spec.settings


@pytest.mark.parametrize("count", [1, 2, BOOKS])
def test_first_codebooks(model: Any, pth: Path, count: int) -> None:
    encoder = load(pth, num_codebooks=count)
    sound = noise(3000)
    assert encoder.spec.num_codebooks == count
    np.testing.assert_array_equal(encode_samples(encoder, sound), upstream(model, sound)[:, :count])


def test_spec(folder: Path) -> None:
    spec = describe_encoder("dac", {"weights": str(folder)})
    assert spec == load(folder).spec
    assert (spec.name, spec.kind, spec.sample_rate, spec.channels, spec.hop_length) == ("dac", "tokens", RATE, 1, HOP)
    assert (spec.num_codebooks, spec.codebook_size, spec.window) == (BOOKS, 64, WINDOW)
    assert spec.left_context == spec.right_context and spec.left_context % HOP == 0
    assert spec.settings["transformers"] and spec.settings["dtype"] == "float32"


def test_spec_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from audioprep.encoders.registry import describe_encoder; "
        f"print(describe_encoder('dac', {{'weights': {str(folder)!r}}}), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


# --- decoding ---


@pytest.mark.parametrize("frames", [1, 255, 256, 600])
def test_decoding_is_upstreams(encoder: dac.Dac, model: Any, frames: int) -> None:
    codes = np.random.default_rng(frames).integers(64, size=(frames, BOOKS))
    whole = upstream_decoded(model, codes)
    found = encoder.decode(codes.astype(np.uint16))
    assert found.dtype == np.float32 and found.shape == (1, frames * HOP)
    np.testing.assert_allclose(found[:, : whole.shape[1]], whole, atol=1e-4)
    assert not found[:, whole.shape[1] :].any()
    assert np.abs(whole).max() > 0.01
    assert isinstance(encoder, Encoder) and isinstance(encoder, Decoder)


def test_decoding_needs_not_all_codebooks(encoder: dac.Dac, model: Any) -> None:
    codes = np.random.default_rng(0).integers(64, size=(50, 2))
    whole = upstream_decoded(model, codes)
    np.testing.assert_allclose(encoder.decode(codes)[:, : whole.shape[1]], whole, atol=1e-4)


# --- precision, and what goes wrong ---


def test_bfloat16_changes_few_codes(pth: Path, model: Any) -> None:
    sound = noise(2 * WINDOW)
    changed = encode_samples(load(pth, dtype="bfloat16"), sound) != upstream(model, sound)
    assert 0 < changed.mean() < 0.15


@pytest.mark.parametrize("at_once", [False, True])
def test_a_window_that_is_not_finite_is_minus_one_alone(pth: Path, at_once: bool) -> None:
    encoder = load(pth, batch_size=2)
    encoder = all_at_once(encoder, pth) if at_once else encoder
    windows = np.stack([noise(encoder.spec.length, seed) for seed in range(2)])
    whole = np.array([[0, encoder.spec.length]] * 2)
    expected = encoder.encode(windows.copy(), whole)
    windows[0, 0, encoder.spec.length // 2] = np.nan
    found = encoder.encode(windows, whole)
    assert (found[0] == -1).all()
    np.testing.assert_array_equal(found[1], expected[1])
    with pytest.raises(InputError, match="finite"):
        encode_samples(encoder, windows[0])


def config_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def tensors_with(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config_with(model_type="encodec"), "config.json: its model_type is encodec, not dac.*--codec hf:"),
        (
            config_with(n_codebooks=None, sampling_rate=None),
            "sampling_rate: Field required; n_codebooks: Field required",
        ),
        (config_with(downsampling_ratios=[]), "downsampling_ratios: List should have at least 1 item"),
        (config_with(codebook_dim="8x"), "codebook_dim: Input should be a valid integer"),
        (config_with(codebook_size=60), "model.safetensors: transformers cannot build this DAC: .*power of 2"),
        (config_with(encoder_hidden_size=16), "do not fit its configuration: .* of another shape: encoder.block.0"),
        (config_with(n_codebooks=5), "5 missing: quantizer.quantizers.4.codebook.weight"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: its model_type is None"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors or pytorch_model.bin"),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors: cannot be read as a checkpoint"),
        (tensors_with(lambda tensors: tensors.pop("encoder.conv1.bias")), "1 missing: encoder.conv1.bias"),
        (tensors_with(lambda tensors: tensors.update(extra=torch.ones(1))), "1 unknown: extra"),
    ],
)
def test_a_folder_that_cannot_be_used(model: Any, tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    folder = save_folder(model, tmp_path / "folder")
    change(folder)
    with pytest.raises(UsageError, match=message):
        load(folder)


def test_weights_of_a_decoder_are_checked_when_they_are_needed(model: Any, tmp_path: Path) -> None:
    folder = save_folder(model, tmp_path / "folder")
    tensors_with(lambda tensors: tensors.pop("decoder.conv1.bias"))(folder)
    encoder = load(folder)
    with pytest.raises(UsageError, match="1 missing: decoder.conv1.bias"):
        encoder.decode(np.zeros((1, BOOKS), np.int64))


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1 / 0",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("metadata"), "lacks state_dict or metadata"),
        (lambda content: content["metadata"].pop("kwargs"), "does not describe a DAC"),
        (
            lambda content: content["metadata"]["kwargs"].pop("encoder_rates"),
            r"bad.pth: does not describe a DAC \(downsampling_ratios: Field required",
        ),
        (lambda content: content["metadata"]["kwargs"].update(encoder_dim=16), "of another shape: encoder.block.0"),
        (lambda content: content["state_dict"].pop("encoder.block.0.bias"), "1 missing: encoder.conv1.bias"),
        (lambda content: content["state_dict"].update({"a.b": torch.ones(1)}), "1 unknown: a.b"),
        (lambda content: content["metadata"].update(logs=Exploit()), "a pickle that wants to call eval"),
    ],
)
def test_a_pth_that_cannot_be_used(pth: Path, tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    content = torch.load(pth, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "bad.pth")


def test_a_truncated_or_foreign_file(pth: Path, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pth.read_bytes())
    cut(path)
    with pytest.raises(UsageError, match="weights.pth: cannot be read as a checkpoint"):
        load(path)
    path.write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    with pytest.raises(UsageError, match="weights.pth"):
        load(path)
    with pytest.raises(UsageError, match=r"Give such a file \(.pth\), or a folder with config.json"):
        load(folder / "model.safetensors")


def test_settings_that_do_not_fit(pth: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=f"has {BOOKS} codebooks, and num_codebooks is {BOOKS + 1}"):
        describe_encoder("dac", {"weights": str(pth), "num_codebooks": BOOKS + 1})
    with pytest.raises(UsageError, match="backend descript takes the .pth"):
        describe_encoder("dac", {"weights": str(folder), "backend": "descript"})
    with pytest.raises(UsageError, match="setting backend"):
        describe_encoder("dac", {"weights": str(folder), "backend": "tensorflow"})
