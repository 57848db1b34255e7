"""A guest that floods its console, and one that tries to act on the administrator's terminal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events

from appliance.control import open_stream
from appliance.model import VmId
from appliance.tui.console import terminal
from appliance.tui.console.backlog import MOST_BYTES
from appliance.tui.console.link import Standing
from appliance.tui.console.screen import SCROLLBACK_BYTES, SCROLLBACK_LINES
from appliance.tui.console.terminal import Terminal
from tests.support.console_bench import list_of
from tests.support.console_desk import VM, ConsoleApp, Daemon, daemon, model_text, painted, until

SIZE = (100, 30)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, VM) as made:
        yield made


class Flood:
    """Writes to a guest's end as fast as it is read, until told to stop; then a last line."""

    def __init__(self, guest: int) -> None:
        self._guest = guest
        self.written = 0
        self.is_over = False

    async def run(self) -> None:
        number = 0
        while not self.is_over:
            number += 1
            await self._write(b"\x1b[32mline\x1b[m %d of the flood, which goes on and on and on\r\n" % number)
        await self._write(b"the last line\r\n")

    async def _write(self, data: bytes) -> None:
        while data:
            try:
                count = os.write(self._guest, data)
                self.written += count
                data = data[count:]
            except BlockingIOError:
                await asyncio.sleep(0.001)


async def test_a_flood_ends_with_its_last_line_and_keys_go_through_meanwhile(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    line = desk.lines[VM]
    flood = Flood(line.guest)
    loop = asyncio.get_running_loop()
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        waiting = 0
        delays: list[float] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood.run())
            end = loop.time() + 4
            while loop.time() < end:
                pressed = loop.time()
                app.post_message(events.Key("k", "k"))
                while line.typed() != b"k":
                    await asyncio.sleep(0.002)
                delays.append(loop.time() - pressed)
                waiting = max(waiting, len(app.terminal._backlog))
            flood.is_over = True
        await until(pilot, lambda: "the last line" in painted(app.terminal))
        assert flood.written > 1_000_000
        assert waiting <= MOST_BYTES
        print(
            len(delays),
            sorted(delays)[len(delays) // 2],
            max(delays),
            flood.written,
            app.terminal.skipped_bytes,
        )
        assert sorted(delays)[len(delays) // 2] < 0.2
        screen = app.terminal.screen_model
        assert len(screen.history) <= SCROLLBACK_LINES
        assert screen._history_bytes <= SCROLLBACK_BYTES
        if app.terminal.skipped_bytes:
            assert "bytes skipped" in model_text(app.terminal)


async def test_a_screen_that_is_costly_to_paint_is_painted_less_often(
    desk: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ConsoleApp(desk.control)
    async with app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.company.you_write)
        await pilot.pause(0.2)
        app.terminal.repaint()
        monkeypatch.setattr(terminal, "PAINT_AT_LEAST_EVERY_S", 1000)
        app.terminal._painting_s = 250.0
        desk.lines[VM].print(b"too soon")
        await until(pilot, lambda: "too soon" in model_text(app.terminal))
        await pilot.pause(0.2)
        assert app.terminal.screen_model.dirty
        app.terminal.repaint()
        assert not app.terminal.screen_model.dirty


ATTACKS = (
    b"a\x1b]0;pwned\x07b\x1b]52;c;cHduZWQ=\x07c\x1b[6nd\x1b[ce\x1b[>cf\x1b[5ng"
    b"\x1b[21th\x05i\x1bP$qm\x1b\\j\x1b[?1049$pk\x1b]8;;http://example.org\x07l\x1b]8;;\x07m"
)


@pytest.mark.parametrize("when", ["live", "history"])
async def test_nothing_that_a_guest_prints_answers_copies_or_retitles(
    desk: Daemon, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = desk.lines[VM]
    app = ConsoleApp(desk.control)
    if when == "history":
        line.print(ATTACKS + b"\r\n")
        await asyncio.sleep(0.1)
    sent: list[str] = []
    async with app.run_test(size=SIZE) as pilot:
        assert app._driver is not None
        monkeypatch.setattr(app._driver, "write", sent.append)
        title = app.title
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
        if when == "live":
            line.print(ATTACKS + b"\r\n")
        await until(pilot, lambda: "abcdefghijklm" in painted(app.terminal))
        await pilot.pause(0.2)
        assert line.typed() == b""
        assert app.clipboard == ""
        assert app.title == title
        shown = "".join(sent)
        for forbidden in ("\x1b]52", "\x1b]0", "\x1b]8", "pwned", "\x1b[6n", "\x1b[c", "\x05"):
            assert forbidden not in shown


async def test_a_mebibyte_that_was_printed_before_is_there_and_searched(desk: Daemon) -> None:
    line = desk.lines[VM]
    said = b"".join(b"%06d %s\r\n" % (number, b"." * 100) for number in range(9000))
    while said:
        with contextlib.suppress(BlockingIOError):
            said = said[os.write(line.guest, said) :]
        await asyncio.sleep(0.001)
    app = ConsoleApp(desk.control)
    async with app.run_test(size=(120, 30)) as pilot:
        app.pane.open(VM, "alice-desktop")
        await until(pilot, lambda: any(row.startswith("008999") for row in painted(app.terminal)))
        assert app.terminal.skipped_bytes == 0
        assert len(app.terminal.screen_model.history) > 8900
        await pilot.press("ctrl+right_square_bracket", "slash", *"000234", "enter")
        await until(pilot, lambda: any(row.startswith("000234") for row in painted(app.terminal)))
        top = painted(app.terminal)[0]
        line.print(b"more\r\n")
        await until(pilot, lambda: "more" in model_text(app.terminal)[-200:])
        assert painted(app.terminal)[0] == top
        await pilot.press("end")
        await until(pilot, lambda: "more" in painted(app.terminal))
        await pilot.press("home")
        await until(pilot, lambda: painted(app.terminal)[0].startswith("000000"))
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard.startswith("000000 ..."))
        assert app.clipboard.count("\n") == app.terminal.size.height - 1


async def test_fifty_consoles_opened_and_closed_leave_nothing(tmp_path: Path) -> None:
    vms = [VmId(number) for number in range(1, 6)]
    async with daemon(tmp_path, *vms) as desk:
        app = ConsoleApp(desk.control)
        async with app.run_test(size=SIZE) as pilot:

            async def round_of(count: int) -> tuple[int, int, int, int]:
                for number in range(count):
                    app.pane.open(vms[number % 5], "desktop")
                    await until(pilot, lambda: app.terminal.standing is Standing.OPEN)
                    await app.pane.close(app.terminal)
                await pilot.pause(0.3)
                gc.collect()
                terminals = sum(isinstance(each, Terminal) for each in gc.get_objects())
                descriptors = len(list(Path("/proc/self/fd").iterdir()))
                return len(asyncio.all_tasks()), descriptors, len(app.query("*")), terminals

            first = await round_of(5)
            tasks, descriptors, widgets, terminals = await round_of(50)
            assert tasks <= first[0]
            assert descriptors <= first[1]
            assert widgets == first[2]
            assert terminals <= max(first[3], 2)


async def test_a_hub_forgets_who_has_closed_a_tab(desk: Daemon) -> None:
    app = ConsoleApp(desk.control)
    request = {"want": "console", "vm": VM, "write": "never"}
    async with await open_stream(desk.control, request) as other, app.run_test(size=SIZE) as pilot:
        app.pane.open(VM, "alice-desktop")
        others = 0
        while others != 1:
            frame = await other.receive()
            assert frame is not None
            others = len(list_of(frame.content().get("others"))) if frame.payload[:1] == b"{" else others
        await pilot.press("ctrl+right_square_bracket", "w")
        async with asyncio.timeout(5):
            while others != 0:
                frame = await other.receive()
                assert frame is not None
                others = len(list_of(frame.content().get("others"))) if frame.payload[:1] == b"{" else others
