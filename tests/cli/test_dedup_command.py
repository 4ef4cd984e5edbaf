"""`audioprep dedup` on real files: copies are listed, the best one stays."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from audio_helpers import ffmpeg, music, write_wav
from cli_helpers import Cli

from audioprep.dedup.outputs import NAMES
from audioprep.dedup.report import REPORT
from audioprep.samples import sample_folder

PIECES = {"chorale": "bach_chorale_bwv269.flac", "ode": "ode_to_joy.wav", "prelude": "bach_prelude_c.mp3"}
SECONDS = 10


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three pieces; of one an mp3 that begins 2 s later, of another an exact copy; and a broken file."""
    folder = tmp_path / "songs"
    folder.mkdir()
    bundled = sample_folder() / "music"
    for name, file in PIECES.items():
        ffmpeg("-i", bundled / file, "-t", str(SECONDS), folder / f"{name}.wav")
    ffmpeg("-ss", "2", "-i", folder / "ode.wav", "-b:a", "96k", folder / "ode_again.mp3")
    (folder / "prelude_copy.wav").write_bytes((folder / "prelude.wav").read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def test_copies_are_listed_and_the_best_is_kept(cli: Cli, songs: Path, tmp_path: Path):
    out = tmp_path / "out"
    keep = ("--keep", "lossless-first", "--workers", "1")
    result = cli("dedup", songs, "--out", out, *keep, "--json")
    assert result.code == 0, result.err
    names = ("processed_files", "failed_files", "duplicate_files", "kept_files", "exact_copies", "groups")
    assert [result.json[name] for name in names] == [5, 1, 2, 3, 1, 2]
    header, *excluded = (out / "exclude_paths.txt").read_text().splitlines()
    assert header == "# Paths to exclude from training (format=absolute)"
    assert excluded == [f"{songs}/ode_again.mp3", f"{songs}/prelude_copy.wav"]
    pairs = [json.loads(line) for line in (out / "similar_pairs.jsonl").read_text().splitlines()]
    assert [(pair["keep_relpath"], pair["drop_relpath"], pair["relation"]) for pair in pairs] == [
        ("ode.wav", "ode_again.mp3", "excerpt"), ("prelude.wav", "prelude_copy.wav", "exact-copy"),
    ]  # fmt: skip
    assert pairs[0]["similarity"] > 0.8 and pairs[1]["similarity"] == 1
    assert pairs[0]["alignment"]["offset"] == pytest.approx(2, abs=0.1)
    groups = pq.read_table(out / "groups.parquet").to_pylist()
    assert [(row["group"], row["keep"]) for row in groups] == [(0, True), (0, False), (1, True), (1, False)]
    assert [row["offset"] and round(row["offset"]) for row in groups] == [None, 2, None, None]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["similarity_threshold"] == 0.66 and summary["relations"] == {"exact-copy": 1, "excerpt": 1}

    # The shards are there now: nothing is encoded again, and other settings reuse them.
    before = {name: (out / name).read_bytes() for name in (*NAMES, REPORT)}
    assert cli("dedup", songs, "--out", out, *keep).code == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    relative = ("--exclude-path-format", "relative", "--prefer", "again", "--workers", "1")
    cli("dedup", out / "shards", "--out", tmp_path / "relative", *relative)
    assert (tmp_path / "relative" / "exclude_paths.txt").read_text().splitlines()[1:] == ["ode.wav", "prelude_copy.wav"]

    # The report shows what is just below the threshold, too, which is not dropped.
    assert "B · kept, too" not in (out / REPORT).read_text()
    strict = ("--out", out, "--similarity-threshold", "1", *keep)
    assert cli("dedup", out / "shards", *strict, "--json").json["duplicate_files"] == 1
    page = (out / REPORT).read_text()
    assert page.count("<article") == 2 and page.count("<audio ") == 4
    assert page.index("ode.wav") < page.index("B · kept, too") < page.index("ode_again.mp3")
    assert "report" not in cli("dedup", out / "shards", *strict, "--report-pairs", "0", "--json").json
    assert not (out / REPORT).exists()

    # Leaks of another corpus; within the corpus nothing is touched.
    (tmp_path / "test").mkdir()
    ffmpeg("-i", songs / "chorale.wav", "-b:a", "128k", tmp_path / "test" / "leak.mp3")
    write_wav(tmp_path / "test" / "other.wav", music())
    leak = ("--against", tmp_path / "test", "--out", tmp_path / "leaks", "--workers", "1")
    leaks = cli("dedup", out / "shards", *leak)
    assert leaks.code == 0, leaks.err
    assert (tmp_path / "leaks" / "exclude_paths.txt").read_text().splitlines()[1:] == [f"{songs}/chorale.wav"]


def test_histograms_of_any_tokens_with_a_second_opinion(cli: Cli, songs: Path, tmp_path: Path):
    """Cut elsewhere, a short piece has another histogram; a threshold that is low enough finds strangers, too."""
    out = tmp_path / "out"
    run = ("dedup", songs, "--codec", "mel-rvq", "--workers", "1", "--report-pairs", "0", "--json")
    low = ("--similarity-threshold", "0.01")
    result = cli(*run, "--out", out, *low)
    assert result.code == 0, result.err
    assert result.json["duplicate_files"] == 2
    pairs = [json.loads(line) for line in (out / "similar_pairs.jsonl").read_text().splitlines()]
    assert sorted(pair["relation"] for pair in pairs) == ["exact-copy", "excerpt"]
    assert json.loads((out / "summary.json").read_text())["second_opinion"]
    # What histograms alone say.
    alone = ("dedup", out / "shards", "--column", "audio_tokens", "--no-second-opinion", "--out", out, "--json")
    assert cli(*alone, *low).json["duplicate_files"] == 4
    assert cli(*alone).json["duplicate_files"] < 3
    # A shard set that has both is compared by fingerprints.
    assert cli("dedup", out / "shards", "--out", out, "--json").json["duplicate_files"] == 2
    assert json.loads((out / "summary.json").read_text())["method"] == "fingerprints"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--histogram-mode", "per-codebook"], "Did you mean per_codebook?"),
        (["--prefer", "("], "is no regular expression"),
        (["--keep", "best"], "there is longest"),
    ],
)
def test_usage_errors(cli: Cli, tmp_path: Path, options: list[str], message: str):
    result = cli("dedup", tmp_path, "--out", tmp_path / "out", *options)
    assert result.code == 1
    assert message in result.err


def test_no_audio(cli: Cli, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    result = cli("dedup", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.code == 1
    assert "empty" in result.err
