"""`audioprep encode`: new columns beside those that are there, and `audioprep verify --reencode`."""

import hashlib
import json
from pathlib import Path
from shutil import copyfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_helpers import music, write_wav
from cli_helpers import Cli, failures, rows

from audioprep.stages import read_ahead

SKETCH = ("--encoder", "mel-rvq", "--column", "sketch_tokens", "--set", "num_codebooks=2")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, length in enumerate((13_230, 225_792, 573_300)):
        write_wav(folder / f"{number}.wav", music(length, 1 + number % 2))
    (folder / "broken.wav").write_text("no audio")
    return folder


def parts(out: Path, column: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (out / ".audioprep/columns").glob(f"{column}-*/*.parquet")}


def test_a_column_is_added_and_the_others_are_kept(songs: Path, tmp_path: Path, cli: Cli):
    out = tmp_path / "out"
    assert cli("tokenize", songs, "--out", out, "--workers", "1", "--quiet").code == 3
    before, made = rows(out), parts(out, "audio_tokens")
    result = cli("encode", "--out", out, *SKETCH, "--workers", "1", "--quiet", "--json")
    assert result.code == 3 and result.json["rows"] == 3
    assert 0 < result.json["encoder_busy"] <= 1
    assert parts(out, "audio_tokens") == made
    for name, row in rows(out).items():
        assert {key: row[key] for key in before[name]} == before[name]
        np.testing.assert_array_equal(row["sketch_tokens"], np.array(row["audio_tokens"])[:, :2])
    assert failures(out)["broken.wav"]["stage"] == "audio_tokens"
    assert cli("verify", out, "--quiet").code == 0


def test_what_is_new_in_the_corpus_gets_all_columns(songs: Path, tmp_path: Path, cli: Cli):
    out, both = tmp_path / "out", tmp_path / "both"
    cli("tokenize", songs, "--out", out, "--workers", "1", "--part-size", "2", "--quiet")
    cli("encode", "--out", out, *SKETCH, "--workers", "1", "--quiet")
    write_wav(songs / "new.wav", music(20_000))
    assert cli("tokenize", songs, "--out", out, "--workers", "1", "--part-size", "2", "--quiet").code == 3
    found = rows(out)
    assert len(found) == 4 and all(row["sketch_tokens"] for row in found.values())
    cli("tokenize", songs, "--out", both, "--workers", "1", "--quiet")
    cli("encode", "--out", both, *SKETCH, "--workers", "1", "--quiet")
    assert rows(both) == found


def test_encoders_of_one_run_share_the_decoding(songs: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    """In one process, to count how often files are opened."""
    from audioprep.corpus.entry import Entry
    from audioprep.encoders.registry import describe_encoder
    from audioprep.stages.base import Kept, Resources
    from audioprep.stages.encode import Encode

    opened: list[str] = []
    open_audio = read_ahead.open_audio
    monkeypatch.setattr(read_ahead, "open_audio", lambda path, **how: opened.append(path) or open_audio(path, **how))
    settings = {"a": {}, "b": {"num_codebooks": 1}}
    stages = [Encode("mel-rvq", own, describe_encoder("mel-rvq", own), name) for name, own in settings.items()]
    entries = [Entry(str(songs / f"{number}.wav")) for number in range(3)]
    together = list(Encode.run(stages, entries, Resources()))
    assert len(opened) == 3
    for stage in stages:
        alone = [outcome for _, outcome in Encode.run([stage], entries, Resources())]
        for one, other in zip(alone, [outcome for name, outcome in together if name == stage.name], strict=True):
            assert isinstance(one, Kept) and isinstance(other, Kept)
            np.testing.assert_array_equal(one.columns.pop(stage.column), other.columns.pop(stage.column))
            assert one == other


def test_a_file_that_changed_between_two_columns(songs: Path, tmp_path: Path, cli: Cli):
    out = tmp_path / "out"
    cli("tokenize", songs, "--out", out, "--workers", "1", "--quiet")
    copyfile(songs / "0.wav", songs / "1.wav")
    assert cli("encode", "--out", out, *SKETCH, "--workers", "1", "--quiet").code == 3
    failure = failures(out)["1.wav"]
    assert (failure["stage"], failure["error"]) == ("sketch_tokens", "changed")
    assert "--overwrite" in failure["message"]
    assert sorted(rows(out)) == ["0.wav", "2.wav"]


def test_another_encoder_for_a_column_is_refused(songs: Path, tmp_path: Path, cli: Cli):
    out = tmp_path / "out"
    cli("tokenize", songs, "--out", out, "--workers", "1", "--quiet")
    result = cli("encode", "--out", out, "--encoder", "mel-rvq", "--set", "num_codebooks=2", "--quiet")
    assert result.code == 1
    assert "audio_tokens.encoder.num_codebooks: 4 → 2" in result.err
    for arguments, message in (
        (("--encoder", "mel-rvq", "--column", "lyrics"), "column lyrics: choose a name"),
        (("--encoder", "mel-rvq", "--encoder", "mel-rvq"), "two encoders would write the column audio_tokens"),
        (("--encoder", "mel-rvq", "--encoder", "dac", "--column", "x"), "go with one --encoder"),
        (("--encoder", "dac"), "dac: give --weights: a file, a folder or a repository of the Hub"),
        (("--encoder", "dac-44khz"), "Run `hf download descript/dac_44khz` where there is a network"),
    ):
        result = cli("encode", songs, "--out", tmp_path / "other", *arguments, "--quiet")
        assert result.code == 1 and message in result.err


def test_nothing_to_encode(tmp_path: Path, cli: Cli):
    result = cli("encode", "--out", tmp_path / "out", "--encoder", "mel-rvq", "--quiet")
    assert result.code == 1
    assert "no source is given, and nothing is there" in result.err


def test_encoding_again_gives_the_same(songs: Path, tmp_path: Path, cli: Cli):
    out = tmp_path / "out"
    cli("tokenize", songs, "--out", out, "--workers", "1", "--quiet")
    cli("encode", "--out", out, *SKETCH, "--workers", "1", "--quiet")
    result = cli("verify", out, "--reencode", "2", "--quiet", "--json")
    assert result.code == 0
    for found in result.json["reencoded"].values():
        assert (found["items"], found["changed"], found["same_settings"]) == (2, 0, True)
    (songs / "0.wav").unlink()
    found = cli("verify", out, "--reencode", "9", "--quiet", "--json").json["reencoded"]["audio_tokens"]
    assert (found["items"], found["unreadable"]) == (2, 1)


def test_an_encoder_that_is_no_longer_the_same_is_found(songs: Path, tmp_path: Path, cli: Cli):
    """Stored codes are changed, and the checksums with them: as if another version of a library had made them."""
    out = tmp_path / "out"
    cli("tokenize", songs, "--out", out, "--workers", "1", "--quiet")
    description = json.loads((out / "dataset.json").read_text())
    shard = out / description["shards"][0]["path"]
    table = pq.read_table(shard)
    codes = table.column("audio_tokens").to_pylist()
    codes[0][0][0] ^= 1
    where = table.schema.get_field_index("audio_tokens")
    field = table.schema.field(where)
    pq.write_table(table.set_column(where, field, pa.array(codes, field.type)), shard)
    content = shard.read_bytes()
    description["shards"][0] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (out / "dataset.json").write_text(json.dumps(description))
    result = cli("verify", out, "--reencode", "9", "--quiet")
    assert result.code == 1
    assert "values differ, by at most 1 where the same encoder should give the same" in result.out
