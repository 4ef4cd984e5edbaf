"""Which of several copies is kept, and that chains do not tie different songs together."""

import re

import numpy as np
import pytest

from audioprep.dedup.groups import Dropped, Keep, Recording, drop_copies, drop_similar, preference
from audioprep.dedup.similarity import PAIR

SONGS = [
    Recording("a", "/m/b.mp3", 200.0, 4_000_000),
    Recording("b", "/m/a.flac", 200.04, 20_000_000),
    Recording("c", "/m/c.wav", 30.0, 5_000_000),
    Recording("d", "/live/d.mp3", 210.0, 1_000_000),
]


@pytest.mark.parametrize(
    ("policy", "prefer", "expected"),
    [
        ("longest", None, [3, 1, 0, 2]),
        ("highest-bitrate", None, [2, 1, 0, 3]),
        ("lossless-first", None, [1, 2, 3, 0]),
        ("first", None, [3, 1, 0, 2]),
        ("longest", "^/m/c", [2, 3, 1, 0]),
    ],
)
def test_preference(policy: Keep, prefer: str | None, expected: list[int]):
    assert preference(SONGS, policy, re.compile(prefer) if prefer else None) == expected


def pairs(*found: tuple[int, int, float]) -> np.ndarray:
    return np.array(list(found), PAIR)


def test_a_chain_is_no_group():
    """0 is like 1, 1 like 2, 2 like 3: 0 and 2 stay, each with its neighbour."""
    chain = pairs((0, 1, 0.97), (1, 2, 0.96), (2, 3, 0.98))
    assert drop_similar([0, 1, 2, 3], SONGS, chain) == [
        Dropped(0, 1, "near-duplicate", 0.97), Dropped(2, 3, "near-duplicate", 0.98),
    ]  # fmt: skip
    assert [(one.keep, one.drop) for one in drop_similar([1, 0, 2, 3], SONGS, chain)] == [(1, 0), (1, 2)]


def test_exact_copies_follow_what_they_are_copies_of():
    songs = [*SONGS, Recording("b", "/m/z.flac", 200.04, 20_000_000)]
    assert drop_similar([1, 0, 2, 3, 4], songs, pairs((0, 1, 0.97))) == [
        Dropped(1, 0, "near-duplicate", 0.97), Dropped(1, 4, "exact-copy", 1.0),
    ]  # fmt: skip
    # Both copies are dropped for what is preferred to them, though only one of them is in a pair.
    assert [(one.keep, one.drop) for one in drop_similar([0, 1, 4, 2, 3], songs, pairs((0, 1, 0.97)))] == [
        (0, 1), (0, 4),
    ]  # fmt: skip


def test_nothing_similar_nothing_dropped():
    assert drop_similar([0, 1, 2, 3], SONGS, pairs()) == []


def test_against_another_corpus_the_most_similar_one_counts():
    tests = [Recording("x", "/t/x.wav", 1.0, 1), Recording("c", "/t/c.wav", 30.0, 1)]
    found = pairs((0, 0, 0.96), (0, 1, 0.99), (2, 0, 0.999), (2, 1, 0.9999))
    assert drop_copies(SONGS, tests, found) == [
        Dropped(1, 0, "near-duplicate", 0.99), Dropped(1, 2, "exact-copy", 1.0),
    ]  # fmt: skip


def test_the_same_sound_is_the_same_whatever_the_similarity():
    songs = [
        Recording("a", "/a.wav", 10, 3, "sound"),
        Recording("b", "/b.flac", 10, 2, "sound"),
        Recording("c", "/c.wav", 10, 1),
        Recording("d", "/d.wav", 10, 1),
    ]
    none = np.empty(0, PAIR)
    assert drop_similar([0, 1, 2, 3], songs, none) == [Dropped(0, 1, "same-sound", 1.0)]
    assert drop_copies(songs[1:], songs[:1], none) == [Dropped(0, 0, "same-sound", 1.0)]
    assert drop_copies(songs[2:], songs[2:], none) == [Dropped(0, 0, "exact-copy", 1), Dropped(1, 1, "exact-copy", 1)]
