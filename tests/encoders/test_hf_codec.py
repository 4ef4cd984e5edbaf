"""Codecs of transformers: tiny configurations of the real classes, saved by upstream, give upstream's codes."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    MimiConfig,
    MimiModel,
    WavLMConfig,
    XcodecConfig,
    XcodecModel,
)

from audioprep.encoders import hf_codec, hf_models
from audioprep.encoders.base import EncoderSpec
from audioprep.errors import UsageError
from audioprep.stages.encode import encode_samples

_SEANET: dict[str, Any] = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64}


@torch.no_grad()
def encodec(**settings: Any) -> Any:
    rates: dict[str, Any] = {"target_bandwidths": [0.9, 1.8]}
    model = EncodecModel(EncodecConfig(**_SEANET | rates | settings))
    for name, weight in model.named_parameters():
        if name.endswith("weight.original0"):
            weight *= 2  # at upstream's start the sound is lost among the biases
    return model


def mimi(**settings: Any) -> Any:
    attention: dict[str, Any] = {
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    # At upstream's start attention does next to nothing.
    loud: dict[str, Any] = {"layer_scale_initial_scale": 0.5, "initializer_range": 0.3}
    sizes: dict[str, Any] = {
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 4,
        "upsample_groups": 16,
    }
    return MimiModel(MimiConfig(**_SEANET | attention | loud | sizes | settings))


def xcodec(semantic: type = HubertConfig) -> XcodecModel:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    convolutions: dict[str, Any] = {
        "conv_dim": (8,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    ratios: dict[str, Any] = {"downsampling_ratios": [8, 5, 4, 2], "upsampling_ratios": [8, 5, 4, 2]}
    acoustic = DacConfig(encoder_hidden_size=4, decoder_hidden_size=32, hidden_size=16, **ratios)
    config: dict[str, Any] = {"codebook_size": 64, "target_bandwidths": [0.3, 0.6, 1.2]}
    return XcodecModel(
        XcodecConfig(acoustic_model_config=acoustic, semantic_model_config=semantic(**sizes | convolutions), **config)
    )


MODELS: dict[str, Callable[[], Any]] = {
    "encodec": encodec,
    "encodec-stereo": lambda: encodec(audio_channels=2, pad_mode="constant"),
    "encodec-32khz": lambda: encodec(
        use_causal_conv=False, sampling_rate=32_000, upsampling_ratios=[8, 5, 4, 4], num_residual_layers=2
    ),
    "mimi": mimi,
    "xcodec": xcodec,
    "xcodec-wavlm": lambda: xcodec(WavLMConfig),
}
EXACT = ["encodec", "encodec-stereo", "encodec-32khz", "mimi"]


def noise(samples: int, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def spread_codebooks(layers: Any, residual: torch.Tensor) -> None:
    """Makes codebooks of what is like the vectors `[N, D]` that come: upstream's are all zero at the start."""
    for layer in layers:
        book = layer.codebook
        picked = residual[torch.randint(len(residual), (book.codebook_size,))]
        picked = picked + 0.5 * residual.std(0) * torch.randn_like(picked)
        if hasattr(book, "embed_sum"):
            book.embed_sum.copy_(picked)
            book._embed = None  # which it remembers
        else:
            book.embed.copy_(picked)
        residual = residual - layer.decode(layer.encode(residual.T[None]))[0].T


@torch.inference_mode()
def prepare(model: Any) -> Any:
    """A model whose codes tell apart what it hears."""
    samples = torch.from_numpy(noise(80_000, getattr(model.config, "audio_channels", 1), seed=9))[None]
    quantizer = model.quantizer
    seen: list[torch.Tensor] = []
    quantizer.encode, encode = lambda embedding, *_: seen.append(embedding) or encode(embedding), quantizer.encode
    model.eval().encode(samples)
    del quantizer.encode
    if model.config.model_type == "mimi":
        for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
            spread_codebooks(part.layers, part.input_proj(seen[0])[0].T)
    else:
        spread_codebooks(getattr(quantizer, "layers", None) or quantizer.quantizers, seen[0][0].T)
    return model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Upstream's model and the folder it is saved in, by name."""
    made: dict[str, tuple[Any, Path]] = {}

    def get(name: str) -> tuple[Any, Path]:
        if name not in made:
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(name)
            model = prepare(MODELS[name]())
            model.save_pretrained(folder)
            made[name] = model, folder
        return made[name]

    return get


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_models, "_PIECE_SECONDS", 1)


def settings(folder: Path, **changes: Any) -> hf_codec.Settings:
    return hf_codec.Settings(weights=str(folder), **changes)


@torch.inference_mode()
def upstream(model: Any, samples: NDArray[np.float32]) -> NDArray[np.int64]:
    """What upstream's own `encode` gives for a whole file, after its own feature extractor's padding: `[F, K]`."""
    whole = torch.from_numpy(samples)[None]
    if model.config.model_type == "encodec":
        return model.encode(whole, bandwidth=1.8).audio_codes[0, 0].T.numpy()
    if model.config.model_type == "xcodec":
        whole = torch.nn.functional.pad(whole, (0, -whole.shape[-1] % 320))
    return model.encode(whole).audio_codes[0].T.numpy()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seconds", [0, 0.001, 0.4, 1, 2.34567, 3.9])
def test_codes_are_those_of_the_whole_file(name: str, seconds: float, saved: Any):
    model, folder = saved(name)
    encoder = hf_codec.load(settings(folder, window_seconds=1))
    spec = encoder.spec
    samples = noise(1 + int(seconds * spec.sample_rate), spec.channels)
    codes = encode_samples(encoder, samples)
    np.testing.assert_array_equal(codes, upstream(model, samples))
    assert seconds < 1 or all(len(np.unique(codes[:, book])) > 5 for book in range(codes.shape[1]))


@pytest.mark.parametrize("name", ["xcodec", "xcodec-wavlm"])
@pytest.mark.parametrize("seconds", [0, 0.001, 1, 2.34567])
def test_xcodec_codes_are_those_of_the_whole_file_where_it_is_one_window(name: str, seconds: float, saved: Any):
    model, folder = saved(name)
    encoder = hf_codec.load(settings(folder, window_seconds=3))
    samples = noise(1 + int(seconds * encoder.spec.sample_rate))
    np.testing.assert_array_equal(encode_samples(encoder, samples), upstream(model, samples))


def test_xcodec_sees_a_longer_file_in_windows(saved: Any):
    model, folder = saved("xcodec")
    encoder = hf_codec.load(settings(folder, window_seconds=1, overlap_seconds=1))
    samples = noise(40_000)
    codes = encode_samples(encoder, samples)
    expected = upstream(model, samples)
    assert codes.shape == expected.shape
    assert (codes == expected).mean() > 0.9
    assert encoder.spec.left_context == encoder.spec.right_context >= 16_000


def test_mimi_attends_as_far_as_its_sliding_window(tmp_path: Path):
    torch.manual_seed(0)
    model = prepare(mimi(sliding_window=10))
    model.save_pretrained(tmp_path)
    samples = noise(120_000)
    with torch.inference_mode():
        features = model.encoder(torch.from_numpy(samples)[None]).transpose(1, 2)
        back = torch.arange(features.shape[1])[:, None] - torch.arange(features.shape[1])
        mask = ((back >= 0) & (back < 10))[None, None]
        attended = model.encoder_transformer(features, attention_mask=mask)[0].transpose(1, 2)
        expected = model.quantizer.encode(model.downsample(attended))[:, 0].T.numpy()
    # Two layers reach 18 frames of 40 ms, and the convolutions around them 7 more.
    exact = hf_codec.load(settings(tmp_path, window_seconds=0.5, overlap_seconds=0.72))
    np.testing.assert_array_equal(encode_samples(exact, samples), expected)
    default = hf_codec.load(settings(tmp_path, window_seconds=0.5))
    assert 0.001 < (encode_samples(default, samples) != expected).mean() < 0.5
    assert (upstream(model, samples) != expected).any()  # without flash attention it forgets its own setting


@pytest.mark.parametrize("name", MODELS)
def test_a_row_does_not_depend_on_its_neighbours(name: str, saved: Any):
    _, folder = saved(name)
    alone = hf_codec.load(settings(folder, window_seconds=0.5, batch_size=1, overlap_seconds=0.2))
    among = hf_codec.load(settings(folder, window_seconds=0.5, batch_size=5, overlap_seconds=0.2))
    spec = alone.spec
    left, length = spec.left_context, spec.length
    valid = np.array([[0, length], [left, length], [left, left + 7], [0, 0], [0, left + 999]])
    samples = np.stack([noise(length, spec.channels, seed) for seed in range(5)])
    for row, (start, end) in zip(samples, valid, strict=True):
        row[:, :start] = row[:, end:] = 0
    singly = np.concatenate([alone.encode(samples[[row]], valid[[row]]) for row in range(5)])
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        np.testing.assert_array_equal(among.encode(samples[order], valid[order]), singly[order])


@pytest.mark.parametrize("name", ["encodec", "encodec-32khz"])
def test_a_gpu_gives_its_lstm_all_rows_at_once(name: str, saved: Any):
    _, folder = saved(name)
    encoder: Any = hf_codec.load(settings(folder, window_seconds=1, batch_size=4))
    features = [torch.randn(1, 64, frames) for frames in (3, 50, 1)]
    with torch.inference_mode():
        singly = encoder._recall(features)
        encoder.device = torch.device("cuda")  # is asked only which way to go
        assert encoder._recall([]) == []
        together = encoder._recall(features)
    for one, other in zip(singly, together, strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_not_finite_is_marked_in_its_row_alone(saved: Any):
    _, folder = saved("encodec")
    encoder = hf_codec.load(settings(folder, window_seconds=0.5, batch_size=3))
    spec = encoder.spec
    samples = np.stack([noise(spec.length, seed=seed) for seed in range(3)])
    valid = np.tile([0, spec.length], (3, 1))
    expected = encoder.encode(samples, valid)
    samples[1, 0, -50] = np.nan
    found = encoder.encode(samples, valid)
    assert (found[1] == -1).all()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("name", MODELS)
def test_decodes_as_upstream_does(name: str, saved: Any):
    model, folder = saved(name)
    encoder: Any = hf_codec.load(settings(folder))
    spec = encoder.spec
    codes = np.random.default_rng(0).integers(64, size=(30, spec.num_codebooks), dtype=np.uint8)
    sound = encoder.decode(codes)
    assert sound.shape == (spec.channels, 30 * spec.hop_length) and sound.dtype == np.float32
    tokens = torch.from_numpy(codes.astype(np.int64)).T[None]
    with torch.inference_mode():
        expected = model.decode(*((tokens[None], [None]) if model.config.model_type == "encodec" else (tokens,)))[0]
    np.testing.assert_allclose(sound, expected.reshape(spec.channels, -1), atol=1e-5)


def test_silence_has_codes(saved: Any):
    model, folder = saved("encodec")
    silence = np.zeros((1, 30_000), np.float32)
    np.testing.assert_array_equal(encode_samples(hf_codec.load(settings(folder)), silence), upstream(model, silence))


@pytest.mark.parametrize("name", ["encodec", "mimi", "xcodec"])
def test_fewer_codebooks_are_the_first_ones(name: str, saved: Any):
    model, folder = saved(name)
    encoder: Any = hf_codec.load(settings(folder, num_codebooks=2))
    samples = noise(30_000)
    codes = encode_samples(encoder, samples)
    np.testing.assert_array_equal(codes, upstream(model, samples)[:, :2])
    assert encoder.decode(codes).shape == (1, len(codes) * encoder.spec.hop_length)


def test_a_bandwidth_says_how_many_codebooks(saved: Any):
    _, folder = saved("encodec")
    assert hf_codec.describe(settings(folder)).num_codebooks == 4
    assert hf_codec.describe(settings(folder, bandwidth=0.9)).num_codebooks == 2
    assert hf_codec.describe(settings(saved("xcodec")[1], bandwidth=0.6)).num_codebooks == 2


def test_the_spec_says_what_can_move_a_code(saved: Any):
    _, folder = saved("mimi")
    plain = hf_codec.describe(settings(folder))
    assert plain == EncoderSpec(
        name="hf:mimi",
        kind="tokens",
        sample_rate=24_000,
        channels=1,
        hop_length=1920,
        window=60 * 24_000,
        left_context=128 * 1920,  # 10 s of attention, and 5240 samples of convolutions
        right_context=0,
        batch_size=1,
        fingerprint=plain.fingerprint,
        num_codebooks=4,
        codebook_size=64,
        settings=plain.settings,
    )
    assert {"dtype", "tf32", "device", "torch", "transformers"} <= plain.settings.keys()
    changes: list[dict[str, Any]] = [{"overlap_seconds": 1}, {"window_seconds": 1}, {"dtype": "bfloat16"}]
    assert all(hf_codec.describe(settings(folder, **change)) != plain for change in changes)
    config = json.loads((folder / "config.json").read_text())
    other = folder.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert hf_codec.describe(settings(other)).fingerprint != plain.fingerprint


def test_bfloat16_changes_some_codes(saved: Any):
    _, folder = saved("encodec")
    samples = noise(30_000)
    plain = encode_samples(hf_codec.load(settings(folder)), samples)
    rough = encode_samples(hf_codec.load(settings(folder, dtype="bfloat16")), samples)
    assert 0 < (plain != rough).mean() < 0.5


def test_a_dac_goes_to_its_own_encoder(tmp_path: Path):
    torch.manual_seed(0)
    config = DacConfig(encoder_hidden_size=8, decoder_hidden_size=32, n_codebooks=3, downsampling_ratios=[2, 4])
    config.hop_length = 8
    DacModel(config).save_pretrained(tmp_path)
    assert hf_codec.describe(settings(tmp_path)).name == "dac"
    assert hf_codec.load(settings(tmp_path, num_codebooks=2)).spec.num_codebooks == 2
    with pytest.raises(UsageError, match="is a DAC, which takes no bandwidth, window_seconds"):
        hf_codec.describe(settings(tmp_path, bandwidth=6, window_seconds=1))


def test_describe_needs_no_torch(saved: Any):
    _, folder = saved("encodec")
    code = (
        "import sys; from audioprep.encoders import hf_codec; "
        f"print(hf_codec.describe(hf_codec.Settings(weights={str(folder)!r})).hop_length, 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "320 False\n"


def changed(folder: Path, to: Path, **values: Any) -> Path:
    """A copy with another configuration; a value of `...` is left out."""
    config = json.loads((folder / "config.json").read_text()) | values
    (to / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))
    (to / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return to


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', and the codecs .* are dac, encodec, mimi, xcodec"),
        ({"model_type": ...}, "model_type is None"),
        ({"normalize": True, "chunk_length_s": 1.0, "overlap": 0.01}, "as EnCodec at 48 kHz does.*encodec_32khz"),
        ({"upsampling_ratios": ...}, r"no whole configuration of encodec: KeyError\('upsampling_ratios'\)"),
        ({"upsampling_ratios": 7}, "no whole configuration of encodec: TypeError"),
        ({"target_bandwidths": []}, "no whole configuration of encodec: IndexError"),
        ({"num_filters": 6}, "weights do not fit its configuration: .* of another shape: "),
        ({"kernel_size": "7"}, "no whole configuration of encodec: TypeError"),
        ({"codebook_size": 63}, r"no EncodecModel can be built from it \(The codebook_size must be a power of 2"),
    ],
)
def test_a_wrong_configuration(values: dict[str, Any], message: str, saved: Any, tmp_path: Path):
    with pytest.raises(UsageError, match=message):
        hf_codec.load(settings(changed(saved("encodec")[1], tmp_path, **values)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_codebooks": 5}, "has 4 codebooks, and num_codebooks is 5"),
        ({"bandwidth": 1.0}, "bandwidth is 1; choose one of 0.9, 1.8"),
        ({"bandwidth": 1.8, "num_codebooks": 4}, "give only one"),
        ({"compile": True}, "cannot be compiled"),
    ],
)
def test_a_setting_that_does_not_fit(given: dict[str, Any], message: str, saved: Any):
    with pytest.raises(UsageError, match=message):
        hf_codec.describe(settings(saved("encodec")[1], **given))


def test_mimi_has_no_bandwidths(saved: Any):
    with pytest.raises(UsageError, match="this model has none: give num_codebooks"):
        hf_codec.describe(settings(saved("mimi")[1], bandwidth=1.1))


def test_broken_json(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "enc')
    with pytest.raises(UsageError, match=r"config\.json: cannot be read as a configuration"):
        hf_codec.describe(settings(tmp_path))


def test_wrong_weights(saved: Any, tmp_path: Path):
    folder = changed(saved("encodec")[1], tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5000])
    with pytest.raises(UsageError, match=r"model\.safetensors: cannot be read as a checkpoint"):
        hf_codec.load(settings(folder))
    weights.write_bytes((saved("mimi")[1] / weights.name).read_bytes())
    with pytest.raises(UsageError, match=r"weights do not fit its configuration: \d+ missing: "):
        hf_codec.load(settings(folder))
    weights.unlink()
    with pytest.raises(UsageError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        hf_codec.describe(settings(folder))
    with pytest.raises(UsageError, match="is a file; give the folder"):
        hf_codec.describe(settings(folder / "config.json"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code was run",)


def test_a_pickle_is_loaded_without_running_code(saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, folder = saved("encodec")
    changed(folder, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    pickled = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), pickled)
    samples = noise(9000)
    np.testing.assert_array_equal(encode_samples(hf_codec.load(settings(tmp_path)), samples), upstream(model, samples))
    pickled.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(UsageError, match="print"):
        hf_codec.load(settings(tmp_path))
    assert "code was run" not in capsys.readouterr().out


def test_a_repository_that_is_not_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="kyutai/mimi is not on this machine .* Run `hf download kyutai/mimi`"):
        hf_codec.describe(hf_codec.Settings(weights="kyutai/mimi"))
