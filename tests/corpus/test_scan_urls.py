"""Scans of stores: folders page by page, keys with every odd character, manifests and data sets behind URLs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from audioprep.corpus.content import content_id, local_file
from audioprep.corpus.lyrics import scan_lyrics
from audioprep.corpus.scan import scan, scan_scores
from audioprep.errors import InputError, Reason, UsageError
from audioprep.storage import listing

ODD = ["100%25.flac", "a b#1?x=2&y+z.flac", "a//b.flac", "b.parquet#row=x.flac", "さくら é.FLAC"]


def put(url: str, data: bytes = b"sound") -> str:
    place = UPath(url, use_listings_cache=False)
    place.fs.pipe_file(place.path, data)
    return url


def uris(*sources: str) -> list[str]:
    return [entry.uri for entry in scan(sources)]


def test_a_folder_is_listed_page_by_page_and_odd_keys_survive(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "PAGE", 2)
    for name in [*ODD, "notes.txt", "folder/"]:
        put(f"{bucket}/music/{name}")
    put(f"{bucket}/musical.flac")
    found = list(scan([f"{bucket}/music"]))
    assert [entry.uri for entry in found] == sorted(f"{bucket}/music/{name}" for name in ODD)
    assert {entry.size for entry in found} == {5}
    for entry in found:
        with local_file(entry.uri) as path:
            assert Path(path).read_bytes() == b"sound" and Path(path).suffix.lower() == ".flac"
        assert not Path(path).exists()


def test_files_manifests_and_scores_by_url(bucket: str, tmp_path: Path):
    song = put(f"{bucket}/lists/a/so ng.flac")
    put(f"{bucket}/lists/a/one.mid")
    rows = [{"path": "so ng.flac", "tags": "x"}, {"path": "../b.flac"}, {"path": "s3://else/c.flac"}, {"path": ""}]
    put(f"{bucket}/lists/a/list.jsonl", "\n".join(map(json.dumps, rows)).encode())
    found = {entry.uri: entry for entry in scan([f"{bucket}/lists/a/list.jsonl"])}
    assert found[song].tags == "x" and f"{bucket}/lists/b.flac" in found and "s3://else/c.flac" in found
    assert found[f"{bucket}/lists/a/list.jsonl#line=4"].problem
    here = tmp_path / "list.csv"
    here.write_text(f"path\nlocal.flac\n{song}\n")
    assert uris(str(here)) == [str(tmp_path / "local.flac"), song]
    assert [entry.size for entry in scan([song])] == [5]
    assert [entry.uri for entry in scan_scores([f"{bucket}/lists"])] == [f"{bucket}/lists/a/one.mid"]
    here.write_text("path\nnowhere://x/y.flac\n")
    with pytest.raises(UsageError, match="nowhere://: no store is known"):
        uris(str(here))


def test_lyrics_of_a_store(bucket: str):
    for name in ("a.lyrics", "b.txt", "c.txt", "c.flac"):
        put(f"{bucket}/words/{name}")
    put(f"{bucket}/table.csv", b"lyrics,lang\nla la,en\n")
    found = [entry.uri for entry in scan_lyrics([f"{bucket}/words", f"{bucket}/table.csv"])]
    assert found == [f"{bucket}/table.csv#line=2", f"{bucket}/words/a.lyrics", f"{bucket}/words/b.txt"]
    with pytest.raises(UsageError, match="no file of lyrics"):
        list(scan_lyrics([f"{bucket}/words/c.flac"]))


def test_audio_inside_parquet_of_a_store(bucket: str, tmp_path: Path):
    put(f"{bucket}/set/beside.wav", b"beside")
    rows = [{"bytes": b"one", "path": "1.wav"}, {"bytes": None, "path": "beside.wav"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"audio": rows, "text": ["a", "b", "c"]}), tmp_path / "t.parquet", row_group_size=1)
    url = put(f"{bucket}/set/x#y.parquet", (tmp_path / "t.parquet").read_bytes())
    found = list(scan([url]))
    assert [(entry.uri, entry.prompt) for entry in found] == [(f"{url}#row={n}", text) for n, text in enumerate("abc")]
    contents = []
    for entry in found[:2]:
        with local_file(entry.uri) as path:
            contents.append(Path(path).read_bytes())
    assert contents == [b"one", b"beside"]
    with pytest.raises(InputError, match="no audio bytes") as caught, local_file(found[2].uri):
        pass
    assert caught.value.reason is Reason.EMPTY


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3://no-such-bucket-here/music", "no such file, folder or bucket"),
        ("s3://no-such-bucket-here/list.csv", "no such file, folder or bucket"),
        ("s3://no-such-bucket-here/data.parquet", "no such file, folder or bucket"),
        ("nowhere://x", "no store is known for nowhere://"),
    ],
)
def test_a_source_that_is_not_there(bucket: str, source: str, said: str):
    with pytest.raises(UsageError, match=said):
        list(scan([source]))
    with pytest.raises(InputError) as caught, local_file(f"{bucket}/none.flac"):
        pass
    assert caught.value.reason is Reason.NOT_FOUND


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self):
        if "refused" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a server of HTTP, without ranges, for the folder `web`."""
    (tmp_path / "web/deep er").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_folders_and_manifests_over_http(web: str, tmp_path: Path):
    for name in ("a.flac", "deep er/b #1.flac", "c.txt", "refused.flac"):
        (tmp_path / "web" / name).write_bytes(b"sound of " + name.encode())
    (tmp_path / "web/list.csv").write_text("path\ndeep er/b #1.flac\nnone.flac\n")
    pq.write_table(pa.table({"audio": [{"bytes": b"inside", "path": "1.wav"}]}), tmp_path / "web/data.parquet")
    deep = f"{web}/deep%20er/b%20%231.flac"
    assert uris(f"{web}/") == [f"{web}/a.flac", deep, f"{web}/refused.flac"]
    assert uris(f"{web}/list.csv?token=1") == [deep, f"{web}/none.flac"]
    (inside,) = uris(f"{web}/data.parquet")
    for uri, data in (
        (deep, b"sound of deep er/b #1.flac"),
        (inside, b"inside"),
        (f"{web}/a.flac?x=1", b"sound of a.flac"),
    ):
        with local_file(uri) as path:
            assert Path(path).read_bytes() == data
    for name, reason in (("none.flac", Reason.NOT_FOUND), ("refused.flac", Reason.NO_PERMISSION)):
        with pytest.raises(InputError) as caught, local_file(f"{web}/{name}"):
            pass
        assert caught.value.reason is reason


def test_the_id_is_that_of_the_same_file_here(bucket: str, tmp_path: Path):
    (tmp_path / "a.flac").write_bytes(bytes(range(256)) * 99)
    put(f"{bucket}/a.flac", (tmp_path / "a.flac").read_bytes())
    with local_file(f"{bucket}/a.flac") as copy:
        assert content_id(copy) == content_id(str(tmp_path / "a.flac"))


def test_no_room_for_a_copy_is_the_machines_fault(bucket: str, monkeypatch: pytest.MonkeyPatch):
    from audioprep.errors import SystemFault
    from audioprep.storage import transfer

    put(f"{bucket}/a.flac")
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: transfer.shutil._ntuple_diskusage(9, 5, 4))
    with pytest.raises(SystemFault, match="TMPDIR"), local_file(f"{bucket}/a.flac"):
        pass
