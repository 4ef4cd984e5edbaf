"""The way of a newcomer: the demo recipe, a codebook of one's own, a trainer; and all of it from the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cli_helpers import Cli, audioprep

from audioprep.samples import sample_folder


def test_the_demo_ends_with_a_trained_model(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    small = [f"--set=train.settings.{setting}" for setting in ("steps=12", "width=16", "depth=1", "max_frames=16")]
    result = cli("run", "demo", "--json", "--quiet", *small)
    assert result.code == 3  # one sample is broken on purpose
    stages = result.json
    assert (stages["tokenize"]["rows"], stages["tokenize"]["failed"]) == (15, 1)
    assert stages["verify"]["problems"] == []
    assert stages["inspect"]["exact_copies"] == 1
    assert stages["train"]["last_loss"] < stages["train"]["first_loss"]
    for name in (
        "shards/data/train-00000.parquet",
        "inspect.png",
        "token-lm/latest.pt",
        "token-lm/loss.png",
    ):
        assert (tmp_path / "demo-out" / name).stat().st_size > 0


def test_a_codebook_of_ones_own(cli: Cli, tmp_path: Path):
    weights = tmp_path / "mine.safetensors"
    fit = [
        "fit",
        "mel-rvq",
        sample_folder() / "speech",
        "--out",
        weights,
        "--num-codebooks",
        "2",
        "--codebook-size",
        "16",
    ]
    result = cli(*fit, "--json", "--quiet")
    assert result.code == 0
    assert len(result.json["codebooks"]) == 2
    assert cli(*fit, "--json", "--quiet").json == {"weights": str(weights), "already_there": True}
    planned = cli("tokenize", sample_folder(), "--out", tmp_path / "out", "--weights", weights, "--dry-run", "--json")
    assert planned.json["new_inputs"] == 16
    result = cli("tokenize", sample_folder(), "--out", tmp_path / "out", "--weights", weights, "--num-codebooks", "3")
    assert result.code == 1 and "has 2 codebooks, and num_codebooks is 3" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "token-ml", "SHARDS", "--out", "RUN"], "token-lm"),
        (["train", "token-lm", "SHARDS", "--out", "RUN"], "no shard set with audio_tokens"),
        (["train", "token-lm", "SHARDS", "--out", "RUN", "--set", "stepz=5"], "not permitted. Did you mean steps?"),
        (["train", "token-lm", "SHARDS", "--out", "RUN", "--set", "steps"], "write it like --set steps=500"),
    ],
)  # fmt: skip
def test_a_trainer_that_cannot_start(arguments: list[str], message: str, cli: Cli, tmp_path: Path):
    result = cli(*(str(tmp_path / each) if each.isupper() else each for each in arguments))
    assert result.code == 1
    assert message in result.err


def test_the_wheel_holds_recipes_trainers_and_samples(tmp_path: Path):
    """Built and unpacked, it runs without the checkout."""
    root = Path(__file__).parents[2]
    build = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "--wheel",
        "--quiet",
        "--no-build-isolation",
        "--out-dir",
        tmp_path,
        root,
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 5e6
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import audioprep, audioprep.bundled as bundled, audioprep.samples as samples\n"
        "print(audioprep.__file__, bundled.recipe_path('demo'))\n"
        "print(bundled.trainer_path('token-lm'), samples.sample_folder())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    paths = [Path(path) for path in done.stdout.split()]
    assert len(paths) == 4
    assert all(path.is_relative_to(tmp_path / "site") and path.exists() for path in paths)


def test_module_and_script_are_the_same():
    assert audioprep("--help").out == subprocess.run(
        [Path(sys.executable).parent / "audioprep", "--help"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
