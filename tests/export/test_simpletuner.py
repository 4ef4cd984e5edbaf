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
from song_sets import SPEC, make_song, tokens_of, write_song_set
from song_traps import BACKEND, TABLE, index_rows, table_rows

from audioprep.errors import SystemFault, UsageError
from audioprep.export.exclusions import Exclusions
from audioprep.export.simpletuner import Options, SimpleTunerExport
from audioprep.export.simpletuner_check import check
from audioprep.export.simpletuner_config import LayoutName
from audioprep.export.simpletuner_rows import Cutting
from audioprep.shards.writers import Format

LENGTHS = [60, 90, 20, 33, 1200]
LAYOUTS: list[LayoutName] = ["folder", "inline", "jsonl"]
ending_row = np.full((1, 8), 8193)


def songs() -> list[list[Item]]:
    """Two shards; the third song is an instrumental."""
    made = [make_song(number, frames) for number, frames in enumerate(LENGTHS)]
    made[2]["lyrics"] = None
    return [made[:3], made[3:]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_song_set(tmp_path / "out", songs())


def export(out: Path, folder: Path, options: Options | None = None, overwrite: bool = False) -> dict[str, Any]:
    return SimpleTunerExport(out, folder, options or Options()).run(overwrite, lambda done, total: None)


def export_one(root: Path, song: Item, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Exports this and a plain song; gives the counts, and the rows of this one with their tokens."""
    out = write_song_set(root / "one", [[song, make_song(99, 50)]])
    folder = root / "export"
    details = export(out, folder, Options(**options), overwrite=True)
    rows = [row for row in table_rows(folder) if row["id"].startswith(song["id"])]
    return details, [row | {"tokens": np.load(folder / row["audio_tokens_path"])} for row in rows]


def backend(folder: Path) -> dict[str, Any]:
    (entry,) = json.loads((folder / BACKEND).read_text())
    return entry


def everything(folder: Path) -> dict[str, bytes]:
    """All that the trainer may read."""
    names = [path for path in folder.rglob("*") if path.is_file() and ".audioprep" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


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
        np.testing.assert_array_equal(tokens, np.concatenate([tokens_of(number, LENGTHS[number]), ending_row]))
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


LEFT_OUT = {
    "no-tags": {"tags": " "},
    "list-tags": {"tags": "['piano', 'happy']"},
    "numeric-tags": {"tags": "1984"},
    "numeric-lyrics": {"lyrics": "4.33"},
    "eight-frames": {"audio_tokens": tokens_of(1, 8), "num_frames": 8, "duration": 0.6},
    "wrong-shape": {"audio_tokens": tokens_of(1, 0), "num_frames": 0, "duration": 0.0},
    "wrong-ids": {"audio_tokens": np.full((90, 8), 9000, np.uint16)},
    "ending-within": {"audio_tokens": np.where(np.arange(90)[:, None] == 7, 8193, tokens_of(1, 90)).astype(np.uint16)},
    "wrong-rate": {"duration": 3.6},
    "too-long-to-sing": {"audio_tokens": tokens_of(1, 9000), "num_frames": 9000, "duration": 720.0},
    "long-prompt": {"audio_tokens": tokens_of(1, 9000), "num_frames": 9000, "duration": 720.0, "lyrics": None,
                    "tags": "a" * 8000},
}  # fmt: skip


@pytest.mark.parametrize("reason", LEFT_OUT)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_simpletuner_cannot_take_is_left_out_by_name(tmp_path: Path, reason: str, layout: LayoutName):
    song = make_song(1, 90) | LEFT_OUT[reason]
    out = write_song_set(tmp_path / "out", [[make_song(0, 60), song]])
    # Normalizing would mend a list.
    details = export(out, tmp_path / "songs", Options(layout, normalize=reason != "list-tags"))
    assert (details["items"], details["rows"], details["left_out"]) == (2, 1, {reason: 1})
    (entry,) = [json.loads(line) for line in (tmp_path / "songs/left_out.jsonl").read_text().splitlines()]
    assert {name: entry[name] for name in ("id", "uri", "reason")} == {
        "id": song["id"], "uri": song["uri"], "reason": reason,
    }  # fmt: skip
    assert check(tmp_path / "songs") == []
    write_song_set(out, [[song]])
    with pytest.raises(UsageError, match=f"of 1 items 0 rows are left, and a step takes 1. Left out: 1 {reason};"):
        export(out, tmp_path / "none", Options(normalize=False))


def test_nothing_is_left_out_that_it_can_take(tmp_path: Path):
    made = [
        make_song(0, 1), make_song(1, 9), make_song(2, 7), make_song(3, 200, tags="jazz, 1984"),
        make_song(4, 90, audio_tokens=np.concatenate([tokens_of(4, 90), ending_row]).astype(np.uint16), num_frames=91),
    ]  # fmt: skip
    out = write_song_set(tmp_path / "out", [made])
    assert export(out, tmp_path / "songs")["left_out"] == {}
    rows = table_rows(tmp_path / "songs")
    assert [row["num_frames"] for row in rows] == [1, 9, 7, 200, 90]
    assert len(np.load(tmp_path / "songs" / rows[4]["audio_tokens_path"])) == 90  # its ending is by flag
    # With an ending, seven are eight, and eight nine.
    assert export(out, tmp_path / "ending", Options(cutting=Cutting(ending=True)))["left_out"] == {"eight-frames": 1}


@pytest.mark.parametrize("ending", [False, True])
def test_long_songs_are_cut_at_chunks(tmp_path: Path, ending: bool):
    song = make_song(1, 9000, lyrics=None)
    details, rows = export_one(tmp_path, song, cutting=Cutting(ending=ending))
    assert (details["segmented"], details["rows"], details["lyrics_emptied"]) == (1, 3, 0)
    assert [row["num_frames"] for row in rows] == [13 * 372, 9000 - 13 * 372]
    expected = np.concatenate([song["audio_tokens"], ending_row]) if ending else song["audio_tokens"]
    np.testing.assert_array_equal(np.concatenate([row["tokens"] for row in rows]), expected)
    assert sum(row["duration"] for row in rows) == pytest.approx(song["duration"], abs=1e-2)
    assert check(tmp_path / "export") == []


@pytest.mark.parametrize(
    ("cutting", "lengths"),
    [
        (Cutting(max_frames=1000), [744, 456]),
        (Cutting(max_frames=400), [372, 372, 372, 84]),
        (Cutting(max_frames=1000, multiple=100), [600, 600]),
        (Cutting(max_frames=100), [100] * 12),
        (Cutting(max_frames=1200), [1200]),
    ],
)
def test_how_songs_are_cut(tmp_path: Path, cutting: Cutting, lengths: list[int]):
    assert [row["num_frames"] for row in export_one(tmp_path, make_song(1, 1200, lyrics=""), cutting=cutting)[1]] == (
        lengths
    )


def test_a_piece_of_eight_frames_is_left_out(tmp_path: Path):
    details, rows = export_one(tmp_path, make_song(1, 380, lyrics=None), cutting=Cutting(max_frames=372))
    assert (details["left_out"], [row["num_frames"] for row in rows]) == ({"eight-frames": 1}, [372])


def test_lyrics_of_long_songs(tmp_path: Path):
    song = make_song(1, 9000)
    assert export_one(tmp_path, song)[0]["left_out"] == {"too-long-to-sing": 1}
    assert export_one(tmp_path, song, cutting=Cutting("drop"))[0]["left_out"] == {"too-long": 1}
    details, rows = export_one(tmp_path, song, cutting=Cutting("segment-all"))
    assert (details["lyrics_emptied"], [row["lyrics"] for row in rows]) == (2, ["", ""])
    lrc = "[ti:Song]\n[00:01.00]First\n[06:26.87]Before the cut\n[Chorus]\n[06:26.88][08:00.5]After\n"
    details, rows = export_one(tmp_path, song | {"lyrics": lrc})
    assert details["lyrics_emptied"] == 0
    assert [row["lyrics"] for row in rows] == [
        "First\nBefore the cut", "[Chorus]\nAfter\n\n[Chorus]\nAfter",
    ]  # fmt: skip
    whole = export_one(tmp_path, make_song(1, 90, lyrics="[00:01.00]La\n[00:02.00]li"))[1]
    assert [row["lyrics"] for row in whole] == ["La\nli"]


def test_texts_become_what_heartmula_knows_unless_they_shall_not(tmp_path: Path):
    song = make_song(1, 90, tags="['jazz', 'piano']", lyrics="Verse 1:\nLa [laughs]")
    (row,) = export_one(tmp_path, song)[1]
    assert (row["tags"], row["lyrics"]) == ("jazz,piano", "[Verse]\nLa")
    (row,) = export_one(tmp_path, song | {"tags": " jazz, piano"}, normalize=False)[1]
    assert (row["tags"], row["lyrics"]) == ("jazz, piano", "Verse 1:\nLa [laughs]")


def test_prompts_are_counted(tmp_path: Path):
    """8192 rows take tags (4 letters and <tag></tag>), a style, lyrics, and what ends and begins each of the texts."""
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    frames = 8192 - (4 + 11 + 2) - 1 - (6 + 2)
    song = make_song(1, frames, tags="jazz", lyrics="İ" * 2)  # each is an i and a dot above in lower case: 3 bytes
    assert len(export_one(tmp_path, song)[1]) == 1
    longer = make_song(1, frames + 1, tags="jazz", lyrics="İ" * 2)
    assert export_one(tmp_path, longer)[0]["left_out"] == {"too-long-to-sing": 1}
    # A tokenizer that makes one token of each word.
    assert len(export_one(tmp_path, longer, tokenizer=tokenizer)[1]) == 1
    with pytest.raises(UsageError, match="is no tokenizer"):
        export_one(tmp_path, song, tokenizer=tmp_path / "one/dataset.json")


def write_tokenizer(path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocab={"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    tokenizer.save(str(path))
    return path


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
