"""The mouse over a console in the TUI: the guest's, if it wants it and is typed into, else the person's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from appliance.control import open_stream
from appliance.tui.console.terminal import Terminal
from tests.support.console_bench import arrived
from tests.support.console_desk import VM, ConsoleApp, Daemon, daemon, painted, until
from tests.support.lines import PtyLine

SIZE = (100, 30)
DRAGS, DECIMAL = b"\x1b[?1002h", b"\x1b[?1006h"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, VM) as made:
        yield made


class Hand:
    """A hand on the mouse, over one console."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[None], line: PtyLine) -> None:
        self.app = app
        self.pilot = pilot
        self.line = line

    @property
    def terminal(self) -> Terminal:
        return self.app.terminal

    async def press(self, x: int, y: int = 0, *, shift: bool = False) -> None:
        await self.pilot.mouse_down(self.terminal, offset=(x, y), shift=shift)

    def move(self, x: int, y: int = 0, *, shift: bool = False) -> None:
        """As a terminal tells it while the button is held, which `pilot.hover()` does not."""
        left, top = self.terminal.content_region.offset
        x, y = left + x, top + y
        self.app.post_message(events.MouseMove(None, x, y, 1, 0, 1, shift, False, False, x, y))

    async def let_go(self, x: int, y: int = 0, *, shift: bool = False) -> None:
        await self.pilot.mouse_up(self.terminal, offset=(x, y), shift=shift)

    async def drag(self, start: int, end: int, *, shift: bool = False) -> None:
        """Along the first line."""
        await self.press(start, shift=shift)
        self.move(end, shift=shift)
        await self.let_go(end, shift=shift)

    async def told(self) -> bytes:
        """What the guest has been told before an `x` that is typed now."""
        await self.pilot.press("x")
        typed = await arrived(self.line, b"x")
        return typed[:-1]

    async def copied(self, text: str) -> None:
        await until(self.pilot, lambda: self.app.clipboard == text)
        self.app.copy_to_clipboard("")


@asynccontextmanager
async def hand(desk: Daemon, said: bytes, *, size: tuple[int, int] = SIZE) -> AsyncIterator[Hand]:
    """A hand over the console of a guest that has said something, with `$ ` at its end."""
    app = ConsoleApp(desk.control)
    async with app.run_test(size=size) as pilot:
        app.pane.open(VM, "alice-desktop")
        line = desk.lines[VM]
        line.print(said + b"$ ")
        await until(pilot, lambda: app.terminal.company.you_write)
        await until(pilot, lambda: any(row.endswith("$") for row in painted(app.terminal)))
        yield Hand(app, pilot, line)


async def test_a_selection_with_the_mouse_is_copied_and_the_wheel_scrolls(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        desk.lines[VM].print(b"".join(b"line %02d\r\n" % number for number in range(60)))
        await until(pilot, lambda: "line 59" in painted(app.terminal))
        first = painted(app.terminal)[0]
        await pilot.mouse_down(app.terminal, offset=(5, 0))
        await pilot.hover(app.terminal, offset=(3, 1))
        await pilot.mouse_up(app.terminal, offset=(3, 1))
        await until(pilot, lambda: app.clipboard == f"{first[5:]}\nline")
        app.terminal.post_message(events.MouseScrollUp(app.terminal, 1, 1, 0, 0, 0, False, False, False))
        await until(pilot, lambda: painted(app.terminal)[0] == f"line {int(first[5:]) - 3}")
        assert desk.lines[VM].typed() == b""
        await pilot.press("x")
        await until(pilot, lambda: painted(app.terminal)[0] == first)
        await until(pilot, lambda: desk.lines[VM].typed() == b"x")


async def test_the_guest_gets_presses_drags_and_releases(desk: Daemon) -> None:
    async with hand(desk, b"some text" + DRAGS + DECIMAL) as mouse:
        await mouse.drag(0, 3)
        assert await mouse.told() == b"\x1b[<0;1;1M\x1b[<32;4;1M\x1b[<0;4;1m"
        assert mouse.app.clipboard == ""


async def test_places_are_those_of_the_guests_screen_whatever_has_scrolled_off(desk: Daemon) -> None:
    lines = b"".join(b"line %02d\r\n" % number for number in range(60))
    async with hand(desk, lines + DRAGS + DECIMAL) as mouse:
        await mouse.press(4, 2)
        await mouse.let_go(4, 2)
        assert await mouse.told() == b"\x1b[<0;5;3M\x1b[<0;5;3m"


async def test_with_shift_it_selects(desk: Daemon) -> None:
    async with hand(desk, b"some text" + DRAGS + DECIMAL) as mouse:
        await mouse.drag(0, 3, shift=True)
        await mouse.copied("some")
        assert await mouse.told() == b""


async def test_whose_a_press_was_its_release_is(desk: Daemon) -> None:
    async with hand(desk, b"some text" + DRAGS + DECIMAL) as mouse:
        await mouse.press(0)
        await mouse.let_go(3, shift=True)
        assert await mouse.told() == b"\x1b[<0;1;1M\x1b[<36;4;1M\x1b[<4;4;1m"
        await mouse.press(0, shift=True)
        mouse.move(3)
        await mouse.let_go(3)
        await mouse.copied("some")
        await mouse.press(0, shift=True)
        mouse.move(3, shift=True)
        assert await mouse.told() == b""
        mouse.move(4)
        await mouse.let_go(4)
        assert await mouse.told() == b"", "a key has ended the selection, and the button was not the guest's"


async def test_a_press_that_is_the_guests_takes_a_selection_away(desk: Daemon) -> None:
    async with hand(desk, b"some text" + DRAGS, size=(260, 30)) as mouse:
        await mouse.drag(0, 3, shift=True)
        await mouse.copied("some")
        assert any(segment.style and segment.style.reverse for segment in mouse.terminal.render_line(0))
        await mouse.press(240, 2)  # no byte can tell this place
        mouse.move(5)
        await mouse.let_go(5)
        assert await mouse.told() == b"\x1b[M@&!\x1b[M#&!"
        assert mouse.app.clipboard == ""
        first = mouse.terminal.render_line(0)
        assert not any(segment.style and segment.style.reverse for segment in first if "some" in segment.text)


async def test_after_the_keys_are_given_back_it_is_the_persons(desk: Daemon) -> None:
    async with hand(desk, b"some text" + DRAGS + DECIMAL) as mouse:
        await mouse.press(0)
        mouse.terminal.type(False)
        assert mouse.terminal.company.you_write, "the hub has not heard of it"
        mouse.terminal.on_mouse_up(events.MouseUp(mouse.terminal, 3, 0, 0, 0, 1, False, False, False))
        await mouse.drag(0, 3)
        await mouse.copied("some")
        await until(mouse.pilot, lambda: mouse.terminal.company.writer is None)
        await mouse.pilot.press("enter")
        assert await mouse.told() == b"\x1b[<0;1;1M"


async def test_over_what_has_scrolled_off_it_is_the_persons(desk: Daemon) -> None:
    lines = b"".join(b"line %02d\r\n" % number for number in range(60))
    async with hand(desk, lines + DRAGS + DECIMAL) as mouse:
        mouse.terminal.scroll_lines(-60)
        await mouse.drag(0, 3)
        await mouse.copied("line")
        assert await mouse.told() == b""


async def test_the_wheel_moves_the_cursor_of_a_pager(desk: Daemon) -> None:
    async with hand(desk, b"\x1b[?1049h") as mouse:
        terminal = mouse.terminal
        terminal.post_message(events.MouseScrollDown(terminal, 1, 1, 0, 0, 0, False, False, False))
        await mouse.pilot.pause()
        assert await mouse.told() == b"\x1b[B" * 3


async def test_who_only_watches_keeps_it(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    request = {"want": "console", "vm": VM, "write": "take"}
    async with await open_stream(desk.control, request), app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        mouse = Hand(app, pilot, desk.lines[VM])
        mouse.line.print(b"some text" + DRAGS + DECIMAL)
        await until(pilot, lambda: "some text" in painted(app.terminal))
        await mouse.drag(0, 3)
        await mouse.copied("some")
        assert mouse.line.typed() == b""
        assert app.terminal.notice == "copied 4 characters"
