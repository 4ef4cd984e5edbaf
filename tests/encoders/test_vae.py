import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from safetensors.torch import save_file
from vae_helpers import (
    HOP,
    WIDTH,
    SatAutoencoder,
    diffusers_model,
    encode,
    full_model_config,
    noise,
    padded,
    randomized,
    same_weights,
    sat_config,
    save_sat,
)

from audioprep.encoders import oobleck, vae
from audioprep.encoders.base import Decoder, Encoder
from audioprep.encoders.edges import EdgeMask
from audioprep.encoders.receptive_field import encoder_reach
from audioprep.encoders.registry import describe_encoder
from audioprep.encoders.vae_config import Stack, read_config
from audioprep.errors import UsageError
from audioprep.stages.encode import encode_samples

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers calls torch's older weight_norm
WINDOW = 240 * HOP


@pytest.fixture(scope="session")
def model() -> AutoencoderOobleck:
    return diffusers_model()


@pytest.fixture(scope="session")
def folder(model: AutoencoderOobleck, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("oobleck")
    model.save_pretrained(path / "vae")
    return path


def load(path: Path, **settings: Any) -> vae.Vae:
    return vae.load(vae.Settings(weights=str(path), **settings))


@pytest.fixture(scope="session")
def encoder(folder: Path) -> vae.Vae:
    return load(folder, subfolder="vae")


def all_at_once(encoder: vae.Vae) -> vae.Vae:
    """As on a GPU: whole batches of whole windows, with masks at a file's ends."""
    encoder._edges = EdgeMask(encoder._encoder, encoder.spec.hop_length)
    return encoder


def upstream(model: AutoencoderOobleck, samples: np.ndarray, hop: int = HOP) -> np.ndarray:
    with torch.inference_mode():
        return model.encode(padded(samples, hop)).latent_dist.mean[0].T.numpy()  # pyright: ignore[reportAttributeAccessIssue]


def upstream_decoded(model: AutoencoderOobleck, latents: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        tensor: Any = torch.from_numpy(latents.astype(np.float32).T[None])
        return model.decode(tensor).sample[0].numpy()  # pyright: ignore[reportAttributeAccessIssue]


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Within so much of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * float(np.abs(np.asarray(expected)).max()))


LENGTHS = [1, HOP - 1, 5 * HOP, WINDOW, 2 * WINDOW + 7, 3 * WINDOW - 10 * HOP]


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("at_once", [False, True])
def test_latents_are_those_of_diffusers_for_the_whole_file(
    folder: Path, model: AutoencoderOobleck, samples: int, at_once: bool
) -> None:
    encoder = load(folder, subfolder="vae", batch_size=2)
    sound = noise(samples)
    found = encode(all_at_once(encoder) if at_once else encoder, sound)
    expected = upstream(model, sound)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (-(-samples // HOP), WIDTH // 2)
    assert_close(found, expected)


def test_the_stage_gets_the_same_in_float16(encoder: vae.Vae, model: AutoencoderOobleck) -> None:
    sound = noise(WINDOW + 100)
    found = encode_samples(encoder, sound)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, upstream(model, sound), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("strides", [(2, 4, 4), (3, 5), (2, 4, 4, 8, 8), (7,)])
def test_context_is_the_receptive_field(strides: tuple[int, ...]) -> None:
    stack = Stack(1, 2, (1,) * len(strides), strides, 2, snake=True)
    left, right = encoder_reach(strides)
    layers = randomized(oobleck.build_encoder(stack).to_empty(device="cpu")).double()
    frame = -(-left // stack.hop_length)
    end = (frame + 1) * stack.hop_length
    frames = frame + 1 + -(-right // stack.hop_length)
    samples = torch.zeros(1, 1, frames * stack.hop_length, dtype=torch.float64, requires_grad=True)
    layers(samples)[0, :, frame].sum().backward()
    assert samples.grad is not None
    touched = samples.grad[0, 0].nonzero()
    assert (int(touched.min()), int(touched.max())) == (frame * stack.hop_length - left, end + right - 1)


@pytest.mark.parametrize("strides", [(2, 4, 4, 6, 10), (3, 5), (7,)])
def test_slices_change_nothing(strides: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oobleck, "_SLICE", 64)
    stack = Stack(2, 4, (1,) * len(strides), strides, 6, snake=True)
    layers = randomized(oobleck.build_encoder(stack).to_empty(device="cpu"))
    samples = torch.from_numpy(noise(stack.hop_length * max(3, 600 // stack.hop_length)))[None]
    with torch.inference_mode():
        assert_close(oobleck.encode_sliced(layers, stack, samples), layers(samples))


def test_odd_strides_end_to_end(tmp_path: Path) -> None:
    model = diffusers_model((3, 5))
    model.save_pretrained(tmp_path)
    encoder = load(tmp_path)
    sound = noise(2 * 240 * 15 + 8)
    expected = upstream(model, sound, 15)
    for found in (encode(encoder, sound), encode(all_at_once(encoder), sound)):
        assert_close(found, expected)
    whole = upstream_decoded(model, expected)
    decoded = encoder.decode(expected)
    assert decoded.shape == (2, len(expected) * 15)
    assert_close(decoded[:, : whole.shape[1]], whole)
    assert not decoded[:, whole.shape[1] :].any()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_window_is_encoded_the_same_among_any_neighbours(folder: Path, at_once: bool) -> None:
    encoder = load(folder, subfolder="vae", batch_size=3, posterior="sample")
    encoder = all_at_once(encoder) if at_once else encoder
    spec = encoder.spec
    windows = np.stack([noise(spec.length, seed) for seed in range(4)])
    valid = np.array([[spec.left_context, spec.length], [0, spec.length], [0, 1000], [0, spec.length]])
    windows[0, :, : spec.left_context] = windows[2, :, 1000:] = 0
    silent, nothing = np.zeros_like(windows[0]), np.zeros(2, np.int64)
    for chosen in range(4):
        alone = encoder.encode(np.stack([windows[chosen], silent, silent]), np.stack([valid[chosen], nothing, nothing]))
        for order in ([chosen, 1, 2], [3, chosen, 0], [2, 0, chosen]):
            together = encoder.encode(windows[order], valid[order])
            np.testing.assert_array_equal(together[order.index(chosen)], alone[0])


def test_spec_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from audioprep.encoders.registry import describe_encoder; "
        f"print(describe_encoder('vae', {{'weights': {str(folder / 'vae')!r}}}), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_spec(folder: Path, encoder: vae.Vae) -> None:
    spec = describe_encoder("vae", {"weights": str(folder), "subfolder": "vae"})
    assert spec == encoder.spec
    assert (spec.kind, spec.sample_rate, spec.channels, spec.hop_length, spec.dim) == ("latents", 16_000, 2, HOP, 4)
    assert spec.window == WINDOW
    assert spec.settings["posterior"] == "mean"
    assert "seed" not in spec.settings
    assert isinstance(encoder, Encoder) and isinstance(encoder, Decoder)


def test_stable_audio_2_has_eight_frames_of_context() -> None:
    assert encoder_reach((2, 4, 4, 8, 8)) == (14885, 14885)  # 7.3 frames; so are 8 frames of DAC, measured


# --- checkpoints of stable-audio-tools ---


def with_prefix(prefix: str) -> Callable[[SatAutoencoder], dict[str, Any]]:
    return lambda model: {f"{prefix}{key}": tensor for key, tensor in model.state_dict().items()}


def parametrized(model: SatAutoencoder) -> dict[str, Any]:
    """What torch's newer weight_norm would have saved."""
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    split = ((key.rpartition("."), tensor) for key, tensor in model.state_dict().items())
    return {f"{layer}.{new.get(name, name)}": tensor for (layer, _, name), tensor in split}


def without_weight_norm(model: SatAutoencoder) -> dict[str, Any]:
    tensors = {}
    for name, module in model.named_modules():
        if hasattr(module, "weight_g"):
            tensors[f"{name}.weight"] = torch._weight_norm(module.weight_v, module.weight_g, 0)  # pyright: ignore
            if module.bias is not None:
                tensors[f"{name}.bias"] = module.bias
        elif hasattr(module, "alpha"):
            tensors |= {f"{name}.alpha": module.alpha, f"{name}.beta": module.beta}
    return {key: tensor.detach() for key, tensor in tensors.items()}


EMA = with_prefix("autoencoder_ema.ema_model.")
CHECKPOINTS = {
    "exported autoencoder": with_prefix(""),
    "whole model": lambda model: {"model.model.x": torch.ones(1), **with_prefix("pretransform.model.")(model)},
    "training": lambda model: {**with_prefix("autoencoder.")(randomized(SatAutoencoder(sat_config()))), **EMA(model)},
    "training without EMA": with_prefix("autoencoder."),
    "fine-tuning": with_prefix("diffusion.pretransform.model."),
    "newer weight norm": parametrized,
    "no weight norm": without_weight_norm,
}


@pytest.mark.parametrize("layout", CHECKPOINTS)
def test_stable_audio_tools_checkpoint_gives_the_latents_of_the_diffusers_folder(
    encoder: vae.Vae, model: AutoencoderOobleck, tmp_path: Path, layout: str
) -> None:
    config = sat_config()
    tensors = CHECKPOINTS[layout](same_weights(model, config))
    checkpoint = tmp_path / "any.ckpt"
    torch.save({"state_dict": tensors, "epoch": 3}, checkpoint)
    config_path = tmp_path / "any.json"
    config_path.write_text(json.dumps(full_model_config(config) if layout == "whole model" else config))
    other = load(checkpoint, config=str(config_path))
    sound = noise(WINDOW + 100)
    assert_close(encode(other, sound), encode(encoder, sound))
    latents = noise(90)[:, :80].reshape(40, 4)
    assert_close(other.decode(latents), encoder.decode(latents))


@pytest.mark.parametrize(
    ("config_name", "checkpoint"),
    [
        ("vae_config.json", "vae_model.ckpt"),
        ("model_config.json", "model.safetensors"),
        ("stable_audio_1920_vae.json", "autoencoder_music_dsp1920.ckpt"),
    ],
)
def test_folders_as_they_are_published(
    encoder: vae.Vae, model: AutoencoderOobleck, tmp_path: Path, config_name: str, checkpoint: str
) -> None:
    tensors = same_weights(model, sat_config()).state_dict()
    (tmp_path / config_name).write_text(json.dumps(sat_config()))
    if checkpoint.endswith(".safetensors"):
        save_file(tensors, tmp_path / checkpoint)
    else:
        torch.save({"state_dict": tensors}, tmp_path / checkpoint)
    sound = noise(1000)
    for settings in ({}, {"config": config_name}, {"config": str(tmp_path / config_name)}):
        assert_close(encode(load(tmp_path, **settings), sound), encode(encoder, sound))


@pytest.mark.parametrize("change", ["elu", "other width", "tanh", "soft clip"])
def test_what_diffusers_cannot_express(tmp_path: Path, change: str) -> None:
    config = sat_config(snake=change != "elu", latent_dim=3 if change == "other width" else 4)
    decoder = config["model"]["decoder"]
    decoder["config"]["final_tanh"] = change == "tanh"
    decoder["soft_clip"] = change == "soft clip"
    model = randomized(SatAutoencoder(config))
    encoder = load(save_sat(tmp_path, config, model))
    sound = noise(WINDOW + 100)
    with torch.inference_mode():
        mean = model.encoder(padded(sound, HOP)).chunk(2, dim=1)[0]
        whole = model.decoder(mean)[0]
    expected = mean[0].T.numpy()
    assert_close(encode(encoder, sound), expected)
    whole = whole.tanh() if change == "soft clip" else whole
    assert_close(encoder.decode(expected), whole, 1e-4)  # tanh has made the largest values small


def test_decoding_is_that_of_diffusers(encoder: vae.Vae, model: AutoencoderOobleck) -> None:
    latents = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float16)  # of more than one slice
    whole = upstream_decoded(model, latents)
    found = encoder.decode(latents)
    assert found.dtype == np.float32
    assert_close(found, whole)


# --- the posterior ---


def test_a_sample_has_the_posteriors_mean_and_spread(folder: Path, model: AutoencoderOobleck) -> None:
    sound = noise(3 * WINDOW)
    with torch.inference_mode():
        posterior = model.encode(padded(sound, HOP)).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    mean, std = (part[0].T.numpy() for part in (posterior.mean, posterior.std))
    draws = np.stack([encode(load(folder, subfolder="vae", posterior="sample", seed=seed), sound) for seed in range(8)])
    scores = (draws - mean) / std
    assert abs(scores.mean()) < 4 / np.sqrt(scores.size)
    assert abs(scores.std() - 1) < 4 / np.sqrt(2 * scores.size)
    neighbours = [(scores[:, 1:] * scores[:, :-1]).mean(), (scores[..., 1:] * scores[..., :-1]).mean()]
    neighbours += [(scores[1:] * scores[:-1]).mean(), (scores[:, 240:480] * scores[:, 480:720]).mean()]
    assert max(np.abs(neighbours)) < 5 / np.sqrt(8 * 240 * 4)


def test_a_sample_comes_again(folder: Path) -> None:
    sound, lead = noise(2 * WINDOW + 5), noise(WINDOW, seed=1)
    first, other = (load(folder, subfolder="vae", posterior="sample", seed=seed) for seed in (0, 1))
    again = load(folder, subfolder="vae", posterior="sample", batch_size=4)
    encode(again, lead)  # what was drawn before does not matter
    np.testing.assert_array_equal(encode(again, sound), encode(first, sound))
    assert np.abs(encode(other, sound) - encode(first, sound)).max() > 0.1
    assert first.spec.settings["seed"] == 0 and first.spec != other.spec


# --- what goes wrong ---


def test_a_window_that_is_not_finite_is_nan_alone(folder: Path) -> None:
    for at_once in (False, True):
        encoder = load(folder, subfolder="vae", batch_size=2)
        encoder = all_at_once(encoder) if at_once else encoder
        length = encoder.spec.length
        windows = np.stack([noise(length), noise(length, 1)])
        whole = np.array([[0, length], [0, length]])
        expected = encoder.encode(windows.copy(), whole)
        windows[0, 0, length // 2] = np.inf
        found = encoder.encode(windows, whole)
        assert np.isnan(found[0]).all()
        np.testing.assert_array_equal(found[1], expected[1])


def test_silence_is_encoded(encoder: vae.Vae, model: AutoencoderOobleck) -> None:
    silence = np.zeros((2, 1000), np.float32)
    assert_close(encode(encoder, silence), upstream(model, silence))


def test_bfloat16_is_close(folder: Path, encoder: vae.Vae) -> None:
    sound = noise(WINDOW + 100)
    found = encode(load(folder, subfolder="vae", dtype="bfloat16"), sound)
    expected = encode(encoder, sound)
    assert found.dtype == np.float32
    assert 1e-6 < np.abs(found - expected).mean() / np.abs(expected).mean() < 0.05


def change(path: Path, **changes: Any) -> None:
    """Changes values of a JSON file: `model__latent_dim=3`; None takes one out."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__encoder__type": "dac"}, "model.encoder.type: Input should be 'oobleck', not 'dac'"),
        ({"model__bottleneck__type": "dac_rvq_vae"}, "model.bottleneck.type: Input should be 'vae', not 'dac_rvq_vae'"),
        ({"model__bottleneck": None}, "model.bottleneck: Field required"),
        ({"model__pretransform": {"type": "patched", "config": {}}}, "model.pretransform: Input should be None"),
        ({"model_type": "diffusion_autoencoder"}, "model_type: Input should be 'autoencoder', not 'diff"),
        ({"model__encoder": None}, "model.encoder: Field required"),
        ({"model": {"pretransform": {"type": "dac_pretrained"}}}, "pretransform.type: .* not 'dac_pretrained'"),
        ({"model": 3}, "_class_name: Field required"),
        ({"model__encoder__config__strides": [2, "x"]}, "encoder.config.strides.1: Input should be a valid integer"),
        ({"model__encoder__config__strides": [2, 1]}, "strides.1: Input should be greater than or equal to 2, not 1"),
        ({"model__encoder__config__strides": [2, 2, 6]}, "3 strides for 2 levels"),
        ({"model__encoder__config__latent_dim": 9}, "latent_dim 4, but its encoder downsamples by 24 and gives 9"),
        (
            {"model__encoder__config__antialias_activation": True},
            "antialias_activation: Input should be False, not True",
        ),
        ({"model__encoder__config__in_channels": 6}, "in_channels: Input should be less than or equal to 2, not 6"),
        ({"model__encoder__config__in_channels": 1}, r"of another shape: 0.weight \[8, 2, 7\] instead of \[8, 1, 7\]"),
        ({"model__encoder__config__use_snake": False}, "unknown: 1.0.0.alpha"),
        ({"model__downsampling_ratio": 2048}, "downsampling_ratio is 2048 and latent_dim 4, but its encoder downsamp"),
        ({"sample_rate": None}, "sample_rate: Field required"),
    ],
)
def test_a_config_that_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_sat(tmp_path, sat_config(), SatAutoencoder(sat_config()))
    change(tmp_path / "vae_config.json", **changes)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_configs_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for content, message in {
        "{": "is no JSON",
        "[]": "valid dictionary",
        '{"_class_name": "AutoencoderKL"}': "_class_name: Input should be 'AutoencoderOobleck', not 'AutoencoderKL'",
        '{"hidden_size": 3}': "_class_name: Field required",
    }.items():
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            read_config(path)
    with pytest.raises(UsageError, match=r"missing.json: cannot be read: No such file"):
        read_config(tmp_path / "missing.json")


def test_a_checkpoint_that_is_wrong(tmp_path: Path) -> None:
    config = sat_config()
    path = save_sat(tmp_path, config, SatAutoencoder(config)) / "vae_model.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"vae_model.ckpt: cannot be read as a checkpoint"):
        load(tmp_path)
    torch.save({"state_dict": Path("/")}, path)
    with pytest.raises(UsageError, match=r"wants to call pathlib"):
        load(tmp_path)
    torch.save({"state_dict": {"vocoder.weight": torch.ones(2)}}, path)
    with pytest.raises(UsageError, match=r"holds no encoder of an autoencoder"):
        load(tmp_path)
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match=r"holds no encoder of an autoencoder"):
        load(tmp_path)
    tensors = SatAutoencoder(config).state_dict()
    del tensors["encoder.layers.1.layers.4.bias"], tensors["encoder.layers.0.weight_g"]
    torch.save({"state_dict": tensors}, path)
    with pytest.raises(UsageError, match=r"2 missing: 0.weight, 1.4.bias; 1 unknown: 0.weight_v"):
        load(tmp_path)


def test_files_that_are_missing(folder: Path, tmp_path: Path) -> None:
    checkpoint = folder / "vae" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(UsageError, match="give the setting config"):
        load(checkpoint)
    np.testing.assert_array_equal(
        encode(load(checkpoint, config=str(folder / "vae" / "config.json")), noise(100)),
        encode(load(folder, subfolder="vae"), noise(100)),
    )
    with pytest.raises(UsageError, match=r"has no config.json or vae_config.json or model_config.json"):
        load(folder)
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps(sat_config()))
    with pytest.raises(UsageError, match=r"nothing says which of its files belongs to odd.json"):
        load(tmp_path, config="odd.json")
    (tmp_path / "vae_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"has no vae_model.safetensors or vae_model.ckpt"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__decoder": None}, "cannot decode: of the decoder's configuration, Input should be a valid dict"),
        ({"model__decoder__type": "dac"}, "type: Input should be 'oobleck', not 'dac'"),
        ({"model__decoder__config__latent_dim": 7}, "the decoder takes 7 channels, and a latent has 4"),
        ({"model__decoder__config__antialias_activation": True}, "config.antialias_activation: Input should be False"),
        ({"model__decoder__config__use_nearest_upsample": True}, "config.use_nearest_upsample: Input should be False"),
    ],
)
def test_an_encoder_without_a_decoder_still_encodes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    config = sat_config()
    save_sat(tmp_path, config, randomized(SatAutoencoder(config)))
    change(tmp_path / "vae_config.json", **changes)
    encoder = load(tmp_path)
    assert np.isfinite(encode(encoder, noise(100))).all()
    with pytest.raises(UsageError, match=message):
        encoder.decode(np.zeros((3, 4), np.float16))


def test_a_checkpoint_without_a_decoder(tmp_path: Path) -> None:
    config = sat_config()
    tensors = randomized(SatAutoencoder(config)).state_dict()
    save_sat(tmp_path, config, SatAutoencoder(config))
    torch.save(
        {key: value for key, value in tensors.items() if key.startswith("encoder.")}, tmp_path / "vae_model.ckpt"
    )
    encoder = load(tmp_path)
    with pytest.raises(UsageError, match="holds no decoder of an autoencoder"):
        encoder.decode(np.zeros((3, 4), np.float16))
