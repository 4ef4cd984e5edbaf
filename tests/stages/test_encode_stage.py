"""An item's tokens are its own: they do not depend on what else is in its part, or on how it is decoded."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_helpers import music, write_wav

from audioprep.corpus.entry import Entry
from audioprep.encoders.registry import describe_encoder
from audioprep.errors import Reason
from audioprep.stages import read_ahead
from audioprep.stages.base import Failed, Kept, Resources
from audioprep.stages.encode import Encode

STAGE = Encode("mel-rvq", {}, describe_encoder("mel-rvq", {"device": "cpu"}), "audio_tokens")


def tokenize(*paths: Path, **resources: object) -> list[Kept | Failed]:
    entries = [Entry(str(path)) for path in paths]
    found = Encode.run([STAGE], entries, Resources(**resources))  # pyright: ignore[reportArgumentType]
    return [outcome for _, outcome in found]


def tokens(outcome: Kept | Failed) -> np.ndarray:
    assert isinstance(outcome, Kept)
    return outcome.columns["audio_tokens"]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """0.3 to 13 s: less than a window, exactly one, and several."""
    folder = tmp_path_factory.mktemp("songs")
    lengths = [13_230, 225_792, 300_001, 573_300]
    return [write_wav(folder / f"{n}.wav", music(length, 1 + n % 2)) for n, length in enumerate(lengths)]


def test_columns(songs: list[Path]):
    outcome = tokenize(songs[2])[0]
    assert isinstance(outcome, Kept)
    columns = outcome.columns
    assert columns["num_frames"] == len(columns["audio_tokens"]) == 171
    assert columns["duration"] == pytest.approx(300_001 / 44_100, abs=1 / 24_000)
    assert (columns["sample_rate"], columns["channels"], len(columns["id"])) == (44_100, 1, 32)
    assert set(columns) == set(STAGE.schema.names)


def test_neighbours_threads_and_isolation_change_nothing(songs: list[Path], tmp_path: Path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(songs[3].read_bytes()[:500_000])
    alone = [tokens(tokenize(song)[0]) for song in songs]
    mixed = tokenize(songs[3], broken, songs[2], songs[1], songs[0], decode_threads=4)
    isolated = tokenize(*songs, isolated=True)
    assert [outcome.row for outcome in mixed] == [0, 1, 2, 3, 4]
    for number, other in ((3, 0), (2, 2), (1, 3), (0, 4)):
        np.testing.assert_array_equal(tokens(mixed[other]), alone[number])
        np.testing.assert_array_equal(tokens(isolated[number]), alone[number])
    failure = mixed[1]
    assert isinstance(failure, Failed) and failure.error.reason is Reason.TRUNCATED
    assert str(broken) in str(failure.error)


def test_a_file_that_changes_while_it_is_read(songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    growing = tmp_path / "growing.wav"
    growing.write_bytes(songs[0].read_bytes())
    content_id = read_ahead.content_id

    def grow(path: str) -> str:
        with open(path, "ab") as file:
            file.write(b"more")
        return content_id(path)

    monkeypatch.setattr(read_ahead, "content_id", grow)
    (outcome,) = tokenize(growing)
    assert isinstance(outcome, Failed) and outcome.error.reason is Reason.CHANGED


def test_a_file_that_vanished_since_the_scan(songs: list[Path], tmp_path: Path):
    outcomes = tokenize(songs[0], tmp_path / "gone.wav", songs[1])
    assert [type(outcome) for outcome in outcomes] == [Kept, Failed, Kept]
    assert isinstance(outcomes[1], Failed) and outcomes[1].error.reason is Reason.NOT_FOUND


def test_a_read_error_is_tried_again(songs: list[Path], monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    content_id = read_ahead.content_id

    def fail_twice(path: str) -> str:
        calls.append(path)
        if len(calls) < 3:
            raise OSError(5, os.strerror(5), path)
        return content_id(path)

    monkeypatch.setattr(read_ahead, "content_id", fail_twice)
    assert isinstance(tokenize(songs[0])[0], Kept)
    assert len(calls) == 3


def test_a_stopped_consumer_stops_the_decoders(songs: list[Path]):
    files: Any = read_ahead.read_ahead([Entry(str(songs[3]))] * 20, [STAGE.spec], Resources())
    next(iter(next(files)))
    files.close()  # waits for the threads: hangs if they do not stop
