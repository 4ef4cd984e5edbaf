"""Our exports in the hands of stable-audio-tools 0.0.19 and stable-audio-3: their own loaders, their own training.

Opt-in: `pytest -m interop`. The environment is made once, in pytest's cache or the folder AUDIOPREP_INTEROP, from the
package registry. stable-audio-3 is on no registry: AUDIOPREP_STABLE_AUDIO_3 names a checkout of it, or a bare clone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audioprep.cli.console import QuietConsole
from audioprep.commands import encode, export_stable_audio
from audioprep.export.stable_audio_check import check
from audioprep.shards.reading import open_split

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SCRIPT = Path(__file__).with_name("stable_audio_reference.py")
# Upstream pins an older torch, and its audiotools an older protobuf; neither needs it.
PACKAGES = (
    "torch==2.11.0", "torchaudio==2.11.0", "pytorch-lightning==2.6.6", "k-diffusion==0.1.1.post1", "ema-pytorch==0.8.3",
    "einops-exts==0.0.4", "alias-free-torch==0.0.6", "vector-quantize-pytorch==1.14.41", "auraloss==0.4.0",
    "webdataset==1.0.2", "descript-audiotools==0.7.2", "matplotlib", "dill", "soundfile", "setuptools<81",
)  # fmt: skip
ALONE = ("stable-audio-tools==0.0.19",)
RATE, HOP = 44100, 2048
SECONDS = {"a": 4.5, "b": 1.0, "c": 0.4, "d": 2.2, "e": 3.3}


@dataclass(frozen=True)
class Upstream:
    """Their code, in its own process."""

    python: Path
    folder: Path
    sources: Path | None = None

    def __call__(self, action: str, which: str, config: dict[str, Any]) -> dict[str, Any]:
        """Reads or trains; nothing may have failed to load."""
        (self.folder / "config.json").write_text(json.dumps(config))
        said = self.run(action, which, str(self.folder / "config.json"), str(self.folder / "found.json"))
        assert "Couldn't load" not in said
        return json.loads((self.folder / "found.json").read_text())

    def run(self, *arguments: str) -> str:
        environment = os.environ | {"WANDB_MODE": "disabled"}
        if self.sources:
            environment["PYTHONPATH"] = str(self.sources)
        command = [str(self.python), str(SCRIPT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sat(environment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """stable-audio-tools."""
    python = environment("stable-audio", PACKAGES, ALONE, "protobuf>=5\n")
    return Upstream(python, tmp_path_factory.mktemp("sat"))


@pytest.fixture(scope="module")
def sa3(sat: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """stable-audio-3."""
    given = os.environ.get("AUDIOPREP_STABLE_AUDIO_3")
    if not given:
        pytest.skip("AUDIOPREP_STABLE_AUDIO_3 names no checkout of stable-audio-3 (it is on no package registry)")
    sources = Path(given)
    if not (sources / "stable_audio_3").is_dir():
        sources = tmp_path_factory.mktemp("stable-audio-3")
        archive = [
            "git",
            "-C",
            given,
            "archive",
            "--format=tar",
            "-o",
            str(sources / "it.tar"),
            "HEAD",
            "stable_audio_3",
        ]
        subprocess.run(archive, check=True)
        shutil.unpack_archive(sources / "it.tar", sources)
    return Upstream(sat.python, tmp_path_factory.mktemp("sa3"), sources)


@pytest.fixture(scope="module")
def corpus(sat: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, with a tiny autoencoder of stable-audio-tools and what it makes of them itself."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for name, seconds in SECONDS.items():
        samples = (0.2 * random.standard_normal((round(seconds * RATE), 2))).astype(np.float32)
        soundfile.write(folder / f"{name}.wav", samples, RATE, "FLOAT")
        (folder / f"{name}.json").write_text(json.dumps({"prompt": f"Song {name}", "license": "CC0"}))
    sat.run("autoencoder", str(folder))
    return folder


@pytest.fixture(scope="module")
def shards(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recordings encoded by us, from the checkpoint as upstream writes it."""
    out = tmp_path_factory.mktemp("shards") / "out"
    weights = tmp_path_factory.mktemp("weights")
    for name in ("vae_model.ckpt", "vae_config.json"):
        shutil.copy(corpus / name, weights)
    sources = [str(corpus / f"{name}.wav") for name in SECONDS]
    choice = {"encoder": "vae", "weights": str(weights)}
    settings = encode.Settings(source=sources, out=out, encoders=[choice], device="cpu", workers=1)  # pyright: ignore
    assert encode.run(settings, QuietConsole())["rows"] == len(SECONDS)
    return out


Exporter = Callable[..., Path]


@pytest.fixture
def exported(shards: Path, tmp_path: Path) -> Exporter:
    """Exports with these settings, checks that all is well, and gives the folder."""

    def make(**settings: Any) -> Path:
        dest = tmp_path / "latents"
        export_stable_audio.run(export_stable_audio.Settings(out=shards, dest=dest, **settings), QuietConsole())
        assert check(dest) == []
        return dest

    return make


def latents_by_path(shards: Path) -> dict[str, NDArray[np.float32]]:
    """What is in the shard set: `[F, D]` by the recording's path."""
    reader = open_split(shards, "train")
    blocks = [reader.read(block, ["uri", "latents"]) for block in range(len(reader.block_rows))]
    return {
        uri: np.asarray(latents, np.float32)
        for block in blocks
        for uri, latents in zip(block["uri"], block["latents"], strict=True)
    }


def test_latents_are_those_of_upstreams_autoencoder(corpus: Path, shards: Path):
    with np.load(corpus / "latents.npz") as expected:
        for uri, latents in latents_by_path(shards).items():
            of_upstream = expected[Path(uri).stem].T
            assert latents.shape == of_upstream.shape
            assert np.abs(latents - of_upstream).max() < 1e-3 * np.abs(of_upstream).max()


CROPS = {
    "grid": {"crop_frames": 16},
    "overlapping, padded at the end": {"crop_frames": 16, "crop_hop": 11, "tail": "pad"},
    "random": {"crop_frames": 16, "crops": "random", "crops_per_track": 3, "seed": 5},
    "float32, short ones left out": {"crop_frames": 16, "dtype": "float32", "short": "drop"},
}


@pytest.mark.parametrize("crops", CROPS)
@pytest.mark.parametrize("crop", [True, False], ids=["the trainer crops", "the trainer does not"])
def test_stable_audio_tools_sees_every_crop_in_its_place(
    sat: Upstream, shards: Path, exported: Exporter, crops: str, crop: bool
):
    folder = exported(**CROPS[crops])
    changes = {} if crop else {"latent_crop_length": None}
    found = sat("read", "sat", {"dataset_config": str(folder / "dataset_config.json"), "changes": changes})
    assert_all_seen(found["items"], folder)
    dtype = "torch.float32" if "float32" in crops else "torch.float16"
    assert {tuple(shape[1:]) for shape in found["shapes"]} == {(64, 16, dtype)}
    originals = latents_by_path(shards)
    for item in found["items"]:
        of_track = originals[item["path"]]
        own = sum(item["padding_mask"])
        start = round(item["timestamps"][0] * max(len(of_track), 16))
        np.testing.assert_array_equal(np.array(item["latents"]).T[:own], of_track[start : start + own])
        assert item["seconds_start"] == int(start * HOP / RATE)
        name = Path(item["path"]).stem
        assert (item["seconds_total"], item["prompt"]) == (int(np.ceil(SECONDS[name])), f"Song {name}")
    assert max(item["seconds_start"] for item in found["items"]) >= 2


def assert_all_seen(items: list[dict[str, Any]], folder: Path) -> None:
    written = (folder / "filelist.txt").read_text().split()
    assert len(written) >= len(SECONDS) - 1
    assert sorted(item["latent_filename"] for item in items) == sorted(str(folder / name) for name in written)


def test_stable_audio_tools_cuts_whole_tracks(sat: Upstream, exported: Exporter):
    folder = exported(crop_frames=16, crops="whole")
    found = sat("read", "sat", {"dataset_config": str(folder / "dataset_config.json")})
    assert_all_seen(found["items"], folder)
    assert {tuple(shape[1:3]) for shape in found["shapes"]} == {(64, 16)}
    assert max(item["latent_crop_start"] for item in found["items"]) > 0


def test_stable_audio_tools_trains(sat: Upstream, exported: Exporter):
    folder = exported(crop_frames=16)
    losses = sat("train", "sat", {"dataset_config": str(folder / "dataset_config.json")})["losses"]
    assert len(losses) == 3 and np.isfinite(losses).all()


@pytest.mark.parametrize("crop", [16, 200])
@pytest.mark.parametrize("settings", [{}, {"crops": "grid", "crop_frames": 16, "tail": "pad"}], ids=["whole", "grid"])
def test_stable_audio_3_sees_every_item(sa3: Upstream, exported: Exporter, crop: int, settings: dict[str, Any]):
    folder = exported(layout="sa3", **settings)
    lengths = {str(folder / name): np.load(folder / name).shape[1] for name in listed(folder)}
    found = sa3("read", "sa3", {"folder": str(folder), "crop": crop})
    assert_all_seen(found["items"], folder)
    silence = np.load(folder / "silence.npy")[0]
    for item in found["items"]:
        own = min(lengths[item["latent_filename"]], crop)
        assert item["padding_mask"] == [1] * own + [0] * (crop - own)
        padding = np.array(item["latents"])[:, own:]
        np.testing.assert_array_equal(padding, silence[:, : padding.shape[1]])


def listed(folder: Path) -> list[str]:
    return (folder / "filelist.txt").read_text().split()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stable_audio_3_trains(sa3: Upstream, exported: Exporter, dtype: str):
    folder = exported(layout="sa3", dtype=dtype)
    losses = sa3("train", "sa3", {"folder": str(folder), "crop": 48})["losses"]
    assert len(losses) == 3 and np.isfinite(losses).all()
