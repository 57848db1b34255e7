"""Actions of the TUI of other kinds: imports, messages, logs, consoles, snapshots, alarms.

And that none is left out: an action that nobody tries fails here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.errors import StoreError
from appliance.model import VmId
from appliance.storage.live import UserLine
from appliance.storage.paths import Paths
from appliance.tui.app import CONSOLES, PANES
from appliance.tui.calls import Caller, Outcome, Told
from appliance.tui.console.link import Standing
from appliance.tui.dialogs.form import VerbForm
from appliance.tui.panes.users import UsersPane
from appliance.vma import wire
from tests.support.console_desk import Daemon
from tests.support.tui import Seat, seated, twin_words
from tests.support.tui_deeds import DEEDS, arriving
from tests.support.tui_forms import FORMS
from tests.support.tui_office import CONNECTED, RUNNING, Office, comparable, nothing_changes

TRIED_BY_THEMSELVES = {
    "alarm.clear",
    "di.add",
    "host.properties",
    "image.properties",
    "operation.cancel",
    "user.properties",
    "vm.console",
    "vm.log",
    "vm.message",
    "vm.properties",
    "vm.restore",
    "vm.snapshot",
}


def test_no_action_is_left_out() -> None:
    offered = {action.name for pane in PANES for action in pane.actions}
    tried = {deed.action for deed in DEEDS} | {deed.action for deed in FORMS} | TRIED_BY_THEMSELVES
    assert offered == tried


def test_no_key_means_two_things_in_one_pane() -> None:
    for pane in PANES:
        keys = [action.key for action in pane.actions]
        assert len(set(keys)) == len(keys), pane


@asynccontextmanager
async def agent(office: Office, name: str, answer: object) -> AsyncIterator[list[str]]:
    """An agent on loopback that answers every call alike for a desktop; what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(wire.success(answer))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        office.set_vm(name, f"vm_address = '127.0.0.1', vm_vma_port = {port}")
        yield asked


class Gate(Caller):
    """A caller of which calls of one noun wait until they may go on."""

    def __init__(self, caller: Caller, noun: str) -> None:
        self._options = caller._options
        self._noun = noun
        self.fails = False
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        if words[0] == self._noun:
            self.begun.set()
            await self.may_go_on.wait()
            if self.fails:
                return Outcome(words=tuple(words), status=1, err="the disk is broken")
        return await super().__call__(words, stdin=stdin, progress=progress)


def acting(seat: Seat) -> int:
    """How many actions are under way."""
    return sum(1 for worker in seat.app.workers if worker.group == "act" and not worker.is_finished)


async def test_a_form_is_about_the_rows_of_its_key_whatever_is_shown_by_then(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-1")
        seat.strike("E")
        seat.strike("3")
        await seat.asked()
        form = seat.app.screen
        assert isinstance(form, VerbForm)
        await seat.shown("desk-1")
        assert "Edit: 1 desktop" in form.heading
        await seat.press("escape")
        await seat.answered()
        assert seat.app.is_running


async def test_one_action_is_prepared_at_a_time(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-2")
        for key in ("E", "E", "x", "t"):
            seat.strike(key)
        await seat.asked()
        assert isinstance(seat.app.screen, VerbForm)
        assert acting(seat) == 1
        await seat.press("escape")
        await seat.answered()
        await seat.until(lambda: not acting(seat))
        assert seat.log == []


async def test_what_takes_long_to_be_read_waits_for_the_form_that_was_opened_meanwhile(
    office: Office,
) -> None:
    async with agent(office, "desk-2", {"hooks": [], "vma": ["session started"]}), seated(office) as seat:
        caller = seat.app.site.caller = Gate(seat.app.site.caller, "vm")
        await seat.point("desk-2")
        await seat.press("o")
        await seat.until(caller.begun.is_set)
        await seat.press("a")
        await seat.asked()
        caller.may_go_on.set()
        await seat.done()
        await seat.write("fresh")
        assert isinstance(seat.app.screen, VerbForm)
        field = seat.app.screen.field("name")
        assert field is not None
        assert field.text == "fresh"
        await seat.press("escape")
        await seat.shown("session started")


async def test_marks_that_an_action_is_not_about_stay(office: Office) -> None:
    async with seated(office) as seat:
        caller = seat.app.site.caller = Gate(seat.app.site.caller, "vm")
        await seat.mark("desk-0", "lab-0")
        await seat.press("s")
        await seat.asked()
        await seat.press("y")
        await seat.until(caller.begun.is_set)
        await seat.mark("lab-1")
        await seat.go("users")
        await seat.mark("alice")
        await seat.press("down")
        await seat.press("x")  # another action may begin while the first is under way
        await seat.asked()
        await seat.press("escape")
        await seat.answered()
        caller.may_go_on.set()
        await seat.done()
        assert seat.marked == {"alice"}
        await seat.go("vms")
        assert seat.marked == {"lab-1"}


async def test_when_all_marked_rows_went_away_nothing_is_done_to_another(office: Office) -> None:
    office.set_vm("lab-0", f"{RUNNING}, {CONNECTED}")
    async with seated(office, "sessions") as seat:
        await seat.mark("desk-2", "desk-8")
        for name in ("desk-2", "desk-8"):
            office.set_vm(name, "user_state = 'disconnected', l7r_session = NULL")
        await seat.until(lambda: seat.rows == ["lab-0"])
        with nothing_changes(office):
            await seat.press("b")
            await seat.until(lambda: "not here any more" in seat.notices)
        assert seat.log == []
        await seat.press("b")
        assert (await seat.done()).ok
        assert "lab-0" in office.names("blocked")


async def test_who_agrees_to_what_holds_no_more_is_asked_anew(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-4")
        await seat.press("x")
        await seat.asked()
        assert "Nobody is connected." in seat.text
        number = seat.vm("desk-4").id
        office.set_vm("desk-4", CONNECTED)
        office.sql("UPDATE vms SET name = 'desk-four' WHERE id = ?", number)
        vms = seat.app.site.tally.vms
        await seat.until(lambda: vms[number].has_user and vms[number].name == "desk-four")
        with nothing_changes(office):
            await seat.press("y")
            await seat.shown("loses the session")
            assert "desk-four" in seat.text
            assert "something changed meanwhile" in seat.text
        await seat.press("y")
        line = await seat.done()
        assert line.command == "qa vm stop -f name=desk-four"
        assert office.names("vm_cmd = 'stop'") == {"desk-four"}


async def test_rows_that_are_left_out_unasked_are_told(office: Office) -> None:
    async with seated(office) as seat:
        await seat.mark("desk-0", "desk-1", "desk-4", "lab-0")
        await seat.press("u")
        assert (await seat.done()).ok
        assert "3 chosen rows left out: not blocked." in seat.notices


async def test_an_osf_among_images_is_not_deleted_by_a_hasty_yes(office: Office) -> None:
    async with seated(office, "images") as seat:
        await seat.mark("office v3", "empty")
        await seat.press("D")
        await seat.asked()
        for words in ("office v3", "trash", "The OSF goes for good", "It cannot be undone"):
            assert words in seat.text
        await seat.press("y", "enter")
        assert seat.asks
        await seat.press("ctrl+u")
        await seat.write("2")
        await seat.press("enter")
        await seat.done(2)
        assert office.sql("SELECT name FROM osfs WHERE name = 'empty'") == []


async def test_a_secret_setting_is_changed_and_shown_to_nobody(office: Office) -> None:
    await office.elsewhere("config", "set", "site.secret=hunter2")
    async with seated(office, "settings", size=(140, 40)) as seat:
        await seat.point("site.secret")
        await seat.press("E")
        await seat.asked()
        await seat.write("xyzzy")
        assert "xyzzy" not in seat.text
        await seat.press("ctrl+s")
        await seat.answered()
        line = await seat.done()
        assert line.ok
        assert line.command == "qa config set 'site.secret=…'"
        assert "hunter2" not in seat.text
    assert office.sql("SELECT value FROM configs WHERE key = 'site.secret'") == [("xyzzy",)]


async def test_rows_are_read_again_after_an_error(office: Office) -> None:
    async with seated(office, "users") as seat:
        pane = seat.app.pane
        assert isinstance(pane, UsersPane)
        fetch, tried = pane.fetch, []

        async def failing() -> dict[int, UserLine]:
            tried.append(True)
            if len(tried) == 1:
                raise StoreError("the disk is broken")
            return await fetch()

        pane.fetch = failing  # type: ignore[method-assign]
        await seat.until(lambda: not pane._busy)
        pane.read_anew()
        await seat.until(lambda: seat.table.empty == "the disk is broken")
        await seat.until(lambda: seat.table.empty == UsersPane.empty)
        assert len(tried) == 2


async def test_what_does_not_fit_is_told_and_nothing_is_done(office: Office) -> None:
    async with seated(office) as seat:
        with nothing_changes(office):
            for name, key, said in (
                ("desk-2", "s", "desk-2: not stopped."),
                ("desk-1", "x", "desk-1: not running."),
                ("desk-1", "d", "desk-1: nobody is connected."),
                ("desk-4", "b", "desk-4: blocked already."),
                ("desk-4", "D", "desk-4: not stopped."),
                ("desk-1", "c", "desk-1: not running: it has no console."),
            ):
                await seat.point(name)
                await seat.press(key)
                await seat.until(lambda: said in seat.notices)  # noqa: B023
            await seat.mark("desk-2", "desk-4")
            await seat.press("s")
            await seat.until(lambda: "2 rows: not stopped." in seat.notices)
            await seat.press("c")
            await seat.until(lambda: "one row" in seat.notices)
        assert seat.log == []
        assert not seat.asks


async def test_nothing_chosen_is_told(office: Office) -> None:
    office.sql("UPDATE vm_runtimes SET user_state = 'disconnected', l7r_session = NULL")
    async with seated(office) as seat:
        await seat.press("5")
        await seat.until(lambda: seat.app.pane is not None and seat.app.pane.name_ == "sessions")
        await seat.press("x")
        await seat.until(lambda: "No row is chosen." in seat.notices)
        assert seat.log == []


@pytest.mark.parametrize("pane", ["dashboard", "events"])
async def test_alarms_are_cleared(office: Office, copy: Office, pane: str) -> None:
    async with seated(office, pane) as seat:
        await seat.press("C")
        await seat.asked()
        with nothing_changes(office):
            await seat.press("escape")
            await seat.answered()
        await seat.press("C")
        await seat.asked()
        await seat.press("y")
        line = await seat.done()
        assert line.ok, line
        assert office.sql("SELECT count(*) FROM alarms WHERE cleared IS NULL") == [(0,)]
    await copy.elsewhere(*twin_words(line), "--yes")
    assert comparable(office.tables()) == comparable(copy.tables())


async def test_alarms_that_are_raised_while_it_is_asked_stay(office: Office) -> None:
    async with seated(office, "events") as seat:
        await seat.press("C")
        await seat.asked()
        assert "Clear 1 alarm?" in seat.text
        assert "the pool is full" in seat.text
        office.sql(
            "INSERT INTO alarms (kind, object, text, raised, last, count) VALUES "
            "('image', 'di 3', 'it does not boot', '2026-01-02 03:04:06', '2026-01-02 03:04:06', 1)"
        )
        await seat.press("y")
        assert (await seat.done()).ok
        assert office.sql("SELECT text FROM alarms WHERE cleared IS NULL") == [("it does not boot",)]


async def test_an_import_under_way_is_cancelled(office: Office) -> None:
    with arriving(office) as di_id:
        office.sql(
            "INSERT INTO operations (kind, object, owner, owner_pid, begun, progress, plan) "
            "VALUES ('vm give', ?, 'qa:root', 1, '2026-01-02 03:04:05', 0, '{}')",
            str(di_id),
        )
        async with seated(office, "images") as seat:
            name = f"import {di_id}"
            await seat.until(lambda: any(name in row for row in seat.rows))
            await seat.point(next(row for row in seat.rows if name in row))
            await seat.press("E", "p")
            await seat.until(lambda: seat.notices.count("still on") == 2)
            assert not seat.asks
            await seat.press("C")
            await seat.asked()
            with nothing_changes(office):
                await seat.press("escape")
                await seat.answered()
            await seat.press("C")
            await seat.asked()
            await seat.press("y")
            line = await seat.done()
            assert line.ok, line
            assert office.sql(
                "SELECT kind, object, cancel FROM operations WHERE ended IS NULL ORDER BY kind"
            ) == [("di add", str(di_id), 1), ("vm give", str(di_id), 0)]


async def test_a_message_reaches_the_people_at_desktops(office: Office) -> None:
    async with agent(office, "desk-2", wire.TOLD) as asked, seated(office, "sessions") as seat:
        await seat.mark("desk-2", "desk-8")
        await seat.press("m")
        await seat.asked()
        with nothing_changes(office):
            await seat.press("escape")
            await seat.answered()
        await seat.press("m")
        await seat.asked()
        await seat.write("Please save [b]your[/b] work")
        await seat.press("ctrl+s")
        await seat.answered()
        line = await seat.done()
        assert line.ok
        assert line.result.startswith("Told 1 of 2 desktops.")
        await seat.until(lambda: "desk-8 was not told" in seat.notices)
    assert "save+[b]your" in asked[0] or "save+%5Bb%5Dyour" in asked[0] or "save%20%5Bb%5Dyour" in asked[0]
    assert office.sql("SELECT \"by\" LIKE 'tui:%', object, now FROM events ORDER BY id DESC LIMIT 1") == [
        (1, "vm 3", "Please save [b]your[/b] work")
    ]


async def test_a_message_that_reaches_nobody_is_said_to_and_kept(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-4")
        await seat.press("m")
        await seat.asked()
        with nothing_changes(office):
            await seat.write("hello")
            await seat.press("ctrl+s")
            await seat.until(lambda: seat.log and seat.log[-1].ok is False)
        assert isinstance(seat.app.screen, VerbForm)
        field = seat.app.screen.field("text")
        assert field is not None
        assert field.text == "hello"


async def test_the_log_of_an_agent_is_shown_as_text(office: Office) -> None:
    logs = {"hooks": ["\x1b]0;owned\x07hello [/] [bold]"], "vma": ["session started"]}
    async with agent(office, "desk-2", logs), seated(office) as seat:
        await seat.point("desk-2")
        with nothing_changes(office):
            await seat.press("o")
            await seat.asked()
            await seat.shown("hello [/] [bold]")
            assert "session started" in seat.text
            assert "\x1b" not in seat.text
            await seat.press("escape")
            await seat.answered()


async def test_an_agent_that_is_not_there_is_said_not_to_be(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-2")
        await seat.press("o")
        await seat.until(lambda: seat.log and seat.log[-1].ok is False)
        await seat.until(lambda: "Agent log failed" in seat.notices)


async def test_a_console_opens_and_can_be_left_and_the_desktop_is_untouched(
    office: Office, tmp_path: Path
) -> None:
    desk = Daemon(tmp_path)
    async with seated(office) as seat:
        desk.control = seat.app.site.control
        desk.control.parent.mkdir(parents=True, exist_ok=True)
        await desk.start(VmId(3))
        try:
            with nothing_changes(office):
                await seat.point("desk-2")
                await seat.press("c")
                await seat.until(lambda: seat.app.consoles.typing)
                terminal = seat.app.consoles.active
                assert terminal is not None
                await seat.until(lambda: terminal.standing is Standing.OPEN)
                await seat.until(lambda: terminal.company.you_write)
                await seat.press("q", "x", "2")
                typed = b""

                def arrived() -> bool:
                    nonlocal typed
                    typed += desk.lines[VmId(3)].typed()
                    return typed == b"qx2"

                await seat.until(arrived)
                await seat.press("ctrl+right_square_bracket", "escape")
                await seat.until(lambda: seat.app.pane is not None)
                assert seat.app.pane is not None
                assert seat.app.pane.name_ == "vms"
                assert seat.here == "desk-2"
                await seat.shown("Consoles 1")
                await seat.go(CONSOLES)
                await seat.press("w")
                await seat.until(lambda: not seat.app.consoles.terminals)
        finally:
            await desk.stop()


async def test_snapshots_of_homes_are_asked_for(office: Office) -> None:
    async with seated(office) as seat:
        await seat.mark("desk-0", "desk-1", "desk-2")
        with nothing_changes(office):
            await seat.press("H")
            await seat.asked()
            assert "1 chosen row left out: not stopped." in seat.text
            await seat.press("escape")
            await seat.answered()
            await seat.press("H")
            await seat.asked()
            await seat.press("y")
            line = await seat.done()
        assert line.command == "qa home snapshot -f 'name in (desk-0,desk-1)'"
        assert line.result.startswith("Kept 0 homes"), "this backend has none"


async def test_a_home_without_snapshots_cannot_be_restored(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-1")
        with nothing_changes(office):
            await seat.press("R")
            await seat.until(lambda: "desk-1 has no snapshot of its home." in seat.notices)
        assert seat.log == []


async def test_a_home_is_looked_for_by_its_own_name(office: Office) -> None:
    office.sql("UPDATE vms SET name = 'desk*' WHERE name = 'desk-1'")
    office.sql(
        "INSERT INTO kept (kind, path, vm_id, vm, owner, reason, at, user_id, from_di_id) "
        "VALUES ('snapshot', ?, 3, 'desk-2', 'alice', 'by hand', '2026-01-02 03:04:05', 1, 1)",
        str(office.directory),
    )
    for path in Paths(office.settings).homes_of(VmId(3)):
        path.mkdir(parents=True, exist_ok=True)
    async with seated(office) as seat:
        await seat.point("desk*")
        await seat.press("R")
        await seat.until(lambda: "desk* has no snapshot of its home." in seat.notices)
        assert not seat.asks


async def test_homes_that_cannot_be_read_are_not_said_to_have_no_snapshot(office: Office) -> None:
    async with seated(office) as seat:
        caller = Gate(seat.app.site.caller, "home")
        caller.fails = True
        caller.may_go_on.set()
        seat.app.site.caller = caller
        await seat.point("desk-1")
        await seat.press("R")
        await seat.until(lambda: "Restore home failed" in seat.notices)
        assert "has no snapshot" not in seat.notices


async def test_a_restore_offers_the_snapshots_and_says_why_it_was_refused(office: Office) -> None:
    snapshot = office.directory / "snapshot"
    snapshot.mkdir()
    for path in Paths(office.settings).homes_of(VmId(2)):
        path.mkdir(parents=True, exist_ok=True)
    office.sql(
        "INSERT INTO kept (kind, path, vm_id, vm, owner, reason, at, user_id, from_di_id) "
        "VALUES ('snapshot', ?, 2, 'desk-1', 'alice', 'by hand', '2026-01-02 03:04:05', 1, 1)",
        str(snapshot),
    )
    async with seated(office) as seat:
        await seat.point("desk-1")
        await seat.press("R")
        await seat.asked()
        form = seat.app.screen
        assert isinstance(form, VerbForm)
        with nothing_changes(office):
            await seat.press("down", "ctrl+s")
            await seat.until(lambda: seat.log and seat.log[-1].ok is False)
            await seat.shown("is not kept here")
        field = form.field("snapshot")
        assert field is not None
        assert field.text == "1"
        assert seat.log[-1].command == "qa home restore vm=desk-1 snapshot=1"


async def test_an_image_is_imported_with_its_progress(office: Office, copy: Office) -> None:
    archive = office.archive("new image.tar")
    async with seated(office, "images") as seat:

        async def write(answers: dict[str, str]) -> None:
            form = seat.app.screen
            assert isinstance(form, VerbForm)
            for name, text in answers.items():
                field = form.field(name)
                assert field is not None
                field.answer.focus()
                field.answer.value = ""
                await seat.settle()
                await seat.paste(text)

        await seat.press("a")
        await seat.asked()
        with nothing_changes(office):
            await write({"path": str(archive), "osf": "empty", "version": "v7"})
            await seat.press("escape")
            await seat.answered()
        await seat.press("a")
        await seat.asked()
        with nothing_changes(office):
            await write({"path": str(archive.with_name("absent")), "osf": "empty", "version": "v7"})
            await seat.press("ctrl+s")
            await seat.until(lambda: seat.log and seat.log[-1].ok is False)
            await seat.shown("There is no file")
        await write({"path": str(archive)})
        await seat.press("ctrl+s")
        await seat.answered()
        line = await seat.done(2)
        assert line.ok, line
        assert office.sql("SELECT osf_id, version FROM dis WHERE id = 9 OR id = 10") == [(3, "v7")]
        assert any((office.storage / "images").glob("*new image.tar"))
        await seat.until(lambda: "empty v7" in seat.rows)
