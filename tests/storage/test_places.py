from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from audioprep.errors import UsageError
from audioprep.storage import places, transfer
from audioprep.storage.places import is_url, retried, to_place


@pytest.mark.parametrize("text", ["s3://bucket/a", "https://host/a.flac", "hf://datasets/org/name", "GS://b"])
def test_what_is_a_url(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize("text", ["a/b", "/a//b", "~/music", "file:///a", "C:\\music", "no scheme://x", "a:b"])
def test_what_is_a_path(text: str) -> None:
    assert not is_url(text)


def test_local_places_are_paths(tmp_path: Path) -> None:
    assert to_place(str(tmp_path)) == tmp_path == to_place(tmp_path) == to_place(f"file://{tmp_path}")
    assert to_place("~/music") == Path.home() / "music"


def test_an_unknown_scheme_is_told() -> None:
    with pytest.raises(UsageError, match=r"nowhere://x: no store is known for nowhere://"):
        to_place("nowhere://x")


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    monkeypatch.setattr("upath.core.get_filesystem_class", missing, raising=False)
    with pytest.raises(UsageError, match=r"audioprep\[s3\]"):
        to_place("s3://bucket/never-opened-before")


def test_what_fails_for_a_while_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(places.time, "sleep", pauses.append)
    answers = iter([OSError("busy"), TimeoutError("slow"), EOFError("torn")])

    def call() -> str:
        for answer in answers:
            raise answer
        return "here"

    assert retried(call) == "here"
    assert pauses == [0.5, 1.0, 2.0]


def test_what_is_not_there_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.time, "sleep", lambda seconds: pytest.fail("a second try"))

    def call() -> None:
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError):
        retried(call)


def test_a_file_goes_to_a_store_and_back_in_ranges(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 1000)
    data = bytes(range(256)) * 41
    (tmp_path / "a").write_bytes(data)
    place = to_place(f"{bucket}/folder/a b#1.bin")
    assert isinstance(place, UPath)
    transfer.upload(tmp_path / "a", place)
    transfer.download(place, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


def test_an_empty_file_comes_back(bucket: str, tmp_path: Path) -> None:
    place = UPath(f"{bucket}/empty")
    place.write_bytes(b"")
    transfer.download(place, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b""


def test_a_file_that_changes_meanwhile_is_refused(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = UPath(f"{bucket}/a")
    place.write_bytes(b"before")
    read = place.fs.cat_file

    def read_and_change(path: str, start: int, end: int) -> object:
        data = read(path, start=start, end=end)
        place.write_bytes(b"behind")
        return data

    monkeypatch.setattr(place.fs, "cat_file", read_and_change)
    with pytest.raises(OSError, match="changed while it was read"):
        transfer.download(place, tmp_path / "b")
