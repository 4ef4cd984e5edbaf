from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from latent_sets import Item
from song_exports import ENDING_ROW, LAYOUTS, backend, everything, export
from song_sets import SPEC, make_song, tokens_of, write_song_set
from song_traps import BACKEND, TABLE, index_rows, table_rows

from audioprep.corpus.exclusions import Exclusions
from audioprep.errors import SystemFault, UsageError
from audioprep.export.simpletuner import Options
from audioprep.export.simpletuner_check import check
from audioprep.export.simpletuner_config import LayoutName
from audioprep.export.simpletuner_rows import Cutting
from audioprep.shards.writers import Format

LENGTHS = [60, 90, 20, 33, 1200]


def songs() -> list[list[Item]]:
    """Two shards; the third song is an instrumental."""
    made = [make_song(number, frames) for number, frames in enumerate(LENGTHS)]
    made[2]["lyrics"] = None
    return [made[:3], made[3:]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_song_set(tmp_path / "out", songs())


@pytest.mark.parametrize("storage", ["parquet", "webdataset"])
def test_a_data_set_of_datasets(tmp_path: Path, storage: Format):
    from datasets import load_dataset

    out = write_song_set(tmp_path / "out", songs(), storage=storage)
    details = export(out, tmp_path / "songs")
    found: Any = load_dataset(str(tmp_path / "songs"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == details["rows"] == 5
    for number, row in enumerate(found):
        expected = make_song(number, LENGTHS[number])
        assert (row["tags"], row["lyrics"]) == (expected["tags"], "" if number == 2 else expected["lyrics"])
        assert row["duration"] == pytest.approx(expected["duration"])
        tokens = np.load(tmp_path / "songs" / row["audio_tokens_path"])
        assert tokens.dtype == np.int16
        np.testing.assert_array_equal(tokens, tokens_of(number, LENGTHS[number]))
    assert (tmp_path / "songs" / TABLE).is_file()


def test_inline(tmp_path: Path, out: Path):
    from datasets import load_dataset

    details = export(out, tmp_path / "songs", Options("inline", hub="me/songs"))
    found: Any = load_dataset(str(tmp_path / "songs"), split="train", cache_dir=str(tmp_path / "cache"))
    for number, row in enumerate(found):
        np.testing.assert_array_equal(row["audio_tokens"], tokens_of(number, LENGTHS[number]))
    assert str(pq.read_schema(tmp_path / "songs" / TABLE).field("audio_tokens").type) == (
        "list<element: list<element: int32>>"
    )
    assert not (tmp_path / "songs/tokens").exists()
    entry = backend(tmp_path / "songs")
    assert entry["dataset_name"] == "me/songs" and "instance_data_dir" not in entry
    assert details["without_lyrics"] == 1


def test_a_local_index(tmp_path: Path, out: Path):
    import pandas

    export(out, tmp_path / "songs", Options("jsonl"))
    rows = index_rows(tmp_path / "songs")
    assert [row["lyrics"] for row in rows][2] == " "
    for number, row in enumerate(rows):
        assert (tmp_path / "songs" / row["filename"]).stat().st_size == 0
        np.testing.assert_array_equal(
            np.load(tmp_path / "songs" / row["audio_tokens_path"]), tokens_of(number, LENGTHS[number])
        )
    read = pandas.read_json(tmp_path / "songs/songs.jsonl", lines=True)
    assert list(read["tags"]) == [row["tags"] for row in rows]
    block = backend(tmp_path / "songs")["parquet"]
    named = {value for name, value in block.items() if name.endswith("_column")}
    assert named <= set(rows[0])
    assert Path(block["path"]) == tmp_path / "songs/songs.jsonl"


def test_what_the_trainer_is_started_with(tmp_path: Path, out: Path):
    details = export(out, tmp_path / "songs", Options(batch_size=2))
    entry = backend(tmp_path / "songs")
    assert entry == {
        "id": details["id"],
        "dataset_type": "audio",
        "type": "huggingface",
        "dataset_name": str(tmp_path / "songs"),
        "metadata_backend": "huggingface",
        "caption_strategy": "huggingface",
        "split": "train",
        "instance_data_dir": str(tmp_path / "songs"),
    }
    config = json.loads((tmp_path / "songs/config.json").read_text())
    assert config["data_backend_config"] == str(tmp_path / "songs" / BACKEND)
    needed = ("model_family", "model_type", "model_flavour", "resolution", "train_batch_size")
    assert [config[name] for name in needed] == ["heartmula", "lora", "3b", 0, 2]
    assert details["train_with"] == f"simpletuner train env={tmp_path / 'songs'}/config.json"
    assert details["licenses"] == {"CC BY 4.0": 2, "not stated": 3}


def test_another_machine(tmp_path: Path, out: Path):
    export(out, tmp_path / "songs", Options("jsonl", location="/data/songs/", name="My songs!"))
    entry = backend(tmp_path / "songs")
    assert entry["parquet"]["path"] == "/data/songs/songs.jsonl" and entry["id"].startswith("My-songs--")
    with pytest.raises(UsageError, match="--location songs: give an absolute path"):
        export(out, tmp_path / "songs", Options(location="songs"))
    with pytest.raises(UsageError, match="--hub: goes with --layout inline, and not with folder"):
        export(out, tmp_path / "songs", Options(hub="me/songs"))


def test_pt_files(tmp_path: Path, out: Path):
    import torch

    export(out, tmp_path / "songs", Options(token_format="pt", cutting=Cutting(ending=True)))
    for number, row in enumerate(table_rows(tmp_path / "songs")):
        tokens = torch.load(tmp_path / "songs" / row["audio_tokens_path"], weights_only=True)
        assert tokens.dtype == torch.int64 and tokens.is_contiguous()
        np.testing.assert_array_equal(tokens, np.concatenate([tokens_of(number, LENGTHS[number]), ENDING_ROW]))
    before = everything(tmp_path / "songs")
    export(out, tmp_path / "songs", Options(token_format="pt", cutting=Cutting(ending=True)), overwrite=True)
    assert everything(tmp_path / "songs") == before


def test_an_id_for_every_content(tmp_path: Path, out: Path):
    def id_of(folder: str = "songs", **options: Any) -> str:
        return export(out, tmp_path / folder, Options(**options), overwrite=True)["id"]

    first = id_of()
    assert first.startswith("songs-") and id_of() == first
    others = [
        id_of(cutting=Cutting(ending=True)),
        id_of(limit=4),
        id_of("other", name="songs"),
        id_of(token_format="pt"),
    ]
    assert len({first, *others}) == 5
    made = songs()
    made[0][0]["lyrics"] = "Another line"
    write_song_set(out, made)
    assert id_of() != first
    made[0][0] |= {"lyrics": songs()[0][0]["lyrics"], "audio_tokens": tokens_of(0, 60) ^ 1}
    write_song_set(out, made)
    assert id_of() != first
    write_song_set(out, songs())
    assert id_of() == first


def test_buckets(tmp_path: Path, out: Path):
    """Every bucket has a batch; where no interval gives that, rows have no duration, which is one bucket."""
    close = write_song_set(tmp_path / "close", [[make_song(number, 440 + 6 * number) for number in range(6)]])
    for batch_size, interval in ((1, 3.0), (2, 3.0), (3, 30.0), (6, 30.0)):
        details = export(close, tmp_path / "songs", Options(batch_size=batch_size))
        assert details["bucket_seconds"] == interval
        assert backend(tmp_path / "songs")["audio"] == {"bucket_strategy": "duration", "duration_interval": interval}
        assert check(tmp_path / "songs") == []
    for layout in LAYOUTS:
        assert export(out, tmp_path / layout, Options(layout, batch_size=5))["bucket_seconds"] is None
        assert check(tmp_path / layout) == []
    assert "duration" not in table_rows(tmp_path / "folder")[0]
    with pytest.raises(UsageError, match="of 5 items 5 rows are left, and a step takes 6"):
        export(out, tmp_path / "folder", Options(batch_size=6))


def test_excluded_and_repeated_songs(tmp_path: Path):
    made = [make_song(0, 60), make_song(0, 60, lyrics="Copy"), make_song(1, 20)]
    out = write_song_set(tmp_path / "out", [made])
    details = export(out, tmp_path / "songs", Options(exclusions=Exclusions(frozenset({"1.mp3"}))))
    assert (details["items"], details["excluded"], details["rows"]) == (3, 1, 2)
    key = made[0]["id"]
    assert [row["id"] for row in table_rows(tmp_path / "songs")] == [key, f"{key}_2"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_export_goes_on_to_the_same_bytes(
    tmp_path: Path, out: Path, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "at_once" / "songs"
    export(out, here, Options(layout, location="/songs"))
    expected = everything(here)
    there = tmp_path / "songs"
    for stop_after in (1, 2, 3, 5, 8):
        with monkeypatch.context() as patch:
            left = iter(range(stop_after))

            def replace_or_stop(source: Any, target: Any, left: Any = left, rename: Any = os.replace) -> None:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                rename(source, target)

            patch.setattr(os, "replace", replace_or_stop)
            with pytest.raises(KeyboardInterrupt):
                export(out, there, Options(layout, location="/songs"))
        assert any("the export is not finished" in problem for problem in check(there))
    export(out, there, Options(layout, location="/songs"))
    assert everything(there) == expected


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from audioprep.export.simpletuner import Options, SimpleTunerExport
left = iter(range(int(sys.argv[3])))
rename = os.replace
def replace_or_die(source, target):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace_or_die
SimpleTunerExport(Path(sys.argv[1]), Path(sys.argv[2]), Options(location="/songs")).run(False, lambda *_: None)
"""


def test_a_killed_export_goes_on_to_the_same_bytes(tmp_path: Path, out: Path):
    export(out, tmp_path / "at_once/songs", Options(location="/songs"))
    there = tmp_path / "songs"
    code = KILLED.format(tests=str(Path(__file__).parent))
    for stop_after in ("4", "9"):
        done = subprocess.run([sys.executable, "-c", code, str(out), str(there), stop_after], check=False)
        assert done.returncode == -9
    export(out, there, Options(location="/songs"))
    assert everything(there) == everything(tmp_path / "at_once/songs")


def test_what_is_done_is_not_done_again(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    from audioprep.export.simpletuner_rows import Rows

    export(out, tmp_path / "songs")
    before = everything(tmp_path / "songs")
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "of", lambda *_: pytest.fail("a song was looked at again"))
        export(out, tmp_path / "songs")
    assert everything(tmp_path / "songs") == before
    next((tmp_path / "songs/tokens").rglob("*.npy")).unlink()
    export(out, tmp_path / "songs")
    assert everything(tmp_path / "songs") == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_set_that_has_grown_and_shrunk(tmp_path: Path, layout: LayoutName):
    options = Options(layout, location="/songs")
    out = write_song_set(tmp_path / "out", songs())
    here = tmp_path / "songs"
    first = export(out, here, options)
    write_song_set(out, [songs()[0], [make_song(7, 50)], [make_song(8, 9)]])
    second = export(out, here, options)
    export(out, tmp_path / "new/songs", options)
    assert everything(here) == everything(tmp_path / "new/songs")
    assert first["id"] != second["id"]
    (here / "mine.txt").write_text("kept")
    write_song_set(out, songs()[:1])
    export(out, here, options)
    assert {path.parent.name for path in (here / "tokens").rglob("*.npy")} <= {"train-00000"}
    assert (here / "mine.txt").exists()


def test_other_settings_are_refused(tmp_path: Path, out: Path):
    export(out, tmp_path / "songs")
    before = everything(tmp_path / "songs")
    with pytest.raises(UsageError, match=r"(?s)with other settings:\n  cutting.ending: False → True\n.*--overwrite"):
        export(out, tmp_path / "songs", Options(cutting=Cutting(ending=True)))
    with pytest.raises(UsageError, match="  layout: folder → jsonl\n"):
        export(out, tmp_path / "songs", Options("jsonl"))
    assert everything(tmp_path / "songs") == before
    export(out, tmp_path / "songs", Options("jsonl"), overwrite=True)
    assert not (tmp_path / "songs" / TABLE).exists()
    export(out, tmp_path / "songs", Options("jsonl", batch_size=5, name="other"))  # these need no new start


def test_tokens_that_heartmula_does_not_read(tmp_path: Path, out: Path):
    with pytest.raises(UsageError, match=r"no tokens in a column audio_token\. Did you mean audio_tokens\?"):
        export(out, tmp_path / "songs", Options(column="audio_token"))
    with pytest.raises(UsageError, match="no text in a column tag.* There are: .*tags"):
        export(out, tmp_path / "songs", Options(tags_column="tag"))
    with pytest.raises(UsageError, match=r"8 codebooks of 8192 and 25 frames a second; .*--codec heartcodec"):
        export(write_song_set(out, songs(), spec=replace(SPEC, hop_length=960)), tmp_path / "songs")
    nine = [[make_song(0, 60, audio_tokens=np.zeros((60, 9), np.uint16))]]
    with pytest.raises(UsageError, match="9 codebooks of 8192"):
        export(write_song_set(out, nine, width=9), tmp_path / "songs")
    # Imported tokens have no encoder; each song then has to be as long as it says.
    assert export(write_song_set(out, songs(), spec=None), tmp_path / "songs")["rows"] == 5


def test_a_full_disk_stops_it(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemFault, match="No space left on device.*goes on from here"):
        export(out, tmp_path / "songs")
