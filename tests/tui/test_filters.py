"""Filters of the TUI: the grammar of `qa -f` and plain words, in every pane, half written and wrong ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from textual.widgets import Label

from appliance.tui.database import Database
from appliance.tui.panes.base import TablePane
from appliance.tui.widgets.filter_bar import FilterBar
from tests.support.tui import Seat, seated
from tests.support.tui_office import RUNNING, Office


def bar_of(seat: Seat) -> FilterBar:
    """The line with the filter."""
    assert isinstance(seat.app.pane, TablePane)
    return seat.app.pane.filter_bar


async def filtered(seat: Seat, text: str) -> None:
    """Write a filter, in place of the former one."""
    await seat.press("slash")
    bar_of(seat).open("")
    await seat.settle()
    await seat.write(text)
    await seat.press("enter")


CASES: dict[str, dict[str, set[str]]] = {
    "vms": {
        "state=running": {"desk-2", "desk-4", "desk-8"},
        "name=desk*,user=bruno": {"desk-8"},
        "name in (lab-0,desk-3)": {"lab-0", "desk-3"},
        "property.room=12": {"lab-1"},
        "bruno": {"desk-8", "lab-0", "lab-1", "lab-2"},
        "bruno running": {"desk-8"},
        "name=nothing*": set(),
    },
    "sessions": {"user=bruno": {"desk-8"}, "desk-2": {"desk-2"}},
    "users": {"login=a*": {"alice"}, "closed": {"dmitri", "eva"}, "login=nobody": set()},
    "images": {
        "osf=lab": {"lab", "lab v1", "lab v2", "lab v0", "lab v3"},
        "id=6": {"office", "office v3"},
        "id=1": {"office", "office v1"},
        "v3": {"lab", "lab v3", "office", "office v3"},
        "lab v3": {"lab", "lab v3"},
    },
    "hosts": {"name=spare*": {"spare", "spare2", "spare3"}, "blocked": {"spare3"}},
    "settings": {"l7r.greeting": {"l7r.greeting"}},
}


@pytest.mark.parametrize("pane", CASES)
async def test_a_filter_shows_what_passes_and_all_again_without_it(office: Office, pane: str) -> None:
    async with seated(office, pane) as seat:
        everything = seat.rows
        for text, expected in CASES[pane].items():
            await filtered(seat, text)
            await seat.until(lambda: set(seat.rows) == expected)  # noqa: B023
            assert seat.rows == [name for name in everything if name in expected], "another order"
            if not expected:
                await seat.shown("Nothing matches.")
            await seat.shown(f"{len(expected)} of {len(everything)}")
            await seat.press("escape")
            await seat.until(lambda: seat.rows == everything)
            assert not bar_of(seat).text
            assert not bar_of(seat).display


async def test_a_filter_of_events(office: Office) -> None:
    async with seated(office, "events") as seat:
        await filtered(seat, "what=host*")
        await seat.until(lambda: len(seat.rows) == 5)
        assert all(name.startswith("host ") for name in seat.rows)
        await office.elsewhere("host", "block", "-f", "name=spare")
        await seat.until(lambda: len(seat.rows) == 6)
        await office.elsewhere("vm", "block", "-f", "name=lab-0")
        await office.elsewhere("host", "unblock", "-f", "name=spare")
        await seat.until(lambda: len(seat.rows) == 7)


@pytest.mark.parametrize(
    ("pane", "text", "change", "expected"),
    [
        (
            "users",
            "login=*a",
            "UPDATE users SET login = 'elena' WHERE login = 'dmitri'",
            {"chiara", "elena", "eva"},
        ),
        (
            "images",
            "notes=new",
            "UPDATE dis SET notes = 'new' WHERE id IN (3, 4, 6)",
            {"lab", "lab v1", "lab v0", "office", "office v3"},
        ),
        ("images", "version=v3", "UPDATE dis SET version = 'v9' WHERE id = 6", {"lab", "lab v3"}),
        (
            "hosts",
            "name=s*",
            "UPDATE hosts SET name = 'sputnik' WHERE id = 3",
            {"spare", "sputnik", "spare3"},
        ),
        ("settings", "site.", "INSERT INTO configs VALUES ('site.floor', '3')", {"site.room", "site.floor"}),
    ],
)
async def test_a_filter_goes_on_while_others_change_things(
    office: Office, pane: str, text: str, change: str, expected: set[str]
) -> None:
    async with seated(office, pane) as seat:
        await filtered(seat, text)
        await seat.until(lambda: text in seat.text and " of " in seat.text)
        office.sql(change)
        await seat.until(lambda: set(seat.rows) == expected)
        office.sql("UPDATE vm_runtimes SET user_ip = '10.0.3.9' WHERE vm_id = 1")
        await seat.settle()
        await seat.until(lambda: set(seat.rows) == expected)


async def test_a_filter_follows_hundreds_of_changes(office: Office) -> None:
    async with seated(office) as seat:
        await filtered(seat, "state=running")
        await seat.until(lambda: len(seat.rows) == 3)
        for number in range(60):
            office.set_vm("lab-0", f"user_ip = '10.0.3.{number}'")
            if number == 5:
                office.set_vm("lab-1", RUNNING)
            if number > 5 and "lab-1" in seat.rows:
                break
            await seat.settle()
        await seat.until(lambda: "lab-1" in seat.rows)


HALF = (
    "=",
    "name",
    "name=",
    "name=[",
    "name=[/]",
    "[/]",
    "[bold",
    "name in (",
    "name in (a,",
    "nme=x",
    "[x=1]",
    "state=flying",
    "id=one",
    "a=b=c",
    "name<",
    "name=a,",
    ",",
    "(",
    "\\",
    "'",
    "$foo=[b]",
    "名前=鈴木",
    "property.=1",
    "blocked=maybe",
    "x" * 200,
    "hard<now + 3 dayz",
)


@pytest.mark.parametrize("pane", ["vms", "images", "events", "settings"])
async def test_whatever_is_half_written_is_borne(office: Office, pane: str) -> None:
    async with seated(office, pane) as seat:
        number = len(seat.rows)
        for text in HALF:
            await seat.press("slash")
            bar_of(seat).open("")
            await seat.write(text)
            assert isinstance(seat.app.pane, TablePane)
            seat.app.pane.filter_by(text)  # at once, not after a pause
            await seat.until(
                lambda: all(one.is_finished for one in seat.app.workers if one.group == "filter")
            )
            await seat.settle()
            assert seat.app.is_running
        await seat.press("escape")
        await seat.until(lambda: len(seat.rows) == number)


async def test_a_wrong_filter_says_why_and_keeps_what_was_shown(office: Office) -> None:
    async with seated(office) as seat:
        await filtered(seat, "state=running")
        await seat.until(lambda: len(seat.rows) == 3)
        await filtered(seat, "nme=desk-1")
        await seat.shown("nme")
        await seat.until(lambda: bar_of(seat).has_class("-wrong"))
        await filtered(seat, "name=desk-1")
        await seat.until(lambda: seat.rows == ["desk-1"])
        assert not bar_of(seat).has_class("-wrong")


async def test_a_wrong_filter_is_not_left_for_the_rows(office: Office) -> None:
    async with seated(office) as seat:
        await seat.press("slash")
        for key in (*"stat", "equals_sign", *"running", "enter", "asterisk", "x"):
            seat.strike(key)
        await seat.settle()
        assert bar_of(seat).is_written_in
        assert bar_of(seat).text == "stat=running*x"
        assert (seat.marked, seat.asks, seat.log) == (set(), False, [])
        await filtered(seat, "state=running")
        await seat.until(lambda: seat.table.has_focus)
        await seat.press("asterisk")
        assert seat.marked == CASES["vms"]["state=running"]


async def test_a_filter_is_left_when_it_is_judged(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    judging, judged = asyncio.Event(), asyncio.Event()
    passing = Database.passing

    async def slowly(*of: Any) -> set[int]:
        judging.set()
        await judged.wait()
        return await passing(*of)

    async with seated(office) as seat:
        monkeypatch.setattr(Database, "passing", slowly)
        await seat.press("slash")
        await seat.write("stat=running")
        await judging.wait()
        for key in ("enter", "asterisk", "x"):
            seat.strike(key)
        await seat.until(lambda: seat.app.turns.busy)
        judged.set()
        await seat.settle()
        assert bar_of(seat).text == "stat=running*x"
        assert (seat.marked, seat.asks, seat.log) == (set(), False, [])


async def test_a_wrong_filter_that_is_left_by_the_mouse_lets_nothing_through(office: Office) -> None:
    async with seated(office) as seat:
        await filtered(seat, "stat=running")
        assert len(seat.rows) > 5
        seat.table.focus()
        await seat.until(lambda: seat.rows == [])
        await seat.shown("there is no filter key 'stat'")
        await filtered(seat, "state=running")
        await seat.until(lambda: set(seat.rows) == CASES["vms"]["state=running"])


async def test_a_view_that_was_saved_with_a_wrong_filter_lets_nothing_through(office: Office) -> None:
    async with seated(office) as seat:
        pane = seat.app.pane
        assert isinstance(pane, TablePane)
        pane.look_as(replace(pane.view("old"), filter="stat=running"))
        await seat.until(lambda: seat.rows == [])
        await seat.press("slash", "escape")
        await seat.until(lambda: len(seat.rows) > 5)


async def test_the_tree_of_images_has_one_order(office: Office) -> None:
    async with seated(office, "images") as seat:
        rows = seat.rows
        await seat.press("equals_sign")
        await seat.press("less_than_sign")
        assert seat.rows == rows
        assert "each above its images" in seat.notices


async def test_a_wrong_filter_is_quoted_as_it_was_written(office: Office) -> None:
    async with seated(office) as seat:
        for text, quoted in (("[/x],a=b", "[/x]"), ("[red]a=b", "[red]a")):
            await seat.press("slash")
            bar_of(seat).open("")
            await seat.settle()
            await seat.paste(text)
            verdict = bar_of(seat).query_one("#verdict", Label)
            await seat.until(lambda: quoted in str(verdict.render()))  # noqa: B023
            assert bar_of(seat).has_class("-wrong")


async def test_changed_rows_stay_after_a_filter_that_was_refused(office: Office) -> None:
    async with seated(office) as seat:
        await filtered(seat, "state=running")
        await seat.until(lambda: len(seat.rows) == 3)
        before = seat.rows
        await filtered(seat, "nme=desk-1")
        await seat.until(lambda: bar_of(seat).has_class("-wrong"))
        office.set_vm("desk-2", "user_ip = '10.0.3.77'")
        office.set_vm("lab-0", RUNNING)
        await seat.until(lambda: len(seat.rows) == 4)
        assert seat.rows == [*before, "lab-0"]
        assert bar_of(seat).has_class("-wrong"), "what is written is still no filter"


async def test_an_action_hits_only_what_the_filter_shows(office: Office) -> None:
    async with seated(office) as seat:
        await filtered(seat, "osf=lab")
        await seat.until(lambda: len(seat.rows) == 3)
        await seat.press("asterisk", "s")
        await seat.asked()
        assert "Start 3 desktops" in seat.text
        await seat.press("y")
        await seat.done()
        assert office.names("vm_cmd = 'start'") == {"lab-0", "lab-1", "lab-2"}


async def test_marks_on_rows_that_a_filter_hides_are_taken_away(office: Office) -> None:
    async with seated(office) as seat:
        await seat.press("asterisk")
        assert len(seat.marked) == 11
        await filtered(seat, "lab")
        await seat.until(lambda: seat.marked == {"lab-0", "lab-1", "lab-2"})
        await seat.press("escape", "escape")
        await seat.until(lambda: len(seat.rows) == 11)
        assert not seat.table.marks
