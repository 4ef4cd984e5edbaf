"""Splits are decided by an item's content alone."""

from __future__ import annotations

import hashlib

import pytest

from audioprep.errors import UsageError
from audioprep.shards.split import check_splits, choose_split, parse_splits

SPLITS = {"train": 0.9, "validation": 0.08, "test": 0.02}
IDS = [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(20_000)]


def test_shares_are_right() -> None:
    chosen = [choose_split(item, None, SPLITS) for item in IDS]
    for name, share in SPLITS.items():
        # Four standard deviations of a binomial distribution.
        assert abs(chosen.count(name) / len(IDS) - share) < 4 * (share * (1 - share) / len(IDS)) ** 0.5


def test_an_item_stays_where_it_is() -> None:
    # Shard sets that users have made must grow without moving an item to another split.
    assert [choose_split(item, None, SPLITS) for item in ("0" * 32, "e5" * 16, "f8" * 16, "f" * 32)] == [
        "train",
        "train",
        "validation",
        "test",
    ]


def test_a_larger_share_takes_over_only_from_the_next_split() -> None:
    smaller, larger = {"train": 0.5, "test": 0.5}, {"train": 0.7, "test": 0.3}
    moved = {(choose_split(item, None, smaller), choose_split(item, None, larger)) for item in IDS}
    assert moved == {("train", "train"), ("test", "train"), ("test", "test")}


def test_a_split_without_share_gets_nothing() -> None:
    assert {choose_split(item, None, {"test": 0.0, "train": 1.0}) for item in IDS} == {"train"}


def test_the_manifest_decides() -> None:
    assert choose_split("f" * 32, "holdout_1", SPLITS) == "holdout_1"
    assert choose_split("f" * 32, "", SPLITS) == "test"


@pytest.mark.parametrize("name", ["../up", "a b", "a-b", "a/b"])
def test_a_name_that_cannot_be_part_of_a_file_name(name: str) -> None:
    with pytest.raises(UsageError, match="use letters and digits only"):
        choose_split("0" * 32, name, SPLITS)
    with pytest.raises(UsageError, match="names are letters and digits"):
        check_splits({name: 1.0})


def test_parsing() -> None:
    assert parse_splits("train=0.9, validation=0.08,test=0.02") == SPLITS
    with pytest.raises(UsageError, match="write it like"):
        parse_splits("train")
    with pytest.raises(UsageError, match=r"add up to 0\.9, not to 1"):
        parse_splits("train=0.5,test=0.4")
    with pytest.raises(UsageError, match="not negative"):
        parse_splits("train=1.5,test=-0.5")
