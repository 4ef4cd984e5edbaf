"""Memory runs out at random batches: the shards stay the same bytes, and the smaller batches are recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from audio_helpers import music, write_wav

PLUGIN = '''
"""A convolution as an encoder, with no memory for some of its batches."""

import os
import random

import torch

from audioprep.encoders.base import EncoderSpec
from audioprep.encoders.torch_encoder import TorchEncoder, TorchSettings

RANDOM = random.Random(os.environ.get("OUT_OF_MEMORY"))

class Settings(TorchSettings):
    weights: str = "none"

def describe(settings):
    return EncoderSpec("hungry", "latents", 8000, 1, 80, 800, 80, 80, 8, "none", dim=4)

def load(settings):
    return Hungry(describe(settings), settings)

class Hungry(TorchEncoder):
    def __init__(self, spec, settings):
        super().__init__(spec, settings)
        torch.manual_seed(0)
        self._conv = torch.nn.Conv1d(1, 4, 160, stride=80)

    def forward(self, samples, valid):
        if "OUT_OF_MEMORY" in os.environ and len(samples) > 1 and RANDOM.random() < 0.2:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return self._conv(samples)[:, :, :10].transpose(1, 2)
'''


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for number in range(6):
        write_wav(folder / f"{number}.wav", music(40_000 + 30_011 * number, 1))
    (folder / "hungry.py").write_text(PLUGIN)
    info = folder / "hungry-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hungry\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[audioprep.encoders]\nhungry = hungry\n")
    return folder


def encode(songs: Path, out: Path, **environment: str) -> tuple[dict[str, bytes], dict[str, object]]:
    """The shards' bytes, and what `dataset.json` says of the encoder."""
    command = [sys.executable, "-m", "audioprep", "encode", songs, "--encoder", "hungry", "--out", out]
    options = ["--workers", "1", "--part-size", "3", "--device", "cpu", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(songs)} | environment
    ended = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ("out of memory with 8 windows at once; going on with 4" in ended.stderr) == ("OUT_OF_MEMORY" in environment)
    description = json.loads((out / "dataset.json").read_text())
    return {path.name: path.read_bytes() for path in (out / "data").iterdir()}, description["encoders"]["latents"]


def test_out_of_memory_at_random_batches(songs: Path, tmp_path: Path):
    expected, encoder = encode(songs, tmp_path / "enough")
    assert "smaller_batches" not in encoder
    found, encoder = encode(songs, tmp_path / "short", OUT_OF_MEMORY="1")
    assert found == expected
    assert encoder["smaller_batches"]
