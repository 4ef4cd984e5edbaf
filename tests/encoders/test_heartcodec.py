from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from heartcodec_helpers import (
    CODEBOOKS,
    CODES,
    DECODER,
    FRAMES,
    WINDOW,
    load,
    save_heartcodec,
    stereo,
    where,
)
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from audioprep.encoders import heartcodec, heartcodec_model
from audioprep.encoders.heartcodec_checkpoint import find_checkpoint
from audioprep.encoders.heartcodec_decoder import HeartDecoder
from audioprep.encoders.heartcodec_features import resampling_kernel
from audioprep.encoders.heartcodec_model import HeartEncoder
from audioprep.encoders.registry import describe_encoder, load_encoder
from audioprep.errors import InputError, UsageError
from audioprep.stages.encode import encode_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_heartcodec(tmp_path_factory.mktemp("heartcodec") / "it")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> heartcodec.HeartCodec:
    return load(folder)


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy, of whose tensors one function changes the encoder's and one the decoder's."""

    def change(encoder: Any = lambda tensors: tensors, decoder: Any = lambda tensors: tensors) -> Path:
        for name, file, function in (("encoder", "encoder", encoder), ("decoder", "model", decoder)):
            (tmp_path / name).mkdir()
            for path in (folder / name).glob("*.json"):
                (tmp_path / name / path.name).write_bytes(path.read_bytes())
            tensors = load_file(folder / name / f"{file}.safetensors")
            save_file(function(tensors), tmp_path / name / f"{file}.safetensors")
        return tmp_path

    return change


def windows(*sounds: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One window for each sound `[2, T]`, `T` at most a window."""
    samples = np.zeros((len(sounds), 2, WINDOW), np.float32)
    for row, sound in zip(samples, sounds, strict=True):
        row[:, : sound.shape[1]] = sound
    return samples, np.array([[0, sound.shape[1]] for sound in sounds])


@pytest.fixture(scope="module")
def ids(encoder: heartcodec.HeartCodec) -> NDArray[Any]:
    return encoder.encode(*windows(stereo(30.0, 0)[:, :WINDOW]))[0]


def test_spec(folder: Path, encoder: heartcodec.HeartCodec):
    spec = describe_encoder("heartcodec", where(folder))
    assert spec == encoder.spec
    assert (spec.sample_rate, spec.channels, spec.frame_rate, spec.window) == (24_000, 2, 12.5, WINDOW)
    assert (spec.num_codebooks, spec.codebook_size) == (CODEBOOKS, CODES)
    assert spec.to_dict()["frame_count"] == "one-more"
    assert {"codebooks", "transformers", "torch", "tf32", "backend"} <= spec.settings.keys()


def test_the_published_checkpoints_have_as_many_tensors(tmp_path: Path):
    """And are as large: 2.15 and 6.64 GB."""
    (tmp_path / "config.json").write_text(json.dumps({"version": "vqv12"}))
    for name in ("encoder", "model"):
        (tmp_path / f"{name}.safetensors").touch()
    found = find_checkpoint(str(tmp_path), str(tmp_path))
    with torch.device("meta"):
        encoder, decoder = HeartEncoder(found.encoder_config), HeartDecoder(found.decoder_config)
    sizes = [sum(value.nbytes for value in model.state_dict().values()) / 1e9 for model in (encoder, decoder)]
    assert (len(encoder.state_dict()), len(decoder.state_dict())) == (1006, 818)
    np.testing.assert_allclose(sizes, [2.15, 6.64], atol=0.01)


def test_the_tokens_are_worth_comparing(ids: NDArray[Any]):
    assert ids.shape == (FRAMES, CODEBOOKS) and ids.min() >= 0 and ids.max() < CODES
    assert all(len(set(codebook)) > CODES // 3 for codebook in ids.T.tolist())
    assert (ids[1:] != ids[:-1]).any(axis=1).mean() > 0.5


@pytest.mark.parametrize(
    ("samples", "frames", "count"),
    [
        (1, 1, 1), (1919, 1, 1), (1920, 2, 1), (1921, 2, 1), (29 * 1920, 29, 1), (30 * 1920, 31, 1),
        (714_239, 372, 1), (714_240, 372, 1), (714_241, 373, 2), (2 * 714_240, 744, 2), (2 * 714_240 + 1920, 746, 3),
        (24_000 * 180, 2251, 7), (24_000 * 3 * 3600, 135_001, 363),
    ],
)  # fmt: skip
def test_frames_of_a_recording(samples: int, frames: int, count: int, encoder: heartcodec.HeartCodec):
    """The numbers are what Python makes of upstream's `int(samples / 24000 * 12.5) + 1`, cut to its windows."""
    assert encoder.spec.num_frames(samples) == frames
    assert encoder.spec.num_windows(samples) == count


@pytest.mark.parametrize("samples", [1, 1919, 1920, 714_239, 714_240, 714_241])
def test_a_recording_has_that_many(samples: int, encoder: heartcodec.HeartCodec):
    found = encode_samples(encoder, stereo(30.0, 1)[:, :samples])
    assert found.shape == (encoder.spec.num_frames(samples), CODEBOOKS)


def test_windows_give_the_same_alone_and_among_any_neighbours(folder: Path, encoder: heartcodec.HeartCodec):
    samples, valid = windows(stereo(30.0, 0)[:, :WINDOW], stereo(3.0, 1), stereo(12.0, 2))
    alone = np.concatenate([encoder.encode(samples[[row]], valid[[row]]) for row in range(3)])
    order = [2, 0, 1]
    together = load(folder, batch_size=3).encode(samples[order], valid[order])
    np.testing.assert_array_equal(together, alone[order])
    assert len({row.tobytes() for row in alone}) == 3


def test_a_row_that_only_fills_the_batch_costs_nothing(
    folder: Path, encoder: heartcodec.HeartCodec, monkeypatch: pytest.MonkeyPatch
):
    samples, valid = windows(stereo(3.0, 1), np.zeros((2, 0), np.float32))
    filled = load(folder, batch_size=2)
    calls: list[int] = []
    window = filled._encoder.window
    monkeypatch.setattr(filled._encoder, "window", lambda samples: (calls.append(1), window(samples))[1])
    np.testing.assert_array_equal(filled.encode(samples, valid)[:1], encoder.encode(samples[:1], valid[:1]))
    assert len(calls) == 1


def test_a_long_recording_is_its_pieces_of_372_frames(encoder: heartcodec.HeartCodec):
    sound = np.concatenate([stereo(30.0, 3), stereo(40.0, 4)], axis=1)[:, : 2 * WINDOW + 5000]
    whole = encode_samples(encoder, sound)
    assert len(whole) == 2 * FRAMES + 3
    for number in range(3):
        piece = sound[:, number * WINDOW : (number + 1) * WINDOW]
        want = whole[number * FRAMES : (number + 1) * FRAMES]
        np.testing.assert_array_equal(encode_samples(encoder, piece), want)


def test_equal_channels_are_computed_once(encoder: heartcodec.HeartCodec, monkeypatch: pytest.MonkeyPatch):
    mono = stereo(5.0, 5)[[0, 0]]
    channels: list[int] = []
    music_encoder = encoder._encoder.feature_extractors.muencoder
    forward = music_encoder.forward
    monkeypatch.setattr(music_encoder, "forward", lambda given: (channels.append(len(given)), forward(given))[1])
    once = encoder.encode(*windows(mono))
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    np.testing.assert_array_equal(encoder.encode(*windows(mono)), once)
    assert channels == [1, 2]


def test_all_at_once_as_on_a_gpu_gives_nearly_the_same(
    folder: Path, ids: NDArray[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    samples, valid = windows(stereo(3.0, 1), stereo(30.0, 0)[:, :WINDOW])
    found = load(folder, batch_size=2, compile=True).encode(samples, valid)
    assert (found[1] == ids).mean() > 0.99  # products of more rows, which round otherwise


def test_bfloat16_changes_some_codes(folder: Path, encoder: heartcodec.HeartCodec):
    sound = stereo(WINDOW / 24_000, 1)
    exact, faster = (encode_samples(one, sound) for one in (encoder, load(folder, dtype="bfloat16")))
    assert exact.shape == faster.shape
    assert 0 < np.mean(exact != faster) < 0.9


def test_silence_has_tokens(encoder: heartcodec.HeartCodec):
    found = encode_samples(encoder, np.zeros((2, 48_000), np.float32))
    assert found.shape == (26, CODEBOOKS) and (found >= 0).all()


def test_a_window_whose_activations_are_not_finite_is_minus_one(changed: Callable[..., Path]):
    def break_a_weight(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["encoder.query.feature_proj.bias"][0] = torch.nan
        return tensors

    encoder = load(changed(encoder=break_a_weight))
    assert (encoder.encode(*windows(stereo(3.0, 1))) == -1).all()
    with pytest.raises(InputError, match="values that are not finite at 0.0 s"):
        encode_samples(encoder, stereo(3.0, 1))


def test_the_first_codebooks(folder: Path, ids: NDArray[Any]):
    few = load(folder, num_codebooks=2)
    assert few.spec.num_codebooks == 2
    np.testing.assert_array_equal(few.encode(*windows(stereo(30.0, 0)[:, :WINDOW]))[0], ids[:, :2])


def test_layers_above_what_is_used_change_nothing(folder: Path):
    """The features are hidden states of the whole models."""
    found = find_checkpoint(**{"encoder": str(folder / "encoder"), "decoder": str(folder / "decoder")})
    whole = HeartEncoder(found.encoder_config).eval().requires_grad_(False)
    whole.load_state_dict(found.encoder_tensors())
    sound = torch.from_numpy(stereo(30.0, 0)[:1, :WINDOW])
    models = whole.feature_extractors
    low = models.resampled(sound)
    acoustic, semantic, _, wavlm = heartcodec_model.load_encoder(found).feature_extractors(sound, low)
    mel = (models.muencoder.preprocessor_melspec_2048(sound)[..., :-1] - 6.7) / 18.4
    states = models.muencoder.conformer(models.muencoder.conv(mel), output_hidden_states=True).hidden_states
    torch.testing.assert_close(acoustic, states[2])
    torch.testing.assert_close(semantic, states[11])
    heard = models.wavlm_encoder(low, output_hidden_states=True).hidden_states
    torch.testing.assert_close(wavlm, torch.stack(heard[6:10]).sum(0)[0].view(1, -1, 2, 16).mean(2) / 4)


def test_the_spectrogram_and_the_resampling_are_torchaudios(folder: Path):
    sound = torch.from_numpy(stereo(30.0, 0)[:1, :WINDOW])
    resample = torchaudio.transforms.Resample(24_000, 16_000)
    assert torch.equal(resampling_kernel(), resample.get_buffer("kernel"))
    features = load(folder)._encoder.feature_extractors
    assert torch.equal(features.resampled(sound), resample(torch.nn.functional.pad(sound, (0, 240))))
    mel = torchaudio.transforms.MelSpectrogram(24_000, n_fft=2048, hop_length=240, n_mels=16)(sound)
    want = torchaudio.transforms.AmplitudeToDB()(mel)
    torch.testing.assert_close(features.muencoder.preprocessor_melspec_2048(sound), want, atol=1e-4, rtol=0)


# Decoding


@pytest.mark.parametrize("frames", [1, 20, 373])
def test_decoding_gives_stereo_at_48_khz(frames: int, encoder: heartcodec.HeartCodec, ids: NDArray[Any]):
    sound = encoder.decode(np.tile(ids, (2, 1))[:frames])
    assert (sound.shape, sound.dtype, encoder.decoded_rate) == ((2, frames * 3840), np.float32, 48_000)
    assert np.isfinite(sound).all() and sound.std() > 0 and not np.array_equal(sound[0], sound[1])


def test_decoding_is_seeded(folder: Path, encoder: heartcodec.HeartCodec, ids: NDArray[Any]):
    first = encoder.decode(ids[:20])
    np.testing.assert_array_equal(encoder.decode(ids[:20]), first)
    assert not np.array_equal(load(folder, seed=1).decode(ids[:20]), first)
    assert not np.array_equal(load(folder, guidance=1.0).decode(ids[:20]), first)
    assert not np.array_equal(load(folder, steps=2).decode(ids[:20]), first)


def test_rows_that_are_no_codes_are_left_out(encoder: heartcodec.HeartCodec, ids: NDArray[Any]):
    ended = np.concatenate([ids[:20].astype(np.uint16), np.full((1, CODEBOOKS), CODES + 1, np.uint16)])
    np.testing.assert_array_equal(encoder.decode(ended), encoder.decode(ids[:20]))
    assert encoder.decode(ended[20:]).shape == (2, 0)


def test_decoding_takes_the_first_codebooks(encoder: heartcodec.HeartCodec, ids: NDArray[Any]):
    assert not np.array_equal(encoder.decode(ids[:20, :2]), encoder.decode(ids[:20]))


def test_windows_fade_into_each_other(encoder: heartcodec.HeartCodec, ids: NDArray[Any]):
    """The first 320 frames of two windows are the first window's."""
    both = encoder.decode(np.tile(ids, (2, 1))[:400])
    np.testing.assert_allclose(both[:, : 320 * 3840], encoder.decode(ids)[:, : 320 * 3840], atol=1e-6)
    jumps = np.abs(np.diff(both)).max(axis=0)
    assert all(jumps[place] <= np.quantile(jumps, 0.9999) for place in (320 * 3840 - 1, 372 * 3840 - 1))


def test_the_decoder_is_read_when_it_is_needed(changed: Callable[..., Path], ids: NDArray[Any]):
    def without_an_end(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value for name, value in tensors.items() if not name.startswith("scalar_model.decoder.7")}

    encoder = load(changed(decoder=without_an_end))
    np.testing.assert_array_equal(encoder.encode(*windows(stereo(30.0, 0)[:, :WINDOW]))[0], ids)
    with pytest.raises(UsageError, match="3 missing: scalar_model.decoder.7.bias"):
        encoder.decode(ids[:20])


# Checkpoints


def test_a_decoder_in_pieces_and_by_its_newer_names(folder: Path, tmp_path: Path, encoder: heartcodec.HeartCodec):
    tensors = load_file(folder / "decoder/model.safetensors")
    names = sorted(tensors)
    of = {}
    for number, (first, last) in enumerate(pairwise([0, len(names) // 2, len(names)])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({f"decoder.{name}": tensors[name] for name in names[first:last]}, tmp_path / file)
        of |= {f"decoder.{name}": file for name in names[first:last]}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": of}))
    (tmp_path / "config.json").write_text(json.dumps(DECODER))
    pieces = heartcodec.load(heartcodec.Settings(weights=str(folder / "encoder"), decoder=str(tmp_path)))
    assert pieces.spec == encoder.spec
    ids = np.zeros((5, CODEBOOKS), np.int64)
    np.testing.assert_array_equal(pieces.decode(ids), encoder.decode(ids))


def swapped(folder: Path) -> dict[str, str]:
    return {"weights": str(folder / "decoder"), "decoder": str(folder / "encoder")}


def put_in_place_of(other: str) -> Callable[[Path], dict[str, str]]:
    """One checkpoint's file under the name of the other."""

    def change(folder: Path) -> dict[str, str]:
        paths = {"encoder": folder / "encoder/encoder.safetensors", "decoder": folder / "decoder/model.safetensors"}
        path = paths.pop(other)
        save_file(load_file(next(iter(paths.values()))), path)
        return where(folder)

    return change


def pickled(folder: Path) -> dict[str, str]:
    torch.save({"encoder.weight": torch.zeros(1)}, folder / "encoder/encoder.safetensors")
    return where(folder)


def config(part: str, **values: Any) -> Callable[[Path], dict[str, str]]:
    def change(folder: Path) -> dict[str, str]:
        path = next((folder / part).glob("*.json"))
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return where(folder)

    return change


def renamed(part: str, old: str, new: str) -> Callable[[Path], dict[str, str]]:
    def change(folder: Path) -> dict[str, str]:
        path = next((folder / part).glob("*.safetensors"))
        save_file({name.replace(old, new): value for name, value in load_file(path).items()}, path)
        return where(folder)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, r"decoder: has no encoder.safetensors, so it holds no weights for heartcodec \(its encoder\)"),
        (put_in_place_of("encoder"), "encoder.safetensors: is HeartCodec's decoder; give it as the setting decoder"),
        (put_in_place_of("decoder"), "model.safetensors: is HeartCodec's encoder; give it"),
        (pickled, "encoder.safetensors: cannot be read as safetensors"),
        (lambda f: where(f) | {"weights": "no/where/at/all"}, "no such file or folder"),
        (config("encoder", version="vqv13"), "encoder_config.json: version is vqv13, and HeartCodec is known here"),
        (config("encoder", chunk_samples=10), "chunk_samples is 10"),
        (config("encoder", query={"interval": 3}), "interval is 3"),
        (config("decoder", causal=False), "config.json: causal is False"),
        (config("decoder", codebook_size=63), "4 of another shape|of another shape: layers.0"),
        (config("encoder", query={"dim": 33, "num_layers": 2, "head_dim": 32}), "do not fit|be built"),
        (renamed("encoder", "cls_token", "cls"), "1 missing: query.cls_token; 1 unknown: query.cls"),
        (renamed("decoder", "vq_embed.project_in", "vq_embed.project"), "2 missing: project_in.bias"),
        (renamed("decoder", "flow_matching.estimator", "estimator"), "holds estimator.*, which HeartCodec's decoder"),
    ],
)  # fmt: skip
def test_checkpoints_that_cannot_be_used(
    change: Callable[[Path], dict[str, str]], message: str, changed: Callable[..., Path]
):
    settings = change(changed())
    with pytest.raises(UsageError, match=message):
        load_encoder("heartcodec", settings)


def test_settings_that_do_not_fit(folder: Path):
    with pytest.raises(UsageError, match="has 4 codebooks, and num_codebooks is 5"):
        describe_encoder("heartcodec", where(folder) | {"num_codebooks": 5})
    with pytest.raises(UsageError, match="needs the package heartlib"):
        describe_encoder("heartcodec", where(folder) | {"backend": "heartlib"})


def test_without_a_network_it_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="Run `hf download HeartMuLa/HeartCodec-oss-encoder`"):
        describe_encoder("heartcodec", {})


def test_heartlib_as_backend(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own `tokenize` gives 373 frames for a window, were there enough windows."""

    class Model:
        @classmethod
        def from_encoder_decoder_pretrained(cls, decoder: str, encoder: str, dtype: torch.dtype) -> Model:
            assert (decoder, encoder) == (str(folder / "decoder"), str(folder / "encoder"))
            return cls()

        def eval(self) -> Model:
            return self

        def to(self, device: torch.device) -> Model:
            return self

        def tokenize(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
            assert (waveform.shape, sample_rate) == ((2, WINDOW), 24_000)
            return torch.arange(8)[:, None].expand(8, FRAMES)

    for name in ("heartlib", "heartlib.heartcodec", "heartlib.heartcodec.modeling_heartcodec"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["heartlib.heartcodec.modeling_heartcodec"].HeartCodec = Model  # pyright: ignore
    monkeypatch.setattr(heartcodec, "_heartlib_version", lambda: "1.0")
    encoder = load(folder, backend="heartlib", batch_size=2)
    assert encoder.spec.settings["heartlib"] == "1.0"
    found = encoder.encode(*windows(stereo(3.0, 1), np.zeros((2, 0), np.float32)))
    np.testing.assert_array_equal(found[0], np.tile([0, 1, 2, 3], (FRAMES, 1)))
    assert not found[1].any()
