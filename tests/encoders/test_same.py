import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_helpers import DIM, HOP, LARGE, SMALL, same_config, same_tensors, save_same, whole_file, whole_model
from vae_helpers import encode, noise

from audioprep.encoders import same
from audioprep.encoders.base import Encoder
from audioprep.encoders.registry import default_column, describe_encoder, readiness
from audioprep.encoders.same_config import SameConfig, read_config
from audioprep.encoders.same_layers import SameEncoder, load_encoder
from audioprep.errors import UsageError
from audioprep.stages.encode import encode_samples

WINDOW = 8  # latents
CONFIGS = {
    "small": same_config(SMALL),
    "longer chunks": same_config(SMALL | {"chunk_size": 16}),
    "chunks without shift": same_config(SMALL | {"chunk_midpoint_shift": False}),
    "large": same_config(LARGE),
    "lopsided": same_config(LARGE | {"sliding_window": [2, 1]}),
    "mono": same_config(SMALL, channels=1),
}
each_config = pytest.mark.parametrize("name", CONFIGS)
each_way = pytest.mark.parametrize("at_once", [False, True])


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same, "_WINDOW_FRAMES", WINDOW)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def saved(name: str) -> Path:
        config = CONFIGS[name]
        return save_same(tmp_path_factory.mktemp("same"), config, same_tensors(config))

    return saved


def load(path: Path, at_once: bool = False, **settings: Any) -> same.Same:
    """`at_once`: as on a GPU, whole batches of whole windows."""
    encoder = same.load(same.Settings(weights=str(path), **settings))
    encoder._at_once = at_once
    return encoder


def sound(latents: float, channels: int = 2) -> np.ndarray:
    return noise(round(latents * HOP))[:channels]


# --- the whole file ---


@each_config
@each_way
def test_windows_give_the_latents_of_the_whole_file(folder: Callable[[str], Path], name: str, at_once: bool) -> None:
    encoder, config = load(folder(name), at_once, batch_size=3), CONFIGS[name]
    # Around the borders of chunks of two and four latents, and of windows.
    for latents in (0.1, 1, 1.1, 2, 2.1, 3, 4, 4.1, 5, 7, 7.9, 8, 8.1, 9, 10.1, 16, 17, 19.5, 31):
        samples = sound(latents, encoder.spec.channels)
        found, expected = encode(encoder, samples), whole_file(config, same_tensors(config), samples)
        assert found.dtype == np.float32
        assert found.shape == (np.ceil(latents), DIM)
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_the_stage_gets_the_same_in_float16(folder: Callable[[str], Path]) -> None:
    samples = sound(20.5)
    found = encode_samples(load(folder("large")), samples)
    assert found.dtype == np.float16
    expected = whole_file(CONFIGS["large"], same_tensors(CONFIGS["large"]), samples)
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "frame", "first", "last"),
    [
        ("small", 12, 10, 13),
        ("small", 13, 12, 15),
        ("longer chunks", 12, 8, 15),
        ("longer chunks", 15, 12, 19),
        ("chunks without shift", 13, 12, 13),
        ("large", 12, 10, 15),  # the first token that it sees is a learned one
        ("lopsided", 12, 7, 15),
    ],
)
def test_latents_that_a_latent_depends_on(
    folder: Callable[[str], Path], name: str, frame: int, first: int, last: int
) -> None:
    config = read_config(folder(name) / "model_config.json")
    model = load_encoder(config, folder(name) / "model.safetensors")
    samples = torch.from_numpy(sound(24))[None].requires_grad_()
    model(samples, torch.tensor([[0, 24]]))[0, frame].sum().backward()
    assert samples.grad is not None
    touched = samples.grad[0].abs().sum(0).view(24, HOP).sum(1).nonzero()
    assert (int(touched.min()), int(touched.max())) == (first, last)
    left, right = config.context
    block = frame // config.grid * config.grid
    assert block - left <= first and last < block + config.grid + right


@each_config
@each_way
def test_a_window_is_encoded_the_same_among_any_neighbours(
    folder: Callable[[str], Path], name: str, at_once: bool
) -> None:
    encoder = load(folder(name), at_once, batch_size=3)
    spec = encoder.spec
    windows = np.stack([noise(spec.length, seed)[: spec.channels] for seed in range(4)])
    end = spec.left_context + 3 * HOP + 1
    valid = np.array([[spec.left_context, spec.length], [0, spec.length], [0, end], [0, spec.length]])
    windows[0, :, : spec.left_context] = windows[2, :, end:] = 0
    silent, nothing = np.zeros_like(windows[0]), np.zeros(2, np.int64)
    for chosen in range(4):
        alone = encoder.encode(np.stack([windows[chosen], silent, silent]), np.stack([valid[chosen], nothing, nothing]))
        assert np.isfinite(alone).all()
        for order in ([chosen, 1, 2], [3, chosen, 0], [2, 0, chosen]):
            together = encoder.encode(windows[order], valid[order])
            np.testing.assert_array_equal(together[order.index(chosen)], alone[0])


@each_way
@pytest.mark.parametrize("name", ["small", "large"])
def test_a_window_that_is_not_finite_is_nan_alone(folder: Callable[[str], Path], name: str, at_once: bool) -> None:
    encoder = load(folder(name), at_once, batch_size=2)
    length = encoder.spec.length
    windows = np.stack([noise(length), noise(length, 1)])
    whole = np.array([[0, length], [0, length]])
    expected = encoder.encode(windows.copy(), whole)
    windows[0, 0, length // 2] = np.nan
    found = encoder.encode(windows, whole)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], expected[1])


def test_bfloat16_is_close(folder: Callable[[str], Path]) -> None:
    for name in ("small", "large"):
        expected = encode(load(folder(name)), sound(20))
        found = encode(load(folder(name), dtype="bfloat16"), sound(20))
        assert found.dtype == np.float32
        assert 1e-5 < np.abs(found - expected).mean() / np.abs(expected).mean() < 0.2


# --- what it is ---


def test_spec(folder: Callable[[str], Path]) -> None:
    spec = describe_encoder("same", {"weights": str(folder("small"))})
    encoder = load(folder("small"))
    assert spec == encoder.spec
    assert isinstance(encoder, Encoder)
    assert (spec.kind, spec.sample_rate, spec.channels, spec.hop_length, spec.dim) == ("latents", 44_100, 2, HOP, DIM)
    assert (spec.left_context, spec.window, spec.right_context) == (2 * HOP, WINDOW * HOP, 2 * HOP)
    large = describe_encoder("same", {"weights": str(folder("large"))})
    assert (large.left_context, large.right_context) == (3 * HOP, 3 * HOP)


def test_a_window_is_of_whole_chunks(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same, "_WINDOW_FRAMES", 9)
    assert load(folder("longer chunks")).spec.window == 12 * HOP


def test_spec_needs_no_torch(folder: Callable[[str], Path]) -> None:
    code = (
        "import sys; from audioprep.encoders.registry import describe_encoder; "
        f"print(describe_encoder('same', {{'weights': {str(folder('small'))!r}}}), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_names() -> None:
    assert readiness("same").wants == "--weights"
    assert {default_column(name, "latents") for name in ("same", "same-s", "same-l")} == {"latents"}
    for name, repository in {"same-s": "stabilityai/SAME-S", "same-l": "stabilityai/SAME-L"}.items():
        assert readiness(name).repository in (repository, None)
        assert readiness(name).wants is None


def published(layers: dict[str, Any], path: Path) -> SameConfig:
    """A config with the published sizes, read."""
    sizes = {"in_channels": 512, "c_mults": [6], "strides": [16], "latent_dim": 256, "dim_heads": 64, "ff_mult": 3}
    content = same_config(sizes | layers)
    content["model"] |= {"latent_dim": 256, "downsampling_ratio": 4096}
    content["model"]["pretransform"]["config"]["patch_size"] = 256
    content["model"]["bottleneck"]["config"]["dim"] = 256
    path.write_text(json.dumps(content))
    return read_config(path)


def test_published_sizes(tmp_path: Path) -> None:
    small = published(SMALL | {"channels": 128, "chunk_size": 32}, tmp_path / "small.json")
    assert (small.hop_length, small.dim, small.grid, small.context) == (4096, 256, 2, (2, 2))
    large = published(LARGE | {"channels": 256, "transformer_depths": [12]}, tmp_path / "large.json")
    assert (large.hop_length, large.dim, large.grid, large.context) == (4096, 256, 1, (12, 12))
    with torch.device("meta"):
        tensors = SameEncoder(large).state_dict()
    weight_norm = large.width
    # With a decoder of 426,063,088 they are the 852,127,457 that are published.
    assert sum(tensor.numel() for tensor in tensors.values()) + weight_norm == 426_064_369


# --- checkpoints ---


def test_a_whole_models_checkpoint_gives_the_same(folder: Callable[[str], Path], tmp_path: Path) -> None:
    config = CONFIGS["small"]
    tensors = {f"pretransform.model.{name}": tensor for name, tensor in same_tensors(config).items()}
    save_same(tmp_path, whole_model(config), tensors | {"model.model.to_qkv.weight": torch.ones(1)})
    np.testing.assert_array_equal(encode(load(tmp_path), sound(11)), encode(load(folder("small")), sound(11)))


def test_other_ways_to_store_the_same(folder: Callable[[str], Path], tmp_path: Path) -> None:
    config, expected = CONFIGS["small"], encode(load(folder("small")), sound(5))
    tensors = same_tensors(config)
    mapping = "encoder.layers.0.mapping.weight"
    scale, direction = tensors.pop(f"{mapping}_g"), tensors.pop(f"{mapping}_v")
    tensors[mapping] = scale * direction / direction.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(encode(load(save_same(tmp_path, config, tensors)), sound(5)), expected, atol=1e-5)
    half = {name: tensor.half() for name, tensor in same_tensors(config).items()}
    np.testing.assert_allclose(encode(load(save_same(tmp_path, config, half)), sound(5)), expected, atol=0.1)


def test_where_files_are(folder: Callable[[str], Path], tmp_path: Path) -> None:
    weights, expected = folder("small") / "model.safetensors", encode(load(folder("small")), sound(3))
    other = tmp_path / "other.json"
    other.write_text((folder("small") / "model_config.json").read_text())
    for config in (None, str(other), "model_config.json"):
        np.testing.assert_array_equal(encode(load(weights, config=config), sound(3)), expected)
    np.testing.assert_array_equal(encode(load(folder("small"), config=str(other)), sound(3)), expected)
    with pytest.raises(UsageError, match=r"has no model_config.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match=r"has no model.safetensors"):
        load(tmp_path, config=str(other))
    with pytest.raises(UsageError, match=r"nothing.json: cannot be read: No such file"):
        load(weights, config="nothing.json")


def change(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy, in which the value at `a.b.c` is another; None: is not there."""
    config = json.loads(json.dumps(config))
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    if value is None:
        del place[last]
    return config


LAYERS = "model.encoder.config"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{LAYERS}.conformer", True, "encoder.config.conformer: Input should be False, not True"),
        (f"{LAYERS}.layer_scale", True, "layer_scale: Input should be False"),
        (f"{LAYERS}.feat_scale", True, "feat_scale: Input should be False"),
        (f"{LAYERS}.cross_attn", True, "cross_attn: Input should be False"),
        (f"{LAYERS}.conv_mapping", True, "conv_mapping: Input should be False"),
        (f"{LAYERS}.mapping_bias", False, "mapping_bias: Input should be True"),
        (f"{LAYERS}.differential", False, "differential: Input should be True"),
        (f"{LAYERS}.dyt", False, "dyt: Input should be True"),
        (f"{LAYERS}.strides", [2, 2], "encoder.config.strides: .* at most 1 item"),
        (f"{LAYERS}.transformer_depths", None, "transformer_depths: Field required"),
        (f"{LAYERS}.dim_heads", 12, "width 16 is no multiple of dim_heads 12"),
        (f"{LAYERS}.chunk_size", 12, "chunk_size 12 is no multiple of 8"),
        (f"{LAYERS}.in_channels", 9, "encoder.config.in_channels is 9, and 8 follows from the rest"),
        (f"{LAYERS}.latent_dim", 7, "encoder.config.latent_dim is 7, and 6 follows"),
        ("model.downsampling_ratio", 2048, "downsampling_ratio is 2048, and 16 follows from the rest"),
        ("model.bottleneck.config.dim", 3, "bottleneck.config.dim is 3, and 6 follows"),
        ("model.bottleneck.config.auto_scale", None, "auto_scale: Field required"),
        ("model.bottleneck", {"type": "vae"}, "bottleneck.config: Field required.* there is the encoder vae"),
        ("model.pretransform.config.oversampling", 2, "oversampling: Input should be 1, not 2"),
        ("model.pretransform.config.channels", 6, "channels: Input should be less than or equal to 2"),
        ("model", {"pretransform": {"type": "dac"}}, "model.pretransform.config: Field required"),
        ("model", 3, "model: Input should be a valid dictionary"),
        ("sample_rate", None, "sample_rate: Field required"),
    ],
)
def test_a_config_that_is_wrong(tmp_path: Path, path: str, value: Any, message: str) -> None:
    save_same(tmp_path, change(CONFIGS["small"], path, value), same_tensors(CONFIGS["small"]))
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_configs_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for content, message in {"{": "is no JSON", "[]": "valid dictionary"}.items():
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            read_config(path)


def test_a_checkpoint_that_is_wrong(tmp_path: Path) -> None:
    config, tensors = CONFIGS["small"], same_tensors(CONFIGS["small"])
    block = "encoder.layers.0.transformers.4"
    for wrong, message in {
        "missing": (tensors | {"encoder.layers.2.weight": None}, "1 missing: encoder.layers.2.weight"),
        "unknown": (tensors | {f"{block}.ff_scale.scale": torch.ones(16)}, f"1 unknown: {block}.ff_scale.scale"),
        "shape": (tensors | {"encoder.layers.0.mapping.weight_v": torch.ones(16, 8, 3)}, r"\[16, 8, 3\] instead of"),
        "no running_std": (tensors | {"bottleneck.running_std": None}, "missing: bottleneck.running_std"),
        "another model": ({"model.weight": torch.ones(1)}, "holds no autoencoder's encoder"),
    }.values():
        save_same(tmp_path, config, {name: tensor for name, tensor in wrong.items() if tensor is not None})
        with pytest.raises(UsageError, match=message):
            load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        load(tmp_path)
