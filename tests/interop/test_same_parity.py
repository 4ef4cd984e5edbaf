"""Our SAME beside stable-audio-3's own modules, with the same random weights, in the same process and on the CPU.

Opt-in: `pytest -m interop`. stable-audio-3 is on no registry: AUDIOPREP_STABLE_AUDIO_3 names a checkout of it.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from audioprep.encoders import same
from audioprep.stages.windows import WindowCutter

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

HOP, DIM = 4096, 256
LAYERS = {
    "c_mults": [6], "strides": [16], "latent_dim": DIM, "dim_heads": 64, "differential": True, "variable_stride": True,
}  # fmt: skip
SMALL = {"dyt": True, "chunk_size": 32, "chunk_midpoint_shift": True, "conv_mapping": False}
LARGE = {"sliding_window": [1, 1]}


def config(options: dict[str, Any], channels: int, depth: int, decoder_depth: int = 0) -> dict[str, Any]:
    """A model config with the published options."""
    layers = LAYERS | options | {"channels": channels}
    decoder = {"out_channels": 512, "transformer_depths": [decoder_depth], "sinusoidal_blocks": [0]}
    model = {
        "encoder": {"config": layers | {"in_channels": 512, "transformer_depths": [depth]}},
        "decoder": {"config": layers | decoder},
        "bottleneck": {"config": {"dim": DIM, "noise_augment_dim": 0, "noise_regularize": True, "auto_scale": True}},
        "pretransform": {"config": {"channels": 2, "patch_size": 256}},
        "latent_dim": DIM,
        "downsampling_ratio": HOP,
        "io_channels": 2,
    }
    return {"model_type": "autoencoder", "sample_rate": 44_100, "model": model}


# Narrow, with the published depth; and the published width, with two blocks.
CONFIGS = {
    "S, narrow": config(SMALL, channels=32, depth=6),
    "S, wide": config(SMALL, channels=128, depth=2),
    "L, narrow": config(LARGE, channels=32, depth=12),
    "L, wide": config(LARGE, channels=256, depth=2),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Any]:
    """The module with stable-audio-3's `AutoencoderModel`."""
    checkout = os.environ.get("AUDIOPREP_STABLE_AUDIO_3")
    if not checkout or not (Path(checkout) / "stable_audio_3").is_dir():
        pytest.skip("needs a checkout of stable-audio-3 in AUDIOPREP_STABLE_AUDIO_3")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(checkout)
        from stable_audio_3 import model
        from stable_audio_3.models import transformer

        # It would be compiled for each length anew, which takes minutes; without it upstream computes the same.
        patch.setattr(transformer, "flex_attention_compiled", None)
        yield model


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, upstream: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that upstream's own modules have written, with random weights."""
    from stable_audio_3.factory import create_autoencoder_from_config

    torch.manual_seed(0)
    path, content = tmp_path_factory.mktemp("same"), CONFIGS[request.param]
    model = create_autoencoder_from_config(content["model"], content["sample_rate"])
    save_file({name: value.contiguous() for name, value in randomised(model).items()}, path / "model.safetensors")
    (path / "model_config.json").write_text(json.dumps(content))
    return path


def randomised(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors; what a fresh model has as zeros and ones, and so could be left out unnoticed, gets other values."""
    tensors = model.state_dict()
    for name, value in tensors.items():
        if name.endswith(("to_out.weight", "ff.2.weight")):
            value.normal_(std=value.shape[1] ** -0.5)
        elif not name.endswith(("inv_freq", "weight_v", "qkv.weight", "proj.weight")):
            value += 0.2 * torch.randn_like(value)
    return tensors


def latents(encoder: same.Same, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the stage `encode` gives them, but in float32."""
    cutter = WindowCutter(encoder.spec)
    windows = [*cutter.push(samples), *cutter.finish()]
    found = [encoder.encode(window.samples[None], np.array([[window.start, window.end]]))[0] for window in windows]
    return np.concatenate(found)[: encoder.spec.num_frames(samples.shape[1])]


# In latents: less than one, within a window, a whole number, and over the borders of windows.
LENGTHS = [0.3, 1, 6.5, 12, 31, 40.001]


@pytest.mark.parametrize("at_once", [False, True])
def test_latents_are_those_of_encode(
    folder: Path, upstream: Any, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same, "_WINDOW_FRAMES", 12)
    ours = same.load(same.Settings(weights=str(folder)))
    ours._at_once = at_once
    files = folder / "model_config.json", folder / "model.safetensors"
    theirs = upstream.AutoencoderModel(upstream.load_autoencoder(*map(str, files)).eval(), 44_100, "cpu")
    for length in LENGTHS:
        sound = 0.3 * np.random.default_rng(0).standard_normal((2, round(length * HOP))).astype(np.float32)
        want = theirs.encode(torch.from_numpy(sound), 44_100)[0].T.numpy()
        found = latents(ours, sound)
        frames = -(-round(length * HOP) // HOP)
        assert found.shape == (frames, DIM) and len(want) == -(-frames // ours._grid) * ours._grid
        assert want.std() > 0.3
        np.testing.assert_allclose(found, want[:frames], atol=1e-4, rtol=0)


def test_the_published_size(upstream: Any) -> None:
    """472 tensors and 852,127,457 parameters, as are counted in the published SAME-L."""
    from stable_audio_3.factory import create_autoencoder_from_config

    with torch.device("meta"):
        model = create_autoencoder_from_config(config(LARGE, 256, 12, 12)["model"], 44_100)
    tensors = model.state_dict()
    assert (len(tensors), sum(value.numel() for value in tensors.values())) == (472, 852_127_457)
