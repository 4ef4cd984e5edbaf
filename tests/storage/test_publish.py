"""What is made for a URL is made here, and sent when it is whole; the same again sends only what is new."""

from __future__ import annotations

from pathlib import Path

import pytest
from upath import UPath

from audioprep.errors import UsageError
from audioprep.storage import transfer
from audioprep.storage.places import to_place
from audioprep.storage.publish import adding, publishing, publishing_file, require_location, working_path


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOPREP_CACHE", str(tmp_path / "kept"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are sent, in their order."""
    names: list[str] = []
    upload = transfer.upload

    def noted(source: Path, target: UPath) -> None:
        names.append(target.path.partition("/")[2])
        upload(source, target)

    monkeypatch.setattr(transfer, "upload", noted)
    return names


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def there(url: str) -> set[str]:
    fs, path = to_place(url).fs, to_place(url).path  # pyright: ignore[reportAttributeAccessIssue]
    return {name.removeprefix(f"{path}/") for name in fs.find(path)}


def test_only_what_is_new_is_sent_and_what_tells_of_all_comes_last(bucket: str, sent: list[str]):
    url = f"{bucket}/export #1"
    with publishing(to_place(url)) as folder:
        assert folder == working_path(to_place(url)) and folder.name == "export #1"
        fill(folder, all_json="1", data__a_npy="a", data__b_npy="b", **{".audioprep/done": "private"})
    assert sent[-1] == "export #1/all.json" and there(url) == {"all.json", "data/a.npy", "data/b.npy"}
    sent.clear()
    with pytest.raises(RuntimeError), publishing(to_place(url)) as folder:
        raise RuntimeError
    with publishing(to_place(url)) as folder:
        fill(folder, all_json="22", data__c_npy="c")
        (folder / "data/a.npy").unlink()
    assert sent == ["export #1/data/c.npy", "export #1/all.json"]
    assert there(url) == {"all.json", "data/b.npy", "data/c.npy"} and UPath(f"{url}/all.json").read_text() == "22"


def test_a_bucket_that_is_not_there_is_told(bucket: str):
    with (
        pytest.raises(UsageError, match=r"s3://no-such-bucket/x/all\.json: there is no such bucket"),
        publishing(to_place("s3://no-such-bucket/x")) as folder,
    ):
        fill(folder, all_json="1")


def test_what_failed_is_sent_by_the_next_run(bucket: str, sent: list[str], monkeypatch: pytest.MonkeyPatch):
    url = f"{bucket}/torn"
    upload = transfer.upload

    def refuse_b(source: Path, target: UPath) -> None:
        if source.name == "b.npy":
            raise PermissionError("not now")
        upload(source, target)

    monkeypatch.setattr(transfer, "upload", refuse_b)
    with pytest.raises(UsageError, match="permission"), publishing(to_place(url)) as folder:
        fill(folder, all_json="1", data__a_npy="a", data__b_npy="b")
    assert there(url) == {"data/a.npy"}
    monkeypatch.setattr(transfer, "upload", upload)
    sent.clear()
    with publishing(to_place(url)):
        pass
    assert sent == ["torn/data/b.npy", "torn/all.json"]


def test_another_ones_folder_is_left_alone(bucket: str, tmp_path: Path):
    UPath(f"{bucket}/theirs/a.txt").write_text("theirs")
    with pytest.raises(UsageError, match="is not empty"), publishing(to_place(f"{bucket}/theirs")):
        pytest.fail("nothing is made for it")
    with adding(to_place(f"{bucket}/theirs")) as folder:
        fill(folder, b_wav="ours")
    assert there(f"{bucket}/theirs") == {"a.txt", "b.wav"}
    with publishing(tmp_path / "local") as folder, adding(folder) as same:
        assert folder == same == tmp_path / "local"


def test_one_file(bucket: str, tmp_path: Path):
    for dest in (to_place(f"{bucket}/w/c.safetensors"), tmp_path / "w/c.safetensors"):
        with publishing_file(dest) as path:
            path.write_bytes(b"weights")
        assert dest.read_bytes() == b"weights"
    assert not working_path(to_place(f"{bucket}/w/c.safetensors")).exists()


def test_two_at_once(bucket: str):
    with (
        publishing(to_place(f"{bucket}/x")),
        pytest.raises(UsageError, match="another run"),
        publishing(to_place(f"{bucket}/x")),
    ):
        pytest.fail("one of them leaves")


def test_paths_in_an_export_need_a_location(tmp_path: Path, bucket: str):
    require_location(tmp_path, None)
    require_location(to_place(bucket), "/data/set")
    with pytest.raises(UsageError, match="--location"):
        require_location(to_place(bucket), None)
