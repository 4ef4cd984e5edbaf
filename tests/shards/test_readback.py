"""What the writers write is read back by everything that users read shards with: types and values."""

from __future__ import annotations

import json
import tarfile
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import soundfile
from webdataset.compat import WebDataset

from audioprep.commands import tokenize
from audioprep.shards.card import data_card
from audioprep.shards.columns import (
    ITEM_COLUMNS,
    array_type,
    is_vector,
    plain_table,
    to_arrays,
    to_table,
    to_vectors,
    vector_type,
)
from audioprep.shards.dataset import open_dataset
from audioprep.shards.loader import ShardLoader
from audioprep.shards.tables import read_tables
from audioprep.shards.writers import SUFFIX, WRITERS, Format, ParquetWriter, TarWriter

TYPES = dict.fromkeys(ITEM_COLUMNS, pa.string()) | {
    "duration": pa.float64(),
    "sample_rate": pa.int32(),
    "channels": pa.int32(),
    "num_frames": pa.int32(),
    "audio_tokens": array_type(pa.uint16(), 9),
    "latents": array_type(pa.float16(), 4),
    "windows": array_type(pa.float32(), 3),
    "embedding": vector_type(pa.float32(), 5),
}
# Of the columns above with arrays and vectors.
FEATURES: dict[str, Any] = {
    "audio_tokens": datasets.Array2D((None, 9), "uint16"),  # pyright: ignore[reportArgumentType]
    "latents": datasets.Array2D((None, 4), "float16"),  # pyright: ignore[reportArgumentType]
    "windows": datasets.Array2D((None, 3), "float32"),  # pyright: ignore[reportArgumentType]
    "embedding": datasets.List(datasets.Value("float32"), length=5),
}
DTYPES = {"audio_tokens": "uint16", "latents": "float16", "windows": "float32", "embedding": "float32"}
SCHEMA = pa.schema(TYPES)
FORMATS: tuple[Format, ...] = ("parquet", "webdataset")

Row = dict[str, Any]


def make_row(number: int, split: str) -> Row:
    frames = 3 * number % 7 + 1
    rng = np.random.default_rng(number)
    return {
        "id": "歌-é" if number == 3 else f"{number:032x}",
        "uri": f"/music/Größe {number}, 春.wav",
        "duration": frames / 12.5,
        "sample_rate": 44100,
        "channels": 2,
        "split": split,
        "tags": None if number % 2 else "piano,ピアノ",
        "lyrics": None if number % 3 else f'[Verse]\n"{number}"\t春が来た',
        "prompt": "" if number == 1 else None,
        "license": "CC-BY-4.0",
        "source": None,
        "metadata": json.dumps({"artist": "Ä"}, ensure_ascii=False),
        "num_frames": frames,
        "audio_tokens": rng.integers(0, 1024, (frames, 9)).astype(np.uint16),
        "latents": rng.standard_normal((2 * frames - 1, 4)).astype(np.float16),
        "windows": rng.standard_normal((number % 3 + 1, 3)).astype(np.float32),
        "embedding": rng.standard_normal(5).astype(np.float32),
    }


ROWS = {"train": [make_row(i, "train") for i in range(11)], "validation": [make_row(i, "validation") for i in (20, 21)]}


def write_set(root: Path, storage: Format) -> Path:
    """A shard set as the engine lays it out, with the real writers."""
    shards = []
    (root / "data").mkdir(parents=True)
    if storage == "webdataset":
        (root / "index").mkdir()
    for split, rows in ROWS.items():
        path = root / f"data/{split}-00000{SUFFIX[storage]}"
        writer = WRITERS[storage](path, root / f"index/{path.stem}.parquet", SCHEMA)
        for begin in range(0, len(rows), 4):
            writer.write(to_table(rows[begin : begin + 4], SCHEMA))
        writer.close()
        shards.append({"path": f"data/{path.name}", "split": split, "rows": len(rows), "sha256": ""})
    sums = {"rows": 11, "seconds": 1.0, "num_frames": 1}
    description = {
        "format": "audioprep",
        "schema_version": 1,
        "storage": storage,
        "num_frames_of": "audio_tokens",
        "encoders": {},
        "columns": {name: str(type_) for name, type_ in TYPES.items()},
        "totals": {**sums, "failed": 1, "splits": dict.fromkeys(ROWS, sums)},
        "shards": shards,
    }
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    (root / "README.md").write_text(data_card(description), encoding="utf-8")
    # No reader may take this for data.
    pq.write_table(pa.table({"uri": ["/x"], "stage": ["decode"], "error": ["empty"]}), root / "failures.parquet")
    return root


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets") / "parquet", "parquet")


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets") / "tars", "webdataset")


def assert_equal(found: list[Row], split: str = "train") -> None:
    assert len(found) == len(ROWS[split])
    for row, expected in zip(found, ROWS[split], strict=True):
        for name in FEATURES:
            assert np.array_equal(np.asarray(row[name]), expected[name]), name
        plain = [name for name in TYPES if name not in FEATURES]
        assert {name: row[name] for name in plain} == {name: expected[name] for name in plain}


def untarred(row: Row) -> Row:
    """A row as `datasets` and `webdataset` read it from a tar, with the names of its columns."""
    return row["json"] | {name: row[f"{name}.npy"] for name in FEATURES}


@pytest.mark.parametrize("split", ROWS)
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_folder_by_its_card(parquet: Path, tmp_path: Path, split: str, streaming: bool) -> None:
    loaded: Any = datasets.load_dataset(str(parquet), cache_dir=str(tmp_path), streaming=streaming)
    assert set(loaded) == set(ROWS)
    assert {name: loaded[split].features[name] for name in FEATURES} == FEATURES
    assert loaded[split].features["lyrics"] == datasets.Value("string")
    assert loaded[split].features["sample_rate"] == datasets.Value("int32")
    assert_equal(list(loaded[split]), split)
    row = next(iter(loaded[split].with_format("numpy")))
    for name in FEATURES:
        assert isinstance(row[name], np.ndarray)
        assert row[name].shape == ROWS[split][0][name].shape
    assert row["embedding"].dtype == np.float32


def test_datasets_reads_the_files_alone(parquet: Path, tmp_path: Path) -> None:
    files = str(parquet / "data/train-*.parquet")
    loaded: Any = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert {name: loaded.features[name] for name in FEATURES} == FEATURES
    assert_equal(list(loaded))


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_a_folder_of_tars_by_its_card(tars: Path, tmp_path: Path, streaming: bool) -> None:
    loaded: Any = datasets.load_dataset(str(tars), cache_dir=str(tmp_path), streaming=streaming)
    assert set(loaded) == set(ROWS)
    for split in ROWS:
        assert {name: loaded[split].features[f"{name}.npy"] for name in FEATURES} == FEATURES
        assert_equal([untarred(row) for row in loaded[split]], split)


def test_pyarrow_dataset(parquet: Path) -> None:
    found = pyarrow.dataset.dataset(parquet / "data", format="parquet")
    table = plain_table(found.to_table(filter=pyarrow.dataset.field("split") == "train"))
    assert table.schema.equals(SCHEMA)
    values = {name: to_vectors(table[name]) if is_vector(TYPES[name]) else to_arrays(table[name]) for name in FEATURES}
    assert {name: arrays[0].dtype.name for name, arrays in values.items()} == DTYPES
    rows = table.drop_columns(list(FEATURES)).to_pylist()
    assert_equal([row | {name: values[name][i] for name in FEATURES} for i, row in enumerate(rows)])


def test_pandas(parquet: Path) -> None:
    frame = pd.read_parquet(parquet / "data/train-00000.parquet")
    assert frame["duration"].dtype == np.float64
    assert frame["sample_rate"].dtype == np.int32
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    values = {name: [np.array(list(array)) for array in frame[name]] for name in FEATURES}
    assert {name: arrays[0].dtype.name for name, arrays in values.items()} == DTYPES
    assert_equal([{**row, **{name: values[name][i] for name in FEATURES}} for i, row in enumerate(rows)])  # pyright: ignore[reportArgumentType]


def read_webdataset(path: Path) -> list[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves the file to the garbage collector
        items: Any = WebDataset(str(path), shardshuffle=False).decode()
        return list(items)


def test_webdataset(tars: Path) -> None:
    items = read_webdataset(tars / "data/train-00000.tar")
    assert [item["__key__"] for item in items] == [row["id"] for row in ROWS["train"]]
    assert {name: items[0][f"{name}.npy"].dtype.name for name in FEATURES} == DTYPES
    assert_equal([untarred(item) for item in items])


@pytest.mark.parametrize("storage", FORMATS)
def test_read_tables(storage: Format, parquet: Path, tars: Path) -> None:
    dataset = open_dataset({"parquet": parquet, "webdataset": tars}[storage])
    for shard in dataset.shards():
        table = pa.concat_tables(read_tables(dataset, shard))
        assert table.schema.equals(SCHEMA)
        assert table.equals(to_table(ROWS[shard["split"]], SCHEMA))


@pytest.mark.parametrize("storage", FORMATS)
def test_the_loader(storage: Format, parquet: Path, tars: Path) -> None:
    root = {"parquet": parquet, "webdataset": tars}[storage]
    columns = list(TYPES)
    (batch,) = ShardLoader(root, batch_size=20, columns=columns, shuffle=False, rank=0, world_size=1)
    for name in ("audio_tokens", "latents", "windows"):
        batch[name] = [values[mask].numpy() for values, mask in zip(batch[name], batch[f"{name}_mask"], strict=True)]
    assert_equal([{name: batch[name][row] for name in columns} for row in range(11)])


def test_the_index_says_where_the_bytes_lie(tars: Path) -> None:
    data = (tars / "data/train-00000.tar").read_bytes()
    for row, entry in zip(ROWS["train"], pq.read_table(tars / "index/train-00000.parquet").to_pylist(), strict=True):
        assert entry["key"] == row["id"]
        text = data[entry["json_offset"] : entry["json_offset"] + entry["json_size"]]
        assert json.loads(text)["uri"] == row["uri"]
        tokens = np.frombuffer(data, np.uint16, entry["audio_tokens.frames"] * 9, entry["audio_tokens.offset"])
        assert np.array_equal(tokens.reshape(-1, 9), row["audio_tokens"])
        latents = np.frombuffer(data, np.float16, entry["latents.frames"] * 4, entry["latents.offset"])
        assert np.array_equal(latents.reshape(-1, 4), row["latents"])
        assert np.array_equal(np.frombuffer(data, np.float32, 5, entry["embedding.offset"]), row["embedding"])
        assert "embedding.frames" not in entry


def test_repeated_ids_get_keys_of_their_own(tmp_path: Path) -> None:
    rows = [make_row(1, "train"), make_row(2, "train"), make_row(1, "train"), make_row(1, "train")]
    writer = WRITERS["webdataset"](tmp_path / "t.tar", tmp_path / "i.parquet", SCHEMA)
    for row in rows:
        writer.write(to_table([row], SCHEMA))
    writer.close()
    one, two = rows[0]["id"], rows[1]["id"]
    with tarfile.open(tmp_path / "t.tar") as tar:
        names = tar.getnames()
    keys = [one, two, f"{one}_2", f"{one}_3"]
    assert names == [f"{key}.{end}" for key in keys for end in ("json", *(f"{name}.npy" for name in FEATURES))]
    items = read_webdataset(tmp_path / "t.tar")
    assert [item["json"]["id"] for item in items] == [one, two, one, one]
    assert pq.read_table(tmp_path / "i.parquet")["key"].to_pylist() == keys


@pytest.mark.parametrize("storage", FORMATS)
def test_equal_tables_however_cut_give_equal_bytes(storage: Format, tmp_path: Path) -> None:
    rows = [make_row(i, "train") for i in range(1200 if storage == "parquet" else 100)]
    contents = set()
    for number, size in enumerate((1200, 1200, 512, 77)):
        path, index = tmp_path / f"{number}", tmp_path / f"{number}.index"
        writer = WRITERS[storage](path, index, SCHEMA)
        for begin in range(0, len(rows), size):
            writer.write(to_table(rows[begin : begin + size], SCHEMA))
        writer.close()
        contents.add((path.read_bytes(), index.read_bytes() if storage == "webdataset" else b""))
    assert len(contents) == 1


def test_row_groups_are_of_equal_size(tmp_path: Path) -> None:
    writer = WRITERS["parquet"](tmp_path / "t.parquet", tmp_path, SCHEMA)
    for begin in range(0, 1200, 100):
        writer.write(to_table([make_row(i, "train") for i in range(begin, begin + 100)], SCHEMA))
    writer.close()
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [512, 512, 176]
    column = next(c for c in metadata.row_group(0).to_dict()["columns"] if c["path_in_schema"].startswith("audio"))
    assert column["compression"] == "ZSTD"
    assert column["has_dictionary_page"]
    encodings = {
        name: found["encodings"]
        for found in metadata.row_group(0).to_dict()["columns"]
        if (name := found["path_in_schema"].split(".")[0]) in FEATURES
    }
    assert "BYTE_STREAM_SPLIT" in encodings["windows"] and "BYTE_STREAM_SPLIT" in encodings["embedding"]
    assert set(encodings["latents"]) == {"RLE", "PLAIN"}  # which DuckDB can read as well
    assert metadata.row_group(0).column(0).has_offset_index


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waves")
    for number in range(2):
        samples = np.random.default_rng(number).uniform(-0.1, 0.1, 8000 * (number + 1)).astype(np.float32)
        soundfile.write(folder / f"{number} é.wav", samples, 16000)
    return folder


def run_tokenize(waves: Path, out: Path, storage: Format) -> None:
    settings = {"source": [str(waves)], "out": out, "format": storage, "device": "cpu", "workers": 1}
    assert tokenize.run(tokenize.Settings.model_validate(settings), MagicMock())["rows"] == 2


def test_what_tokenize_makes(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    for storage in FORMATS:
        writer = {"parquet": ParquetWriter, "webdataset": TarWriter}[storage]
        close = writer.close
        with monkeypatch.context() as broken:
            broken.setattr(writer, "close", lambda self, close=close: close(self) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run_tokenize(waves, out, storage)
        # The shards of the format before are still what dataset.json says; of the new ones there is nothing.
        assert not list(out.glob(f"*/*{SUFFIX[storage]}"))
        assert (out / "dataset.json").exists() == (storage == "webdataset")
        run_tokenize(waves, out, storage)
        assert_made(out, tmp_path / "cache" / storage)


def assert_made(out: Path, cache: Path) -> None:
    dataset = open_dataset(out)
    (shard,) = dataset.shards("train")
    ours = pa.concat_tables(read_tables(dataset, shard)).to_pylist()
    assert [Path(row["uri"]).name for row in ours] == ["0 é.wav", "1 é.wav"]
    assert [row["duration"] for row in ours] == [0.5, 1.0]
    assert all(len(row["audio_tokens"]) == row["num_frames"] > 0 for row in ours)
    theirs: Any = datasets.load_dataset(str(out), cache_dir=str(cache))
    rows = list(theirs["train"])
    if dataset.storage == "webdataset":
        rows = [row["json"] | {"audio_tokens": row["audio_tokens.npy"]} for row in rows]
    assert rows == ours
    (batch,) = ShardLoader(out, batch_size=2, shuffle=False, rank=0, world_size=1)
    assert batch["id"] == [row["id"] for row in ours]
    assert batch["audio_tokens"][1].tolist() == ours[1]["audio_tokens"]
