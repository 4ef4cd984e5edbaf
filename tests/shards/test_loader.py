"""Batches from shards on disk: values, masks, ranks and workers, positions, and what goes wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from loader_helpers import Item, make_items, write_parquet_set, write_tar_set

from audioprep.errors import UsageError
from audioprep.shards.loader import ShardLoader

# torch warns where there are more workers than cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

WRITERS = {"parquet": write_parquet_set, "tar": write_tar_set}


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return make_items(203)


@pytest.fixture(scope="module")
def roots(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    shards = [items[:90], items[90:91], items[91:]]
    return {name: write(folder / name, shards) for name, write in WRITERS.items()}


def open_loader(root: Path, **changes: Any) -> ShardLoader:
    settings = {"batch_size": 8, "buffer_size": 60, "rank": 0, "world_size": 1}
    return ShardLoader(root, **{**settings, **changes})


def ids(batches: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [tuple(batch["id"]) for batch in batches]


def interleaved(loaders: list[ShardLoader]) -> list[tuple[str, ...]]:
    """What several ranks get, in the order in which they get it: all their first batches, then the second ones."""
    per_rank = [ids(loader) for loader in loaders]
    longest = max(map(len, per_rank))
    return [batches[i] for i in range(longest) for batches in per_rank if i < len(batches)]


@pytest.mark.parametrize("storage", WRITERS)
def test_values_masks_and_lengths_are_those_written(storage: str, roots: dict[str, Path], items: list[Item]) -> None:
    by_id = {item["id"]: item for item in items}
    seen = []
    for batch in open_loader(roots[storage], columns=["audio_tokens", "id", "lyrics", "duration"], pad_id=-1):
        tokens, mask = batch["audio_tokens"], batch["audio_tokens_mask"]
        assert tokens.dtype == torch.int64
        assert mask.dtype == torch.bool
        assert mask.shape == tokens.shape[:2]
        assert batch["lengths"].tolist() == mask.sum(1).tolist()
        assert tokens.shape[1] == max(batch["lengths"])
        for row, identity in enumerate(batch["id"]):
            item = by_id[identity]
            assert (tokens[row][mask[row]].numpy() == item["audio_tokens"]).all()
            assert mask[row, : len(item["audio_tokens"])].all()
            assert (tokens[row][~mask[row]] == -1).all()
            assert batch["lyrics"][row] == item["lyrics"]
            assert batch["duration"][row] == item["duration"]
            seen.append(identity)
    assert sorted(seen) == sorted(by_id)


@pytest.mark.parametrize("storage", WRITERS)
def test_by_default_the_array_columns_and_the_id(storage: str, roots: dict[str, Path]) -> None:
    batch = next(iter(open_loader(roots[storage])))
    assert set(batch) == {"audio_tokens", "audio_tokens_mask", "audio_tokens_lengths", "lengths", "id"}


@pytest.mark.parametrize("settings", [{}, {"bucket": True}, {"max_frames": 7}, {"shuffle": False}])
def test_parquet_and_tar_give_equal_batches(tmp_path: Path, settings: dict[str, Any]) -> None:
    shards = [make_items(40), make_items(25, seed=1)]
    loaders = [
        open_loader(write_parquet_set(tmp_path / "parquet", shards, group=100), **settings),
        open_loader(write_tar_set(tmp_path / "tar", shards), **settings),
    ]
    for left, right in zip(*loaders, strict=True):
        assert left["id"] == right["id"]
        assert (left["audio_tokens"] == right["audio_tokens"]).all()
        assert (left["audio_tokens_mask"] == right["audio_tokens_mask"]).all()


def test_a_batch_is_not_changed_by_those_after_it(roots: dict[str, Path]) -> None:
    loader = open_loader(roots["parquet"])
    kept = [(batch["audio_tokens"][1:3], batch["audio_tokens"][1:3].clone()) for batch in loader]
    assert all((view == copy).all() for view, copy in kept)


SETTINGS = {
    "plain": {},
    "in order": {"shuffle": False},
    "bucket": {"bucket": True},
    "cropped": {"bucket": True, "max_frames": 20},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("storage", WRITERS)
def test_eight_ranks_of_three_workers_see_each_sample_once(
    storage: str,
    settings: dict[str, Any],
    roots: dict[str, Path],
    items: list[Item],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = SimpleNamespace(num_workers=3)
    monkeypatch.setattr("audioprep.shards.batches.get_worker_info", lambda: worker)
    seen: list[str] = []
    for rank in range(8):
        for worker.id in range(3):
            loader = open_loader(roots[storage], rank=rank, world_size=8, **settings)
            seen += [i for batch in ids(loader) for i in batch]
    assert sorted(seen) == [item["id"] for item in items]


@pytest.mark.parametrize("storage", WRITERS)
def test_real_workers_do_not_change_the_order(storage: str, roots: dict[str, Path]) -> None:
    alone, helped = open_loader(roots[storage]), open_loader(roots[storage], num_workers=2)
    assert ids(alone) == ids(helped)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert ids(alone) == ids(helped)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_share_one_sequence(ranks: int, roots: dict[str, Path]) -> None:
    whole = ids(open_loader(roots["parquet"]))
    assert interleaved([open_loader(roots["parquet"], rank=r, world_size=ranks) for r in range(ranks)]) == whole


Content = tuple[list[str], list[list[list[int]]]]


def contents(loader: Iterable[dict[str, Any]]) -> list[Content]:
    """Ids and tokens of each batch: crops have to be the same as well."""
    return [(batch["id"], batch["audio_tokens"].tolist()) for batch in loader]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 2), (8, 5)])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("storage", WRITERS)
def test_first_k_and_remaining_are_all(
    storage: str, settings: dict[str, Any], drop_last: bool, before: int, after: int, roots: dict[str, Path]
) -> None:
    settings = {**settings, "drop_last": drop_last, "batch_size": 16}
    whole = contents(open_loader(roots[storage], **settings))
    first = open_loader(roots[storage], rank=0, world_size=before, **settings)
    states = [first.state_dict(), *(first.state_dict() for _ in first)]
    assert len(states) == len(first) + 1
    for taken, state in enumerate(json.loads(json.dumps(states))):
        resumed: list[list[Content]] = []
        for rank in range(after):
            loader = open_loader(roots[storage], rank=rank, world_size=after, **settings)
            loader.load_state_dict(state)
            resumed.append(contents(loader))
        rest = whole[taken * before :]
        if drop_last:
            rest = rest[: len(rest) // after * after]
        assert [resumed[i % after][i // after] for i in range(len(rest))] == rest
        assert sum(map(len, resumed)) == len(rest)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 3)])
@pytest.mark.parametrize("storage", WRITERS)
def test_the_number_of_workers_can_change(storage: str, before: int, after: int, roots: dict[str, Path]) -> None:
    settings = {"bucket": True, "max_frames": 20}
    whole = contents(open_loader(roots[storage], **settings))
    loader = open_loader(roots[storage], num_workers=before, **settings)
    iterator = iter(loader)
    assert contents(islice(iterator, 5)) == whole[:5]
    state = loader.state_dict()  # whatever workers have prefetched does not count
    resumed = open_loader(roots[storage], num_workers=after, **settings)
    resumed.load_state_dict(state)
    assert contents(resumed) == whole[5:]


def test_a_resumed_loader_resumes_again(roots: dict[str, Path]) -> None:
    whole = ids(open_loader(roots["tar"]))
    got: list[tuple[str, ...]] = []
    state = open_loader(roots["tar"]).state_dict()
    while len(got) < len(whole):
        loader = open_loader(roots["tar"])
        loader.load_state_dict(state)
        for batch, _ in zip(loader, range(4), strict=False):
            got.append(tuple(batch["id"]))
            state = loader.state_dict()
    assert got == whole


def test_each_iteration_is_the_next_epoch(roots: dict[str, Path]) -> None:
    loader = open_loader(roots["tar"])
    first, second = ids(loader), ids(loader)
    assert first != second
    assert sorted(sum(first, ())) == sorted(sum(second, ()))
    next(iter(loader))
    assert loader.state_dict()["epoch"] == 2
    loader.set_epoch(1)
    assert ids(loader) == second
    assert loader.state_dict()["epoch"] == 2
    assert loader.state_dict()["batch"] == 0


def test_set_epoch_keeps_a_position_loaded_for_it(roots: dict[str, Path]) -> None:
    loader = open_loader(roots["tar"])
    loader.load_state_dict({**loader.state_dict(), "epoch": 3, "batch": 20})
    loader.set_epoch(3)
    assert len(ids(loader)) == 6
    loader.set_epoch(3)
    assert len(ids(loader)) == 26


def test_without_drop_last_the_first_ranks_get_one_more(roots: dict[str, Path]) -> None:
    loaders = [open_loader(roots["tar"], rank=r, world_size=4) for r in range(4)]
    counts = [len(ids(loader)) for loader in loaders]
    assert counts == [7, 7, 6, 6] == [len(loader) for loader in loaders]
    assert len(ids(open_loader(roots["tar"]))[-1]) == 203 % 8


def test_with_drop_last_all_ranks_get_equally_many_full_batches(roots: dict[str, Path]) -> None:
    loaders = [open_loader(roots["tar"], rank=r, world_size=4, drop_last=True) for r in range(4)]
    per_rank = [ids(loader) for loader in loaders]
    assert [len(batches) for batches in per_rank] == [6, 6, 6, 6] == [len(loader) for loader in loaders]
    assert {len(batch) for batches in per_rank for batch in batches} == {8}


def test_crops_are_reproducible_and_anywhere(tmp_path: Path) -> None:
    tokens = np.arange(1000 * 3, dtype=np.uint16).reshape(1000, 3)
    rows = [{**item, "audio_tokens": tokens, "num_frames": 1000} for item in make_items(64)]
    root = write_parquet_set(tmp_path / "set", [rows], group=20)

    def starts(**changes: Any) -> dict[str, int]:
        loader = open_loader(root, max_frames=10, **changes)
        found = {}
        for batch in loader:
            crops = batch["audio_tokens"]
            assert (crops == crops[:, :1, :1] + torch.arange(30).reshape(10, 3)).all()
            found |= dict(zip(batch["id"], (crops[:, 0, 0] // 3).tolist(), strict=True))
        return found

    first = starts()
    assert first == starts(num_workers=2)
    assert first != starts(seed=1)
    assert len(set(first.values())) > 40
    assert min(first.values()) < 250
    assert max(first.values()) > 740
    assert set(starts(shuffle=False).values()) == {0}


def test_padding_goes_down_with_buckets(roots: dict[str, Path]) -> None:
    def real(bucket: bool) -> float:
        loader = open_loader(roots["parquet"], bucket=bucket, buffer_size=1000)
        return float(np.mean([batch["audio_tokens_mask"].float().mean() for batch in loader]))

    assert real(bucket=True) > 0.9 > 0.7 > real(bucket=False)


def test_a_split_without_rows_has_no_batches(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        loader = open_loader(write(tmp_path / name, [[]]))
        assert len(loader) == 0
        assert ids(loader) == []


def test_ids_repeated_in_a_tar(tmp_path: Path) -> None:
    rows = make_items(3)
    root = write_tar_set(tmp_path / "set", [[*rows, rows[1], rows[1]]])
    (batch,) = open_loader(root, shuffle=False)
    assert batch["id"] == [item["id"] for item in (*rows, rows[1], rows[1])]


def test_rows_without_frames_are_read(tmp_path: Path) -> None:
    rows = make_items(5)
    rows[2] = {**rows[2], "audio_tokens": np.zeros((0, 3), np.uint16), "num_frames": 0}
    for name, write in WRITERS.items():
        (batch,) = open_loader(write(tmp_path / name, [rows]), shuffle=False)
        assert batch["lengths"].tolist() == [item["num_frames"] for item in rows]


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"batch_size": 4}, {"buffer_size": 61}, {"bucket": True}, {"shuffle": False}]
)
def test_a_state_of_other_settings_is_refused(changes: dict[str, Any], roots: dict[str, Path]) -> None:
    state = open_loader(roots["tar"], **changes).state_dict()
    with pytest.raises(UsageError, match=f"other data or settings: {next(iter(changes))} "):
        open_loader(roots["tar"]).load_state_dict(state)


def test_a_state_of_other_data_is_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    other = write_tar_set(tmp_path / "set", [make_items(203, seed=9)])
    with pytest.raises(UsageError, match="other data or settings: shards "):
        open_loader(roots["tar"]).load_state_dict(open_loader(other).state_dict())


def test_a_moved_set_is_the_same_set(tmp_path: Path, roots: dict[str, Path], items: list[Item]) -> None:
    moved = write_tar_set(tmp_path / "elsewhere", [items[:90], items[90:91], items[91:]])
    open_loader(moved).load_state_dict(open_loader(roots["tar"]).state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "trian"}, r"has no split trian\. Did you mean train\? There are: train\."),
        ({"columns": ["audio_token"]}, r"has no column audio_token\. Did you mean audio_tokens\? There are: id, "),
        ({"batch_size": 0}, "batch_size=0: give at least 1"),
        ({"max_frames": 0}, "max_frames=0: give at least 1"),
        ({"seed": -1}, "seed=-1: give at least 0"),
        ({"rank": 2, "world_size": 2}, "rank=2, world_size=2: ranks count from 0"),
        ({"rank": None}, "rank and world_size belong together"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str, roots: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=message):
        open_loader(roots["tar"], **changes)


def test_rank_and_world_size_from_the_environment(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ids(open_loader(roots["tar"]))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ids(open_loader(roots["tar"], rank=None, world_size=None)) == whole[1::2]


def test_rank_and_world_size_from_torch(roots: dict[str, Path], tmp_path: Path) -> None:
    whole = ids(open_loader(roots["tar"]))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert ids(open_loader(roots["tar"], rank=None, world_size=None)) == whole
    finally:
        torch.distributed.destroy_process_group()


def test_a_folder_that_is_no_shard_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset\.json.*audioprep tokenize"):
        open_loader(tmp_path)


def damage(path: Path, begin: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[begin : begin + len(content)] = content
    path.write_bytes(data)


def first_data_page(path: Path) -> int:
    group = pq.read_metadata(path).row_group(0)
    return next(
        group.column(i).data_page_offset
        for i in range(group.num_columns)
        if group.column(i).path_in_schema.startswith("audio_tokens")
    )


@pytest.mark.parametrize(
    ("storage", "name", "harm"),
    [
        ("parquet", "data/train-00001.parquet", Path.unlink),
        ("tar", "data/train-00001.tar", Path.unlink),
        ("tar", "index/train-00001.parquet", Path.unlink),
        ("parquet", "data/train-00000.parquet", lambda path: path.write_bytes(path.read_bytes()[:-20])),
        ("parquet", "data/train-00000.parquet", lambda path: damage(path, first_data_page(path), b"\xff" * 64)),
        ("parquet", "data/train-00000.parquet", lambda path: damage(path, first_data_page(path), b"\x00" * 64)),
        ("parquet", "data/train-00000.parquet", lambda path: pq.write_table(pq.read_table(path).slice(1), path)),
        ("tar", "data/train-00000.tar", lambda path: path.write_bytes(path.read_bytes()[:5000])),
        ("tar", "data/train-00000.tar", lambda path: path.write_bytes(path.read_bytes()[512:])),
        ("tar", "index/train-00000.parquet", lambda path: path.write_bytes(b"nothing")),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    storage: str, name: str, harm: Callable[[Path], object], tmp_path: Path, items: list[Item]
) -> None:
    root = WRITERS[storage](tmp_path / "set", [items[:20], items[20:30]])
    harm(root / name)
    with pytest.raises(UsageError, match=Path(name).stem):
        ids(open_loader(root))


def test_damage_seen_by_a_worker_is_named_at_once(tmp_path: Path, items: list[Item]) -> None:
    root = write_parquet_set(tmp_path / "set", [items[:20]])
    path = root / "data/train-00000.parquet"
    damage(path, first_data_page(path), b"\xff" * 64)
    begin = time.monotonic()
    with pytest.raises(UsageError, match=rf"^{path}: cannot be read") as raised:
        ids(open_loader(root, num_workers=2))
    # Where the error holds the frames of torch's loader, its workers are not told to end, and it waits 5 s for each.
    assert time.monotonic() - begin < 4
    assert "Traceback" not in str(raised.value)
