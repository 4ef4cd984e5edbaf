import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_helpers import encode, music, windows
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from audioprep.audio import load_audio
from audioprep.encoders import mel_rvq
from audioprep.encoders.base import Decoder, Encoder
from audioprep.encoders.mel_rvq import MelRvq, Settings, describe, load
from audioprep.encoders.mel_rvq_fit import fit_mel_rvq
from audioprep.errors import SystemFault, UsageError
from audioprep.samples import sample_folder
from audioprep.stages.encode import encode_samples


def test_is_an_encoder_and_a_decoder(encoder: MelRvq):
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, Decoder)


def test_describe_says_what_load_gives(weights: Path, encoder: MelRvq):
    spec = describe(Settings(weights=weights))
    assert spec == encoder.spec
    assert (spec.num_codebooks, spec.codebook_size, spec.frame_rate) == (3, 32, 25.0)
    assert spec.window % spec.hop_length == 0
    assert spec.fingerprint == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert spec.settings["torch"] == torch.__version__.partition("+")[0]


def test_describe_needs_no_torch():
    code = (
        "import sys; from audioprep.encoders.mel_rvq import Settings, describe;"
        "describe(Settings(device='auto')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_setting_that_moves_a_value_moves_the_digest(weights: Path):
    digests = {
        json.dumps(describe(settings).to_dict())
        for settings in (
            Settings(),
            Settings(weights=weights),
            Settings(weights=weights, num_codebooks=2),
            Settings(weights=weights, device="cuda"),
        )
    }
    assert len(digests) == 4
    assert describe(Settings(device="cuda:1")) == describe(Settings(device="cuda"))


def test_tokens_have_the_shape_and_type_of_the_spec(encoder: MelRvq):
    tokens = encode(encoder, windows(2, 0))
    assert tokens.shape == (2, 128, 3)
    assert tokens.max() < 32


def test_more_than_256_codewords(tmp_path: Path):
    blocks = [music(15.0, 0)]
    fit_mel_rvq(blocks, num_codebooks=1, codebook_size=300).save(tmp_path / "w.safetensors")
    tokens = encode(load(Settings(weights=tmp_path / "w.safetensors")), windows(1, 0))
    assert tokens.max() > 255


def test_tokens_are_those_of_the_nearest_codewords(encoder: MelRvq, weights: Path):
    """The whole computation once more, in float64 and the plainest way."""
    tensors = {name: value.astype(np.float64) for name, value in load_file(weights).items()}
    batch = windows(1, 3)
    frames = encoder._log_mel(torch.from_numpy(batch[:, 0]))[0].double().numpy()
    rows = (frames - np.tile(tensors["mean"], 4)) / np.tile(tensors["std"], 4) @ tensors["projection"]
    tokens = encode(encoder, batch)[0]
    for k, book in enumerate(tensors["codebooks"]):
        distances = ((rows[:, None] - book) ** 2).sum(-1)
        chosen = distances[np.arange(len(rows)), tokens[:, k]]
        np.testing.assert_allclose(chosen, distances.min(1), rtol=1e-4)
        rows -= book[tokens[:, k]]


def test_a_window_does_not_depend_on_its_neighbours(encoder: MelRvq):
    batch = windows(16, 20)
    expected = encode(encoder, batch)
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(encode(encoder, batch[order]), expected[order])
    alone = np.zeros_like(batch)
    alone[5] = batch[9]
    np.testing.assert_array_equal(encode(encoder, alone)[5], expected[9])
    np.testing.assert_array_equal(encode(encoder, batch[3:4])[0], expected[3])
    features = encoder._log_mel(torch.from_numpy(batch[:, 0]))
    shuffled = encoder._log_mel(torch.from_numpy(batch[order, 0]))
    assert torch.equal(shuffled, features[torch.from_numpy(order)])


def test_a_window_does_not_depend_on_the_number_of_threads(encoder: MelRvq):
    batch = windows(1, 20)
    expected = encode(encoder, batch)
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(encode(encoder, batch), expected)
    finally:
        torch.set_num_threads(1)


def test_windows_give_what_the_whole_gives(encoder: MelRvq):
    samples, spec = music(12.3, 7), encoder.spec
    whole = np.pad(samples, ((0, 0), (spec.left_context, spec.right_context + 3 * spec.window - samples.shape[1])))
    expected = encode(encoder, whole[None])[0, : spec.num_frames(samples.shape[1])]
    np.testing.assert_array_equal(encode_samples(encoder, samples), expected)


def test_fewer_codebooks_are_the_first_ones(encoder: MelRvq, weights: Path):
    batch = windows(2, 40)
    fewer = load(Settings(weights=weights, num_codebooks=2))
    np.testing.assert_array_equal(encode(fewer, batch), encode(encoder, batch)[..., :2])


def test_decode_sounds_like_what_was_encoded(encoder: MelRvq):
    tokens = encode(encoder, windows(1, 50))[0]
    sound = encoder.decode(tokens)
    assert sound.shape == (1, 128 * 960)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 1.0
    np.testing.assert_array_equal(sound, encoder.decode(tokens))

    def distance(codes: np.ndarray) -> float:
        return float((encoder._rvq.decode(torch.from_numpy(codes).long()) - rows).square().mean())

    again = encode(encoder, np.pad(sound, ((0, 0), (904, 904)))[None])[0]
    rows = encoder._rvq.decode(torch.from_numpy(tokens).long())
    assert distance(again) < 0.5 * distance(np.roll(tokens, 30, axis=0))


def test_bundled_weights_are_small_and_ready():
    spec = load(Settings()).spec
    assert mel_rvq.BUNDLED.stat().st_size < 1_200_000
    assert (spec.num_codebooks, spec.codebook_size) == (4, 256)


def test_bundled_codebooks_tell_sounds_apart():
    samples, _ = load_audio(sample_folder() / "music" / "ode_to_joy.wav", sample_rate=24_000, channels=1)
    encoder = load(Settings())
    tokens = encode_samples(encoder, samples)
    assert min(len(np.unique(column)) for column in tokens.T) > 10
    assert len(np.unique(tokens, axis=0)) > 0.5 * len(tokens)


def test_too_many_codebooks_are_refused(weights: Path):
    with pytest.raises(UsageError, match=r"weights\.safetensors: has 3 codebooks, and num_codebooks is 9"):
        describe(Settings(weights=weights, num_codebooks=9))


@pytest.mark.parametrize("content", [None, b"", b"RIFF1234WAVE", b"\x02\0\0\0\0\0\0\0[]"])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "other.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"other\.safetensors: .* make them with `audioprep fit mel-rvq`"):
        describe(Settings(weights=path))


def test_other_safetensors_are_refused(tmp_path: Path):
    save_file({"codebooks": np.zeros((2, 3, 4), np.float16)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="no mel-rvq weights"):
        load(Settings(weights=tmp_path / "other.safetensors"))


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        Settings.model_validate({"codebooks": 3})
    with pytest.raises(ValidationError):
        Settings(device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_stops_the_run():
    with pytest.raises(SystemFault, match="choose the device cpu"):
        load(Settings(device="cuda"))


def test_auto_takes_the_cpu_where_cuda_is_hidden(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert describe(Settings(device="auto")).settings["device"] == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_nearly_the_same_tokens_and_is_as_independent(weights: Path, encoder: MelRvq):
    batch = windows(16, 70)
    gpu = load(Settings(weights=weights, device="cuda"))
    tokens = encode(gpu, batch)
    assert (tokens == encode(encoder, batch)).mean() > 0.999
    np.testing.assert_array_equal(encode(gpu, batch[::-1].copy())[::-1], tokens)
