"""`audioprep listen`: a recording, and what its tokens sound like."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_helpers import music, write_wav
from cli_helpers import Cli, rows


@pytest.fixture
def shards(tmp_path: Path, cli: Cli) -> Path:
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    write_wav(songs / "song.wav", music(100_000, 2))
    write_wav(songs / "other.wav", music(50_000, 1))
    assert cli("tokenize", songs, "--out", out, "--workers", "1").code == 0
    return out


def test_both_files_are_alike_and_last_as_long(cli: Cli, shards: Path, tmp_path: Path):
    found = cli("listen", shards, "song", "--dest", tmp_path / "compare", "--json").json
    original, rate = soundfile.read(found["original"])
    decoded, decoded_rate = soundfile.read(found["decoded"])
    assert rate == decoded_rate == 24_000
    assert original.shape == decoded.shape == (round(100_000 * 24_000 / 44_100),)
    assert np.abs(decoded).max() > 0.01
    assert {path.name for path in (tmp_path / "compare").iterdir()} == {"song.original.wav", "song.audio_tokens.wav"}
    # The same item by its id; the same bytes.
    before = Path(found["decoded"]).read_bytes()
    id_ = rows(shards)["song.wav"]["id"]
    again = cli("listen", shards, id_[:10], "--dest", tmp_path / "again", "--json").json
    assert (again["id"], Path(again["decoded"]).read_bytes()) == (id_, before)

    for arguments, message in [
        (["nothing"], "no item is called nothing"),
        ([""], "should have at least 1 character"),
        (["song", "--column", "audio_token"], "Did you mean audio_tokens?"),
    ]:
        result = cli("listen", shards, *arguments)
        assert result.code == 1
        assert message in result.err


def test_several_items_of_one_name(cli: Cli, shards: Path, tmp_path: Path):
    (tmp_path / "songs" / "b").mkdir()
    write_wav(tmp_path / "songs" / "b" / "song.wav", music(30_000, 1))
    assert cli("tokenize", tmp_path / "songs", "--out", shards, "--workers", "1").code == 0
    assert "2 items are called song" in cli("listen", shards, "song").err
