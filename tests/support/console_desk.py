"""Consoles in a TUI before a real hub: lines are pseudo terminals, the guests' ends in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.pilot import Pilot

from appliance.clock import SystemClock
from appliance.control import ControlServer
from appliance.model import VmId
from appliance.runtime.consoles import Consoles
from appliance.tui.console.keyboard import GuestKeyboard
from appliance.tui.console.pane import ConsolesPane
from appliance.tui.console.rows import text_of
from appliance.tui.console.terminal import Terminal
from tests.support.lines import PtyLine

VM = VmId(7)


class Daemon:
    """The part of a daemon that serves consoles; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.control = folder / "s"
        self.lines: dict[VmId, PtyLine] = {}
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()
        self.consoles: Consoles | None = None

    async def start(self, *vm_ids: VmId) -> None:
        """Serve these VMs, as running."""
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.consoles = Consoles(
            lambda vm_id: self.lines[vm_id], lambda vm_id: self._folder / f"{vm_id}.tty", tasks, SystemClock()
        )
        for vm_id in vm_ids or tuple(self.lines):
            self.run(vm_id)
        server = ControlServer(self.control, {"console": self.consoles.view}, tasks)
        await self._stack.enter_async_context(server)

    def run(self, vm_id: VmId) -> PtyLine:
        """A guest starts."""
        assert self.consoles is not None
        line = self.lines.setdefault(vm_id, PtyLine())
        self.consoles.guest_runs(vm_id)
        return line

    def gone(self, vm_id: VmId) -> None:
        """A guest stops."""
        assert self.consoles is not None
        self.consoles.guest_gone(vm_id)

    async def stop(self) -> None:
        """Stop serving: guests run on."""
        if self.consoles is not None:
            for vm_id in self.lines:
                self.consoles.guest_gone(vm_id)
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()


class ConsoleApp(GuestKeyboard):
    """An app with nothing but consoles, and bindings that would like to have their keys."""

    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "steal('ctrl+q')", priority=True),
        Binding("f1", "steal('f1')", priority=True),
        Binding("tab", "steal('tab')", priority=True),
        Binding("ctrl+c", "steal('ctrl+c')", priority=True),
        Binding("q", "steal('q')"),
    ]

    def __init__(self, control: Path, *, read_only: bool = False) -> None:
        super().__init__()
        self._control = control
        self._read_only = read_only
        self.stolen: list[str] = []
        self.left = 0
        self.typing: list[bool] = []
        self.counts: list[int] = []

    def compose(self) -> ComposeResult:
        yield ConsolesPane(self._control, "tester", self._read_only)

    def action_steal(self, key: str) -> None:
        self.stolen.append(key)

    def on_consoles_pane_left(self) -> None:
        self.left += 1

    def on_consoles_pane_typing_changed(self, event: ConsolesPane.TypingChanged) -> None:
        self.typing.append(event.typing)

    def on_consoles_pane_count_changed(self, event: ConsolesPane.CountChanged) -> None:
        self.counts.append(event.open)

    @property
    def pane(self) -> ConsolesPane:
        return self.query_one(ConsolesPane)

    @property
    def terminal(self) -> Terminal:
        """The console in view."""
        assert self.pane.active is not None
        return self.pane.active


def model_text(terminal: Terminal) -> str:
    """All lines that a terminal has kept."""
    screen = terminal.screen_model
    return "\n".join(text_of(screen.line(number)) for number in range(screen.first, screen.end))


def painted(terminal: Terminal) -> list[str]:
    """What a terminal shows, row by row."""
    return [terminal.render_line(y).text.rstrip() for y in range(terminal.size.height)]


async def until(pilot: Pilot[None], true: Callable[[], bool], limit_s: float = 10) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(limit_s):
        while not true():
            await pilot.pause(0.01)


@contextlib.asynccontextmanager
async def daemon(folder: Path, *vm_ids: VmId) -> AsyncIterator[Daemon]:
    """A daemon with these guests, stopped at the end."""
    made = Daemon(folder)
    for vm_id in vm_ids:
        made.lines[vm_id] = PtyLine()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        for line in made.lines.values():
            line.__exit__(None, None, None)
