"""Items on a list are left out of every epoch, as if the shards did not have them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from loader_helpers import SCHEMA, Item, make_items, write_parquet_set, write_tar_set

from audioprep.corpus.exclusions import Exclusions, read_exclusions
from audioprep.errors import UsageError
from audioprep.shards.loader import ShardLoader

WRITERS = {"parquet": write_parquet_set, "tar": write_tar_set}
ITEMS = [item | {"uri": f"/music/{number % 7}/{number}.mp3"} for number, item in enumerate(make_items(90))]
LEFT_OUT = {*range(20, 40), 41, 60, 89}  # two whole row groups of ten, and single rows
LEFT = [item for number, item in enumerate(ITEMS) if number not in LEFT_OUT]


@pytest.fixture(scope="module", params=WRITERS)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    schema = SCHEMA.append(pa.field("uri", pa.string()))
    return WRITERS[request.param](tmp_path_factory.mktemp("set") / "set", [ITEMS[:50], ITEMS[50:]], schema=schema)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Paths, and for every third item its id."""
    path = tmp_path / "exclude_paths.txt"
    lines = [ITEMS[number]["uri" if number % 3 else "id"] for number in sorted(LEFT_OUT)]
    path.write_text("# Paths to exclude from training (format=absolute)\n" + "\n".join(lines))
    return path


def contents(loader: ShardLoader) -> list[tuple[list[str], list[Any], list[int]]]:
    return [(batch["id"], batch["audio_tokens"].tolist(), batch["lengths"].tolist()) for batch in loader]


def open_loader(root: Path, exclude: Any, **changes: Any) -> ShardLoader:
    settings = {"batch_size": 8, "buffer_size": 30, "rank": 0, "world_size": 1, "bucket": True, "max_frames": 20}
    return ShardLoader(root, exclude=exclude, **{**settings, **changes})


def expected(ids: list[str]) -> list[Item]:
    by_id = {item["id"]: item for item in ITEMS}
    return [by_id[id_] for id_ in ids]


def test_each_epoch_has_the_others_once(root: Path, listed: Path):
    loader = open_loader(root, listed, max_frames=None)
    for _ in range(2):
        batches = contents(loader)
        assert len(batches) == len(loader) == -(-len(LEFT) // 8)
        assert sorted(id_ for ids, *_ in batches for id_ in ids) == sorted(item["id"] for item in LEFT)
        for ids, tokens, lengths in batches:
            for item, own, length in zip(expected(ids), tokens, lengths, strict=True):
                assert own[:length] == item["audio_tokens"].tolist()


def test_ranks_share_what_is_left_and_a_position_is_resumed(root: Path, listed: Path):
    whole = contents(open_loader(root, listed))
    ranks = [contents(open_loader(root, listed, rank=rank, world_size=3)) for rank in range(3)]
    assert [ranks[number % 3][number // 3] for number in range(len(whole))] == whole
    loader = open_loader(root, listed)
    for taken, _ in enumerate(loader, start=1):
        if taken == 4:
            break
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = open_loader(root, listed)
    resumed.load_state_dict(state)
    assert contents(resumed) == whole[4:]
    for other in (None, Exclusions(frozenset({"0.mp3"}))):
        with pytest.raises(UsageError, match="exclude"):
            open_loader(root, other).load_state_dict(state)


def test_relative_paths_need_their_folder(root: Path, tmp_path: Path):
    path = tmp_path / "relative.txt"
    path.write_text("3/3.mp3\n")
    with pytest.raises(UsageError, match=r"3/3\.mp3 is relative"):
        open_loader(root, path)
    batches = contents(open_loader(root, read_exclusions(path, [Path("/music")])))
    assert sum(len(ids) for ids, *_ in batches) == 89


def test_all_or_none_on_the_list(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "all.txt"
    path.write_text("\n".join(item["id"] for item in ITEMS))
    with pytest.raises(UsageError, match="all 90 items are on the list"):
        open_loader(root, path)
    path.write_text("/elsewhere/1000.mp3")
    with caplog.at_level(logging.WARNING):
        assert contents(open_loader(root, path)) == contents(open_loader(root, None))
    assert "none of the items to exclude" in caplog.text
