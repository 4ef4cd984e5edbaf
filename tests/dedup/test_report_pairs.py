"""Which pairs a report shows."""

import numpy as np
import pytest

from audioprep.dedup.comparison import Comparison
from audioprep.dedup.groups import Dropped, Recording, drop_copies, drop_similar
from audioprep.dedup.report_pairs import ReportPair, pairs_to_show
from audioprep.dedup.similarity import PAIR


def recordings(count: int, folder: str = "") -> list[Recording]:
    return [Recording(f"{folder}{place}", f"{folder}/{place:04d}.wav", 10.0, 1) for place in range(count)]


def similarities(shown: list[ReportPair]) -> list[float]:
    return [pair.similarity for pair in shown]


def stars(*similarity: float) -> tuple[list[Recording], np.ndarray]:
    """As many pairs of recordings, each recording in one of them."""
    candidates = np.array([(2 * place, 2 * place + 1, value) for place, value in enumerate(similarity)], PAIR)
    return recordings(2 * len(similarity)), candidates


def compared(songs: list[Recording], candidates: np.ndarray, others: list[Recording] | None = None) -> Comparison:
    return Comparison(songs, others, candidates, candidates["similarity"] >= 0.95, 0.95)


def within(songs: list[Recording], candidates: np.ndarray, count: int) -> list[ReportPair]:
    order = list(range(len(songs)))
    dropped = drop_similar(order, songs, candidates[candidates["similarity"] >= 0.95])
    return pairs_to_show(compared(songs, candidates), order, dropped, count)


def test_three_eighths_on_each_side_of_the_threshold_and_the_rest_spread():
    songs, candidates = stars(*np.arange(0.9, 1, 0.001).round(3))
    shown = within(songs, candidates, 16)
    assert shown == within(songs, candidates[::-1], 16)
    found = similarities(shown)
    assert sorted(found[:12]) == pytest.approx(np.linspace(0.944, 0.955, 12).tolist())
    assert sorted(found[12:]) == pytest.approx([0.9, 0.929, 0.97, 0.999], abs=0.0011)
    assert [pair.dropped for pair in shown] == [value >= 0.95 for value in found]
    assert len(within(songs, candidates, 1000)) == 100


def test_what_is_dropped_anyway_is_no_near_miss():
    """2 is dropped for 0: that it is somewhat like 1 says nothing. Whoever is preferred is the one that is kept."""
    songs = recordings(3)
    candidates = np.array([(0, 1, 0.94), (0, 2, 0.97), (1, 2, 0.93)], PAIR)
    order = [1, 0, 2]
    dropped = drop_similar(order, songs, candidates[1:2])
    assert pairs_to_show(compared(songs, candidates), order, dropped, 10) == [
        ReportPair(songs[1], songs[0], 0.94, "near-duplicate", dropped=False),
        ReportPair(songs[0], songs[2], 0.97, "near-duplicate"),
    ]


def test_against_another_corpus_the_other_one_is_kept():
    songs, others = recordings(3), recordings(2, "other")
    candidates = np.array([(0, 1, 0.97), (1, 0, 0.94), (1, 1, 0.92)], PAIR)
    dropped = drop_copies(songs, others, candidates[:1])
    assert pairs_to_show(compared(songs, candidates, others), None, dropped, 10) == [
        ReportPair(others[0], songs[1], 0.94, "near-duplicate", dropped=False),
        ReportPair(others[1], songs[0], 0.97, "near-duplicate"),
        ReportPair(others[1], songs[1], 0.92, "near-duplicate", dropped=False),
    ]


def test_equal_bytes_come_in_where_there_is_room():
    songs, candidates = stars(0.97, 0.94)
    copies = [*songs, Recording("0", "/copy.wav", 10.0, 1)]
    assert [pair.dropped for pair in within(copies, candidates, 2)] == [False, True]
    assert within(copies, candidates, 3)[2] == ReportPair(copies[0], copies[4], 1.0, "exact-copy")


def test_nothing_to_show():
    assert pairs_to_show(compared([], np.empty(0, PAIR)), [], [], 40) == []
    songs, candidates = stars(0.96)
    assert pairs_to_show(compared(songs, candidates), [0, 1], [Dropped(0, 1, "near-duplicate", 0.96)], 0) == []
