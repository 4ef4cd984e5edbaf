"""Our exports in the hands of SimpleTuner 4.10.1: its configuration, data sets, sampler, collation and loss.

Opt-in: `pytest -m interop`. The environment is made once, in pytest's cache or the folder AUDIOPREP_INTEROP, from the
package registry; torch is the one that runs the tests. SimpleTuner is AGPL: it is fetched and run, and nothing of it is
kept here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from song_sets import make_song, tokens_of, write_song_set
from song_traps import BACKEND, TRAPS, audio_folder, table_rows, write_table

from audioprep.export.heartmula import ENDING, PromptLength
from audioprep.export.simpletuner import Options, SimpleTunerExport
from audioprep.export.simpletuner_check import check
from audioprep.export.simpletuner_config import LayoutName
from audioprep.export.simpletuner_rows import Cutting

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SCRIPT = Path(__file__).with_name("simpletuner_reference.py")
# All that its data sets and HeartMuLa import; its own pins want Python 3.12, which that code does not need.
PACKAGES = (
    "accelerate==1.15.0", "aiosqlite", "atomicwrites", "beautifulsoup4", "cryptography", "datasets==5.0.1",
    "diffusers==0.40.0", "fastapi", "ftfy", "hangul-romanize", "imageio", "librosa", "loguru", "mutagen", "num2words",
    "numpy==2.4.6", "pandas<3", "peft==0.21.2", "py3langid", "pypinyin", "python-multipart", "sentencepiece", "spacy",
    "sse-starlette", "tiktoken", "toml", "torchsde", "trainingsample<0.4", "transformers==5.8.0", "uvicorn",
    "vector-quantize-pytorch",
)  # fmt: skip
ALONE = "simpletuner==4.10.1"
LENGTHS = [100, 140, 150, 101, 300, 310, 305, 309]
LAYOUTS: tuple[LayoutName, ...] = ("folder", "inline", "jsonl")


@dataclass(frozen=True)
class SimpleTuner:
    """Its code, in its own process."""

    python: Path
    sources: Path
    folder: Path
    weights: Path

    def __call__(self, *folders: Path, **settings: Any) -> list[dict[str, Any]]:
        """Trains on each of these exports, and gives what the model saw, or how it failed."""
        cases = [{"folder": str(folder), "weights": str(self.weights), "settings": settings} for folder in folders]
        (self.folder / "cases.json").write_text(json.dumps(cases))
        command = [str(self.python), str(SCRIPT), str(self.folder / "cases.json"), str(self.folder / "found.json")]
        environment = os.environ | {"PYTHONPATH": str(self.sources), "OMP_NUM_THREADS": "1", "CONFIG_BACKEND": "json"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=1800)
        (self.folder / "said.txt").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads((self.folder / "found.json").read_text())


@pytest.fixture(scope="module")
def simpletuner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleTuner:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    assert request.config.cache is not None
    given = os.environ.get("AUDIOPREP_INTEROP")
    folder = (Path(given) if given else request.config.cache.mkdir("interop")) / "simpletuner"
    python, sources, done = folder / "bin" / "python", folder / "sources", folder / "done"
    wanted = "\n".join([*PACKAGES, ALONE])
    if not done.exists() or done.read_text() != wanted:
        overrides = tmp_path_factory.mktemp("uv") / "overrides.txt"
        overrides.write_text("torch; python_version < '3'\n")  # none: the one of these tests is seen through a .pth
        install = [uv, "pip", "install", "--python", str(python)]
        for command in (
            [uv, "venv", "--clear", "--python", sys.executable, str(folder)],
            [*install, "--override", str(overrides), *PACKAGES],
            [*install, "--python-version", "3.12", "--no-deps", "--target", str(sources), ALONE],
        ):
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no environment with SimpleTuner: {made.stderr[-500:]}")
        packages = next((folder / "lib").glob("python3*/site-packages"))
        (packages / "zz_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
        done.write_text(wanted)
    weights = tmp_path_factory.mktemp("weights")
    write_tokenizer(weights)
    return SimpleTuner(python, sources, tmp_path_factory.mktemp("simpletuner"), weights)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of bytes, in HeartMuLa's form."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "gen_config.json").write_text(json.dumps({"text_bos_id": 256, "text_eos_id": 257}))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight songs, every third an instrumental."""
    songs = [
        make_song(number, frames, **({} if number % 3 else {"lyrics": None})) for number, frames in enumerate(LENGTHS)
    ]
    return write_song_set(tmp_path_factory.mktemp("songs") / "out", [songs[:5], songs[5:]])


Exporter = Callable[..., Path]


@pytest.fixture
def exported(shards: Path, tmp_path: Path) -> Exporter:
    """Exports with these options, checks that all is well, and gives the folder."""

    def make(layout: LayoutName, name: str = "songs", **options: Any) -> Path:
        folder = tmp_path / f"{name}-{layout}"
        SimpleTunerExport(shards, folder, Options(layout, **options)).run(False, lambda *_: None)
        assert check(folder) == []
        return folder

    return make


def assert_all_seen(found: dict[str, Any], ending: bool = False) -> None:
    """Every song once, with its own tags, lyrics and tokens."""
    assert "error" not in found, found["error"]
    assert np.isfinite(found["losses"]).all()
    assert abs(np.mean(found["losses"]) - 2 * np.log(8197)) < 0.1  # a random model's
    numbers = [row["tokens"][0][1] for row in found["rows"]]
    assert sorted(numbers) == list(range(len(LENGTHS)))
    for number, row in zip(numbers, found["rows"], strict=True):
        expected = tokens_of(number, LENGTHS[number]).astype(int)
        if ending:
            expected = np.concatenate([expected, np.full((1, 8), ENDING)])
        np.testing.assert_array_equal(row["tokens"], expected)
        tags, lyrics = f"piano,happy,tag{number}", f"[Verse]\nLine {number}\nLa la" if number % 3 else ""
        assert len(row["text"]) == PromptLength(None)(tags, lyrics)
        letters = "".join(map(letter, row["text"]))
        assert letters == f"^<tag>{tags}</tag>$?^{lyrics.lower()}$"


def letter(id_: int) -> str:
    """The letter behind an id of our tokenizer; `?` is the slot that SimpleTuner leaves for a style."""
    from tokenizers import decoders, pre_tokenizers

    if id_ > 255:
        return "^$"[id_ - 256]
    return "?" if id_ == 0 else decoders.ByteLevel().decode([sorted(pre_tokenizers.ByteLevel.alphabet())[id_]])


def test_it_reads_all_layouts(simpletuner: SimpleTuner, exported: Exporter):
    folders = [exported(layout) for layout in LAYOUTS]
    folders += [exported("folder", "ending", cutting=Cutting(ending=True), token_format="pt")]
    plain, inline, jsonl, ending = simpletuner(*folders)
    for found in (plain, inline, jsonl):
        assert_all_seen(found)
    assert_all_seen(ending, ending=True)


def test_it_reads_a_folder_of_audio_with_its_metadata(simpletuner: SimpleTuner, exported: Exporter):
    folder = exported("folder")
    audio_folder(folder, "metadata.jsonl")
    assert check(folder) == []
    assert_all_seen(simpletuner(folder)[0])


def test_it_reads_them_again_from_its_caches_and_as_one_bucket(simpletuner: SimpleTuner, exported: Exporter):
    """Batches of four; the second run is on warm caches."""
    folders = [exported(layout, batch_size=4) for layout in LAYOUTS]
    # No interval gives all buckets eight.
    folders += [exported(layout, "one-bucket", batch_size=8) for layout in LAYOUTS]
    for found in simpletuner(*folders, *folders):
        assert_all_seen(found)
    assert all(check(folder) == [] for folder in folders)
    assert list(folders[0].glob("aspect_ratio_bucket_metadata_*.json"))  # there where `verify` looks for them


def test_a_new_content_is_seen_under_its_new_id(simpletuner: SimpleTuner, exported: Exporter, shards: Path):
    folder = exported("folder")
    assert_all_seen(simpletuner(folder)[0])
    write_table(folder, [row | {"tags": "other"} for row in table_rows(folder)])
    assert len(check(folder)) == 1 and "never reads again" in check(folder)[0]
    assert_all_seen(simpletuner(folder)[0])  # the old tags
    entry = json.loads((folder / BACKEND).read_text())[0]
    (folder / BACKEND).write_text(json.dumps([entry | {"id": "other"}]))
    (found,) = simpletuner(folder)
    assert {"".join(map(letter, row["text"]))[:17] for row in found["rows"]} == {"^<tag>other</tag>"}


def test_it_fails_or_spoils_as_the_traps_say(simpletuner: SimpleTuner, shards: Path, tmp_path: Path):
    folders = []
    for number, trap in enumerate(TRAPS.values()):
        folder = tmp_path / f"trap{number}"
        SimpleTunerExport(shards, folder, Options(trap.layout)).run(False, lambda *_: None)
        trap.damage(folder)
        folders.append(folder)
    wrong = {}
    for (name, trap), found in zip(TRAPS.items(), simpletuner(*folders), strict=True):
        end = "fails" if "error" in found else "skips" if len(found["rows"]) < len(LENGTHS) else "spoils"
        if end != trap.end:
            wrong[name] = end, found.get("error")
    assert wrong == {}
