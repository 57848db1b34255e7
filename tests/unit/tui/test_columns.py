"""Columns in any width: none overlap, and the less important ones go first."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tui.app import PANES
from appliance.tui.columns import GAP, MARGIN, Column, place
from appliance.tui.glyphs import FULL
from appliance.tui.panes.base import TablePane
from appliance.tui.rows import fit


def column(key: str, least: int, most: int, rank: int) -> Column[Any]:
    return Column(
        key=key, title=key, cell=lambda row, scene: ("", "plain"), least=least, most=most, rank=rank
    )


sizes = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 5))
some_columns = st.lists(sizes, min_size=1, max_size=12).map(
    lambda found: [
        column(str(number), least, least + more, rank) for number, (least, more, rank) in enumerate(found)
    ]
)


@given(
    some_columns,
    st.dictionaries(st.sampled_from([str(number) for number in range(12)]), st.integers(0, 60)),
    st.integers(0, 250),
)
def test_columns_stand_side_by_side_and_fit(
    columns: list[Column[Any]], wanted: dict[str, int], width: int
) -> None:
    placed = place(columns, wanted, width)
    assert placed, "a table without a column shows nothing"
    assert placed[0].x == MARGIN
    for one, following in pairwise(placed):
        assert following.x == one.x + one.width + GAP
    shown = [one.column for one in placed]
    assert shown == [one for one in columns if one in shown], "another order"
    least = MARGIN + sum(one.least for one in shown) + GAP * (len(shown) - 1)
    if least <= width:
        assert placed[-1].x + placed[-1].width <= width
        for one in placed:
            assert one.column.least <= one.width <= one.column.most
            assert one.width <= max(one.column.least, wanted.get(one.column.key, 0))
    else:
        assert len(placed) == 1
    for left_out in (one for one in columns if one not in shown):
        assert all(left_out.rank >= kept.rank for kept in shown), "a more important one was left out"
        more = least + GAP + left_out.least
        assert more > width or any(other.rank >= left_out.rank for other in columns if other not in shown)


@given(some_columns, st.integers(0, 200))
def test_more_room_never_shows_less(columns: list[Column[Any]], width: int) -> None:
    narrow = {one.column.key for one in place(columns, {}, width)}
    assert narrow <= {one.column.key for one in place(columns, {}, width + 1)}


@pytest.mark.parametrize("pane", [pane for pane in PANES if issubclass(pane, TablePane)])
def test_every_table_has_its_name_first_and_two_columns_on_a_narrow_terminal(
    pane: type[TablePane[Any]],
) -> None:
    usual = [one for one in pane.columns if not one.optional]
    assert len(place(usual, {}, 80)) >= 3
    assert place(usual, {}, 20)[0].column in usual[:2]
    keys = [one.key for one in pane.columns]
    assert len(set(keys)) == len(keys)
    assert pane.sort in keys


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-28-000", "…-28-000"),
        ("v3", "v3      "),
        ("数字数字数字", "… 字数字"),
        ("数字数字", "数字数字"),
    ],
)
def test_versions_are_told_apart_by_their_ends(text: str, shown: str) -> None:
    assert fit(text, 8, FULL, ends=True) == shown
