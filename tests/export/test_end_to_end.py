"""From recordings to a folder for the trainer, on the command line, with a real (if tiny) autoencoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command_line import audioprep

from audioprep.encoders.registry import load_encoder
from audioprep.export.silence import encode_silence
from audioprep.export.stable_audio_check import check
from audioprep.stages.encode import encode_samples

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers calls torch's older weight_norm
HOP, RATE = 64, 16_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderOobleck(
        encoder_hidden_size=8, downsampling_ratios=[8, 8], channel_multiples=[1, 1], decoder_channels=4,
        decoder_input_channels=4, audio_channels=2, sampling_rate=RATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def shards(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    music, out = tmp_path_factory.mktemp("music"), tmp_path_factory.mktemp("shards") / "out"
    for name, samples in {"a": 40_000, "b": 3_000, "c": 9_000}.items():
        noise = np.random.default_rng(samples).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)
        soundfile.write(music / f"{name}.wav", noise, RATE)
        (music / f"{name}.txt").write_text(f"noise,{name}")
    assert audioprep("encode", music, "--out", out, "--encoder", "vae", "--weights", weights, "--quiet") == 0
    return out


@pytest.mark.parametrize("layout", ["sat", "sa3"])
def test_an_export(shards: Path, tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]):
    command = ("export", "stable-audio", shards, tmp_path / "latents", "--layout", layout, "--crop-frames", 100)
    assert audioprep(*command, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    crops = "grid" if layout == "sat" else "whole"
    assert planned == {"dest": str(tmp_path / "latents"), "layout": layout, "items": 3, "crops": crops}
    assert not (tmp_path / "latents").exists()

    assert audioprep(*command, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["items"], summary["padded"]) == (3, 1 if layout == "sat" else 0)
    assert check(tmp_path / "latents") == []
    listed = (tmp_path / "latents/filelist.txt").read_text().split()
    sidecars = [json.loads((tmp_path / "latents" / name).with_suffix(".json").read_text()) for name in listed]
    assert {sidecar["prompt"] for sidecar in sidecars} == {"noise,a", "noise,b", "noise,c"}


def test_silence_is_what_the_encoder_makes_of_zeros(weights: Path, shards: Path, tmp_path: Path):
    encoder = load_encoder("vae", {"weights": str(weights), "device": "cpu"})
    for frames in (1, 7, 240, 600):
        zeros = np.zeros((2, frames * HOP), np.float32)
        expected = encode_samples(encoder, zeros)
        np.testing.assert_allclose(encode_silence(encoder, frames), expected, atol=1e-3)
    assert np.abs(expected).max() > 1e-3  # not zeros: why all this is done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--crop-frames: say how many frames"),
        (
            ["--crop-frames", 8, "--crop-hop", 4, "--crops", "random"],
            "--crop-hop: goes with --crops grid, and not with",
        ),
        (["--crop-frames", 8, "--seed", 4], "--seed: goes with --crops random, and not with grid"),
        (["--crop-frames", 8, "--layout", "sa4"], "--layout sa4: there is sat, sa3."),
        (["--crop-frames", 8, "--exclude", "none.txt"], "none.txt: cannot be read"),
    ],
)
def test_wrong_options(
    shards: Path, tmp_path: Path, options: list[Any], message: str, capsys: pytest.CaptureFixture[str]
):
    assert audioprep("export", "stable-audio", shards, tmp_path / "latents", *options) == 1
    assert message in capsys.readouterr().err
