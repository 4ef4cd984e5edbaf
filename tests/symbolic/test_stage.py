from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import midi_files as m
import numpy as np
import pytest

from audioprep.corpus.entry import Entry
from audioprep.errors import Reason, UsageError
from audioprep.stages.base import Failed, Kept, Resources
from audioprep.stages.isolation import Isolation
from audioprep.stages.symbolic import TokenizeScores
from audioprep.symbolic.names import read_name
from audioprep.symbolic.tokenizers import EMOPIA, EmopiaTokenizer, load_tokenizer

SETTINGS: dict[str, Any] = {"beats": "score", "chords": "auto", "key": "estimate", "meter": "keep"}


def emopia_stage(**settings) -> TokenizeScores:
    values = SETTINGS | settings
    return TokenizeScores(EMOPIA, values, "", load_tokenizer(EMOPIA, tuple(sorted(values.items())), "").spec, "words")


def outcomes(stage: TokenizeScores, entries: list[Entry], isolated: bool = False) -> list[Kept | Failed]:
    resources = Resources(isolated=isolated)
    return [outcome for _, outcome in TokenizeScores.run([stage], entries, resources)]


def test_columns_of_a_score(tmp_path: Path) -> None:
    path = tmp_path / "Q2_0vLPYiPN7qY_1.mid"
    path.write_bytes(m.scale([*m.C_MAJOR, 67, 64, 60]))
    stage = emopia_stage()
    (kept,) = outcomes(stage, [Entry(str(path))])
    assert isinstance(kept, Kept)
    assert set(kept.columns) == set(stage.schema.names)
    found = {name: value for name, value in kept.columns.items() if name not in ("words", "id")}
    assert found == {
        "duration": 5.5, "sample_rate": None, "channels": None, "num_frames": len(kept.columns["words"]), "notes": 11,
        "meters": "", "song": "0vLPYiPN7qY", "emotion": 2, "key": "C",
    }  # fmt: skip


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.mid").touch()
    (tmp_path / "folder.mid").mkdir()
    os.mkfifo(tmp_path / "fifo.mid")
    names = ("absent", "empty", "folder", "fifo")
    found = outcomes(emopia_stage(), [Entry(str(tmp_path / f"{name}.mid")) for name in names])
    reasons = [outcome.error.reason for outcome in found if isinstance(outcome, Failed)]
    assert reasons == [Reason.NOT_FOUND, Reason.EMPTY, Reason.NOT_A_FILE, Reason.EMPTY]


@pytest.mark.parametrize(
    ("name", "emotion", "song"),
    [
        ("Q1_0vLPYiPN7qY_0.mid", 1, "0vLPYiPN7qY"),
        ("Q4_8_-upde_qfu_12.mid", 4, "8_-upde_qfu"),
        ("Q3.mid", 3, None),
        ("Q30.mid", 0, None),
        ("Q5_0vLPYiPN7qY_0.mid", 0, None),
        ("src_001/12.mid", 0, None),
    ],
)
def test_names(name: str, emotion: int, song: str | None) -> None:
    assert read_name(f"/data/{name}") == (emotion, song)


def damaged(data: bytes, random: random.Random) -> bytes:
    """A file with bits flipped, parts lost or doubled, or its end cut off."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 20))):
        place = random.randrange(len(found))
        match random.randrange(4):
            case 0:
                found[place] ^= 1 << random.randrange(8)
            case 1:
                del found[place : place + random.randrange(1, 12)]
            case 2:
                found[place:place] = found[place : place + random.randrange(1, 40)]
            case 3:
                found[place : place + 4] = random.randbytes(4)
        if not found:
            break
    return bytes(found)


def test_damaged_files_fail_or_are_read_and_never_more(tmp_path: Path) -> None:
    seed = random.Random(7)
    good = m.midi(
        [(0, m.tempo(90)), (0, m.meter(3, 2)), (0, m.marker("C_M_C")), (960, m.tempo(140))],
        [(0, m.name("piano")), *m.notes(*((n * 240, n * 240 + 300, 50 + n % 20, 64) for n in range(40)))],
    )  # fmt: skip
    entries = []
    for number in range(150):
        path = tmp_path / f"{number:03}.mid"
        path.write_bytes(damaged(good, seed))
        entries.append(Entry(str(path)))
    for meter in ("keep", "convert"):
        stage = emopia_stage(meter=meter, chords="auto")
        found = outcomes(stage, entries)
        assert len(found) == len(entries)
        kept = [outcome for outcome in found if isinstance(outcome, Kept)]
        assert 20 < len(kept) < 150
        sizes = np.array(stage.spec.vocabulary_sizes)
        assert all((outcome.columns["words"] < sizes).all() for outcome in kept)


def works(stage: object, row: int, entry: Entry) -> Kept:
    """A stage that some entries end or stall."""
    if entry.uri == "ends":
        os._exit(7)
    if entry.uri == "stalls":
        time.sleep(60)
    return Kept(row, {"uri": entry.uri})


def test_a_crash_or_a_hang_costs_one_input() -> None:
    with Isolation(works, isolated=True, seconds=3.0) as process:
        found = [process(None, row, Entry(uri)) for row, uri in enumerate(("a", "ends", "b", "stalls", "c"))]
    assert [outcome.error.reason if isinstance(outcome, Failed) else outcome.columns["uri"] for outcome in found] == [
        "a", Reason.CRASHED, "b", Reason.TIMEOUT, "c",
    ]  # fmt: skip


def test_isolated_files_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(m.scale(m.C_MAJOR))
    (tmp_path / "b.mid").write_bytes(b"MThd")
    entries = [Entry(str(tmp_path / "a.mid")), Entry(str(tmp_path / "b.mid"))]
    here, there = outcomes(emopia_stage(), entries), outcomes(emopia_stage(), entries, isolated=True)
    assert isinstance(here[0], Kept) and isinstance(there[0], Kept)
    assert (here[0].columns["words"] == there[0].columns["words"]).all()
    assert isinstance(here[1], Failed) and isinstance(there[1], Failed)
    assert str(here[1].error) == str(there[1].error)


def test_settings_decide_the_fingerprint() -> None:
    prints = {emopia_stage(**{name: value}).spec.fingerprint for name, value in
              (("key", "score"), ("meter", "convert"), ("chords", "none"), ("beats", "track"))}  # fmt: skip
    assert len({*prints, emopia_stage().spec.fingerprint}) == 5
    assert isinstance(load_tokenizer(EMOPIA, tuple(sorted(SETTINGS.items())), ""), EmopiaTokenizer)
    with pytest.raises(UsageError, match="emopia-cp"):
        load_tokenizer("miditok", (("meter", "convert"),), "")
