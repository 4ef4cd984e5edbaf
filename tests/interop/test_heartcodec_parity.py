"""Our HeartCodec beside heartlib's own modules, with the same random weights, in the same process and on the CPU.

Opt-in: `pytest -m interop`. heartlib is on no registry: AUDIOPREP_HEARTLIB names a checkout of it that can encode (of
autumn 2026 or later). The two packages that its codec needs besides ours are installed without their dependencies into
a folder of pytest's cache, or of AUDIOPREP_INTEROP.

The widths are the published ones. Where a whole window runs through all layers, there are fewer of these, and the
convolutions before the conformer are narrower: at their own width they take most of the time.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audioprep.encoders import heartcodec
from audioprep.encoders.heartcodec_decoder import HeartDecoder
from audioprep.encoders.heartcodec_features import FeatureExtractors
from audioprep.encoders.heartcodec_query import QueryEncoder
from audioprep.stages.encode import encode_samples

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

PACKAGES = ("vector-quantize-pytorch==1.27.15", "einx==0.4.3", "frozendict==2.5.1")
WINDOW, FRAMES = 714_240, 372
NARROW = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2, "num_layers_2": 1, "init_channel": 1}


@pytest.fixture(scope="module")
def heartlib(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module with heartlib's `HeartCodec`."""
    checkout, uv = os.environ.get("AUDIOPREP_HEARTLIB"), shutil.which("uv")
    if not checkout or uv is None:
        pytest.skip("needs uv, and a checkout of heartlib in AUDIOPREP_HEARTLIB")
    assert request.config.cache is not None
    given = os.environ.get("AUDIOPREP_INTEROP")
    packages = (Path(given) if given else request.config.cache.mkdir("interop")) / "heartlib"
    command = [uv, "pip", "install", "--python", sys.executable, "--target", str(packages), "--no-deps", *PACKAGES]
    made = packages.exists() or not subprocess.run(command, capture_output=True, check=False).returncode
    if not made:
        pytest.skip("no packages for heartlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(packages)
        package = ModuleType("heartlib")  # its own imports all of HeartMuLa, with other pins than ours
        package.__path__ = [str(Path(checkout) / "src" / "heartlib")]
        patch.setitem(sys.modules, "heartlib", package)
        from heartlib.heartcodec import modeling_heartcodec

        yield modeling_heartcodec


def narrow(config: dict[str, Any]) -> dict[str, Any]:
    """Fewer layers, and narrow where upstream's code lets it be."""
    features = config["feature_extractors"]
    features["whisper_config"] |= {"encoder_layers": 2}
    features["wavlm_config"] |= {"num_hidden_layers": 10, "intermediate_size": 256, "conv_dim": [32] * 7}
    features["muencoder_config"] |= {"conv_dim": 16}
    features["muencoder_config"]["conformer_config"] |= {"intermediate_size": 256}
    config["query"] |= {"num_layers": 2}
    return config


@pytest.fixture(scope="module")
def pair(heartlib: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, heartcodec.HeartCodec]:
    """Upstream's model and ours, of the same files: upstream's modules with random weights, saved as published."""
    from heartlib.heartcodec.models import encoder as upstream

    torch.manual_seed(0)
    folder, config = tmp_path_factory.mktemp("heartlib"), narrow(upstream.default_encoder_config())
    encoder = randomise(upstream.HeartCodecEncoder(config))
    model = randomise(heartlib.HeartCodec(heartlib.HeartCodecConfig(**NARROW)))
    fit_quantizer(model.decoder.quantizer, encoder(torch.nn.functional.pad(music(0), (0, 240))[None]))
    paths: dict[str, Any] = {"decoder": str(folder / "decoder"), "weights": str(folder / "encoder")}
    for path in paths.values():
        Path(path).mkdir()
    (folder / "encoder/encoder_config.json").write_text(json.dumps(config))
    (folder / "decoder/config.json").write_text(json.dumps(NARROW | {"model_type": "heartcodec"}))
    save(encoder, folder / "encoder/encoder.safetensors", "encoder.")
    save(model.decoder, folder / "decoder/model.safetensors", "")
    both = heartlib.HeartCodec.from_encoder_decoder_pretrained(*paths.values(), dtype=torch.float32)
    return both.eval(), heartcodec.load(heartcodec.Settings(**paths))


@torch.no_grad()
def randomise(model: Any) -> Any:
    """What a fresh model has as zeros and ones, and so could be left out unnoticed, gets other values."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif name.endswith("gru_rel_pos_const") or (value.dim() == 1 and not name.endswith(("window", "inv_freq"))):
            value += 0.1 * torch.randn_like(value)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            value *= 3  # else all queries see the mean of the window, and are much alike
        elif name.endswith(".scale"):
            value.normal_()
    return model.eval()


@torch.no_grad()
def fit_quantizer(quantizer: Any, rows: torch.Tensor) -> None:
    """Makes the rows use all codebooks: a random network gives rows that are much alike."""
    projected = rows[0] @ quantizer.project_in.weight.T
    deviation = projected.std(0)
    quantizer.project_in.weight /= deviation[:, None]
    quantizer.project_in.bias.copy_(-projected.mean(0) / deviation)
    left = quantizer.project_in(rows[0])
    for layer in quantizer.layers:
        codewords = layer._codebook.embed[0]
        codewords.copy_(left[torch.randint(len(left), (len(codewords),))])
        codewords += 0.3 * left.std() * torch.randn_like(codewords)
        left = left - codewords[torch.cdist(left, codewords).argmin(1)]


def save(model: Any, path: Path, prefix: str) -> None:
    save_file({prefix + name: value.contiguous() for name, value in model.state_dict().items()}, path)


def music(seed: int, samples: int = WINDOW) -> torch.Tensor:
    """Gliding tones over a little noise, another one in each channel: float32 `[2, T]` at 24 kHz."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 24_000
    pitches = random.uniform(80, 4000, (2, 6, 1)) * (1 + 0.2 * np.sin(random.uniform(0.1, 2, (2, 6, 1)) * time))
    tones = np.sin(2 * np.pi * np.cumsum(pitches, axis=2) / 24_000) * np.sin(random.uniform(0.2, 5, (2, 6, 1)) * time)
    return torch.from_numpy((0.1 * tones.sum(1) + 0.01 * random.standard_normal((2, samples))).astype(np.float32))


SONGS = {"mono": 100_000, "longer": WINDOW + 400_001}


@pytest.mark.parametrize("name", SONGS)
def test_tokens_are_those_of_tokenize(name: str, pair: tuple[Any, heartcodec.HeartCodec]):
    upstream, ours = pair
    song = music(1 + list(SONGS).index(name), SONGS[name])[: 1 if name == "mono" else 2]
    want = upstream.tokenize(song, 24_000).T.numpy()
    found = encode_samples(ours, song.expand(2, -1).numpy())
    assert all(len(set(codebook)) > len(want) // 4 for codebook in want.T.tolist())
    np.testing.assert_array_equal(found, want)


def test_features_at_their_real_width(heartlib: Any):
    from heartlib.heartcodec.models import feature_extractors as upstream

    config = upstream.default_feature_extractor_config()
    config["whisper_config"] |= {"encoder_layers": 2}
    config["wavlm_config"] |= {"num_hidden_layers": 10}
    torch.manual_seed(0)
    theirs, ours = randomise(upstream.HeartCodecFeatureExtractors(config)), FeatureExtractors(config).eval()
    ours.load_state_dict(theirs.state_dict())
    ours.drop_unused()
    samples = music(7)
    with torch.inference_mode():
        want = theirs(torch.nn.functional.pad(samples, (0, 240))[None])
        found = ours(samples, ours.resampled(samples))
    for expected, both in zip(want, found, strict=True):
        assert expected.std() > 0.1
        torch.testing.assert_close(torch.cat([*both], dim=-1)[None], expected, atol=1e-4, rtol=0)


def test_the_query_transformer_at_its_real_width(heartlib: Any):
    from heartlib.heartcodec.models.query_transformer import HeartCodecQueryEncoder

    config = {"dim": 512, "num_layers": 6, "head_dim": 128, "interval": 2}
    torch.manual_seed(0)
    theirs, ours = randomise(HeartCodecQueryEncoder(**config)), QueryEncoder(config, 2048, 1536, 1536).eval()
    ours.load_state_dict(theirs.state_dict())
    features = [torch.randn(2, 744, width) for width in (2048, 2048, 1536, 1536)]
    with torch.inference_mode():
        want = theirs(*features)
        assert want.std(1).mean() > 0.1
        torch.testing.assert_close(ours(*features), want, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def decoders(heartlib: Any) -> Callable[..., tuple[Any, HeartDecoder]]:
    """Upstream's decoder with random weights, and ours with the same."""

    def make(**changes: Any) -> tuple[Any, HeartDecoder]:
        torch.manual_seed(0)
        config = heartlib.HeartCodecConfig(**changes)
        theirs, ours = randomise(heartlib.HeartCodec(config).decoder), HeartDecoder(config.to_dict()).eval()
        ours.load_state_dict(theirs.state_dict())
        return theirs, ours

    return make


def test_the_quantizer_both_ways(decoders: Callable[..., Any]):
    theirs, ours = decoders(num_layers=0, num_layers_2=0, init_channel=1)
    theirs, ours = theirs.quantizer, ours.flow_matching.vq_embed
    rows = torch.randn(1, 3000, 512)
    with torch.inference_mode():
        fit_quantizer(theirs, rows)
        ours.load_state_dict(theirs.state_dict())
        rows = torch.cat([rows, torch.randn(1, 100, 512), torch.zeros(1, 4, 512)], dim=1)
        _, ids, _ = theirs(rows)
        assert torch.equal(ours.encode(rows, 8), ids)
        assert torch.equal(ours.encode(rows, 3), ids[..., :3])
        assert torch.equal(ours.decode(ids), theirs.get_output_from_indices(ids))


def test_a_step_of_flow_matching_at_its_real_width(decoders: Callable[..., Any]):
    theirs, ours = decoders(num_layers=2, num_layers_2=1, init_channel=1)
    x, time = torch.randn(2, 744, 1024), torch.tensor([0.3, 0.3])
    with torch.inference_mode():
        want = theirs.flow_matching.estimator(x, timestep=time)
        assert want.std() > 0.01
        torch.testing.assert_close(ours.flow_matching.estimator(x, time), want, atol=1e-4, rtol=1e-4)


def test_the_scalar_model_at_its_real_width(decoders: Callable[..., Any]):
    theirs, ours = (one.scalar_model for one in decoders(num_layers=0, num_layers_2=0))
    sound, latents = music(9, 48_000)[:, None], torch.rand(2, 128, 25) * 2 - 1
    with torch.inference_mode():
        for want, found in (
            (theirs.encode(sound), ours.encode(sound)),
            (theirs.decode(latents), ours.decode(latents)),
        ):
            assert want.std() > 0.01
            torch.testing.assert_close(found, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("frames", "guidance"), [(1, 1.25), (372, 1.0), (400, 1.25), (700, 1.25)])
def test_detokenize_with_the_same_noise(
    frames: int, guidance: float, decoders: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    theirs, ours = decoders(**NARROW)
    ids = torch.randint(8192, (frames, 8))
    drawn: list[torch.Tensor] = []
    randn = torch.randn

    def recorded(*size: Any, **options: Any) -> torch.Tensor:
        drawn.append(randn(*size, **options))
        return drawn[-1].clone()

    monkeypatch.setattr(torch, "randn", recorded)
    want = theirs.detokenize(ids.T, num_steps=3, disable_progress=True, guidance_scale=guidance)
    monkeypatch.undo()
    noise = iter(drawn[1::2])  # before each window's noise upstream draws what it then replaces by zeros
    with torch.inference_mode():
        found = ours(ids, 3, guidance, lambda: next(noise)[0])
    assert found.shape == want.shape == (2, frames * 3840)
    assert next(noise, None) is None and want.std() > 1e-4
    torch.testing.assert_close(found, want, atol=1e-6, rtol=0)


def test_heartlib_as_backend_gives_the_same(pair: tuple[Any, heartcodec.HeartCodec], monkeypatch: pytest.MonkeyPatch):
    _, ours = pair
    monkeypatch.setattr(heartcodec, "_heartlib_version", lambda: "a checkout")
    theirs = heartcodec.load(ours._settings.model_copy(update={"backend": "heartlib"}))
    song = music(3, 200_000).numpy()
    np.testing.assert_array_equal(encode_samples(theirs, song), encode_samples(ours, song))
