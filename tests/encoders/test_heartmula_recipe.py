"""From songs to a folder that SimpleTuner trains HeartMuLa on, by the bundled recipe, with tiny weights."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from heartcodec_helpers import save_heartcodec, stereo

from audioprep.bundled import recipe_path
from audioprep.cli.console import QuietConsole
from audioprep.cli.recipe import run_command, run_recipe

SONGS = {
    "song": (31.0, "Piano, happy", "Verse 1:\nla la\n[Chorus]\nhey"),
    "instrumental": (2.0, "piano", "[instrumental]"),
    "nameless": (1.0, "", ""),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipe makes."""
    folder = tmp_path_factory.mktemp("heartmula")
    (folder / "songs").mkdir()
    for name, (seconds, tags, lyrics) in SONGS.items():
        soundfile.write(folder / "songs" / f"{name}.flac", stereo(seconds, 0).T, 24_000)
        (folder / "songs" / f"{name}.txt").write_text(tags)
        (folder / "songs" / f"{name}.lyrics").write_text(lyrics)
    weights = save_heartcodec(folder / "weights", codebook_size=8192, num_quantizers=8)
    settings = [
        f"tokenize.weights={weights / 'encoder'}",
        f"tokenize.codec_settings={{decoder: {weights / 'decoder'}}}",
        "tokenize.workers=1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SONGS", str(folder / "songs"))
        patch.setenv("OUT", str(folder / "out"))
        code, summaries = run_recipe(recipe_path("heartmula"), settings, False, QuietConsole(), report=False)
    assert code == 0, summaries
    return folder / "out"


def test_songs_become_rows(out: Path):
    rows = pq.read_table(out / "simpletuner/data/train-00000-of-00001.parquet").to_pylist()
    found = {row["tags"]: row for row in rows}
    assert {tags: row["lyrics"] for tags, row in found.items()} == {
        "Piano,happy": "[Verse]\nla la\n\n[Chorus]\nhey", "piano": "",
    }  # fmt: skip
    tokens = np.load(out / "simpletuner" / found["Piano,happy"]["audio_tokens_path"])
    assert tokens.shape == (int(31 * 12.5) + 1 + 1, 8)
    assert (tokens[-1] == 8193).all()
    assert tokens[:-1].max() < 8192
    assert len(set(tokens[:, 0].tolist())) > 100


def test_what_has_no_tags_is_named(out: Path):
    (line,) = (out / "simpletuner/left_out.jsonl").read_text().splitlines()
    assert json.loads(line)["uri"].endswith("nameless.flac")


def test_a_song_can_be_listened_to(out: Path, tmp_path: Path):
    options = {"out": out / "shards", "item": "instrumental", "dest": tmp_path, "settings": {"steps": 1}}
    _, summary = run_command("listen", options, False, QuietConsole())
    (original, rate), (decoded, decoded_rate) = (soundfile.read(summary[name]) for name in ("original", "decoded"))
    assert rate == decoded_rate == 48_000
    assert original.shape == decoded.shape == (96_000, 2)
