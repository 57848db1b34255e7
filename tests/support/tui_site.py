"""The TUI before an installation that stands still: a fixed calendar, given figures, and no real host.

The installation is below the current directory and is reached as `/proc/self/cwd`, so that the paths that
the TUI shows are the same wherever a test runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import sin
from pathlib import Path
from typing import Any
from unittest.mock import patch

from textual.events import Paste
from textual.pilot import Pilot
from textual.widgets import Input
from textual.worker import WorkerState

from appliance import config
from appliance.clock import ManualClock, SystemClock
from appliance.control import ControlServer, Stream
from appliance.control_frames import FrameKind
from appliance.model import VmId
from appliance.qa import samples
from appliance.runtime.consoles import Consoles
from appliance.tui.app import QvdTui
from appliance.tui.calls import Caller, Outcome, Told
from appliance.tui.database import Database
from appliance.tui.glyphs import FULL, Glyphs
from appliance.tui.remembered import Remembered
from appliance.tui.site import Site
from appliance.tui.widgets.record_table import RecordTable
from tests.support.lines import PtyLine
from tests.support.tui_picture import Picture, take
from tests.support.tui_rows import NOW

HERE = Path("/proc/self/cwd")
NODE_CONF = {
    "nodename": "node1",
    "vm.hypervisor": "nothing",
    "vm.network.ip.start": "10.9.0.2",
    "vm.network.netmask": "16",
    "vm.network.gateway": "10.9.255.254",
    "path.run": f"{HERE}/run",
    "path.storage.root": f"{HERE}/storage",
}
ROUNDS = 64
LOOKING = {"look", "measure", "act", "import", "submit", "fetch", "dashboard", "console"}
"""Groups of workers that go on while a screen stands still."""
GIB = 2**30
LIMIT_S = 40.0
"""How long something may take on a busy machine."""


def settle_here() -> Path:
    """Write the configuration below the current directory; its path."""
    for name in ("run", "storage", "storage/staging", "storage/images"):
        (HERE / name).mkdir(exist_ok=True)
    file = HERE / "node.conf"
    file.write_text("".join(f"{key} = {value}\n" for key, value in NODE_CONF.items()))
    return file


@contextmanager
def arriving(di: int, is_held: bool) -> Iterator[None]:
    """With `is_held`, hold what an import that is under way holds."""
    if not is_held:
        yield
        return
    settle_here()
    lock = os.open(HERE / f"storage/images/.{di}.adding", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class StagedCaller(Caller):
    """Calls verbs as they are, but for an import: that one is always as far as it was told to be."""

    def __init__(self, config_file: Path, share: float = 0.62) -> None:
        super().__init__(config_file)
        self._share = share

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        if list(words[:2]) != ["di", "add"]:
            return await super().__call__(words, stdin=stdin, progress=progress)
        if progress is not None:
            progress("copying", self._share)
        await asyncio.Event().wait()
        raise AssertionError


class StagedDaemon:
    """The part of a daemon to which the TUI listens: what is used, and consoles."""

    def __init__(self, running: Sequence[int], rounds: int) -> None:
        self._running = running
        self._first = ROUNDS - rounds
        self._lines: dict[VmId, PtyLine] = {}

    @asynccontextmanager
    async def serving(self, consoles: Mapping[int, bytes]) -> AsyncIterator[None]:
        """Serve, with what guests have written to their consoles."""
        async with asyncio.TaskGroup() as tasks:
            hub = Consoles(
                lambda vm_id: self._lines[vm_id],
                lambda vm_id: HERE / f"run/{vm_id}.tty",
                tasks,
                SystemClock(),
            )
            for number, output in consoles.items():
                line = self._lines[VmId(number)] = PtyLine()
                line.print(output)
                hub.guest_runs(VmId(number))
            handlers = {"console": hub.view, "samples": self._samples}
            serving = ControlServer(HERE / "run/appliance.sock", handlers, tasks)
            with patch.object(samples, "SILENT_S", 3600.0):  # it tells of a morning, and then no more
                async with serving:
                    yield
            for vm_id, line in self._lines.items():
                hub.guest_gone(vm_id)
                line.__exit__(None, None, None)

    async def _samples(self, stream: Stream, request: Mapping[str, object]) -> None:
        for number in range(self._first, ROUNDS):
            stream.offer(FrameKind.EVENT, {"host": host(number), "vms": self._used(number), "more": False})
        await stream.receive()

    def _used(self, number: int) -> dict[str, tuple[float, int]]:
        used = {}
        for vm in self._running:
            cores = ((vm * 37 + number * 11) % 100) / 140 if vm % 4 else 0.02
            used[str(vm)] = (1.3 if vm == 5 else cores, (180 + vm * 97 % 1500) * 2**20)
        return used


def host(number: int) -> dict[str, object]:
    """What the host uses in one round; a busy morning."""
    hum = 0.06 * sin(number / 2.3) + 0.05 * sin(number * 1.7) + 0.1 * sin(number / 9)
    return {
        "cpu": round(0.3 + hum + 0.3 * number / ROUNDS, 3),
        "cores": 16,
        "memory_bytes": round((31 + 9 * number / ROUNDS) * GIB),
        "memory_total_bytes": 64 * GIB,
        "pool_bytes": 910 * GIB,
        "pool_total_bytes": 1000 * GIB,
        "load": round(2 + 5 * number / ROUNDS, 2),
    }


@dataclass(kw_only=True)
class Stage:
    """One run of the TUI: what it shows, and somebody at its keys."""

    app: QvdTui
    pilot: Pilot[None]
    clock: ManualClock
    size: tuple[int, int]

    async def press(self, *keys: str) -> None:
        """Press keys by their names; what begins with a quote is a text, and is pasted."""
        for key in keys:
            if key.startswith('"'):
                self.app.post_message(Paste(key[1:]))
            else:
                await self.pilot.press(key)
            await self.pilot.pause()

    async def until(self, true: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(limit_s):
            while not true():
                await self.pilot.pause(0.01)

    async def until_shown(self, *texts: str) -> None:
        """Wait until texts are on the screen."""
        shown = ""

        def all_are() -> bool:
            nonlocal shown
            shown = take(self.app).text
            return all(text in shown for text in texts)

        try:
            await self.until(all_are)
        except TimeoutError as exc:
            missing = [text for text in texts if text not in shown]
            raise AssertionError(f"{missing} is not on the screen:\n{shown}") from exc

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and the TUI see it."""
        await self.clock.advance(seconds)
        self.app._second()

    @property
    def table(self) -> RecordTable[Any]:
        """The table that is shown."""
        return self.app.screen.query_one(f"#pane-{self.app._at}").query_one(RecordTable)

    async def go(self, *keys: Hashable) -> None:
        """Put the cursor on a record; on several, and mark them."""
        await self.until(lambda: all(self.table.listing.index_of(key) is not None for key in keys))
        for key in keys:
            self.table.set_cursor(key)
            if len(keys) > 1:
                await self.press("space")
        await self.pilot.pause()

    async def resize(self, size: tuple[int, int]) -> None:
        """Give the terminal another size."""
        if size != self.size:
            self.size = size
            await self.pilot.resize_terminal(*size)

    async def picture(self) -> Picture:
        """What is shown when nothing moves any more."""
        for field_ in self.app.screen.query(Input):
            field_.cursor_blink = False
        before = None
        async with asyncio.timeout(LIMIT_S):
            while True:
                await self.pilot.pause()
                now = take(self.app)
                if now == before and not self._working():
                    return now
                before = now
                await self.pilot.pause(0.02)

    def _working(self) -> list[str]:
        return [
            worker.group
            for worker in self.app.workers
            if worker.state in {WorkerState.PENDING, WorkerState.RUNNING} and worker.group not in LOOKING
        ]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run of the TUI finds."""

    size: tuple[int, int] = (80, 24)
    daemon: bool = True
    running: Sequence[int] = ()
    """The desktops that use something."""
    rounds: int = 1
    """How often the daemon tells what is used; the last time is always the same."""
    consoles: Mapping[int, bytes] = field(default_factory=dict)
    glyphs: Glyphs = FULL
    theme: str | None = None
    read_only: bool = False
    remembered: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def on_stage(setting: Setting) -> AsyncIterator[Stage]:
    """The TUI on the installation below the current directory, when it has read all that there is."""
    file = settle_here()
    settings = config.read_file(file)
    clock = ManualClock(NOW)
    site = Site(
        config_file=file,
        settings=settings,
        database=Database(settings),
        caller=StagedCaller(file),
        calendar=clock,
        glyphs=setting.glyphs,
        read_only=setting.read_only,
        who="root on pts/0",
    )
    daemon = StagedDaemon(setting.running, setting.rounds)
    app = QvdTui(site, clock, Remembered(None, dict(setting.remembered)))
    app.animation_level = "none"
    setattr(app, "NOTIFICATION_TIMEOUT", 600)  # noqa: B010 - of the class, else
    if setting.theme is not None:
        app.theme = setting.theme
    unread = site.tally
    async with AsyncExitStack() as stack:
        if setting.daemon:
            await stack.enter_async_context(daemon.serving(setting.consoles))
        pilot = await stack.enter_async_context(app.run_test(size=setting.size, notifications=True))
        stage = Stage(app=app, pilot=pilot, clock=clock, size=setting.size)
        await stage.until(lambda: site.tally is not unread)
        if setting.daemon:
            await stage.until(lambda: site.host is not None and site.host.load == host(ROUNDS - 1)["load"])
        else:
            await stage.until(lambda: site.daemon_down_since is not None)
        app._second()
        yield stage
