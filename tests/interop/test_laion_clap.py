"""Our embeddings beside those of laion-clap 1.1.7, from the same `.pt` at its real sizes, in its own environment.

Opt-in: `pytest -m interop`. The environment is made once (`conftest.py`) from the package registry; laion-clap's
downloads at import are replaced by local stubs (`laion_reference.py`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers.models.roberta.tokenization_roberta import bytes_to_unicode

from audioprep.encoders.clap import Clap, Settings, load

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

RATE, CLIP = 48_000, 480_000
PACKAGES = (
    "laion-clap==1.1.7", "numpy<2", "torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0", "transformers<5",
    "setuptools<81",
)  # fmt: skip
NAMES = ("HTSAT-tiny", "HTSAT-base", "HTSAT-tiny-fused")
TEXTS = ["rain", "a slow piano piece in a minor key", "drums " * 30]
SCRIPT = Path(__file__).with_name("laion_reference.py")


@pytest.fixture(scope="module")
def laion_python(environment: Callable[..., Path]) -> Path:
    """The interpreter of an environment with laion-clap."""
    return environment("laion-clap", PACKAGES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of up to 10 s, texts, and RoBERTa's tokenizer with the 256 bytes as its only words."""
    folder = tmp_path_factory.mktemp("laion")
    random = np.random.default_rng(0)
    clips = {f"{seconds:04.1f}": clip(random, seconds) for seconds in (10.0, 7.7, 2.5)}
    np.savez(folder / "clips.npz", **clips)  # pyright: ignore[reportArgumentType]
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    words = ["<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values(), "<mask>"]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return folder


def clip(random: np.random.Generator, seconds: float) -> NDArray[np.float32]:
    time = np.arange(round(seconds * RATE)) / RATE
    tones = np.sin(2 * np.pi * random.uniform(80, 6000, (5, 1)) * time) * np.sin(random.uniform(0.1, 3, (5, 1)) * time)
    return (0.1 * tones.sum(0) + 0.01 * random.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest, laion_python: Path, folder: Path) -> str:
    """A model whose `.pt` and embeddings laion-clap has written."""
    command = [str(laion_python), str(SCRIPT), str(folder), request.param]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"WANDB_MODE": "disabled"}
    )
    assert done.returncode == 0, done.stderr
    return request.param


def test_embeddings_are_those_of_laion_clap(name: str, folder: Path):
    encoder = load(Settings(weights=str(folder / f"{name}.pt"), tokenizer=str(folder / "tokenizer")))
    with np.load(folder / f"{name}.npz") as expected:
        audio, text = expected["audio"], expected["text"]
    found = embed_clips(encoder, folder)
    assert (found * audio).sum(1).min() >= 0.9999
    assert np.abs(found - audio).max() < 1e-3
    assert (encoder.embed_text(TEXTS) * text).sum(1).min() >= 0.9999


def test_the_backend_of_laion_gives_the_same(name: str, folder: Path):
    """laion-clap in this environment, with the numpy that it does not ask for."""
    pytest.importorskip("torchlibrosa", reason="laion-clap is not installed here")
    code = (
        "import sys, json; from pathlib import Path; import numpy as np\n"
        f"sys.path[:0] = [{str(SCRIPT.parent)!r}]\n"
        "from laion_reference import import_laion_clap\n"
        "from test_laion_clap import TEXTS, embed_clips\n"
        "folder, name = Path(sys.argv[1]), sys.argv[2]\n"
        "import_laion_clap(folder / 'tokenizer')\n"
        "from audioprep.encoders.clap import Settings, load\n"
        "encoder = load(Settings(weights=str(folder / f'{name}.pt'), tokenizer=str(folder / 'tokenizer'),\n"
        "               backend='laion'))\n"
        "np.savez(folder / 'backend.npz', audio=embed_clips(encoder, folder), text=encoder.embed_text(TEXTS))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / f"{name}.npz") as expected, np.load(folder / "backend.npz") as found:
        for kind in ("audio", "text"):
            assert (found[kind] * expected[kind]).sum(1).min() >= 0.9999


def test_without_a_network_the_backend_says_what_to_do(tmp_path: Path):
    pytest.importorskip("torchlibrosa", reason="laion-clap is not installed here")
    (tmp_path / "laion.pt").touch()
    code = (
        "import sys; from audioprep.encoders.clap import Settings, load\n"
        "load(Settings(weights=sys.argv[1], backend='laion'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "laion.pt"],
        capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert "UsageError: clap: laion-clap downloads roberta-base" in done.stderr
    assert "or choose the backend transformers" in done.stderr


def embed_clips(encoder: Clap, folder: Path) -> NDArray[np.float32]:
    """Each clip as a file of its own: `[n, D]`."""
    rows = []
    with np.load(folder / "clips.npz") as clips:
        for key in sorted(clips):
            left, samples = encoder.spec.left_context, clips[key]
            window = np.zeros((1, 1, encoder.spec.length), np.float32)
            window[0, 0, left : left + len(samples)] = samples
            rows.append(encoder.encode(window, np.array([[left, left + len(samples)]]))[0, 0])
    return np.stack(rows).astype(np.float32)
