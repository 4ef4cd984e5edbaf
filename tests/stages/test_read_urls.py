"""Recordings of a store give what the same files give here; text beside them is told from listings."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_helpers import music, write_wav
from faulty_proxy import FaultyProxy, at_random
from upath import UPath

from audioprep.corpus import beside
from audioprep.corpus.entry import Entry
from audioprep.corpus.scan import scan
from audioprep.encoders.registry import describe_encoder
from audioprep.errors import InputError, Reason
from audioprep.stages import read_ahead
from audioprep.stages.base import Failed, Kept, Resources
from audioprep.stages.encode import Encode
from audioprep.stages.text import ReadText
from audioprep.storage import listing, places

STAGE = Encode("mel-rvq", {}, describe_encoder("mel-rvq", {"device": "cpu"}), "audio_tokens")


def put(url: str, data: bytes) -> None:
    place = UPath(url, use_listings_cache=False)
    place.fs.pipe_file(place.path, data)


@pytest.fixture
def store(bucket: str, tmp_path: Path) -> str:
    """The URL of a folder with six songs, as they are in `tmp_path`."""
    for number in range(6):
        song = write_wav(tmp_path / f"{number} ü#%.wav", music(20_000 + number, 1))
        put(f"{bucket}/music/{song.name}", song.read_bytes())
    return f"{bucket}/music"


def test_the_same_tokens_and_failure_rows(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read_ahead, "BYTES_AHEAD", 1)  # one copy at a time, and all the same
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    put(f"{store}/broken.wav", b"no sound")
    entries = [*scan([store]), Entry(f"{store}/gone.wav")]
    here = [*scan([str(tmp_path)]), Entry(str(tmp_path / "gone.wav"))]
    found, expected = ([outcome for _, outcome in Encode.run([STAGE], of, Resources())] for of in (entries, here))
    assert len(found) == 8
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Kept) and isinstance(other, Kept):
            np.testing.assert_array_equal(one.columns.pop("audio_tokens"), other.columns.pop("audio_tokens"))
            assert one.columns == other.columns
        else:
            assert isinstance(one, Failed) and isinstance(other, Failed)
            assert one.error.reason is other.error.reason and one.error.uri.startswith("s3://")
            assert "/tmp" not in str(one.error)


def test_copies_run_ahead_of_decodes(store: str, monkeypatch: pytest.MonkeyPatch):
    """With one thread that decodes, the six copies are waited for together, not one after the other."""
    local_file = read_ahead.local_file

    class Slow:
        def __init__(self, uri: str) -> None:
            self._file = local_file(uri)

        def __enter__(self) -> str:
            time.sleep(0.5)
            return self._file.__enter__()

        def __exit__(self, *error: object) -> None:
            self._file.__exit__(None, None, None)

    monkeypatch.setattr(read_ahead, "local_file", Slow)
    begin = time.monotonic()
    files = read_ahead.read_ahead(list(scan([store])), [STAGE.spec], Resources(decode_threads=1))
    assert sum(len(list(file)) for file in files) == 6
    assert time.monotonic() - begin < 2.5  # 3 s of waiting, one after the other


def test_no_copy_is_left_when_the_consumer_goes(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    files: Any = read_ahead.read_ahead(list(scan([store])), [STAGE.spec], Resources(decode_threads=1))
    next(iter(next(files)))
    files.close()
    assert list((tmp_path / "copies").iterdir()) == []


def test_text_beside_recordings_is_told_from_listings(store: str, monkeypatch: pytest.MonkeyPatch):
    names = [entry.uri for entry in scan([store])]
    for number, uri in enumerate(names):
        stem = uri.removesuffix(".wav")
        if number % 2:
            put(f"{stem}.txt", b"piano")
            put(f"{stem}.json", json.dumps({"caption": "slow"}).encode())
    put(f"{store}/0 ü#%.lyrics", b"")
    put(f"{store}/5 ü#%.lyrics", b"\xff\x00\xff")
    monkeypatch.setattr(listing, "PAGE", 5)
    listed: list[str] = []
    pages = beside.pages
    monkeypatch.setattr(beside, "pages", lambda *args, **named: (listed.append(args[1]), pages(*args, **named))[1])
    outcomes = [outcome for _, outcome in ReadText.run([ReadText()], [Entry(uri) for uri in names], Resources())]
    assert len(listed) < len(names)
    for number, outcome in enumerate(outcomes[:5]):
        assert isinstance(outcome, Kept)
        text = (outcome.columns["tags"], outcome.columns["prompt"])
        assert text == (("piano", "slow") if number % 2 else (None, None))
    assert isinstance(outcomes[5], Failed) and outcomes[5].error.reason is Reason.CORRUPT


def test_a_bad_network_loses_nothing(store: str, bad_network: FaultyProxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    bad_network.choose = at_random(0.25, seed=1, faults=("500", "503", "torn", "lost"))
    entries = list(scan([store]))
    assert len(entries) == 6
    files = read_ahead.read_ahead(entries, [STAGE.spec], Resources())
    assert sum(len(list(file)) for file in files) == 6
    bad_network.choose = lambda method, path: "500" if method == "GET" else None
    files = read_ahead.read_ahead(entries[:1], [STAGE.spec], Resources())
    with pytest.raises(InputError) as caught:
        list(next(files))
    assert caught.value.reason is Reason.UNREADABLE and caught.value.uri == entries[0].uri
