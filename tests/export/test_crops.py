from __future__ import annotations

import pytest

from audioprep.export.crops import CropPlan, Piece


def starts(plan: CropPlan, frames: int, item: str = "a") -> list[int]:
    return [piece.start for piece in plan.pieces(item, frames)]


def test_a_grid_covers_every_frame():
    for frames in range(1, 50):
        pieces = CropPlan("grid", 8).pieces("a", frames)
        assert {frame for piece in pieces for frame in range(*piece)} == set(range(frames))
        assert frames < 8 or {piece.stop - piece.start for piece in pieces} == {8}


@pytest.mark.parametrize(
    ("tail", "hop", "frames", "expected"),
    [
        ("align", None, 20, [(0, 8), (8, 16), (12, 20)]),
        ("align", None, 16, [(0, 8), (8, 16)]),
        ("pad", None, 20, [(0, 8), (8, 16), (16, 20)]),
        ("pad", 4, 13, [(0, 8), (4, 12), (8, 13)]),
        ("pad", 12, 11, [(0, 8)]),  # the next would begin behind the end
        ("drop", None, 20, [(0, 8), (8, 16)]),
        ("align", 4, 17, [(0, 8), (4, 12), (8, 16), (9, 17)]),
        ("align", None, 5, [(0, 5)]),
    ],
)
def test_the_end_of_an_item(tail, hop, frames, expected):
    assert CropPlan("grid", 8, hop, tail).pieces("a", frames) == [Piece(*piece) for piece in expected]


def test_whole_items_are_not_cut():
    assert CropPlan("whole").pieces("a", 100) == [Piece(0, 100)]
    assert CropPlan("whole", 8).pieces("a", 100) == [Piece(0, 100)]


def test_random_pieces_are_a_function_of_seed_and_item():
    plan = CropPlan("random", 8, per_item=3, seed=1)
    assert starts(plan, 1000) == starts(plan, 1000) == [147, 650, 683]  # on every machine, for ever
    assert starts(plan, 1000) != starts(plan, 1000, item="b")
    assert starts(plan, 1000) != starts(CropPlan("random", 8, per_item=3, seed=2), 1000)


def test_random_pieces_lie_inside_one_in_each_stretch():
    plan = CropPlan("random", 10, per_item=4)
    for number in range(200):
        found = starts(plan, 409, f"item {number}")
        assert [start * 4 // 400 for start in found] == [0, 1, 2, 3]


def test_random_starts_are_uniform_up_to_the_very_end():
    found = [starts(CropPlan("random", 2), 5, f"item {number}")[0] for number in range(4000)]
    assert [found.count(start) for start in range(4)] == pytest.approx([1000] * 4, abs=120)


def test_fewer_random_pieces_where_there_is_no_room():
    assert starts(CropPlan("random", 8, per_item=5), 9) == [0, 1]
    assert starts(CropPlan("random", 8, per_item=5), 8) == [0]
