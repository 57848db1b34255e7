"""Curves made of signs."""

from __future__ import annotations

from appliance.tui.graph import graph

SIGNS = "12345678"


def test_a_share_fills_its_part_of_the_height() -> None:
    assert graph([0.0, 0.5, 1.0], 3, 1, SIGNS) == ["148"]
    assert graph([0.25, 0.5, 0.75, 1.0], 4, 2, SIGNS) == ["  48", "4888"]


def test_the_newest_is_at_the_right_and_the_oldest_go() -> None:
    assert graph([1.0], 3, 1, SIGNS) == ["  8"]
    assert graph([0.0, 0.0, 1.0], 2, 1, SIGNS) == ["18"]


def test_what_is_beyond_all_measure_stays_in_its_lines() -> None:
    assert graph([-1.0, 7.0], 2, 2, SIGNS) == [" 8", "18"]


def test_there_may_be_no_room_and_no_history() -> None:
    assert graph([], 2, 1, SIGNS) == ["  "]
    assert graph([0.5], 0, 2, SIGNS) == ["", ""]
