"""What others change shows by itself, and moves neither cursor, nor scroll position, nor marks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from appliance.tui.view import natural
from tests.support.tui import Seat, seated
from tests.support.tui_office import CONNECTED, RUNNING, Office

SMALL = (80, 24)


@pytest.fixture
def crowd(office: Office) -> Office:
    """An office with more desktops than a screen has lines."""
    office.ok("vm", "add", "name=many", "user=chiara", "osf=lab", "bulk=60")
    return office


def line_of_cursor(seat: Seat) -> int:
    """On which line of the table the cursor is drawn."""
    lines = seat.text.splitlines()
    (line,) = (
        number for number, text in enumerate(lines) if text.startswith(("▸", "▌")) and seat.here in text
    )
    return line


def gone(office: Office, name: str) -> None:
    """Delete a desktop as `qa` would, without its files."""
    office.sql("DELETE FROM vms WHERE name = ?", name)


Change = Callable[[Office], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "added above": (lambda office: office.ok("vm", "add", "name=aaa", "user=alice", "osf=lab"), "aaa"),
    "removed above": (lambda office: office.ok("vm", "del", "-f", "name=desk-1"), ""),
    "removed below": (lambda office: office.ok("vm", "del", "-f", "name=many-50"), ""),
    "renamed to the end": (lambda office: office.ok("vm", "edit", "name=zzz", "-f", "name=desk-0"), "zzz"),
    "renamed under the cursor": (
        lambda office: office.ok("vm", "edit", "name=many-30x", "-f", "name=many-30"),
        "many-30x",
    ),
    "another state": (lambda office: office.set_vm("many-29", RUNNING), ""),
    "many at once": (
        lambda office: office.sql("UPDATE vm_runtimes SET blocked = 1, block_cause = 'admin'"),
        "",
    ),
}


async def test_a_change_moves_nothing_that_it_does_not_concern(crowd: Office) -> None:
    async with seated(crowd, size=SMALL) as seat:
        await seat.mark("many-25", "many-28")
        await seat.point("many-30")
        here, line, marks = seat.table.cursor, line_of_cursor(seat), set(seat.table.marks)
        for name, (change, appears) in CHANGES.items():
            before = seat.app.site.tally.vms.copy()
            await asyncio.to_thread(change, crowd)
            await seat.until(lambda: seat.app.site.tally.vms != before)  # noqa: B023
            await seat.settle()
            assert seat.table.cursor == here, name
            assert line_of_cursor(seat) == line, name
            assert seat.table.marks == marks, name
            assert seat.marked == {"many-25", "many-28"}
            assert seat.rows == sorted(seat.rows, key=natural)
            assert not appears or appears in seat.rows
            assert {vm.name for vm in seat.app.site.tally.vms.values()} == set(seat.rows)
            assert set(seat.rows) == crowd.names("true")


async def test_a_row_that_vanishes_loses_its_mark_and_hands_on_the_cursor(crowd: Office) -> None:
    async with seated(crowd, size=SMALL) as seat:
        await seat.mark("many-25", "many-28")
        await seat.point("many-28")
        line = line_of_cursor(seat)
        await asyncio.to_thread(crowd.ok, "vm", "del", "-f", "name=many-28")
        await seat.until(lambda: "many-28" not in seat.rows)
        await seat.until(lambda: "many-29" in seat.text)
        assert seat.here == "many-29"
        assert line_of_cursor(seat) == line
        assert seat.marked == {"many-25"}
        await asyncio.to_thread(crowd.ok, "vm", "del", "-f", "name in (many-25,many-58,many-59)")
        await seat.until(lambda: "many-59" not in seat.rows)
        assert seat.marked == set()
        await seat.press("G")
        assert seat.here == "many-57"
        await asyncio.to_thread(crowd.ok, "vm", "del", "-f", "name=many*", "--yes")
        await seat.until(lambda: len(seat.rows) == 11)
        assert seat.here == "lab-2"
        crowd.sql("DELETE FROM vms")
        await seat.until(lambda: not seat.rows)
        await seat.shown("There are no desktops yet")
        await seat.press("s", "j", "G", "space", "enter", "V", "asterisk")
        assert seat.log == []
        await asyncio.to_thread(crowd.ok, "vm", "add", "name=first", "user=alice", "osf=lab")
        await seat.until(lambda: seat.rows == ["first"])
        assert seat.here == "first"


async def test_a_row_that_sorts_elsewhere_takes_the_cursor_with_it(office: Office) -> None:
    async with seated(office) as seat:
        await seat.press("greater_than_sign", "greater_than_sign")
        assert seat.table.sort_key == "state"
        await seat.point("desk-1")
        office.set_vm("desk-1", "vm_state = 'zombie', vm_phase = 'zombie/reaping', host_id = 1")
        await seat.until(lambda: seat.rows.index("desk-1") < 2)
        assert seat.here == "desk-1"
        await seat.shown("✖ zombie")


async def test_whoever_looks_at_the_top_keeps_looking_at_the_top(crowd: Office) -> None:
    async with seated(crowd, size=SMALL) as seat:
        await seat.press("home")
        await asyncio.to_thread(crowd.ok, "vm", "add", "name=aaa", "user=alice", "osf=lab")
        await seat.until(lambda: "aaa" in seat.rows)
        assert seat.here == "desk-0"
        await seat.press("up")
        assert seat.here == "aaa"
        assert line_of_cursor(seat) == 3


@pytest.mark.parametrize("text", ["state=running", "running", "running alice"])
async def test_rows_come_and_go_as_they_match_a_filter(office: Office, text: str) -> None:
    async with seated(office) as seat:
        await seat.press("slash")
        await seat.write(text)
        await seat.press("enter")
        await seat.until(lambda: set(seat.rows) <= {"desk-2", "desk-4", "desk-8"})
        await seat.point("desk-4")
        await seat.press("space")
        office.set_vm("desk-1", RUNNING)
        await seat.until(lambda: "desk-1" in seat.rows)
        assert seat.marked == {"desk-4"}
        office.set_vm(
            "desk-2",
            "vm_state = 'stopped', vm_phase = 'stopped', user_state = 'disconnected', "
            "l7r_session = NULL, host_id = NULL, current_di_id = NULL, current_osf_id = NULL, "
            "started_by = NULL",
        )
        await seat.until(lambda: "desk-2" not in seat.rows)
        office.set_vm("desk-4", "vm_state = 'zombie', vm_phase = 'zombie/reaping'")
        await seat.until(lambda: "desk-4" not in seat.rows)
        await seat.until(lambda: not seat.table.marks)
        office.set_vm("desk-4", RUNNING)
        await seat.until(lambda: "desk-4" in seat.rows)
        assert seat.marked == set(), "a mark came back from where nobody saw it"
        await asyncio.to_thread(office.ok, "vm", "edit", "name=renamed", "-f", "name=desk-4")
        await seat.until(lambda: "renamed" in seat.rows)
        await seat.press("escape")
        await seat.until(lambda: len(seat.rows) == 11)


async def test_details_follow_the_row(office: Office) -> None:
    async with seated(office, size=(160, 40)) as seat:
        await seat.point("desk-1")
        office.set_vm("desk-1", f"{RUNNING}, {CONNECTED}, failures = 0")
        await seat.shown("Started by   command")
        await asyncio.to_thread(office.ok, "vm", "block", "-f", "name=desk-1")
        await seat.shown("block (qa:root)")


async def test_every_pane_shows_what_others_do(office: Office) -> None:
    async with seated(office, "sessions") as seat:
        assert sorted(seat.rows) == ["desk-2", "desk-8"]
        office.set_vm("desk-1", f"{RUNNING}, {CONNECTED}")
        await seat.until(lambda: "desk-1" in seat.rows)
        office.set_vm("desk-8", "user_state = 'disconnected', l7r_session = NULL")
        await seat.until(lambda: "desk-8" not in seat.rows)

        await seat.go("users")
        await office.elsewhere("user", "add", "login=gina", f"password-file={office.password('x')}")
        await seat.until(lambda: "gina" in seat.rows)
        await office.elsewhere("user", "del", "-f", "login=gina")
        await seat.until(lambda: "gina" not in seat.rows)
        office.set_vm("lab-0", f"{RUNNING}, {CONNECTED}")
        await seat.until(lambda: any("bruno" in line and "1/4" in line for line in seat.text.splitlines()))

        await seat.go("images")
        await office.elsewhere("di", "tag", "di_id=6", "tag=fresh")
        await seat.shown("fresh")
        await office.elsewhere("osf", "add", "name=another")
        await seat.until(lambda: "another" in seat.rows)

        await seat.go("hosts")
        await office.elsewhere("host", "block", "-f", "name=spare")
        await seat.until(lambda: seat.text.count("blocked") >= 2)

        await seat.go("events")
        assert seat.table.reverse
        await office.elsewhere("vm", "block", "-f", "name=lab-2")
        await seat.until(lambda: seat.rows[0] == "vm block vm 11 lab-2")
        await seat.shown("lab-2")
        assert seat.here == seat.rows[0], "whoever looks at the newest event sees the next one"

        await seat.go("settings")
        await office.elsewhere("config", "set", "site.floor=3")
        await seat.until(lambda: "site.floor" in seat.rows)

        await seat.press("1")
        await seat.shown("Needs attention")
        office.set_vm("lab-1", "failure = 'no boot', failure_cause = 'image', failures = 1")
        await seat.shown("lab-1")
        await seat.shown("no boot")


async def test_two_tuis_see_each_other(office: Office) -> None:
    async with seated(office) as one, seated(office) as other:
        await other.point("desk-6")
        here = other.here
        await one.point("desk-1")
        await one.press("s")
        await one.done()
        await other.until(lambda: other.vm("desk-1").cmd == "start")
        await other.shown("start wished")
        assert other.here == here
