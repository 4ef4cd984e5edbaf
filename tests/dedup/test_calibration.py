"""How well copies are told from strangers: the arithmetic, and trials made of real files."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioprep.dedup.calibration import ORIGINAL, Judgement, Trial, draw, findings, judge, make_trial


def judgement(copies: list[float], strangers: list[float]) -> Judgement:
    return Judgement({"gain": np.array(copies, np.float32)}, np.sort(np.array(strangers, np.float32)), [])


def test_threshold_of_a_precision():
    # At 0.6 three copies and a stranger are found, at 0.7 two copies alone.
    some = judgement([0.9, 0.7, 0.6, 0.2], [0.65, 0.3, 0.1])
    assert some.threshold_at(0.999) == pytest.approx(0.7)
    assert some.threshold_at(0.75) == pytest.approx(0.6)
    assert some.threshold_at(0.5) == pytest.approx(0.2)
    assert (some.recall("gain", 0.7), some.precision(0.6)) == (0.5, 0.75)
    assert [some.precision(threshold) for threshold in (0.65, 0.7, 1)] == [pytest.approx(2 / 3), 1, 1]
    # Precision may fall and rise again: the lowest threshold counts, as it finds most.
    assert judgement([0.9] + 999 * [0.5], [0.95, 0.1]).threshold_at(0.999) == 0.5
    # Ties are found together: no threshold parts a copy from a stranger of the same similarity.
    assert judgement([0.9, 0.5], [0.9, 0.1]).threshold_at(0.6) == 0.5
    assert judgement([0.5, 0.5], [0.5, 0.9]).threshold_at(0.6) == math.inf


def test_judge():
    # Two pieces with a copy each, and a third one's original and copy.
    trial = Trial([Path(name) for name in "abcdef"], np.array([0, 0, 3, 3, 4, 4]), [ORIGINAL, "gain"] * 3)
    random = np.random.default_rng(0)
    similarities = random.random((6, 6), np.float32)
    similarities = np.maximum(similarities, similarities.T)
    found = judge(similarities, trial, nearest=2)
    assert found.copies["gain"].tolist() == [similarities[0, 1], similarities[2, 3], similarities[4, 5]]
    of_pieces = {pair: similarities[2 * pair[0] :, 2 * pair[1] :][:2, :2] for pair in ((0, 1), (0, 2), (1, 2))}
    strangers = np.sort(np.concatenate([block.ravel() for block in of_pieces.values()]))
    assert found.strangers.tolist() == strangers.tolist()
    nearest = sorted((float(block.max()) for block in of_pieces.values()), reverse=True)
    assert [similarity for _, _, similarity in found.nearest] == nearest[:2]
    for one, other, similarity in found.nearest:
        assert similarities[one, other] == similarity
    assert [trial.describe(place) for place in (2, 3)] == ["c", "gain of c"]


def test_findings_and_picture(tmp_path: Path):
    good, bad = judgement([0.9, 0.8], [0.1, 0.2]), judgement([0.1, 0.2], [0.9])
    found = {"good": findings(good, 0.85, 0.999), "bad": findings(bad, None, 0.999)}
    assert found["good"]["in_use"] == {"threshold": 0.85, "precision": 1.0, "recall": {"gain": 0.5}}
    assert found["good"]["recommended"] == {"threshold": pytest.approx(0.8), "precision": 1.0, "recall": {"gain": 1.0}}
    assert found["bad"] == {"in_use": None, "recommended": None}
    draw(tmp_path / "a.png", {"good": good, "bad": bad}, found)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_trial_of_real_files(tmp_path: Path):
    random = np.random.default_rng(0)
    for name, seconds in (("b", 2), ("a", 1), ("short", 0.2)):
        soundfile.write(tmp_path / f"{name}.wav", random.uniform(-0.5, 0.5, round(seconds * 8000)), 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    paths = [tmp_path / f"{name}.wav" for name in ("b", "broken", "a", "short")]
    seen: list[tuple[int, int]] = []
    trial = make_trial(paths, tmp_path / "copies", ["gain", "mp3-64k"], lambda *done: seen.append(done))
    assert seen == [(number, 4) for number in (1, 2, 3, 4)]
    assert trial.pieces.tolist() == [0, 0, 0, 2, 2, 2]
    assert trial.kinds == [ORIGINAL, "gain", "mp3-64k"] * 2
    assert trial.files[0] == paths[0] and trial.files[3] == paths[2]
    assert [file.suffix for file in trial.files[1:3]] == [".flac", ".mp3"]
    assert soundfile.info(trial.files[1]).duration == 2
    written = {file: file.stat().st_mtime_ns for file in trial.files}
    again = make_trial(paths[:1], tmp_path / "copies", ["gain", "mp3-64k"], lambda *done: None)
    assert again.files == trial.files[:3]
    assert {file: file.stat().st_mtime_ns for file in trial.files} == written
    assert [path.name for path in (tmp_path / "copies").rglob("*.part*")] == []
