"""Somebody at the TUI of an office: keys go in, the screen is read."""

from __future__ import annotations

import asyncio
import shlex
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Size
from textual.keys import REPLACED_KEYS, _character_to_key, _get_unicode_name_from_key
from textual.message_pump import MessagePump
from textual.pilot import Pilot

from appliance import config
from appliance.clock import SystemClock
from appliance.model import Osf
from appliance.storage.live import VmLine
from appliance.tui.app import CONSOLES, PANES, QvdTui
from appliance.tui.calls import Caller
from appliance.tui.database import Database
from appliance.tui.glyphs import FULL, Glyphs
from appliance.tui.panes.base import Pane, TablePane
from appliance.tui.panes.images import ImageRow
from appliance.tui.remembered import Remembered
from appliance.tui.site import Site
from appliance.tui.widgets.command_log import CommandLog, Line
from appliance.tui.widgets.record_table import RecordTable
from tests.support.tui_office import Office

DRAWN_S = 0.06
"""How often the whole screen is looked at, which takes a while itself."""
ROUNDS = 3
"""A key goes from the app by its screen to a widget."""


class Seat:
    """Somebody at the keys of a TUI."""

    def __init__(self, pilot: Pilot[None], app: QvdTui, office: Office) -> None:
        self.pilot = pilot
        self.app = app
        self.office = office

    async def press(self, *keys: str) -> None:
        """Press keys; what handlers do at once is done then, what they begin need not have ended.

        A pilot's `press` waits until the process is idle, which takes long while it follows a database.
        """
        for key in keys:
            self.strike(key)
            await self.settle()

    def strike(self, key: str) -> None:
        """Press a key, and do not wait for what comes of it."""
        self.app.post_message(key_event(key).set_sender(self.app))

    async def settle(self) -> None:
        """Wait until app, screen and focus have seen what was sent to them, and what they sent on."""
        await self._passed([self.app])
        await self.until(lambda: not self.app.turns.busy or self.app._exception is not None, every_s=0.001)
        for _ in range(ROUNDS):
            focused = self.app.screen.focused
            nodes = focused.ancestors_with_self if focused is not None else [self.app.screen, self.app]
            await self._passed(nodes)

    async def _passed(self, nodes: Iterable[MessagePump]) -> None:
        """Wait until all these have dealt with what they had been sent."""
        waiting: list[bool] = []
        waiting += [True for node in nodes if node.call_later(waiting.pop)]
        async with asyncio.timeout(30):
            while waiting and self.app._exception is None:
                await asyncio.sleep(0.001)

    async def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        size = Size(columns, lines)
        assert isinstance(self.app._driver, HeadlessDriver)
        self.app._driver._size = size
        self.app.post_message(events.Resize(size, size))
        await self.settle()

    async def write(self, text: str) -> None:
        """Write a text into what has the focus, and keeps it."""
        for char in text:
            self.strike(char)
        await self.settle()

    async def until(
        self, condition: Callable[[], object], limit_s: float = 15.0, *, every_s: float = 0.02
    ) -> None:
        """Wait until something holds; fail with the screen if it never does."""
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    await asyncio.sleep(every_s)
        except TimeoutError:
            raise AssertionError(f"it never came about; the screen:\n{self.text}") from None

    async def shown(self, text: str) -> None:
        """Wait until the screen shows a text."""
        await self.until(lambda: text in self.text, every_s=DRAWN_S)

    async def unseen(self, text: str) -> None:
        """Wait until the screen shows a text no more."""
        await self.until(lambda: text not in self.text, every_s=DRAWN_S)

    async def paste(self, text: str) -> None:
        """Paste a text into what has the focus."""
        self.app.post_message(events.Paste(text).set_sender(self.app))
        await self.settle()

    @property
    def text(self) -> str:
        """All that the screen shows, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    async def go(self, name: str) -> Pane | None:
        """Show a pane by its number, and wait for its rows."""
        number = [pane.name_ for pane in PANES].index(name) + 1 if name != CONSOLES else len(PANES) + 1
        await self.press(str(number))
        await self.until(lambda: name == (self.app.pane.name_ if self.app.pane else CONSOLES))
        if isinstance(self.app.pane, TablePane):
            await self.until(lambda: self.table.listing.records)
        return self.app.pane

    @property
    def table(self) -> RecordTable[Any]:
        """The table of the pane that is shown."""
        assert isinstance(self.app.pane, TablePane)
        return self.app.pane.table

    @property
    def rows(self) -> list[str]:
        """The names of all rows, from the top."""
        listing = self.table.listing
        return [self.name(listing.records[key]) for key in listing.ordered()]

    def key_of(self, name: str) -> Any:
        """The key of the row with a name."""
        keys = {self.name(row): key for key, row in self.table.listing.records.items()}
        return keys[name]

    def name(self, row: Any) -> str:
        """What a row is called; of images, `office v1`."""
        pane = self.app.pane
        assert pane is not None
        name = str(pane.name_of(row))
        return f"{row.osf} {name}" if isinstance(row, ImageRow) and not isinstance(row.of, Osf) else name

    @property
    def marked(self) -> set[str]:
        """The names of the marked rows."""
        return {self.name(self.table.listing.records[key]) for key in self.table.marks}

    @property
    def here(self) -> str:
        """The name of the row at the cursor."""
        return self.name(self.table.current)

    async def point(self, name: str) -> None:
        """Put the cursor on a row."""
        self.table.set_cursor(self.key_of(name))
        await self.settle()

    async def mark(self, *names: str) -> None:
        """Mark rows."""
        for name in names:
            await self.point(name)
            await self.press("space")

    async def choose(self, *names: str) -> None:
        """Put the cursor on a row, or mark several."""
        if len(names) == 1:
            await self.point(names[0])
        else:
            await self.mark(*names)

    @property
    def asks(self) -> bool:
        """Whether a dialog is on the screen."""
        return len(self.app.screen_stack) > 1

    async def asked(self) -> None:
        """Wait for a dialog."""
        await self.until(lambda: self.asks)
        await self.settle()

    async def answered(self) -> None:
        """Wait until no dialog is left."""
        await self.until(lambda: not self.asks)
        await self.settle()

    @property
    def log(self) -> list[Line]:
        """The commands of this session."""
        return list(self.app.query_one(CommandLog).lines)

    async def done(self, number: int = 1) -> Line:
        """Wait until so many commands have been given and have ended; the last one."""
        await self.until(lambda: len(self.log) >= number and all(line.ok is not None for line in self.log))
        await self.settle()
        return self.log[-1]

    @property
    def notices(self) -> str:
        """All that was told in the corner."""
        return "\n".join(f"{one.title} {one.message}" for one in self.app._notifications)

    def vm(self, name: str) -> VmLine:
        """What the TUI believes of a desktop."""
        return next(vm for vm in self.app.site.tally.vms.values() if vm.name == name)


def key_event(name: str) -> events.Key:
    """The event of a key: `ctrl+a`, `space`, or the letter itself."""
    if len(name) > 1:
        plain = REPLACED_KEYS.get(name, name)
        try:
            return events.Key(name, unicodedata.lookup(_get_unicode_name_from_key(plain)))
        except KeyError:
            return events.Key(name, None)
    return events.Key(name if name.isalnum() else _character_to_key(name), name)


def tui(
    office: Office, *, read_only: bool = False, remembered: Path | None = None, glyphs: Glyphs = FULL
) -> QvdTui:
    """A TUI of an office."""
    settings = config.read_file(office.config)
    clock = SystemClock()
    site = Site(
        config_file=office.config,
        settings=settings,
        database=Database(settings),
        caller=Caller(office.config),
        calendar=clock,
        glyphs=glyphs,
        read_only=read_only,
        who="tester",
    )
    return QvdTui(site, clock, Remembered.read(remembered))


@asynccontextmanager
async def seated(
    office: Office,
    pane: str | None = "vms",
    *,
    size: tuple[int, int] = (100, 30),
    read_only: bool = False,
    remembered: Path | None = None,
) -> AsyncIterator[Seat]:
    """A TUI on a screen of so many columns and lines, with somebody at it who looks at a pane."""
    app = tui(office, read_only=read_only, remembered=remembered)
    async with app.run_test(size=size, notifications=True) as pilot:
        seat = Seat(pilot, app, office)
        if pane is not None:
            await seat.until(lambda: app.site.tally.vms)
            await seat.go(pane)
        yield seat


def twin_words(line: Line) -> list[str]:
    """The words of a command as the log shows it, as a shell would give them to `qa`."""
    words = shlex.split(line.command)
    assert words[0] == "qa"
    return words[1:]
