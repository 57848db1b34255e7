"""Consoles in the TUI, from keys to the guest's end of a real line and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from appliance.control import open_stream
from appliance.control_frames import FrameKind
from appliance.model import VmId
from appliance.tui.console.lines import TabLine
from appliance.tui.console.link import Standing
from tests.support.console_desk import VM, ConsoleApp, Daemon, daemon, model_text, painted, until

SIZE = (100, 30)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, VM, VmId(8)) as made:
        yield made


async def test_every_key_but_one_reaches_the_guest_whatever_is_bound(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    line = desk.lines[VM]
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        await pilot.press("q", "ctrl+q", "ctrl+p", "ctrl+c", "tab", "f1", "escape", "up", "shift+tab", "é")
        typed = b""

        def arrived() -> bool:
            nonlocal typed
            typed += line.typed()
            return typed.endswith("é".encode())

        await until(pilot, arrived)
        assert typed == b"q\x11\x10\x03\t\x1bOP\x1b\x1b[A\x1b[Z" + "é".encode()
        assert app.stolen == []
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: app.typing == [True, False])
        assert app.left == 0
        assert not app.pane.typing
        await until(pilot, lambda: app.terminal.company.writer is None)
        await pilot.press("q", "ctrl+q")
        await pilot.pause()
        assert app.stolen == ["q", "ctrl+q"]
        assert line.typed() == b""
        await pilot.press("escape")
        await until(pilot, lambda: app.left == 1)


async def test_what_was_said_before_is_there_and_what_is_said_now_is_painted(desk: Daemon) -> None:
    line = desk.lines[VM]
    line.print(b"booted\r\n\x1b[1;31mlogin:\x1b[m ")
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: painted(app.terminal)[:2] == ["booted", "login:"])
        line.print(b"alice\r\n")
        await until(pilot, lambda: "login: alice" in painted(app.terminal))
        assert line.size == (app.terminal.size.height, app.terminal.size.width)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: line.size == (app.terminal.size.height, 80))
        assert "login: alice" in painted(app.terminal)


async def test_one_vm_has_one_tab_and_tabs_keep_their_own_screens(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        app.pane.open(VmId(8), "bob-desktop")
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.counts == [1, 2])
        desk.lines[VM].print(b"for alice")
        desk.lines[VmId(8)].print(b"for bob")
        await until(pilot, lambda: "for alice" in painted(app.terminal)[0])
        await pilot.press("ctrl+right_square_bracket", "right_square_bracket")
        await until(pilot, lambda: app.terminal.vm_id == 8 and "for bob" in painted(app.terminal)[0])
        await pilot.press("w")
        await until(pilot, lambda: app.counts == [1, 2, 1])
        assert app.terminal.vm_id == VM
        await pilot.press("w")
        await until(pilot, lambda: app.counts == [1, 2, 1, 0])
        assert app.pane.active is None


async def test_a_watcher_is_told_who_writes_and_takes_over(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    request = {"want": "console", "vm": VM, "who": "bob on pts/2", "rows": 10, "columns": 40}
    async with await open_stream(desk.control, request) as bob, app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: desk.lines[VM].size == (10, 40))
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: (app.terminal.company.writer or "").startswith("bob on pts/2"))
        screen = app.terminal.screen_model
        assert (screen.lines, screen.columns) == (10, 40)
        await pilot.press("x")
        await until(pilot, lambda: "bob on pts/2" in app.terminal.notice)
        assert desk.lines[VM].typed() == b""
        await pilot.press("ctrl+right_square_bracket", "t")
        await until(pilot, lambda: app.terminal.company.you_write)
        await until(pilot, lambda: desk.lines[VM].size == (app.terminal.size.height, SIZE[0]))
        await pilot.press("y")
        await until(pilot, lambda: desk.lines[VM].typed() == b"y")
        bob.offer(FrameKind.ORDER, {"do": "take"})
        await until(pilot, lambda: not app.terminal.company.you_write)


async def test_read_only_never_types(desk: Daemon) -> None:
    app = ConsoleApp(desk.control, read_only=True)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        await pilot.press("x", "i", "t", "enter", "z")
        await pilot.pause(0.1)
        assert not app.pane.typing
        assert desk.lines[VM].typed() == b""
        assert app.terminal.company.writer is None


async def test_a_daemon_that_goes_away_and_comes_back(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        desk.lines[VM].print(b"before\r\n")
        await until(pilot, lambda: "before" in painted(app.terminal))
        await desk.stop()
        await until(pilot, lambda: app.terminal.standing is Standing.DAEMON_DOWN)
        trouble = app.query_one("#trouble")
        await until(pilot, lambda: "The daemon is down since" in str(trouble.render()))
        assert trouble.display
        assert "before" in painted(app.terminal)
        await pilot.press("x")
        assert "not sent" in app.terminal.notice
        await desk.start()
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        desk.lines[VM].print(b"after\r\n")
        await until(pilot, lambda: "after" in painted(app.terminal))
        assert model_text(app.terminal).split() == ["before", "after"]
        assert not trouble.display


async def test_a_vm_that_is_renamed_and_one_that_is_deleted(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        desk.lines[VM].print(b"going down\r\n")
        await until(pilot, lambda: "going down" in painted(app.terminal))
        app.pane.vms_are_called(lambda _: "bruno-desktop")
        await until(pilot, lambda: "bruno-desktop" in str(app.query_one(TabLine).render()))
        desk.gone(VM)
        app.pane.vms_are_called(lambda _: None)
        trouble = app.query_one("#trouble")
        await until(pilot, lambda: "The VM is deleted" in str(trouble.render()))
        await until(pilot, lambda: app.terminal.standing is Standing.DELETED)
        assert "going down" in painted(app.terminal)
        assert not [worker for worker in app.workers if worker.group == "console" and worker.is_running]
        await pilot.press("ctrl+right_square_bracket", "w")
        assert app.pane.active is None


async def test_a_link_that_is_lost_within_the_history_shows_what_has_come(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        await desk.stop()
        await until(pilot, lambda: app.terminal.standing is Standing.DAEMON_DOWN)
        app.terminal.attached()
        app.terminal.stands(Standing.OPEN, "")
        app.terminal.shown(b"half a history", history=True)
        assert app.terminal.is_catching_up
        app.terminal.stands(Standing.DAEMON_DOWN, "the connection is lost")
        await until(pilot, lambda: "half a history" in painted(app.terminal))
        assert not app.terminal.is_catching_up


async def test_why_a_console_is_refused_is_always_the_last_word(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        trouble = app.query_one("#trouble")
        app.terminal.stands(Standing.REFUSED, "the daemon serves 256 streams")
        await until(pilot, lambda: "256 streams" in str(trouble.render()))
        app.terminal.stands(Standing.REFUSED, "the console failed")
        await until(pilot, lambda: "the console failed" in str(trouble.render()))
        app.terminal.stands(Standing.NOT_RUNNING, "the VM has stopped")
        app.terminal.stands(Standing.NOT_RUNNING, "VM 7 does not run here: it has no console")
        assert app.terminal.reason == "the VM has stopped"


async def test_a_view_larger_than_the_hub_takes_is_served(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=(1200, 30)) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        await until(pilot, lambda: desk.lines[VM].size == (app.terminal.size.height, 1000))


async def test_a_click_on_a_tab_that_was_just_closed_shows_no_other(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        app.pane.open(VmId(8), "bob-desktop")
        await pilot.pause()
        tabs = app.query_one(TabLine)
        await app.pane.close(app.pane.terminals[0])
        tabs.post_message(TabLine.Chosen(VM))
        await pilot.pause()
        assert app.terminal.vm_id == 8
        app.pane.open(VM, "alice-desktop")
        await pilot.click(TabLine, offset=(3, 0))
        await until(pilot, lambda: app.terminal.vm_id == 8)


async def test_a_vm_that_stops_and_starts_again(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        desk.lines[VM].print(b"going down\r\n")
        await until(pilot, lambda: "going down" in painted(app.terminal))
        desk.gone(VM)
        await until(pilot, lambda: app.terminal.standing is Standing.NOT_RUNNING)
        trouble = app.query_one("#trouble")
        await until(pilot, lambda: "The VM has stopped" in str(trouble.render()))
        assert "going down" in painted(app.terminal)
        desk.run(VM)
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        desk.lines[VM].print(b"up again\r\n")
        await until(pilot, lambda: painted(app.terminal)[:2] == ["going down", "up again"])


async def test_pasted_text_arrives_as_one_piece_if_the_guest_wants_that(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        desk.lines[VM].print(b"\x1b[?2004hready")
        await until(pilot, lambda: "ready" in painted(app.terminal))
        app.post_message(events.Paste("one\ntwo"))
        await until(pilot, lambda: desk.lines[VM].typed() == b"\x1b[200~one\rtwo\x1b[201~")
        large = "0123456789" * 50_000
        app.post_message(events.Paste(large))
        got = b""

        def whole() -> bool:
            nonlocal got
            got += desk.lines[VM].typed()
            return got.endswith(b"\x1b[201~")

        await until(pilot, whole, 30)
        assert got == b"\x1b[200~" + large.encode() + b"\x1b[201~"


async def test_a_pane_that_is_hidden_gives_the_keys_back_and_takes_no_focus(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        other = Input()
        await app.mount(other)
        app.pane.display = False
        other.focus()
        await until(pilot, lambda: app.typing == [True, False])
        await pilot.press("a")
        assert other.value == "a"
        await until(pilot, lambda: app.terminal.company.writer is None)
        desk.lines[VM].print(b"meanwhile")
        await until(pilot, lambda: "meanwhile" in model_text(app.terminal))
        app.pane.display = True
        app.pane.focus_console()
        await pilot.press("i", "b")
        await until(pilot, lambda: desk.lines[VM].typed() == b"b")
        assert "meanwhile" in painted(app.terminal)[0]


async def test_a_dialog_over_a_console_gets_its_keys(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        app.action_command_palette()
        await pilot.pause()
        await pilot.press("x", "escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert desk.lines[VM].typed() == b""
        await pilot.press("y")
        await until(pilot, lambda: desk.lines[VM].typed() == b"y")
