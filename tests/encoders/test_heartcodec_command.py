"""`audioprep tokenize --codec heartcodec` from files to shards, as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from heartcodec_helpers import CODEBOOKS, load, save_heartcodec, stereo

from audioprep.cli.app import main
from audioprep.shards.columns import plain_table, to_arrays
from audioprep.stages.encode import encode_samples


def test_from_files_to_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = save_heartcodec(tmp_path / "weights")
    songs = {"stereo": stereo(4.0, 0), "mono": stereo(4.0, 1)[:1], "long": stereo(30.5, 2)}
    (tmp_path / "songs").mkdir()
    for name, sound in songs.items():
        soundfile.write(tmp_path / f"songs/{name}.wav", sound.T, 24_000, subtype="FLOAT")

    def audioprep(*arguments: str | Path) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["audioprep", *map(str, arguments), "--quiet"])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    out = tmp_path / "out"
    given = ("--weights", weights / "encoder", "--set", f"decoder={weights / 'decoder'}", "--workers", "1")
    assert not audioprep("tokenize", tmp_path / "songs", "--out", out, "--codec", "heartcodec", *given)
    assert not audioprep("verify", out)
    table = plain_table(pq.read_table(out / "data/train-00000.parquet"))
    found = dict(
        zip((Path(uri).stem for uri in table["uri"].to_pylist()), to_arrays(table["audio_tokens"]), strict=True)
    )
    assert table["num_frames"].to_pylist() == [len(found[Path(uri).stem]) for uri in table["uri"].to_pylist()]
    encoder = load(weights)
    for name, sound in songs.items():
        want = encode_samples(encoder, np.broadcast_to(sound, (2, sound.shape[1])))
        assert found[name].shape == (int(sound.shape[1] / 24_000 * 12.5) + 1, CODEBOOKS)
        np.testing.assert_array_equal(found[name], want)
