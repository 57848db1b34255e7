"""An office with desktops in every state, and somebody at its TUI: keys go in, screen and database are read.

The office is made once for a run of tests, by `qa`, and copied for each: no test sees what another has done.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import re
import shlex
import shutil
import sqlite3
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Size
from textual.keys import REPLACED_KEYS, _character_to_key, _get_unicode_name_from_key
from textual.pilot import Pilot

from appliance import config
from appliance.clock import SystemClock
from appliance.model import Osf
from appliance.qa.main import main
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
from tests.support.qa import Installation, Said

Tables = dict[str, list[tuple[Any, ...]]]
DRAWN_S = 0.06
"""How often the whole screen is looked at, which takes a while itself."""
ROUNDS = 3
"""A key goes from the app by its screen to a widget."""
JOURNAL = {"changes", "sqlite_sequence"}
"""Tables that tell that something was written, not what there is."""
INSTANT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
FRONT = re.compile(r"\b(tui|qa):")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

IMAGES = (
    ("office", "v1"),
    ("office", "v2"),
    ("lab", "v1"),
    ("lab", "v0"),
    ("lab", "v3"),
    ("office", "v3"),
    ("office", "v4"),
    ("lab", "v2"),
)
"""By their numbers from 1: 4 and 5 are in the trash, 7 and 8 are blocked; 2 and 3 are the default ones."""

RUNNING = "vm_state = 'running', vm_phase = 'running/monitoring', started_by = 'command', host_id = 1"
CONNECTED = (
    "user_state = 'connected', l7r_session = vm_id, user_ip = '10.0.3.4', "
    "user_state_ts = '2026-01-02 03:04:05'"
)
SCENES = {
    "desk-2": f"{RUNNING}, {CONNECTED}, current_osf_id = 1, current_di_id = 1, real_user_id = 1",
    "desk-3": "failure = 'the guest ended while it booted', failure_cause = 'image', failures = 2, "
    "blocked = 1, block_cause = 'image'",
    "desk-4": f"{RUNNING}, current_osf_id = 1, current_di_id = 1, blocked = 1, block_cause = 'admin'",
    "desk-5": "vm_state = 'zombie', vm_phase = 'zombie/reaping', host_id = 1, current_osf_id = 1, "
    "current_di_id = 2",
    "desk-6": "vm_state = 'starting', vm_phase = 'starting/awaiting-vma', host_id = 1, current_osf_id = 1, "
    "current_di_id = 2",
    "desk-8": f"{RUNNING}, {CONNECTED}, current_osf_id = 1, current_di_id = 2, real_user_id = 2",
}
"""What the desktops do that do not simply stand still: desk-0, desk-1, lab-0, lab-1 and lab-2 do."""


class Office(Installation):
    """Six users, three OSFs, eight images, eleven desktops, four hosts, an alarm, a few settings."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(_template(), directory, dirs_exist_ok=True)
        super().__init__(directory, capsys)

    def write_config(self, **changes: str) -> None:
        """With room for more than five desktops."""
        super().write_config(**{"vm__network__netmask": "24", **changes})

    @property
    def database(self) -> Path:
        """The file."""
        return self.storage / "qvd.db"

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Do one statement on the database, as another process would, and commit it."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def names(self, where: str) -> set[str]:
        """The desktops of which something holds."""
        return {
            row[0] for row in self.sql(f"SELECT name FROM vms JOIN vm_runtimes ON vm_id = id WHERE {where}")
        }

    def set_vm(self, name: str, assignments: str) -> None:
        """Let a desktop be as the HKD would write it."""
        self.sql(
            f"UPDATE vm_runtimes SET {assignments} WHERE vm_id = (SELECT id FROM vms WHERE name = ?)", name
        )

    def tables(self) -> Tables:
        """Everything that the database holds."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            return {
                name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
                for name in sorted(set(names) - JOURNAL)
            }

    def events(self, after: int = 0) -> list[tuple[str, str, str]]:
        """Lines of the audit log: by whom, what, on what."""
        return self.sql('SELECT "by", what, object FROM events WHERE id > ? ORDER BY id', after)

    @property
    def newest_event(self) -> int:
        """The number of the newest line of the audit log."""
        return int(self.sql("SELECT coalesce(max(id), 0) FROM events")[0][0])

    async def elsewhere(self, *words: str) -> Said:
        """Call `qa` as somebody else would, and insist on success."""
        return await asyncio.to_thread(self.ok, *words)


def comparable(tables: Tables) -> Tables:
    """The same without what differs from run to run: instants, random numbers, and which front it was."""

    def plain(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = UUID.sub("UUID", INSTANT.sub("INSTANT", value))
        return FRONT.sub("", value)

    return {name: [tuple(map(plain, row)) for row in rows] for name, rows in tables.items()}


@cache
def _template() -> Path:
    """A directory with the office, for copies."""
    directory = Path(tempfile.mkdtemp(prefix="qvd-office-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(Office, "__init__", Installation.__init__)
        office = Office(directory, None)  # type: ignore[arg-type]

    def qa(*words: str) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(["--config", str(office.config), *words])
        assert status == 0, (words, said.getvalue())

    qa("admin", "init", "--yes")
    for login in ("alice", "bruno", "chiara", "dmitri", "eva", "fritz"):
        qa("user", "add", f"login={login}", f"password-file={office.password('secret')}")
    qa("user", "disable", "-f", "login in (dmitri,eva)")
    for osf in ("office", "lab", "empty"):
        qa("osf", "add", f"name={osf}", "memory=1g")
    for osf, version in IMAGES:
        qa("di", "add", f"path={office.archive()}", f"osf={osf}", f"version={version}")
    qa("di", "tag", "di_id=1", "tag=default")
    qa("di", "tag", "di_id=2", "tag=default")
    qa("di", "tag", "di_id=1", "tag=old")
    qa("di", "tag", "di_id=3", "tag=default")
    qa("di", "del", "-f", "id in (4,5)", "--yes")
    qa("di", "block", "-f", "version=v4")
    qa("di", "block", "-f", "osf=lab,version=v2")
    qa("vm", "add", "name=desk", "user=alice", "osf=office", "bulk=7")
    qa("vm", "add", "name=desk-8", "user=bruno", "osf=office")
    qa("vm", "add", "name=lab", "user=bruno", "osf=lab", "bulk=3")
    qa("vm", "propset", "room=12", "-f", "name=lab-1")
    for name in ("spare", "spare2", "spare3"):
        qa("host", "add", f"name={name}", f"address={name}.example")
    qa("host", "block", "-f", "name=spare3")
    qa("config", "set", "l7r.greeting=hello", "site.room=12", "vm.network.dns_server=10.9.0.1")
    for name, assignments in SCENES.items():
        office.set_vm(name, f"vm_state_ts = '2026-01-02 03:04:05', {assignments}")
    office.sql(
        "INSERT INTO alarms (kind, object, text, raised, last, count) VALUES "
        "('pool', 'host 1', 'the pool is full', '2026-01-02 03:04:05', '2026-01-02 03:04:05', 1)"
    )
    office.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return directory


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
        self.app.post_message(_key(key).set_sender(self.app))

    async def settle(self) -> None:
        """Wait until app, screen and focus have seen what was sent to them, and what they sent on."""
        for _ in range(ROUNDS):
            focused = self.app.screen.focused
            nodes = focused.ancestors_with_self if focused is not None else [self.app.screen, self.app]
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


def _key(name: str) -> events.Key:
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


@contextmanager
def nothing_changes(office: Office) -> Iterator[None]:
    """Insist that the database is afterwards as before, to the last row."""
    before = office.tables()
    yield
    assert office.tables() == before
