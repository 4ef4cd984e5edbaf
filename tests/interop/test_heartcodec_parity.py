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
from audioprep.encoders.heartcodec_checkpoint import find_checkpoint
from audioprep.encoders.heartcodec_model import load_decoder
from audioprep.stages.encode import encode_samples

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

PACKAGES = ("vector-quantize-pytorch==1.27.15", "einx==0.4.3", "frozendict==2.5.1")
WINDOW, FRAMES = 714_240, 372
DECODER = {"num_layers": 2, "num_layers_2": 1}


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
def make(heartlib: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, dict[str, str]]]:
    """Writes checkpoints of upstream's modules with random weights; gives upstream's model of them, and where they are.

    The encoder's configuration is upstream's own, changed by `change`.
    """

    def make(change: Callable[[dict[str, Any]], dict[str, Any]], **decoder: Any) -> tuple[Any, dict[str, str]]:
        from heartlib.heartcodec.models import encoder as upstream

        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("heartlib")
        config = change(upstream.default_encoder_config())
        encoder = randomise(upstream.HeartCodecEncoder(config))
        model = heartlib.HeartCodec(heartlib.HeartCodecConfig(**DECODER | decoder)).eval()
        fit_quantizer(randomise(model).decoder.quantizer, encoder(torch.nn.functional.pad(music(0), (0, 240))[None]))
        for name in ("encoder", "decoder"):
            (folder / name).mkdir()
        (folder / "encoder/encoder_config.json").write_text(json.dumps(config))
        (folder / "decoder/config.json").write_text(json.dumps(DECODER | decoder | {"model_type": "heartcodec"}))
        save(encoder, folder / "encoder/encoder.safetensors", "encoder.")
        save(model.decoder, folder / "decoder/model.safetensors", "")
        paths = {"decoder": str(folder / "decoder"), "weights": str(folder / "encoder")}
        both = heartlib.HeartCodec.from_encoder_decoder_pretrained(*paths.values(), dtype=torch.float32)
        return both.eval(), paths

    return make


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


@pytest.fixture(scope="module")
def pair(make: Callable[..., Any]) -> tuple[Any, heartcodec.HeartCodec]:
    """Upstream's model and ours, quick."""
    upstream, paths = make(narrow, init_channel=8)
    return upstream, heartcodec.load(heartcodec.Settings(**paths))


SONGS = {"mono": 100_000, "longer": WINDOW + 400_001}


@pytest.mark.parametrize("name", SONGS)
def test_tokens_are_those_of_tokenize(name: str, pair: tuple[Any, heartcodec.HeartCodec]):
    upstream, ours = pair
    song = music(1 + list(SONGS).index(name), SONGS[name])[: 1 if name == "mono" else 2]
    want = upstream.tokenize(song, 24_000).T.numpy()
    found = encode_samples(ours, song.expand(2, -1).numpy())
    assert all(len(set(codebook)) > len(want) // 4 for codebook in want.T.tolist())
    np.testing.assert_array_equal(found, want)


def test_features_at_their_real_width(make: Callable[..., Any]):
    """One channel is enough; upstream wants two."""

    def fewer_layers(config: dict[str, Any]) -> dict[str, Any]:
        features = config["feature_extractors"]
        features["whisper_config"] |= {"encoder_layers": 2}
        features["wavlm_config"] |= {"num_hidden_layers": 10}
        return config

    upstream, paths = make(fewer_layers)
    samples = music(7)
    with torch.inference_mode():
        padded = torch.nn.functional.pad(samples, (0, 240))
        want = upstream.encoder.feature_extractors(padded[None])
        ours = heartcodec.load(heartcodec.Settings(**paths))._encoder.feature_extractors
        found = ours(samples, ours.resampled(samples))
        for expected, both in zip(want, found, strict=True):
            assert expected.std() > 0.1
            torch.testing.assert_close(torch.cat([*both], dim=-1)[None], expected, atol=1e-4, rtol=0)


def test_the_query_transformer_at_its_real_width(heartlib: Any, make: Callable[..., Any]):
    def all_layers(config: dict[str, Any]) -> dict[str, Any]:
        return narrow(config) | {"query": config["query"] | {"num_layers": 6}}

    upstream, paths = make(all_layers)
    features = [torch.randn(2, 744, width) for width in (2048, 2048, 1536, 1536)]
    with torch.inference_mode():
        found = heartcodec.load(heartcodec.Settings(**paths))._encoder.query(*features)
        torch.testing.assert_close(found, upstream.encoder.query(*features), atol=1e-4, rtol=0)


def test_the_quantizer_both_ways(pair: tuple[Any, heartcodec.HeartCodec]):
    upstream, ours = pair
    quantizer = upstream.decoder.quantizer
    with torch.inference_mode():
        rows = torch.randn(5000, 512) @ quantizer.project_out.weight @ quantizer.project_out.weight.T
        rows[:8] = 0
        _, ids, _ = quantizer(rows[None])
        assert torch.equal(ours._quantizer.encode(rows[None], 8), ids)
        assert torch.equal(ours._quantizer.decode(ids[0]), quantizer.get_output_from_indices(ids)[0])


def test_a_step_of_flow_matching_at_its_real_width(make: Callable[..., Any], pair: tuple[Any, heartcodec.HeartCodec]):
    upstream, ours = pair
    x, time = torch.randn(2, 744, 1024), torch.tensor([0.3, 0.3])
    with torch.inference_mode():
        want = upstream.decoder.flow_matching.estimator(x, timestep=time)
        found = ours._decoder.flow_matching.estimator(x, time)
    assert want.std() > 0.01
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_the_scalar_model_at_its_real_width(make: Callable[..., Any]):
    upstream, paths = make(narrow)
    ours = load_decoder(find_checkpoint(paths["weights"], paths["decoder"])).scalar_model
    with torch.inference_mode():
        sound = music(9, 48_000)[:, None]
        latents = upstream.decoder.scalar_model.encode(sound)
        assert latents.std() > 0.01
        torch.testing.assert_close(ours.encode(sound), latents, atol=1e-4, rtol=0)
        latents = torch.rand(2, 128, 25) * 2 - 1
        want = upstream.decoder.scalar_model.decode(latents)
        assert want.std() > 1e-3
        torch.testing.assert_close(ours.decode(latents), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [1, 50, 372, 400, 700])
def test_detokenize_with_the_same_noise(
    frames: int, pair: tuple[Any, heartcodec.HeartCodec], monkeypatch: pytest.MonkeyPatch
):
    upstream, ours = pair
    ids = torch.randint(8192, (frames, 8), generator=torch.Generator().manual_seed(frames))
    drawn: list[torch.Tensor] = []
    randn = torch.randn

    def recorded(*size: Any, **options: Any) -> torch.Tensor:
        drawn.append(randn(*size, **options))
        return drawn[-1].clone()

    monkeypatch.setattr(torch, "randn", recorded)
    torch.manual_seed(frames)
    want = upstream.detokenize(ids.T, num_steps=3, disable_progress=True).numpy()
    monkeypatch.undo()
    # Before each window's noise upstream draws what it then replaces by zeros.
    noise = iter(drawn[1::2])
    with torch.inference_mode():
        found = ours._decoder(ids, 3, 1.25, lambda: next(noise)[0]).numpy()
    assert found.shape == want.shape == (2, frames * 3840)
    assert next(noise, None) is None and want.std() > 1e-3
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_heartlib_as_backend_gives_the_same(
    make: Callable[..., Any], pair: tuple[Any, heartcodec.HeartCodec], monkeypatch: pytest.MonkeyPatch
):
    _, ours = pair
    monkeypatch.setattr(heartcodec, "_heartlib_version", lambda: "a checkout")
    theirs = heartcodec.load(ours._settings.model_copy(update={"backend": "heartlib"}))
    song = music(3, 200_000).numpy()
    np.testing.assert_array_equal(encode_samples(theirs, song), encode_samples(ours, song))
