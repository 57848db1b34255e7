"""Actions of the TUI of other kinds: imports, messages, logs, consoles, snapshots, alarms.

And that none is left out: an action that nobody tries fails here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.model import VmId
from appliance.tui.app import CONSOLES, PANES
from appliance.tui.console.link import Standing
from appliance.tui.dialogs.form import VerbForm
from appliance.vma import wire
from tests.support.console_desk import Daemon
from tests.support.tui import seated, twin_words
from tests.support.tui_deeds import DEEDS, arriving
from tests.support.tui_forms import FORMS
from tests.support.tui_office import Office, comparable, nothing_changes

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


async def test_an_import_under_way_is_cancelled(office: Office) -> None:
    with arriving(office) as di_id:
        async with seated(office, "images") as seat:
            name = f"import {di_id}"
            await seat.until(lambda: any(name in row for row in seat.rows))
            await seat.point(next(row for row in seat.rows if name in row))
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
            assert office.sql("SELECT object, cancel FROM operations WHERE ended IS NULL") == [
                (str(di_id), 1)
            ]


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


async def test_a_restore_offers_the_snapshots_and_says_why_it_was_refused(office: Office) -> None:
    snapshot = office.directory / "snapshot"
    snapshot.mkdir()
    from appliance.storage.paths import Paths

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
