"""Batches with several columns of arrays, of different frame rates, and of vectors."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from loader_helpers import MIXED, Item, make_mixed, write_parquet_set, write_tar_set

from audioprep.errors import UsageError
from audioprep.shards.loader import ShardLoader

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

# Blocks of one size, so that the orders are equal.
WRITERS = {"parquet": partial(write_parquet_set, group=512), "tar": write_tar_set}
ARRAYS = {"audio_tokens": torch.int64, "latents": torch.float16, "windows": torch.float32}
SECONDS = {"audio_tokens": 1 / 50, "latents": 2048 / 44100, "windows": 1.0}  # of a frame
SETTINGS = {"plain": {}, "bucket": {"bucket": True}, "cropped": {"max_frames": 60}}


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return make_mixed(45)


@pytest.fixture(scope="module")
def roots(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    shards = [items[:30], items[30:]]
    return {name: write(folder / name, shards, schema=MIXED) for name, write in WRITERS.items()}


def open_loader(root: Path, **changes: Any) -> ShardLoader:
    settings = {"batch_size": 8, "buffer_size": 20, "rank": 0, "world_size": 1}
    return ShardLoader(root, **{**settings, **changes})


def frozen(batches: Any) -> list[dict[str, Any]]:
    """The batches as plain values."""
    return [{k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in batch.items()} for batch in batches]


@pytest.mark.parametrize("storage", WRITERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_each_column_has_its_own_lengths(storage: str, workers: int, roots: dict[str, Path], items: list[Item]) -> None:
    by_id = {item["id"]: item for item in items}
    seen = []
    for batch in open_loader(roots[storage], num_workers=workers, pad_id=1024):
        assert batch["lengths"] is batch["audio_tokens_lengths"]
        assert set(batch) == {"id", "lengths", "embedding"} | {
            f"{name}{end}" for name in ARRAYS for end in ("", "_mask", "_lengths")
        }
        for name, dtype in ARRAYS.items():
            values, mask, lengths = batch[name], batch[f"{name}_mask"], batch[f"{name}_lengths"]
            assert values.dtype == dtype
            assert values.shape[1] == lengths.max()
            assert (mask.sum(1) == lengths).all()
            assert (values[~mask] == (1024 if name == "audio_tokens" else 0)).all()
            for row, identity in enumerate(batch["id"]):
                assert np.array_equal(values[row][mask[row]].numpy(), by_id[identity][name])
        assert batch["embedding"].dtype == torch.float32
        assert np.array_equal(batch["embedding"].numpy(), [by_id[identity]["embedding"] for identity in batch["id"]])
        seen += batch["id"]
    assert sorted(seen) == sorted(by_id)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("storage", WRITERS)
def test_crops_are_of_the_same_stretch_of_time(
    storage: str, shuffle: bool, roots: dict[str, Path], items: list[Item]
) -> None:
    by_id = {item["id"]: item for item in items}
    most = {"audio_tokens": 60, "latents": 26, "windows": 2}  # 1.2 s
    starts = set()
    for batch in open_loader(roots[storage], max_frames=60, shuffle=shuffle):
        for row, identity in enumerate(batch["id"]):
            begin = float(batch["audio_tokens"][row, 0, -1])
            starts.add(begin)
            for name, frames in most.items():
                item, values = by_id[identity][name], batch[name][row]
                first, length = int(values[0, -1]), int(batch[f"{name}_lengths"][row])
                assert length == min(len(item), frames)
                assert np.array_equal(values[:length].numpy(), item[first : first + length])
                # The nearest frame, unless the item ends before.
                nearest = begin * SECONDS["audio_tokens"] / SECONDS[name]
                assert abs(first - nearest) <= 0.5 or first == len(item) - length < nearest
    assert (starts == {0.0}) == (not shuffle)


def test_a_column_is_cropped_alike_alone(roots: dict[str, Path]) -> None:
    together = frozen(open_loader(roots["tar"], max_frames=60))
    alone = frozen(open_loader(roots["parquet"], max_frames=60, columns=["latents", "id"]))
    assert [batch["latents"] for batch in alone] == [batch["latents"] for batch in together]
    assert [batch["lengths"] for batch in alone] == [batch["latents_lengths"] for batch in together]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("storage", WRITERS)
def test_resuming_with_all_columns(storage: str, settings: dict[str, Any], roots: dict[str, Path]) -> None:
    whole = frozen(open_loader(roots["parquet"], **settings))
    assert whole == frozen(open_loader(roots["tar"], **settings))
    loader = open_loader(roots[storage], **settings)
    assert frozen(islice(iter(loader), 2)) == whole[:2]
    resumed = open_loader(roots[storage], num_workers=2, **settings)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert frozen(resumed) == whole[2:]


@pytest.mark.parametrize("storage", WRITERS)
def test_vectors_alone(storage: str, tmp_path: Path, items: list[Item]) -> None:
    schema = pa.schema([field for field in MIXED if field.name not in ARRAYS])
    root = WRITERS[storage](tmp_path / "set", [items], schema=schema)
    batches = list(open_loader(root))
    assert {key for batch in batches for key in batch} == {"embedding", "id"}
    by_id = {item["id"]: item["embedding"].tolist() for item in items}
    assert {i: v.tolist() for batch in batches for i, v in zip(batch["id"], batch["embedding"], strict=True)} == by_id
    for changes in ({"bucket": True}, {"max_frames": 10}):
        with pytest.raises(UsageError, match="vectors only.* leave out bucket and max_frames"):
            open_loader(root, **changes)


def test_a_set_of_latents_counts_them(tmp_path: Path, items: list[Item]) -> None:
    schema = pa.schema([field for field in MIXED if field.name not in ("audio_tokens", "windows")])
    rows = [{**item, "num_frames": len(item["latents"])} for item in items]
    batches = [
        frozen(open_loader(write(tmp_path / name, [rows], schema=schema), max_frames=30, bucket=True))
        for name, write in WRITERS.items()
    ]
    assert batches[0] == batches[1]
    lengths = [length for batch in batches[0] for length in batch["lengths"]]
    assert sorted(lengths) == sorted(min(len(item["latents"]), 30) for item in items)


def test_a_set_that_does_not_say_what_it_counts(tmp_path: Path, items: list[Item]) -> None:
    root = write_tar_set(tmp_path / "set", [items], schema=MIXED)
    description = json.loads((root / "dataset.json").read_text())
    del description["num_frames_of"]
    (root / "dataset.json").write_text(json.dumps(description))
    assert frozen(open_loader(root, max_frames=60)) == frozen(
        open_loader(WRITERS["parquet"](tmp_path / "other", [items], schema=MIXED), max_frames=60)
    )


def test_crops_without_a_frame_rate(tmp_path: Path, items: list[Item]) -> None:
    root = write_tar_set(tmp_path / "set", [items], schema=MIXED)
    description = json.loads((root / "dataset.json").read_text())
    del description["encoders"]["windows"]
    (root / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match="max_frames cannot crop windows together with audio_tokens"):
        open_loader(root, max_frames=60)
    assert len(frozen(open_loader(root, max_frames=60, columns=["audio_tokens", "latents", "embedding"]))) == 6
    assert len(frozen(open_loader(root))) == 6
