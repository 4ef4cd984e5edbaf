"""A corpus that is shaped like jaCappella becomes a shard set, with all that is sung."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command_line import audioprep
from score_files import Measure, Song, kana, note, rest, write_corpus

from audioprep.corpus.jacappella import Choice, manifest
from audioprep.errors import UsageError
from audioprep.scores.scat import is_scat

pytest.importorskip("music21")

KILL_POINTS = Path(__file__).parents[1] / "engine/kill_points"
QUIET = rest(1)


def roman(*syllables: str) -> list[str]:
    return [note(syllable) for syllable in syllables]


def lead(verse: list[str], refrain: list[str], scat: str) -> list[Measure]:
    """A scat of the lead, a repeat with a refrain, and a pause of 8 s before the refrain comes once more."""
    return [
        Measure([*roman(scat), QUIET], tempo=60),
        Measure([*verse, QUIET], repeat="forward"),
        Measure([*refrain, QUIET], repeat="backward"),
        Measure([rest(4)]),
        Measure([rest(4)]),
        Measure([*refrain, QUIET]),
    ]


def two_verses(one: str, two: str) -> list[str]:
    return [note(a, b) for a, b in zip(one, two, strict=True)]


SONGS = [
    Song(
        "bossa_nova",
        "haruyokoi",
        {
            "svs": lead(two_verses("はるよこい", "はやくこい"), kana("ラララうた"), "LABADADA"),
            "romaji": lead(roman("ha", "ru", "yo", "ko", "i"), roman("la", "la", "la", "u", "ta"), "LABADADA"),
            "default": lead(two_verses("春よ来い", "早く来い"), kana("ラララうた"), "TUTU"),
        },
    ),
    Song(
        "jazz",
        "popura",
        {
            "svs": [Measure([*kana("このみち"), note("", pitch=64), QUIET], tempo=120)],
            "romaji": [Measure([*roman("ko-", "-no", "mi-", "-chi"), QUIET])],
            "default": [Measure([*kana("この道"), QUIET])],
        },
    ),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", SONGS)


def rows(corpus: Path, **choice: Any) -> dict[str, dict[str, Any]]:
    return {row["song"]: row for row in manifest(corpus, Choice(**choice), {"train": 1.0}, 0)}


def words(row: dict[str, Any]) -> list[str]:
    """The lines of a lyric without their times and without what only says when."""
    lines = [line.partition("]")[2] for line in row["lyrics"].splitlines()]
    return [line for line in lines if line]


def test_the_lead_sings_its_verses_and_its_scat_is_apart(corpus: Path) -> None:
    row = rows(corpus)["haruyokoi"]
    assert words(row) == ["はるよこい", "ラララうた", "はやくこい", "ラララうた", "ラララうた"]
    assert row["scat"] == "LABADADA" and row["syllables_lost"] == 0
    assert "[00:25.00]\n" in row["lyrics"] and row["score_seconds"] == 40.0
    assert row["lyrics"].splitlines()[1] == "[00:02.00]はるよこい"


@pytest.mark.parametrize(("kind", "expected"), [("romaji", "ha ru yo ko i"), ("default", "春よ来い")])
def test_other_scores(corpus: Path, kind: str, expected: str) -> None:
    found = rows(corpus, score=kind)
    assert words(found["haruyokoi"])[0] == expected
    assert words(found["popura"]) == [{"romaji": "kono michi", "default": "この道"}[kind]]


@pytest.mark.parametrize("kind", ["svs", "romaji", "default"])
@pytest.mark.parametrize("part", ["soprano", "bass"])
def test_scat_of_other_parts_is_no_lyrics(corpus: Path, kind: str, part: str) -> None:
    row = rows(corpus, score=kind, audio=part)["popura"]
    assert row["lyrics"] == "" and row["scat"]
    assert rows(corpus, score=kind, audio="vocal_percussion")["popura"].get("lyrics") is None


def test_nothing_is_lost_that_a_plain_concatenation_has(corpus: Path) -> None:
    """The seed's fork strings all `<text>` of a file together, of all parts and both verses, once each."""
    from xml.etree import ElementTree

    for song in SONGS:
        path = corpus / song.subset / song.name / f"{song.name}_SVS.musicxml"
        part = ElementTree.parse(path).getroot().find("part")
        assert part is not None
        plain = "".join(text.text or "" for text in part.iter("text"))
        row = rows(corpus)[song.name]
        sung = "".join(words(row)) + row["scat"]
        assert set(plain) == set(sung) and row["syllables"] == len(list(part.iter("text")))


def test_choices_and_splits(corpus: Path) -> None:
    assert list(rows(corpus, subsets=("jazz",))) == ["popura"]
    assert rows(corpus, clean_japanese=True)["haruyokoi"]["lyrics"].isascii() is False
    with pytest.raises(UsageError, match="bossa_nova, jazz. Did you mean jazz"):
        rows(corpus, subsets=("jaz",))
    with pytest.raises(UsageError, match="nothing"):
        rows(corpus, clean_japanese=True, score="romaji")
    with pytest.raises(UsageError, match=r"no meta\.csv"):
        rows(corpus / "jazz")
    halves = {"train": 0.5, "validation": 0.5}
    seeds = [[row["split"] for row in manifest(corpus, Choice(audio=audio), halves, 3)] for audio in ("alto", "tenor")]
    assert seeds[0] == seeds[1]


def test_shard_set_with_failures_by_name(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "jazz" / "popura" / "popura_SVS.musicxml").unlink()
    ghost = corpus / "jazz" / "ghost"
    ghost.mkdir()
    (corpus / "bossa_nova" / "haruyokoi" / "haruyokoi_SVS.musicxml").rename(ghost / "ghost_SVS.musicxml")
    (corpus / "jazz" / "popura" / "lead_vocal.wav").rename(ghost / "lead_vocal.wav")
    out = tmp_path / "shards"
    arguments = ["jacappella", corpus, "--no-download", "--out", out, "--workers", 1, "--json", "-q"]
    assert audioprep(*arguments) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["songs"], summary["rows"], summary["failed"], summary["bad_scores"]) == (3, 1, 2, 2)
    failures = {Path(row["uri"]).parent.name: row for row in pq.read_table(out / "failures.parquet").to_pylist()}
    assert "popura_SVS.musicxml there is no such score" in str(failures["popura"])
    (row,) = (row for path in out.glob("data/*.parquet") for row in pq.read_table(path).to_pylist())
    metadata = json.loads(row["metadata"])
    assert row["license"].startswith("jaCappella") and "ghost" in row["source"] and row["tags"] == "a cappella,jazz"
    assert metadata["notes"][0] == [0.0, 1.0, 60, "LABADADA"] and metadata["scat"] == "LABADADA"
    before = sorted((path, path.read_bytes()) for path in out.glob("data/*"))
    assert audioprep(*arguments) == 3
    assert sorted((path, path.read_bytes()) for path in out.glob("data/*")) == before
    assert audioprep(*arguments, "--audio-type", "mixture") == 1
    assert "--overwrite" in capsys.readouterr().err


def test_a_broken_recording_is_done_by_retry(corpus: Path, tmp_path: Path) -> None:
    recording = corpus / "jazz" / "popura" / "lead_vocal.wav"
    good = recording.read_bytes()
    recording.write_bytes(b"RIFF, and nothing else")
    arguments = ["jacappella", corpus, "--no-download", "--encoder", "fingerprint", "--workers", 1, "-q", "--out"]
    assert audioprep(*arguments, tmp_path / "out") == 3
    recording.write_bytes(good)
    assert audioprep("retry", tmp_path / "out", "--workers", 1, "-q") == 0
    assert audioprep(*arguments, tmp_path / "fresh") == 0
    found, fresh = (sorted((tmp_path / name / "data").iterdir()) for name in ("out", "fresh"))
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in fresh]


def test_kills_and_workers_change_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def data(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in [*(out / "data").iterdir(), out / "jacappella.jsonl"]}

    def arguments(out: Path, workers: int) -> list[Any]:
        options = ["--encoder", "fingerprint", "--workers", workers, "-q"]
        return ["jacappella", corpus, "--no-download", "--out", out, *options]

    assert audioprep(*arguments(tmp_path / "whole", 1)) == 0
    monkeypatch.setenv("PYTHONPATH", str(KILL_POINTS), prepend=os.pathsep)
    for point in ("torn:*/jacappella.jsonl", "after:*/columns/fingerprint*.parquet", "before:*/data/*.parquet"):
        command = [sys.executable, "-m", "audioprep", *map(str, arguments(tmp_path / "killed", 2))]
        killed = subprocess.run(
            command,
            env=os.environ | {"AUDIOPREP_KILL": point},
            start_new_session=True,
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
    assert audioprep(*arguments(tmp_path / "killed", 2)) == 0
    assert data(tmp_path / "killed") == data(tmp_path / "whole")


def test_the_gate_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(repository: str, **options: Any) -> None:
        assert options["allow_patterns"][-2:] == ["jazz/*/lead_vocal.wav", "jazz/*/*.musicxml"]
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert audioprep("jacappella", tmp_path / "copy", "--out", tmp_path / "shards", "--subsets", "jazz") == 1
    said = capsys.readouterr().err
    assert "https://huggingface.co/datasets/jaCappella/jaCappella" in said
    assert "huggingface-cli login" in said and "no redistribution" in said and "--no-download" in said


@pytest.mark.parametrize(
    ("text", "lead", "expected"),
    [
        ("LABADADA", True, True),
        ("TU TU", True, True),
        ("dun dun", True, True),
        ("LOVE", True, False),
        ("kono michi", True, False),
        ("ラララ", True, False),
        ("ラララ", False, True),
        ("ラバダダ", False, True),
        ("トゥトゥ", False, True),
        ("ドゥンドゥン", False, True),
        ("ウー", False, True),
        ("うたをうたう", False, False),
        ("どこからきたの", False, False),
        ("1 2 3", False, False),
    ],
)
def test_scat(text: str, lead: bool, expected: bool) -> None:
    assert is_scat(text, lead) is expected
