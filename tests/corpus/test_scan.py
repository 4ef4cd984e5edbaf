"""What a scan finds: files, folders with odd names and loops, manifests, saved data sets; sorted, each once."""

import csv
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audioprep.corpus import scan as scan_module
from audioprep.corpus.content import content_id, local_file
from audioprep.corpus.entry import Entry, path_to_uri, uri_to_path
from audioprep.corpus.scan import scan
from audioprep.errors import InputError, Reason, UsageError


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(*sources: Path) -> list[str]:
    return [os.path.basename(entry.uri) for entry in scan(map(str, sources))]


def test_a_folder_gives_its_audio_sorted(tmp_path: Path):
    for name in ("b.WAV", "a/c.flac", "a/d.txt", "z.mp3", "z.lyrics", "さくら Ünïcode 🎵.ogg"):
        touch(tmp_path / name)
    found = list(scan([str(tmp_path)]))
    expected = ["a/c.flac", "b.WAV", "z.mp3", "さくら Ünïcode 🎵.ogg"]
    assert [entry.uri for entry in found] == [str(tmp_path / name) for name in expected]
    assert {entry.size for entry in found} == {1}


def test_names_that_are_not_utf8(tmp_path: Path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    with open(raw, "wb") as file:
        file.write(b"x")
    (entry,) = scan([str(tmp_path)])
    assert entry.uri.startswith("file://") and entry.uri.endswith("caf%E9.wav")
    assert os.fsencode(uri_to_path(entry.uri)) == raw
    with local_file(entry.uri) as path:
        assert len(content_id(path)) == 32


def test_symlinks_are_followed_and_loops_are_cut(tmp_path: Path):
    touch(tmp_path / "real/song.wav")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    assert names(tmp_path) == ["song.wav", "song.wav", "self.wav"]  # by two ways, and the link that fails when read


def test_folders_and_pipes_with_audio_names_are_found(tmp_path: Path):
    touch(tmp_path / "album.wav/song.flac")
    os.mkfifo(tmp_path / "pipe.wav")
    assert names(tmp_path) == ["album.wav", "song.flac", "pipe.wav"]


def test_the_same_input_from_two_sources_counts_once(tmp_path: Path):
    song = touch(tmp_path / "music/song.wav")
    assert names(song, tmp_path, tmp_path / "music") == ["song.wav"]


def test_one_file_with_two_texts_gives_two_entries(tmp_path: Path):
    touch(tmp_path / "song.wav")
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"path": "song.wav", "tags": "calm"}\n{"path": "song.wav", "tags": "loud"}\n' * 2)
    assert [(entry.tags, entry.ordinal) for entry in scan([str(manifest)])] == [("calm", 0), ("loud", 1)]


def test_csv_jsonl_and_parquet_manifests_agree(tmp_path: Path):
    rows = [
        {"path": "a.wav", "tags": "piano,calm", "text": "a prompt", "Licence": "CC0-1.0", "split": "test", "bpm": "90"},
        {"path": "sub/b.wav", "tags": "", "text": "", "Licence": "", "split": "", "bpm": ""},
    ]
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with (tmp_path / "m.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    expected = [
        Entry(str(tmp_path / "a.wav"), split="test", tags="piano,calm", prompt="a prompt", license="CC0-1.0",
              metadata='{"bpm": "90"}'),
        Entry(str(tmp_path / "sub/b.wav")),
    ]  # fmt: skip
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        assert list(scan([str(tmp_path / f"m.{suffix}")])) == expected, suffix


def test_tags_in_a_list_and_columns_of_other_tools(tmp_path: Path):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"audio_filepath": "/x/a.wav", "tags": ["piano", "calm"], "duration": 3.5}\n')
    (entry,) = scan([str(manifest)])
    assert (entry.uri, entry.tags, entry.metadata) == ("/x/a.wav", "piano,calm", '{"duration": 3.5}')


def test_a_row_that_names_nothing_becomes_an_entry_with_a_problem(tmp_path: Path):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"path": "a.wav"}\n{"path": null}\nnot json\n[1]\n\n')
    problems = {entry.uri.rpartition("#")[2]: entry.problem for entry in scan([str(manifest)]) if entry.problem}
    assert problems["line=2"] == "the manifest names no file in this row"
    assert problems["line=3"].startswith("line 3 of the manifest cannot be read")
    assert problems["line=4"].endswith("not a JSON object")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"title,length\na,1\n", "no column names the audio files. Found: title, length. Call one of them"),
        ("m.csv", b"path\n\xff\xfe\n", "not a readable CSV manifest.* UTF-8"),
        ("m.parquet", b"PAR1 not really", "not a readable Parquet manifest"),
    ],
)  # fmt: skip
def test_manifests_that_cannot_be_read(name: str, content: bytes, message: str, tmp_path: Path):
    touch(tmp_path / name, content)
    with pytest.raises(UsageError, match=message):
        list(scan([str(tmp_path / name)]))


def test_a_source_that_is_not_there():
    with pytest.raises(UsageError, match="/no/such: no such file or folder"):
        list(scan(["/no/such"]))


def test_audio_inside_parquet_and_saved_datasets(tmp_path: Path):
    from datasets import Audio, Dataset

    rows = {"audio": [{"bytes": b"one", "path": None}, {"bytes": b"two", "path": "b.wav"}], "text": ["first", "second"]}
    dataset = Dataset.from_dict(rows).cast_column("audio", Audio(decode=False))
    dataset.save_to_disk(tmp_path / "saved")
    dataset.to_parquet(tmp_path / "hub.parquet")
    for source in ("saved", "hub.parquet"):
        found = list(scan([str(tmp_path / source)]))
        assert [entry.prompt for entry in found] == ["first", "second"], source
        for entry, expected in zip(found, (b"one", b"two"), strict=True):
            with local_file(entry.uri) as path:
                assert Path(path).read_bytes() == expected


def test_an_embedded_row_without_audio_fails_by_name(tmp_path: Path):
    audio = pa.array([{"bytes": None, "path": "gone.wav"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"audio": audio}), tmp_path / "x.parquet")
    (entry,) = scan([str(tmp_path / "x.parquet")])
    with pytest.raises(InputError) as caught, local_file(entry.uri):
        pass
    assert caught.value.reason is Reason.EMPTY and caught.value.uri == entry.uri


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten times the entries take no more memory than one run and one batch of each run."""
    monkeypatch.setattr(scan_module, "RUN_LENGTH", 500)
    monkeypatch.setattr(scan_module, "MERGE_BATCH", 16)

    def peak(count: int) -> int:
        manifest = tmp_path / f"{count}.csv"
        manifest.write_text("path\n" + "".join(f"{(n * 7919) % count:06d}.wav\n" for n in range(count)))
        tracemalloc.start()
        previous = ""
        for found in scan([str(manifest)]):
            assert previous < found.uri
            previous = found.uri
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1000)
    assert peak(10_000) < 3 * peak(1000)


def test_progress_is_told(tmp_path: Path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\n" + "".join(f"{n}.wav\n" for n in range(2500)))
    told: list[int] = []
    list(scan([str(manifest)], told.append))
    assert told == [1000, 2000, 2500]


def test_uris_of_paths():
    assert path_to_uri("/a b/ü#1.wav") == "/a b/ü#1.wav" == uri_to_path("/a b/ü#1.wav")
