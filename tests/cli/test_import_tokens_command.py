"""`audioprep import-tokens`: tokens of another tool become a column."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_helpers import Cli, failures, rows


def song(folder: Path, name: str, frames: int = 25) -> np.ndarray:
    """Two seconds of noise, and tokens beside it."""
    random = np.random.default_rng(len(name))
    soundfile.write(folder / f"{name}.wav", random.uniform(-0.5, 0.5, 32_000), 16_000)
    np.save(folder / f"{name}.npy", tokens := random.integers(0, 8192, (frames, 8)))
    return tokens


def test_imported_tokens_are_a_column_like_any_other(cli: Cli, tmp_path: Path):
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    song(songs, "wrong", frames=50)
    first = song(songs, "a")
    (songs / "a.txt").write_text("piano")
    assert cli("import-tokens", songs, "--out", out, "--codec", "heartcodec", "--workers", "1").code == 3
    assert failures(out)["wrong.wav"]["error"] == "tokens"
    assert rows(out)["a.wav"]["tags"] == "piano"
    # New inputs get all columns; what is there is not imported again.
    second = song(songs, "bb")
    assert cli("tokenize", songs, "--out", out, "--column", "sketch_tokens", "--workers", "1").code == 3
    for name, tokens in [("a.wav", first), ("bb.wav", second)]:
        row = rows(out)[name]
        np.testing.assert_array_equal(row["audio_tokens"], tokens)
        assert (row["duration"], len(row["sketch_tokens"])) == (2.0, 50)
    assert cli("verify", out).code == 0
    assert cli("verify", out, "--reencode", "2").code == 0


def test_without_an_encoder_nothing_can_be_encoded_again(cli: Cli, tmp_path: Path):
    song(tmp_path, "a")
    cli("import-tokens", tmp_path, "--out", tmp_path / "out", "--codec", "heartcodec", "--workers", "1")
    assert "were imported" in cli("verify", tmp_path / "out", "--reencode", "2").err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codec", "hartcodec"], "Did you mean heartcodec?"),
        (["--codec", "mimi", "--tokens", "x.npy"], "{stem}"),
        (["--codec", "mimi", "--column", "id"], "column id"),
    ],
)
def test_usage_errors(cli: Cli, tmp_path: Path, options: list[str], message: str):
    song(tmp_path, "a")
    result = cli("import-tokens", tmp_path, "--out", tmp_path / "out", *options)
    assert result.code == 1
    assert message in result.err
