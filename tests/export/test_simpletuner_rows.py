"""What becomes of songs: as they are, in pieces, or left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from song_exports import ENDING_ROW, LAYOUTS, export, export_one
from song_sets import make_song, tokens_of, write_song_set
from song_traps import table_rows

from audioprep.errors import UsageError
from audioprep.export.simpletuner import Options
from audioprep.export.simpletuner_check import check
from audioprep.export.simpletuner_config import LayoutName
from audioprep.export.simpletuner_rows import Cutting

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
        make_song(4, 90, audio_tokens=np.concatenate([tokens_of(4, 90), ENDING_ROW]).astype(np.uint16), num_frames=91),
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
    expected = np.concatenate([song["audio_tokens"], ENDING_ROW]) if ending else song["audio_tokens"]
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
