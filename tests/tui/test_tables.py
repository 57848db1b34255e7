"""Keys and mouse on the tables of the TUI: moving, marking, sorting, columns, saved views, details."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.widgets import Input, SelectionList

from appliance.tui.app import PANES
from appliance.tui.panes.base import TablePane
from appliance.tui.widgets.details import Details
from appliance.tui.widgets.record_table import RecordTable
from tests.support.tui import seated
from tests.support.tui_office import Office, nothing_changes


async def test_the_cursor_moves_by_rows_screens_and_ends(office: Office) -> None:
    await office.elsewhere("vm", "add", "name=many", "user=chiara", "osf=lab", "bulk=60")
    async with seated(office, size=(80, 24)) as seat:
        rows = seat.rows
        assert seat.here == rows[0]
        for keys, expected in (
            (("j", "down"), 2),
            (("k",), 1),
            (("up", "up", "up"), 0),
            (("G",), 70),
            (("down",), 70),
            (("g",), 0),
            (("end",), 70),
            (("home",), 0),
        ):
            await seat.press(*keys)
            assert seat.rows.index(seat.here) == expected, keys
            assert seat.here in seat.text
        await seat.press("pagedown")
        first = rows.index(seat.here)
        assert 10 < first < 24
        await seat.press("ctrl+f")
        assert rows.index(seat.here) > first
        await seat.press("pageup", "ctrl+b")
        assert seat.here == rows[0]


async def test_marks_by_one_by_range_by_moving_and_all(office: Office) -> None:
    async with seated(office) as seat:
        await seat.press("space", "space")
        assert seat.marked == {"desk-0", "desk-1"}
        assert seat.here == "desk-2"
        await seat.press("up", "space")
        assert seat.marked == {"desk-0"}
        await seat.press("escape")
        assert not seat.marked
        await seat.press("g", "j", "space", "j", "j", "V")
        assert seat.marked == {"desk-1", "desk-2", "desk-3", "desk-4"}
        await seat.press("escape", "g", "shift+down", "shift+down")
        assert seat.marked == {"desk-0", "desk-1", "desk-2"}
        await seat.press("asterisk")
        assert len(seat.marked) == 11
        await seat.press("asterisk")
        assert not seat.marked
        await seat.press("ctrl+a")
        assert len(seat.marked) == 11
        await seat.press("escape", "G", "ctrl+@")
        assert seat.marked == {"lab-2"}


TREES = {"images"}


@pytest.mark.parametrize(
    "pane", [pane.name_ for pane in PANES if issubclass(pane, TablePane) and pane.name_ not in TREES]
)
async def test_every_column_that_can_sort_sorts_both_ways(office: Office, pane: str) -> None:
    async with seated(office, pane, size=(220, 40)) as seat:
        kind = next(one for one in PANES if one.name_ == pane)
        assert issubclass(kind, TablePane)
        everything = [column.key for column in kind.columns]
        assert isinstance(seat.app.pane, TablePane)
        seat.app.pane.choose_columns(everything)
        sortable = [column for column in kind.columns if column.sort is not None]
        seen = []
        for _ in sortable:
            await seat.press("greater_than_sign")
            key = seat.table.sort_key
            seen.append(key)
            column = next(column for column in sortable if column.key == key)
            records = seat.table.listing.records
            assert column.sort is not None
            ranks = [column.sort(records[one]) for one in seat.table.listing.ordered()]
            assert ranks == sorted(ranks)
            first = seat.rows
            await seat.press("equals_sign")
            assert seat.rows == first[::-1]
            await seat.press("equals_sign")
            assert seat.rows == first
        assert set(seen) == {column.key for column in sortable}
        await seat.press("less_than_sign")
        assert seat.table.sort_key == (seen[-2] if len(seen) > 1 else seen[-1])


async def test_names_sort_as_people_count(office: Office) -> None:
    await office.elsewhere("vm", "add", "name=desk-10", "user=alice", "osf=lab")
    async with seated(office) as seat:
        assert seat.rows[:10] == [*(f"desk-{number}" for number in (0, 1, 2, 3, 4, 5, 6, 8, 10)), "lab-0"]


async def test_columns_are_chosen_and_kept_over_a_restart(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    async with seated(office, size=(160, 30), remembered=file) as seat:
        usual = [column.key for column in seat.table.columns]
        assert "id" not in usual
        await seat.press("f2")
        await seat.asked()
        await seat.press("escape")
        await seat.answered()
        assert [column.key for column in seat.table.columns] == usual
        await seat.press("f2")
        await seat.asked()
        chooser = seat.app.screen.query_one(SelectionList)
        assert set(chooser.selected) == set(usual)
        chooser.deselect_all()
        chooser.select("id")
        chooser.select("name")
        await seat.press("enter")
        await seat.answered()
        assert [column.key for column in seat.table.columns] == ["name", "id"]
        assert "Session" not in seat.text.splitlines()[2]
        await seat.press("greater_than_sign", "less_than_sign", "equals_sign")
    async with seated(office, remembered=file) as seat:
        assert [column.key for column in seat.table.columns] == ["name", "id"]
        await seat.press("f2")
        await seat.asked()
        await seat.press("u")
        await seat.answered()
        assert [column.key for column in seat.table.columns] == usual
    async with seated(office, remembered=file) as seat:
        assert [column.key for column in seat.table.columns] == usual


async def test_columns_of_which_none_sorts_break_nothing(office: Office) -> None:
    async with seated(office) as seat:
        assert isinstance(seat.app.pane, TablePane)
        seat.app.pane.choose_columns(["cpu"])
        await seat.press("greater_than_sign", "less_than_sign", "equals_sign", "f2")
        await seat.asked()
        seat.app.screen.query_one(SelectionList).deselect_all()
        await seat.press("enter")
        await seat.shown("One at least must be chosen.")
        await seat.press("u")
        await seat.answered()
        assert len(seat.table.columns) > 3


async def test_views_are_saved_shown_again_and_forgotten(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    async with seated(office, remembered=file) as seat:
        await seat.press("slash")
        await seat.write("state=running")
        await seat.press("enter")
        await seat.until(lambda: len(seat.rows) == 3)
        await seat.press("greater_than_sign", "equals_sign")
        sorted_by, rows = (seat.table.sort_key, seat.table.reverse), seat.rows
        await seat.press("f3")
        await seat.asked()
        seat.app.screen.query_one(Input).focus()
        await seat.settle()
        await seat.write("[/] busy [b]")
        await seat.press("enter")
        await seat.answered()
        await seat.until(lambda: "[/] busy [b]" in seat.notices)
        assert seat.app.is_running
    (saved,) = json.loads(file.read_text())["views"]
    assert (saved["name"], saved["filter"], saved["pane"]) == ("[/] busy [b]", "state=running", "vms")
    async with seated(office, remembered=file) as seat:
        assert len(seat.rows) == 11
        await seat.press("f3")
        await seat.asked()
        assert "[/] busy [b]" in seat.text
        await seat.press("down", "up", "enter")
        await seat.answered()
        await seat.until(lambda: seat.rows == rows)
        assert (seat.table.sort_key, seat.table.reverse) == sorted_by
        assert seat.table.has_focus
        await seat.press("f3")
        await seat.asked()
        await seat.press("delete")
        await seat.answered()
        await seat.go("users")
        await seat.press("f3")
        await seat.asked()
        await seat.shown("None is saved yet.")
    assert json.loads(file.read_text())["views"] == []


async def test_a_file_that_cannot_be_written_is_said_not_to_be(office: Office, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with seated(office, remembered=tmp_path / "file" / "kept.json") as seat:
        await seat.press("f2")
        await seat.asked()
        await seat.press("u")
        await seat.answered()
        await seat.until(lambda: "cannot be written" in seat.notices)


async def test_details_open_scroll_and_close(office: Office) -> None:
    async with seated(office, size=(80, 24)) as seat:
        await seat.point("desk-2")
        assert "Boots next" not in seat.text
        await seat.press("enter")
        await seat.shown("Started by")
        details = seat.app.pane.query_one(Details)  # type: ignore[union-attr]
        await seat.press("tab")
        assert details.has_focus
        await seat.press("end")
        await seat.until(lambda: details.scroll_offset.y > 0)
        await seat.press("escape")
        assert seat.table.has_focus
        await seat.press("down")
        await seat.until(lambda: "the guest ended while it booted" in seat.text)
        await seat.until(lambda: details.scroll_offset.y == 0)
        await seat.press("enter")
        await seat.unseen("Failures")


async def test_the_mouse_chooses_marks_sorts_and_opens(office: Office) -> None:
    async with seated(office) as seat:
        with nothing_changes(office):
            assert await seat.pilot.click(RecordTable, offset=(8, 4))
            await seat.until(lambda: seat.here == seat.rows[3])
            await seat.pilot.click(RecordTable, offset=(0, 5))
            await seat.until(lambda: seat.marked == {seat.rows[4]})
            await seat.pilot.click(RecordTable, offset=(8, 2), control=True)
            await seat.until(lambda: len(seat.marked) == 2)
            await seat.pilot.click(RecordTable, offset=(22, 0))
            await seat.until(lambda: seat.table.sort_key != "name")
            rows = seat.rows
            await seat.pilot.click(RecordTable, offset=(22, 0))
            await seat.until(lambda: seat.rows == rows[::-1])
            await seat.pilot.click(RecordTable, offset=(8, 25))
            await seat.settle()
            await seat.pilot.click(RecordTable, offset=(8, 6), times=2)
            await seat.until(lambda: seat.app.pane.details_shown)  # type: ignore[union-attr]
            await seat.pilot.click("TabBar", offset=(24, 0))
            await seat.until(lambda: seat.app.pane.name_ == "users")  # type: ignore[union-attr]


async def test_a_table_is_sorted_by_a_column_that_is_hidden(office: Office) -> None:
    async with seated(office, size=(160, 30)) as seat:
        pane = seat.app.pane
        assert isinstance(pane, TablePane)
        seat.table.sort_by("state")
        by_state = seat.table.listing.ordered()
        assert by_state != sorted(by_state), "or it would look the same"
        pane.choose_columns(["name", "id"])
        await seat.press("equals_sign")
        assert seat.table.listing.ordered() == by_state[::-1]
        view = pane.view("kept")
        seat.table.sort_by("name")
        pane.look_as(view)
        assert (seat.table.sort_key, seat.table.listing.ordered()) == ("state", by_state[::-1])
