import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clap_helpers import CLIP, RATE, of_file, reference, sound, write_clap
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import ClapModel, RobertaTokenizerFast

from audioprep.encoders.base import Encoder
from audioprep.encoders.clap import Clap, Settings, describe, load
from audioprep.errors import UsageError
from audioprep.metrics.clap_score import TextEncoder
from audioprep.stages.encode import encode_samples, mean_direction


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clap")


@pytest.fixture(scope="session")
def model(folder: Path) -> ClapModel:
    return write_clap(folder)


@pytest.fixture(scope="session")
def clap(folder: Path, model: ClapModel) -> Clap:
    return make(folder)


@pytest.fixture
def copy(folder: Path, model: ClapModel, tmp_path: Path) -> Path:
    """The model's folder, to spoil."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def make(folder: Path, **settings: Any) -> Clap:
    values: dict[str, Any] = {"int16": False} | settings
    return load(Settings(weights=str(folder), **values))


def test_it_is_an_encoder_of_audio_and_of_text(clap: Clap):
    assert isinstance(clap, Encoder)
    assert isinstance(clap, TextEncoder)


def test_describe_says_what_load_gives(folder: Path, model: ClapModel):
    settings = Settings(weights=str(folder), hop_seconds=2.5, pooling="all")
    spec = describe(settings)
    assert spec == load(settings).spec
    assert (spec.kind, spec.sample_rate, spec.channels, spec.dim, spec.pooling) == ("embedding", RATE, 1, 512, None)
    assert (spec.hop_length, spec.window, spec.length) == (120_000, 120_000, CLIP + 120_000)
    assert spec.settings["hop_seconds"] == 2.5
    assert describe(Settings(weights=str(folder))).pooling == "mean"
    assert describe(Settings(weights=str(folder))).settings["int16"] is True


def test_describe_needs_no_torch(folder: Path, model: ClapModel):
    code = (
        "import sys; from audioprep.encoders.clap import Settings, describe;"
        f"describe(Settings(weights={str(folder)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_file_that_moves_a_value_moves_the_fingerprint(copy: Path):
    settings = Settings(weights=str(copy))
    before = describe(settings)
    path = copy / "preprocessor_config.json"
    path.write_text(path.read_text().replace("rand_trunc", "fusion"))
    assert describe(settings).fingerprint != before.fingerprint


@pytest.mark.parametrize("seconds", [10.0, 7.3, 4.0, 0.2])
def test_clips_up_to_10_s_are_as_transformers_embeds_them(seconds: float, folder: Path, model: ClapModel, clap: Clap):
    clip = sound(seconds)
    found = clap.encode(*of_file(clap, clip))
    assert found.dtype == np.float32
    assert found.shape == (1, 1, 512)
    np.testing.assert_allclose(found[0, 0], reference(model, folder, clip), atol=1e-6)


def test_embeddings_are_of_length_1_and_tell_sounds_apart(clap: Clap):
    vectors = [clap.encode(*of_file(clap, sound(5.0, seed)))[0, 0] for seed in range(3)]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert (np.stack(vectors) @ np.stack(vectors).T - np.eye(3)).max() < 0.9999


def test_16_bits_are_as_quantised_before(folder: Path, model: ClapModel):
    clip = 3e-4 * sound(10.0)
    encoder = make(folder, int16=True)
    quantised = ((np.clip(clip, -1.0, 1.0) * 32767.0).astype(np.int16) / 32767.0).astype(np.float32)
    found = encoder.encode(*of_file(encoder, clip))[0, 0]
    np.testing.assert_allclose(found, reference(model, folder, quantised), atol=1e-6)
    assert np.abs(found - reference(model, folder, clip)).max() > 1e-4


@pytest.mark.parametrize(
    ("seconds", "hop", "starts"),
    [
        (10.0, 10.0, [0]),
        (25.0, 10.0, [0, 10, 15]),
        (12.5, 10.0, [0, 2.5]),
        (17.0, 4.0, [0, 4, 7]),
        (18.0, 4.0, [0, 4, 8]),
        (10.5, 0.25, [0, 0.25, 0.5]),
    ],
)
def test_windows_lie_at_the_hop_and_the_last_one_ends_with_the_file(
    seconds: float, hop: float, starts: list[float], folder: Path, model: ClapModel
):
    encoder, whole = make(folder, hop_seconds=hop), sound(seconds)
    found = encode_samples(encoder, whole[None])
    expected = [reference(model, folder, whole[round(start * RATE) :][:CLIP]) for start in starts]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


def test_one_sample_more_gives_one_window_more(folder: Path, model: ClapModel, clap: Clap):
    whole = sound(10.1)[: CLIP + 1]
    found = encode_samples(clap, whole[None])
    np.testing.assert_allclose(found[0], reference(model, folder, whole[:-1]), atol=1e-6)
    np.testing.assert_allclose(found[1], reference(model, folder, whole[1:]), atol=1e-6)


def test_a_long_file_gives_the_same_each_time(folder: Path, clap: Clap):
    whole = sound(31.0)[None]
    first = encode_samples(clap, whole)
    np.testing.assert_array_equal(encode_samples(clap, whole), first)
    np.testing.assert_array_equal(encode_samples(make(folder), whole), first)
    pooled = mean_direction(first)
    np.testing.assert_allclose(pooled, first.sum(0) / np.linalg.norm(first.sum(0)), atol=1e-6)


def test_a_window_does_not_depend_on_its_neighbours(folder: Path, clap: Clap):
    encoder = make(folder, batch_size=4)
    files = [sound(seconds, seed) for seed, seconds in enumerate((10.0, 3.0, 14.0, 0.5))]
    samples, valid = of_file(encoder, *files)
    together = encoder.encode(samples, valid)
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(encoder.encode(samples[order], valid[order]), together[order])
    for row in range(4):
        filled, ends = np.zeros_like(samples), np.zeros_like(valid)
        filled[3], ends[3] = samples[row], valid[row]
        np.testing.assert_array_equal(encoder.encode(filled, ends)[3], together[row])
        np.testing.assert_array_equal(clap.encode(samples[row : row + 1], valid[row : row + 1])[0], together[row])


def test_silence_has_an_embedding(clap: Clap):
    found = clap.encode(*of_file(clap, np.zeros(5000, np.float32)))
    np.testing.assert_allclose(np.linalg.norm(found), 1.0, atol=1e-6)


def test_what_is_not_finite_gives_a_row_of_nan(folder: Path):
    for int16 in (True, False):
        encoder = make(folder, batch_size=2, int16=int16)
        files = [sound(10.0), sound(10.0, 1)]
        expected = encoder.encode(*of_file(encoder, *files))
        files[0][1000] = np.nan
        found = encoder.encode(*of_file(encoder, *files))
        assert np.isnan(found[0]).all()
        np.testing.assert_array_equal(found[1], expected[1])


def test_weights_that_overflow_give_a_row_of_nan(copy: Path):
    tensors = load_file(copy / "model.safetensors")
    tensors["audio_projection.linear2.weight"][7] = 3e38
    save_file(tensors, copy / "model.safetensors")
    encoder = make(copy)
    assert np.isnan(encoder.encode(*of_file(encoder, sound(3.0)))).all()


def test_bfloat16_is_close(folder: Path, clap: Clap):
    window = of_file(clap, sound(10.0))
    found = make(folder, dtype="bfloat16").encode(*window)
    assert found.dtype == np.float32
    difference = np.asarray(found, np.float64) - np.asarray(clap.encode(*window), np.float64)
    assert 1e-4 < np.abs(difference).max() < 0.05


def test_a_fused_checkpoint_embeds_clips_as_its_model_embeds_short_ones(tmp_path: Path):
    fused = write_clap(tmp_path, fused=True)
    clip = sound(6.0)
    encoder = make(tmp_path)
    np.testing.assert_allclose(
        encoder.encode(*of_file(encoder, clip))[0, 0], reference(fused, tmp_path, clip), atol=1e-6
    )


def test_pickled_weights_give_the_same(tmp_path: Path, clap: Clap):
    write_clap(tmp_path, safe=False)
    assert (tmp_path / "pytorch_model.bin").exists()
    window = of_file(clap, sound(10.0))
    np.testing.assert_array_equal(make(tmp_path).encode(*window), clap.encode(*window))


def test_constants_may_be_missing_from_a_checkpoint(copy: Path, clap: Clap):
    tensors = load_file(copy / "model.safetensors")
    constants = ("relative_position_index", "position_ids", "token_type_ids")
    fewer = {name: value for name, value in tensors.items() if not name.endswith(constants)}
    assert len(fewer) < len(tensors)
    save_file(fewer, copy / "model.safetensors")
    window = of_file(clap, sound(1.0))
    np.testing.assert_array_equal(make(copy).encode(*window), clap.encode(*window))
    np.testing.assert_array_equal(make(copy).embed_text(["rain"]), clap.embed_text(["rain"]))


def test_texts_are_as_transformers_embeds_them(folder: Path, model: ClapModel, clap: Clap):
    texts = ["a slow piano piece", "rain", "", "höher, schneller, 速い", "dogs " * 14]
    tokens = RobertaTokenizerFast.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_text_features(**tokens)
    found = clap.embed_text(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(clap.embed_text(texts[1:2])[0], found[1])
    assert clap.embed_text([]).shape == (0, 512)


def test_texts_are_cut_to_77_tokens(clap: Clap):
    long = "abcdefgh" * 40
    np.testing.assert_array_equal(clap.embed_text([long]), clap.embed_text([long[:75]]))
    assert np.abs(clap.embed_text([long]) - clap.embed_text([long[:74]])).max() > 1e-4


def test_audio_does_not_load_the_text_tower(copy: Path):
    tensors = {name: value for name, value in load_file(copy / "model.safetensors").items() if "text" not in name}
    save_file(tensors, copy / "model.safetensors")
    encoder = make(copy)
    assert np.isfinite(encoder.encode(*of_file(encoder, sound(1.0)))).all()
    with pytest.raises(UsageError, match=r"model\.safetensors: .* missing: text_model\.embeddings"):
        encoder.embed_text(["rain"])


def test_a_tokenizer_from_elsewhere(copy: Path, tmp_path_factory: pytest.TempPathFactory, clap: Clap):
    other = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (copy / name).rename(other / name)
    with pytest.raises(UsageError, match=r"has no tokenizer\.json or vocab\.json.* give the setting tokenizer"):
        make(copy).embed_text(["rain"])
    found = make(copy, tokenizer=str(other)).embed_text(["rain"])
    np.testing.assert_array_equal(found, clap.embed_text(["rain"]))


def test_a_damaged_tokenizer_is_refused(copy: Path):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"its tokenizer cannot be read"):
        make(copy).embed_text(["rain"])


@pytest.mark.parametrize("hop", [10.01, 1e-9])
def test_hops_that_leave_gaps_are_refused(hop: float, folder: Path, model: ClapModel):
    with pytest.raises(UsageError, match="choose more than 0 and up to 10 s"):
        describe(Settings(weights=str(folder), hop_seconds=hop))


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        Settings.model_validate({"weights": "x", "hop": 3})


def test_a_truncated_file_is_refused(copy: Path):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match=r"model\.safetensors: cannot be read as a checkpoint"):
        make(copy)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"model_type": "clip"}, "is of a model clip"),
        ("config.json", {"audio_config": {"depths": [2, 2]}}, "do not fit its configuration"),
        ("config.json", {"audio_config": {"hidden_size": 32, "num_attention_heads": [3, 3, 3]}}, "makes no ClapModel"),
        ("preprocessor_config.json", {"padding": "pad"}, "only 'repeatpad' is known"),
    ],
)
def test_configurations_that_cannot_be_are_refused(name: str, change: dict[str, Any], message: str, copy: Path):
    values = json.loads((copy / name).read_text())
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (copy / name).write_text(json.dumps(values))
    with pytest.raises(UsageError, match=message):
        make(copy)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("config.json", "{", "cannot be read as JSON"),
    ("preprocessor_config.json", "{}", "has no 'sampling_rate'"),
    ("preprocessor_config.json", None, "has no preprocessor_config.json"),
    ("model.safetensors", None, "has no model.safetensors or pytorch_model.bin"),
])  # fmt: skip
def test_folders_that_lack_something_are_refused(name: str, content: str | None, message: str, copy: Path):
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        describe(Settings(weights=str(copy)))


def test_unknown_tensors_are_refused(copy: Path):
    tensors = load_file(copy / "model.safetensors") | {"vision_model.weight": torch.zeros(3)}
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(UsageError, match=r"holds vision_model\.weight, which no ClapModel has"):
        make(copy)


def test_the_backend_of_laion_wants_its_pt(folder: Path, model: ClapModel):
    pytest.importorskip("torchlibrosa", reason="laion-clap is not installed")
    with pytest.raises(UsageError, match="for this folder choose transformers"):
        make(folder, backend="laion")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_nearly_the_same_and_is_as_independent(folder: Path, clap: Clap):
    gpu = make(folder, device="cuda", batch_size=8)
    files = [sound(seconds, seed) for seed, seconds in enumerate((10.0, 3.0, 14.0, 0.5, 9.9, 10.1, 2.0, 12.0))]
    samples, valid = of_file(gpu, *files)
    found = gpu.encode(samples, valid)
    alone = np.stack([clap.encode(samples[row : row + 1], valid[row : row + 1])[0] for row in range(8)])
    assert (found * alone).sum(-1).min() > 0.99999
    np.testing.assert_array_equal(gpu.encode(samples[::-1].copy(), valid[::-1].copy())[::-1], found)
    texts = ["rain", "a slow piano piece"]
    assert (gpu.embed_text(texts) * clap.embed_text(texts)).sum(-1).min() > 0.99999
    np.testing.assert_array_equal(gpu.embed_text(texts[::-1])[::-1], gpu.embed_text(texts))
    assert replace(gpu.spec, batch_size=1, settings={}) == replace(clap.spec, settings={})
