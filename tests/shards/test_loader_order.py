"""The order of an epoch: complete, reproducible, and the same for any number of ranks and workers."""

from __future__ import annotations

import numpy as np
import pytest

from audioprep.shards.order import EpochOrder, OrderSettings, Rows, crop_places

BLOCKS = np.array([7, 50, 1, 33, 12, 12, 64, 5, 29])
LENGTHS = np.random.default_rng(1).integers(1, 500, int(BLOCKS.sum()))


def make_order(epoch: int = 0, blocks: Rows = BLOCKS, **changes: object) -> EpochOrder:
    settings = {
        "batch_size": 8,
        "buffer_size": 60,
        "shuffle": True,
        "bucket": False,
        "drop_last": False,
        "seed": 3,
        **changes,
    }
    return EpochOrder(blocks, OrderSettings(**settings), epoch, lambda rows: LENGTHS[rows])


def batches(order: EpochOrder, start: int = 0) -> list[list[int]]:
    windows = {number: order.window(order.window_of(number)) for number in range(start, order.num_batches)}
    return [window.batch(number).tolist() for number, window in windows.items()]


def flat(parts: list[list[int]]) -> list[int]:
    return [row for part in parts for row in part]


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("buffer_size", [1, 60, 1000])
@pytest.mark.parametrize("batch_size", [1, 8, 100, 500])
def test_an_epoch_has_every_row_once(batch_size: int, buffer_size: int, shuffle: bool, bucket: bool) -> None:
    order = make_order(batch_size=batch_size, buffer_size=buffer_size, shuffle=shuffle, bucket=bucket)
    parts = batches(order)
    assert sorted(flat(parts)) == list(range(BLOCKS.sum()))
    assert {len(part) for part in parts[:-1]} <= {batch_size}
    assert 0 < len(parts[-1]) <= batch_size


def test_drop_last_leaves_out_only_the_short_batch() -> None:
    whole, cut = batches(make_order()), batches(make_order(drop_last=True))
    assert len(whole[-1]) == BLOCKS.sum() % 8
    assert cut == whole[:-1]


def test_no_window_depends_on_an_earlier_one() -> None:
    whole = batches(make_order(bucket=True))
    for start in range(len(whole)):
        assert batches(make_order(bucket=True), start) == whole[start:]


def test_same_seed_same_order_other_epoch_or_seed_another() -> None:
    first = batches(make_order())
    assert batches(make_order()) == first
    assert batches(make_order(epoch=1)) != first
    assert batches(make_order(seed=4)) != first


def test_without_shuffle_the_order_is_that_of_the_rows() -> None:
    assert flat(batches(make_order(shuffle=False))) == list(range(BLOCKS.sum()))


def test_shuffling_mixes_the_blocks_of_a_window() -> None:
    block_of = np.repeat(np.arange(len(BLOCKS)), BLOCKS)
    kinds = [len(set(block_of[part])) for part in batches(make_order(buffer_size=1000))[:-1]]
    assert np.mean(kinds) > 3


def test_the_order_is_the_same_in_every_version() -> None:
    # A saved state must find its order again: these change only together with `_STATE_VERSION` of the loader.
    assert batches(make_order(batch_size=4))[:2] == [[49, 54, 9, 29], [52, 17, 31, 92]]
    assert crop_places(2, 3, 0, 1).tolist() == [0.9882585192800887, 0.22083189122569502]


def padding(order: EpochOrder) -> float:
    parts = batches(order)
    padded = sum(len(part) * LENGTHS[part].max() for part in parts)
    return 1 - LENGTHS.sum() / padded


def test_buckets_pad_less() -> None:
    assert padding(make_order(bucket=True, buffer_size=1000)) < 0.2 * padding(make_order(buffer_size=1000))


def test_buckets_do_not_come_in_the_order_of_length() -> None:
    longest = [LENGTHS[part].max() for part in batches(make_order(bucket=True, buffer_size=1000))]
    assert longest != sorted(longest)


def test_no_blocks_no_batches() -> None:
    order = make_order(blocks=np.zeros(0, np.int64))
    assert order.num_batches == 0
    assert batches(order) == []


def test_ten_million_rows_cost_only_their_window() -> None:
    blocks = np.full(20_000, 512)
    order = make_order(blocks=blocks, batch_size=32, buffer_size=8192)
    window = order.window(order.window_of(order.num_batches // 2))
    assert order.num_batches == 320_000
    assert len(window.rows) == 8192
