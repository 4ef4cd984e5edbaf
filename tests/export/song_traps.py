"""Data sets for SimpleTuner that look right and are not: one trap each, made of an export that is right.

What SimpleTuner 4.10.1 does with each is tried by tests/interop/test_simpletuner_trainer.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from audioprep.export.simpletuner_config import LayoutName

TABLE, INDEX, BACKEND = "data/train-00000-of-00001.parquet", "songs.jsonl", "multidatabackend.json"


class Trap(NamedTuple):
    """One wrong data set.

    Attributes:
        layout: of the export that it is made of.
        damage: makes it wrong.
        message: what `verify` has to say.
        end: SimpleTuner `fails`, or in silence `spoils` what the model sees or `skips` the row; None: not tried.
    """

    layout: LayoutName
    damage: Callable[[Path], object]
    message: str
    end: Literal["fails", "spoils", "skips"] | None = "fails"


def table_rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / TABLE).to_pylist()


def write_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / TABLE)


def index_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]


def write_index(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / INDEX).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _all(*without: str, **changes: Any) -> Callable[[Path], None]:
    """Changes or removes columns of the table."""

    def damage(folder: Path) -> None:
        rows = [row | changes for row in table_rows(folder)]
        write_table(folder, [{name: value for name, value in row.items() if name not in without} for row in rows])

    return damage


def _one(**changes: Any) -> Callable[[Path], None]:
    """Changes the second row of the table."""

    def damage(folder: Path) -> None:
        rows = table_rows(folder)
        rows[1] |= changes
        write_table(folder, rows)

    return damage


def _renamed(old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        write_table(folder, [{new if name == old else name: row[name] for name in row} for row in table_rows(folder)])

    return damage


def _entry(*without: str, **changes: Any) -> Callable[[Path], None]:
    """Changes or removes settings of the entry."""

    def damage(folder: Path) -> None:
        path = folder / BACKEND
        entry = json.loads(path.read_text())[0] | changes
        path.write_text(json.dumps([{name: value for name, value in entry.items() if name not in without}]))

    return damage


def _indexed(**changes: Any) -> Callable[[Path], None]:
    """Changes the second row of the index."""

    def damage(folder: Path) -> None:
        rows = index_rows(folder)
        rows[1] |= changes
        write_index(folder, rows)

    return damage


def token_file(folder: Path) -> Path:
    """The second row's."""
    return folder / table_rows(folder)[1]["audio_tokens_path"]


def _tokens(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Changes the second row's tokens."""
    return lambda folder: np.save(path := token_file(folder), change(np.load(path)))


def _set(at: Any, value: int) -> Callable[[Any], Any]:
    def change(tokens: Any) -> Any:
        tokens[at] = value
        return tokens

    return change


def _twice(folder: Path) -> None:
    path = folder / BACKEND
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))


def _local_parquet(folder: Path) -> None:
    """The local index as a Parquet file, with the tokens in it."""
    rows = index_rows(folder)
    for row in rows:
        row["audio_tokens"] = np.load(folder / row.pop("audio_tokens_path")).tolist()
    pq.write_table(pa.Table.from_pylist(rows), folder / "songs.parquet")
    entry = json.loads((folder / BACKEND).read_text())[0]
    entry["parquet"]["path"] = str(folder / "songs.parquet")
    (folder / BACKEND).write_text(json.dumps([entry]))


def audio_folder(folder: Path, index: str = "songs.jsonl") -> None:
    """As many keep audio: recordings, and an index beside them; only `metadata.jsonl` is read of those."""
    rows = table_rows(folder)
    (folder / "codes").mkdir()
    for number, row in enumerate(rows):
        soundfile.write(folder / f"{number}.wav", np.zeros(round(8000 * row["duration"])), 8000)
        (folder / row["audio_tokens_path"]).rename(folder / f"codes/{number}.npy")
        row |= {"file_name": f"{number}.wav", "audio_tokens_path": f"codes/{number}.npy"}
    for name in ("data", "tokens", ".audioprep"):
        shutil.rmtree(folder / name)
    (folder / "left_out.jsonl").unlink()
    (folder / index).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _documented_folder(folder: Path) -> None:
    """Recordings with .txt, .lyrics and .tokens.npy, as SimpleTuner's own guide has it."""
    for number, row in enumerate(table_rows(folder)):
        soundfile.write(folder / f"{number}.wav", np.zeros(round(8000 * row["duration"])), 8000)
        (folder / f"{number}.txt").write_text(row["tags"])
        (folder / f"{number}.lyrics").write_text(row["lyrics"])
        (folder / row["audio_tokens_path"]).rename(folder / f"{number}.tokens.npy")
    (folder / TABLE).unlink()
    entry = {"id": "songs", "type": "local", "dataset_type": "audio", "instance_data_dir": str(folder)}
    entry |= {"caption_strategy": "textfile", "metadata_backend": "discovery"}
    (folder / BACKEND).write_text(json.dumps([entry]))


def _index_without_lyrics_column(folder: Path) -> None:
    entry = json.loads((folder / BACKEND).read_text())[0]
    del entry["parquet"]["lyrics_column"]
    (folder / BACKEND).write_text(json.dumps([entry]))


ROW = r"row 1 \(\w+\): "
TRAPS = {
    "no tags": Trap("folder", _one(tags=""), ROW + "has no tags"),
    "null tags": Trap("folder", _one(tags=None), ROW + "has no tags"),
    "list of tags": Trap(
        "folder",
        lambda folder: write_table(folder, [row | {"tags": ["piano", "happy"]} for row in table_rows(folder)]),
        r"row 0 .*, row 1 .*: has a list for tags",
        "spoils",
    ),
    "tags like a list": Trap("folder", _one(tags="['piano', 'happy']"), ROW + "has tags written as a list", "spoils"),
    "tags in another column": Trap("folder", _renamed("tags", "caption"), "has no column tags, but .*caption"),
    "no lyrics column": Trap("folder", _all("lyrics"), "has no column lyrics, but"),
    "null lyrics": Trap("folder", _one(lyrics=None), ROW + r"has no lyrics \(null\)"),
    "no tokens": Trap("folder", _one(audio_tokens_path=None), ROW + "has neither audio_tokens nor"),
    "lost token file": Trap("folder", lambda folder: token_file(folder).unlink(), ROW + "its token file is not there"),
    "damaged token file": Trap("folder", lambda folder: token_file(folder).write_bytes(b"\x93NUMPY"), ROW + ".*cannot"),
    "damaged table": Trap(
        "folder",
        lambda folder: (folder / TABLE).write_bytes((folder / TABLE).read_bytes()[:-9]),
        r"train-00000-of-00001\.parquet: cannot be read to its end",
    ),
    "damaged index": Trap(
        "jsonl",
        lambda folder: (folder / INDEX).write_text((folder / INDEX).read_text()[:-9]),
        r"songs\.jsonl: cannot be read to its end",
    ),
    "relative paths": Trap("folder", _entry("instance_data_dir"), "has a relative audio_tokens_path"),
    "tokens of one dimension": Trap("folder", _tokens(np.ravel), ROW + r"has tokens of another shape than .frames, 8."),
    "nine codebooks": Trap("folder", _tokens(lambda tokens: np.pad(tokens, ((0, 0), (0, 1)))), ROW + ".*another shape"),
    "eight frames": Trap("folder", _tokens(lambda tokens: tokens[:8]), ROW + "has exactly 8 rows of 8 ids"),
    "float tokens": Trap("folder", _tokens(lambda tokens: tokens + 0.5), ROW + "has tokens that are not int", "spoils"),
    "id out of range": Trap("folder", _tokens(_set((3, 4), 9000)), ROW + "has ids outside of 0 to 8191"),
    "negative id": Trap("folder", _tokens(_set((3, 0), -1)), ROW + "has ids outside of 0 to 8191"),
    "ending in the middle": Trap("folder", _tokens(_set(5, 8193)), ROW + "has the id 8193 elsewhere", "spoils"),
    "half an ending": Trap("folder", _tokens(_set((-1, 0), 5)), ROW + "has the id 8193 elsewhere", "spoils"),
    "another encoder": Trap(
        "folder", _tokens(lambda tokens: np.repeat(tokens, 2, axis=0)), ROW + r"has not 12\.5 frames a second", "spoils"
    ),
    "too long": Trap(
        "folder",
        lambda folder: (_tokens(lambda tokens: np.resize(tokens, (8190, 8)))(folder), _one(duration=655.0)(folder)),
        ROW + "does not fit: prompt and frames are more than 8192 rows",
        "spoils",
    ),
    "small bucket": Trap(
        "folder",
        lambda folder: (folder / "config.json").write_text(
            json.dumps(json.loads((folder / "config.json").read_text()) | {"train_batch_size": 2})
        ),
        "the bucket of rows of .* has 1, and a step takes 2",
    ),
    "block config": Trap(
        "folder",
        lambda folder: (
            _renamed("lyrics", "words")(folder),
            _entry(config={"audio_caption_fields": ["tags"], "lyrics_column": "words"})(folder),
        ),
        "its block `config` is ignored",
    ),
    "discovery": Trap("folder", _documented_folder, "songs: its metadata_backend is discovery"),
    "audio folder": Trap("folder", audio_folder, "holds audio, so that `datasets` reads no table but"),
    "another metadata backend": Trap(
        "folder", _entry(metadata_backend="discovery"), "its metadata_backend is discovery, and only huggingface"
    ),
    "same id": Trap("folder", _twice, "2 entries have the id"),
    "no id": Trap("folder", _entry("id"), "1 entries have the id .none."),
    "images": Trap("folder", _entry("dataset_type"), "its dataset_type is not audio"),
    "moved": Trap("folder", _entry(dataset_name="/nowhere/songs"), "its dataset_name /nowhere/songs is not there"),
    "moved root": Trap("folder", _entry(instance_data_dir="/nowhere"), "its instance_data_dir /nowhere is not there"),
    "ragged inline tokens": Trap(
        "inline", _one(audio_tokens=[[1] * 8] * 20 + [[1] * 7]), ROW + "has tokens of another shape"
    ),
    "empty lyrics in the index": Trap("jsonl", _indexed(lyrics=""), r"\.wav: has empty lyrics, which the local index"),
    "numeric tags": Trap("jsonl", _indexed(tags="1984"), r"\.wav: has a number for tags"),
    "numeric lyrics": Trap("jsonl", _indexed(lyrics="4.33"), r"\.wav: has a number for lyrics"),
    "tokens in a local .parquet": Trap("jsonl", _local_parquet, "has its tokens in a local .parquet"),
    "no audio file": Trap(
        "jsonl",
        lambda folder: (folder / index_rows(folder)[1]["filename"]).unlink(),
        r"\.wav: has no audio file under instance_data_dir",
        "skips",
    ),
    "row twice": Trap(
        "jsonl",
        lambda folder: write_index(folder, [*index_rows(folder), index_rows(folder)[1] | {"tags": "never,seen"}]),
        r"\.wav: is in the index twice, of which the first is read",
        "spoils",
    ),
    "lyrics column not named": Trap("jsonl", _index_without_lyrics_column, "its block `parquet` has no lyrics_column"),
    "relative root": Trap("jsonl", _entry(instance_data_dir="songs"), "its instance_data_dir songs is not there"),
    "text files for captions": Trap("jsonl", _entry(caption_strategy="textfile"), "its caption_strategy is not parq"),
}
