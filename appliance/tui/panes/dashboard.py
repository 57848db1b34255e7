"""How things are, at a glance: what runs, who is there, what fails, what is due, what the host has left."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from appliance.clock import SystemClock
from appliance.errors import ApplianceError
from appliance.harmless import printable
from appliance.model import VmState
from appliance.storage.live import AlarmLine, Delta, EventLine
from appliance.tui.actions import count
from appliance.tui.facts import ago
from appliance.tui.glyphs import Glyphs
from appliance.tui.graph import graph
from appliance.tui.offers.installation import ALARM_ACTIONS
from appliance.tui.panes.base import Pane, bindings
from appliance.tui.panes.events import change, named
from appliance.tui.view import STATE_STYLES, amount, countdown, instant
from appliance.tui.widgets.details import PAINT
from appliance.tui.workers import start

Part = tuple[str, str]
HISTORY = 240
"""How many samples a sparkline can look back."""
NARROW = 100
GRAPH_LINES = 9
"""How many lines a curve takes at most."""
STATES = (
    (VmState.RUNNING, "running"),
    (VmState.ZOMBIE, "zombie"),
    (VmState.STARTING, "starting"),
    (VmState.STOPPING, "stopping"),
    (VmState.STOPPED, "stopped"),
)
"""What wants attention first: where there is little room, the last are not seen."""


class Board(Static):
    """One framed field of the dashboard."""

    DEFAULT_CSS = """
    Board {
        height: 1fr;
        width: 1fr;
        padding: 0 1;
        border: round $foreground 20%;
        border-title-color: $text-primary;
        border-title-style: bold;
        border-subtitle-color: $text-muted;
        text-wrap: nowrap;
        text-overflow: ellipsis;
    }
    Board.-alert { border: round $error; border-title-color: $text-error; }
    """

    class Resized(Message):
        """There is more room in a field, or less."""

    def on_resize(self, event: events.Resize) -> None:
        """What fits must be told anew."""
        self.post_message(self.Resized())

    def tell(self, lines: Sequence[Sequence[Part]], note: str = "") -> None:
        """Show lines of coloured parts."""
        content = Content("\n").join(
            [
                Content.assemble(*[(printable(text), PAINT.get(style, style)) for text, style in line])
                for line in lines
            ]
        )
        if content != getattr(self, "_told", None):
            self._told = content
            self.update(content, layout=False)
        if note != self.border_subtitle:
            self.border_subtitle = note


class DashboardPane(Pane):
    """The first thing that one sees."""

    name_ = "dashboard"
    title = "Dashboard"
    short = "Dash"
    help_ = "How things are, at a glance. The fields tell what wants attention first."
    actions = ALARM_ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = bindings(ALARM_ACTIONS)
    can_focus = True
    DEFAULT_CSS = """
    DashboardPane > Grid { grid-size: 3 2; grid-gutter: 0 1; grid-rows: 1fr 1fr; padding: 0; }
    DashboardPane.-narrow > Grid { grid-size: 2 3; grid-rows: 1fr 1fr 1fr; }
    """

    def __init__(self, site: object) -> None:
        super().__init__(site)  # type: ignore[arg-type]
        self._alarms: list[AlarmLine] = []
        self._events: list[EventLine] = []
        self._busy = False
        self._wanted = False
        self._cpu: deque[float] = deque(maxlen=HISTORY)
        self._memory: deque[float] = deque(maxlen=HISTORY)

    def compose(self) -> ComposeResult:
        """Six fields."""
        with Grid():
            for name, title in (
                ("desktops", "Desktops"),
                ("attention", "Needs attention"),
                ("host", f"Host {self.site.node}"),
                ("deadlines", "Next deadlines"),
                ("people", "Sessions"),
                ("events", "Latest events"),
            ):
                board = Board(id=name)
                board.border_title = title
                yield board

    def on_resize(self, event: events.Resize) -> None:
        """Two columns where three have no room."""
        self.set_class(event.size.width < NARROW, "-narrow")

    @on(Board.Resized)
    def _fit(self) -> None:
        self.draw()

    def enter(self) -> None:
        """Keys go here."""
        self.focus()

    def noun_of(self, row: object) -> str:
        """Only alarms can be worked on here."""
        return "alarm"

    def take(self, delta: Delta) -> None:
        """Count anew, and look for alarms and events: at once, and twice a second while much happens."""
        self._wanted = True
        if not self._busy:
            self._busy = True
            self.draw()
            start(self, self._read, group="dashboard")

    def tick(self) -> None:
        """Countdowns and what the host uses."""
        self.draw()

    def sample(self) -> None:
        """A new round of what the host uses."""
        if (use := self.site.host) is not None and use.cpu is not None:
            self._cpu.append(use.cpu)
            self._memory.append(use.memory_bytes / max(1, use.memory_total_bytes))

    async def _read(self) -> None:
        clock = SystemClock()
        try:
            while self._wanted:
                self._wanted = False
                try:
                    self._alarms = await self.site.read(lambda reader: reader.alarms())
                    self._events = await self.site.read(lambda reader: reader.events(most=40))
                except ApplianceError:
                    return
                self.draw()
                await clock.sleep(0.5)
        finally:
            self._busy = False

    def draw(self) -> None:
        """Show what is known now."""
        if not self.is_shown or not self.query(Board):
            return
        self._draw_desktops()
        self._draw_attention()
        self._draw_host()
        self._draw_deadlines()
        self._draw_people()
        self._draw_events()

    def _board(self, name: str) -> Board:
        return self.query_one(f"#{name}", Board)

    def _room(self, name: str) -> tuple[int, int]:
        size = self._board(name).content_size
        return max(10, size.width), max(1, size.height)

    def _draw_desktops(self) -> None:
        tally, signs = self.site.tally, self.site.glyphs
        total = len(tally.vms)
        width, height = self._room("desktops")
        room = max(4, width - 22)
        rows = [
            (tally.states[state], word, STATE_STYLES[state], signs.states[state]) for state, word in STATES
        ]
        rows.insert(1, (tally.states["failed"], "failed", "bad", signs.failed))
        shown = [row for row in rows if row[0] or row[1] in {"running", "stopped"}]
        lines: list[list[Part]] = []
        for number, word, style, sign in shown:
            part = round(room * number / total) if total else 0
            part = max(part, 1) if number else 0
            lines.append(
                [
                    (f"{sign} {word:<9}", style),
                    (f"{number:>7,}  ", "strong" if number else "dim"),
                    (signs.bar * part, style),
                    (signs.bar_rest * (room - part), "dim"),
                ]
            )
        lines.append([])
        lines.append(
            [
                (f"{signs.outdated} outdated ", "warn" if tally.outdated else "dim"),
                (f"{tally.outdated:,}", "strong" if tally.outdated else "dim"),
                (f"   {signs.blocked} blocked ", "bad" if tally.blocked else "dim"),
                (f"{tally.blocked:,}", "strong" if tally.blocked else "dim"),
            ]
        )
        if len(lines) + 2 < height:
            lines += [[], [(f"{'OSF':<14} {'running':>11}  {'old':>6}", "dim")]]
        for osf, all_ in sorted(tally.osfs.items())[: max(0, height - len(lines))]:
            old = tally.osfs_outdated[osf]
            lines.append(
                [
                    (f"{fitted(osf, 14, signs)} ", "plain"),
                    (f"{tally.osfs_running[osf]:>5,}", "good" if tally.osfs_running[osf] else "dim"),
                    (f"/{all_:<5,}  ", "dim"),
                    (f"{old:>6,}" if old else "", "warn"),
                ]
            )
        self._board("desktops").tell(lines[:height], f"{total:,} in all")

    def _draw_attention(self) -> None:
        tally, signs, now = self.site.tally, self.site.glyphs, self.site.now
        _, height = self._room("attention")
        waiting = [vm for vm in tally.vms.values() if vm.waits_for]
        lines: list[list[Part]] = []
        if self.site.daemon_down_since is not None:
            lines.append([(f"{signs.failed} the daemon is {self.site.daemon_trouble}", "bad")])
        for alarm in self._alarms:
            lines.append([(f"{signs.failed} {alarm.kind}: ", "bad"), (alarm.text, "plain")])
        ill = [vm for vm in tally.vms.values() if vm.failure is not None or vm.state == VmState.ZOMBIE]
        number = len(lines) + len(ill) + len(waiting)
        for vm in sorted(ill, key=lambda one: one.state_ts or "", reverse=True)[:height]:
            why = vm.failure or "does not go away"
            lines.append(
                [(f"{signs.failed} {vm.name} ", "bad"), (f"{ago(vm.state_ts, now)} ", "dim"), (why, "plain")]
            )
        for vm in waiting[:height]:
            lines.append(
                [(f"{signs.states[vm.state]} {vm.name} ", "warn"), (f"waits: {vm.waits_for}", "plain")]
            )
        board = self._board("attention")
        board.set_class(bool(lines), "-alert")
        note = f"{number:,}" if lines else ""
        board.tell(lines[:height] or [[(f"{signs.ok} nothing", "good")]], note)

    def _draw_host(self) -> None:
        use, signs = self.site.host, self.site.glyphs
        width, height = self._room("host")
        if use is None:
            is_down = self.site.daemon_down_since is not None
            known = f"no figures: the daemon is {self.site.daemon_trouble}" if is_down else "no figures yet"
            self._board("host").tell([[(known, "dim")]])
            return
        memory = use.memory_bytes / max(1, use.memory_total_bytes)
        lines = [
            self._bar("CPU", use.cpu or 0.0, f"{use.cpu or 0:.0%} of {use.cores} cores", width),
            self._bar(
                "Memory", memory, f"{amount(use.memory_bytes)} of {amount(use.memory_total_bytes)}", width
            ),
        ]
        if use.pool_bytes is not None and use.pool_total_bytes:
            share = use.pool_bytes / use.pool_total_bytes
            told = f"{amount(use.pool_bytes)} of {amount(use.pool_total_bytes)}"
            lines.append(self._bar("Pool", share, told, width))
        rows = min(GRAPH_LINES, (height - len(lines)) // 2 - 1)
        for title, history, style in (
            ("CPU", self._cpu, "info"),
            ("Memory", self._memory, "$text-secondary"),
        ):
            if rows > 0:
                lines.append([])
            drawn = graph(history, width - 8, max(1, rows), signs.spark)
            lines += [
                [(f"{'' if number else title:<8}", "dim"), (line, style)] for number, line in enumerate(drawn)
            ]
        self._board("host").tell(lines[:height], f"load {use.load:.2f}")

    def _bar(self, title: str, share: float, told: str, width: int) -> list[Part]:
        signs = self.site.glyphs
        room = max(4, width - 8 - len(told) - 1)
        full = min(room, round(share * room))
        style = "bad" if share >= 0.9 else "warn" if share >= 0.75 else "good"
        return [
            (f"{title:<7} ", "dim"),
            (signs.bar * full, style),
            (signs.bar_rest * (room - full), "dim"),
            (f" {told}", "plain"),
        ]

    def _draw_deadlines(self) -> None:
        now, signs = self.site.now, self.site.glyphs
        width, height = self._room("deadlines")
        lines: list[list[Part]] = []
        for vm in self.site.tally.deadlines(height):
            soft, hard = countdown(vm.soft, now, hard=False), countdown(vm.hard, now, hard=True)
            room = max(8, width - 22)
            lines.append(
                [
                    (f"{fitted(vm.name, room, signs)}  ", "strong"),
                    (f"{soft[0]:>9}  ", soft[1]),
                    (f"{hard[0]:>9}", hard[1]),
                ]
            )
        total = len(self.site.tally.limited)
        note = f"soft, hard {signs.dot} {total:,} limited" if total else ""
        self._board("deadlines").tell(lines or [[("no desktop has a limit", "dim")]], note)

    def _draw_people(self) -> None:
        tally, signs, now = self.site.tally, self.site.glyphs, self.site.now
        _, height = self._room("people")
        present = [vm for vm in tally.vms.values() if vm.has_user] if tally.connected else []
        present.sort(key=lambda vm: vm.user_state_ts or "", reverse=True)
        lines: list[list[Part]] = [
            [
                (f"{signs.person} {vm.real_user or vm.user} ", "info"),
                (f"{signs.chevron} {vm.name} ", "plain"),
                (ago(vm.user_state_ts, now), "dim"),
            ]
            for vm in present[:height]
        ]
        note = count(tally.connected, "session") if tally.connected else ""
        self._board("people").tell(lines or [[("nobody is connected", "dim")]], note)

    def _draw_events(self) -> None:
        _, height = self._room("events")
        lines: list[list[Part]] = [
            [
                (f"{time_of_day(event.at)} ", "dim"),
                (f"{event.what} ", "strong"),
                (f"{named(event, self.site.tally).object} ", "plain"),
                (change(event), "dim"),
            ]
            for event in self._events[:height]
        ]
        self._board("events").tell(lines or [[("nothing yet", "dim")]])


def time_of_day(stored: str) -> str:
    """The hour and minute of a stored time, where we are."""
    at = instant(stored)
    return "" if at is None else f"{at.astimezone():%H:%M}"


def fitted(text: str, width: int, signs: Glyphs) -> str:
    """A text in so many cells: cut, or followed by blanks."""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + signs.ellipsis
    return set_cell_size(text, width)
