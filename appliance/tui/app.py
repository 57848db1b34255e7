"""The TUI: panes, what moves between them, and the one look that keeps them all true.

Ten times a second the database is asked whether anything was committed; only then is read what changed, and
only the pane that is shown takes it in. Whoever changed it (`qa`, the HKD, another TUI) makes no difference.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.content import Content
from textual.screen import Screen
from textual.widgets import ContentSwitcher
from textual.worker import WorkerError

from appliance.clock import Timers
from appliance.errors import ApplianceError, DaemonSilentError
from appliance.model import VmState
from appliance.storage.live import Delta, LiveReader
from appliance.tui import escapes, themes
from appliance.tui.acting import ActingApp
from appliance.tui.actions import Action, Ask
from appliance.tui.console.keyboard import GuestKeyboard
from appliance.tui.console.pane import ConsolesPane
from appliance.tui.facts import local
from appliance.tui.glyphs import ASCII, Glyphs
from appliance.tui.panes.base import Pane, TablePane
from appliance.tui.panes.dashboard import DashboardPane
from appliance.tui.panes.events import EventsPane
from appliance.tui.panes.hosts import HostsPane
from appliance.tui.panes.images import ImagesPane
from appliance.tui.panes.settings import SettingsPane
from appliance.tui.panes.users import UsersPane
from appliance.tui.panes.vms import SessionsPane, VmsPane
from appliance.tui.remembered import Remembered
from appliance.tui.site import Site
from appliance.tui.summary import summary
from appliance.tui.textual_repairs import forget_removed_widgets, write_on_without_terminal
from appliance.tui.view import clock
from appliance.tui.widgets.bars import HintBar, Tab, TabBar, TopBar
from appliance.tui.widgets.command_log import CommandLog
from appliance.tui.widgets.go_to import GoTo
from appliance.tui.widgets.record_table import RecordTable
from appliance.tui.widgets.scrollbars import use_whole_cells
from appliance.tui.workers import start

LOOK_S = 0.1
"""How often the database is asked whether anything was committed."""
TROUBLE_S = 1.0
"""How often, while it cannot be read."""
TELL_S = 0.5
"""How often the top bar counts anew while much happens; what happens now and then, it tells at once."""
RETRY_S = 1.0
"""How often a daemon that is down is tried."""
PANES: tuple[type[Pane], ...] = (
    DashboardPane,
    VmsPane,
    UsersPane,
    ImagesPane,
    SessionsPane,
    HostsPane,
    EventsPane,
    SettingsPane,
)
CONSOLES = "consoles"


class QvdTui(GuestKeyboard, ActingApp):
    """The whole screen."""

    TITLE = "QVD Appliance"
    CSS_PATH = "appliance.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"pane({number - 1})", f"Pane {number}", show=False)
            for number in range(1, len(PANES) + 2)
        ),
        Binding("colon", "go_to", "Go to a pane by its name", show=False),
        Binding("question_mark,f1", "explain", "Help", show=False),
        Binding("l", "log", "Command log", show=False),
        Binding("ctrl+l", "redraw", "Draw the screen anew", show=False),
        Binding("y", "copy", "Copy the name", show=False),
        Binding("f2", "columns", "Choose columns", show=False),
        Binding("f3", "views", "Saved views", show=False),
        Binding("q,ctrl+q", "leave", "Quit", show=False),
        Binding("ctrl+c", "interrupt", "Quit", show=False, priority=False),
    ]

    def __init__(self, site: Site, timers: Timers, remembered: Remembered) -> None:
        super().__init__()
        self.site = site
        self.remembered = remembered
        self._pauses = timers
        self._at = VmsPane.name_
        self._has_looked = False
        self._trouble: str | None = None
        self._counts_differ = False
        self._told_at = 0.0
        self._interrupted = False
        self._bar = TopBar()
        self._panes = {kind.name_: kind(site) for kind in PANES}
        """By their names: looking for them among all widgets, many times a second, is dear."""
        self.consoles = ConsolesPane(
            site.control,
            site.who,
            site.read_only,
            ascii_only=site.glyphs is ASCII,
            id=f"pane-{CONSOLES}",
        )
        """The consoles."""
        escapes.lose_no_key()
        forget_removed_widgets()
        write_on_without_terminal()
        themes.register(self)
        use_whole_cells()
        if (theme := remembered.text("theme")) in self.available_themes:
            self.theme = theme

    @property
    def glyphs(self) -> Glyphs:
        """The signs that this terminal draws."""
        return self.site.glyphs

    def compose(self) -> ComposeResult:
        """Bars above and below, and between them the pane that is shown."""
        yield self._bar
        yield TabBar()
        with ContentSwitcher(initial=f"pane-{self._at}", id="panes"):
            for pane in self._panes.values():
                if isinstance(pane, TablePane):
                    pane.first_columns = self.remembered.columns(pane.name_)
                yield pane
            yield self.consoles
        yield CommandLog(self.site.glyphs)
        yield GoTo([pane.title for pane in PANES] + ["Consoles"])
        yield HintBar()

    def on_mount(self) -> None:
        """Begin to look."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.set_class(self.site.glyphs is ASCII, "-ascii")
        self._complain(self.remembered.problem)
        start(self, self._follow, group="look")
        start(self, self._measure, group="measure")
        self.set_interval(1.0, self._second)
        self._show_pane(self._at)

    async def on_unmount(self) -> None:
        """Let go of the database."""
        await self.site.close()

    # What is seen

    @property
    def pane(self) -> Pane | None:
        """The pane that is shown; None: the consoles, or nothing any more as the TUI ends."""
        pane = self._panes.get(self._at)
        return pane if pane is not None and pane.is_attached else None

    @property
    def is_preparing(self) -> bool:
        """Whether the dialog of an action, or the rows that keys would go to, are still to come."""
        if len(self.screen_stack) > 1 or self._typing:
            return False
        is_awaited = self.pane is not None and self.pane.awaits_rows
        return self._prepared is not None or is_awaited or not self._has_looked

    async def _follow(self) -> None:
        """Look for commits, for ever."""
        while True:
            try:
                delta = await self.site.read(LiveReader.look)
            except ApplianceError as exc:
                self._has_looked = True
                self._in_trouble(str(exc))
                await self._pauses.sleep(TROUBLE_S)
                continue
            self._in_trouble(None)
            if delta is not None:
                self.take(delta)
            self._has_looked = True
            now = self._pauses.monotonic()
            if self._counts_differ and now >= self._told_at + TELL_S:
                self._told_at = now
                self._tell_state()
            await self._pauses.sleep(LOOK_S)

    def take(self, delta: Delta) -> None:
        """Something was committed."""
        if not self.is_running:
            return
        if delta.whole:
            self.site.tally = type(self.site.tally)(delta.vms)
        else:
            self.site.tally.take(delta)
        if (pane := self.pane) is not None:
            pane.take(delta)
        self.consoles.vms_are_called(self._name_of)
        self._counts_differ = True

    def _name_of(self, vm_id: int) -> str | None:
        vm = self.site.tally.vms.get(vm_id)
        return None if vm is None else vm.name

    async def _measure(self) -> None:
        """Follow what guests and host use; as long as that is told, the daemon lives."""
        from appliance.qa.samples import samples

        while True:
            try:
                async with aclosing(samples(self.site.control)) as rounds:
                    async for round_ in rounds:
                        if not self.is_running:
                            return
                        self._daemon_lives()
                        self.site.host, self.site.usage = round_.host, round_.vms
                        for dashboard in self.query(DashboardPane):
                            dashboard.sample()
                        if (pane := self.pane) is not None:
                            pane.tick()
            except DaemonSilentError:
                self._daemon_is("silent")
            except ApplianceError:
                self._daemon_is("down")
            await self._pauses.sleep(RETRY_S)

    def _daemon_lives(self) -> None:
        if self.site.daemon_down_since is not None or not self.site.daemon_known:
            self.site.daemon_known, self.site.daemon_down_since = True, None
            self._tell_state()

    def _daemon_is(self, trouble: str) -> None:
        site = self.site
        if site.daemon_down_since is None or site.daemon_trouble != trouble:
            site.daemon_known, site.daemon_down_since, site.daemon_trouble = True, site.now, trouble
            site.usage, site.host = {}, None
            self._tell_state()

    def _in_trouble(self, why: str | None) -> None:
        if why != self._trouble:
            self._trouble = why
            self._tell_state()

    @on(TopBar.Resized)
    def _bar_resized(self) -> None:
        self._tell_state()

    def _second(self) -> None:
        if not self.is_running:
            return
        if (pane := self.pane) is not None:
            pane.tick()
        self._tell_state()

    def _tell_state(self) -> None:
        """Say in the top bar how things are."""
        self._counts_differ = False
        site, signs = self.site, self.site.glyphs
        state: tuple[str, str] | None = None
        if self._trouble is not None:
            state = (f"{signs.failed} {self._trouble}", "bold")
        elif site.daemon_down_since is not None:
            down = clock((site.now - site.daemon_down_since).total_seconds())
            since = local(site.daemon_down_since)[11:]
            state = (f"{signs.failed} daemon {site.daemon_trouble} {down} (since {since})", "bold")
        elif site.daemon_known:
            state = (f"{signs.states[VmState.RUNNING]} daemon up", "")
        room = (self._bar.size.width or self.size.width) - 2
        parts = summary(site.node, state, site.tally, signs, read_only=site.read_only, room=room)
        if self._bar.is_attached:
            self._bar.set_class(self._trouble is not None or site.daemon_down_since is not None, "-down")
            self._bar.tell(Content.assemble(*parts))

    # Where one is

    def _show_pane(self, name: str) -> None:
        self._at = name
        self.query_one("#panes", ContentSwitcher).current = f"pane-{name}"
        self.query_one(TabBar).tell(self._tabs(), self._title(name))
        pane = self.pane
        if pane is None:
            self.consoles.focus_console()
        else:
            pane.enter()
            pane.take(Delta(True, self.site.tally.vms))
        self._hint()

    def _tabs(self) -> list[Tab]:
        tabs = [(str(number), pane.title, pane.short) for number, pane in enumerate(PANES, 1)]
        open_ = f" {number}" if (number := len(self.consoles.terminals)) else ""
        return [*tabs, (str(len(PANES) + 1), f"Consoles{open_}", f"Cons{open_}")]

    def _title(self, name: str) -> str:
        if name == CONSOLES:
            return self._tabs()[-1][1]
        return next(pane.title for pane in PANES if pane.name_ == name)

    def _hint(self) -> None:
        pane = self.pane
        self.query_one(HintBar).display = pane is not None
        hints = [("?", "help"), (":", "go to"), ("q", "quit")]
        if pane is not None:
            if isinstance(pane, TablePane):
                hints = [("/", "filter"), ("space", "mark"), ("enter", "details"), *hints]
            able = [action for action in pane.actions if not (action.changes and self.site.read_only)]
            hints = [*hints[-3:-2], *((action.key, action.title.lower()) for action in able), *hints]
            seen: set[str] = set()
            hints = [one for one in hints if one[0] not in seen and not seen.add(one[0])]  # type: ignore[func-returns-value]
        self.query_one(HintBar).tell(hints)

    @on(TabBar.Picked)
    def _picked(self, event: TabBar.Picked) -> None:
        self.action_pane(event.number)

    def action_pane(self, number: int) -> None:
        """Show a pane by its number, from 0."""
        if number < len(PANES):
            self._show_pane(PANES[number].name_)
        elif number == len(PANES):
            self._show_pane(CONSOLES)

    def action_go_to(self) -> None:
        """Ask for the name of a pane."""
        self.query_one(GoTo).open()

    @on(GoTo.Chosen)
    def _gone_to(self, event: GoTo.Chosen) -> None:
        names = [pane.name_ for pane in PANES] + [CONSOLES]
        if event.number is None:
            (self.consoles.focus_console if self.pane is None else self.pane.enter)()
        else:
            self._show_pane(names[event.number])

    @on(ConsolesPane.Left)
    def _console_left(self) -> None:
        self._show_pane(VmsPane.name_)

    @on(ConsolesPane.CountChanged)
    def _consoles_changed(self) -> None:
        self.query_one(TabBar).tell(self._tabs(), self._title(self._at))

    @on(RecordTable.Marked)
    def _marked(self, event: RecordTable.Marked) -> None:
        self._hint()

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """No key but the chord is ours while somebody types into a guest."""
        return not (self._typing)

    @property
    def _typing(self) -> bool:
        return self.consoles.typing

    def action_act(self, name: str) -> None:
        """Do one of the shown pane's actions, by its name."""
        pane = self.pane
        action = next((one for one in pane.actions if one.name == name), None) if pane else None
        if action is not None:
            self.act(action)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every action, every pane, every look."""
        yield from self._action_commands()
        for number, pane in enumerate(PANES):
            yield SystemCommand(f"Go to {pane.title}", f"Key {number + 1}", self._going(number))
        yield SystemCommand("Go to Consoles", f"Key {len(PANES) + 1}", self._going(len(PANES)))
        for name in themes.NAMES:
            yield SystemCommand(f"Theme {name}", themes.NAMES[name], self._dressing(name))
        yield SystemCommand("Choose columns", "F2", self.action_columns)
        yield SystemCommand("Saved views", "F3", self.action_views)
        yield SystemCommand("Help", "?", self.action_explain)
        yield SystemCommand("Command log", "l", self.action_log)
        yield SystemCommand("Quit", "q: no desktop is touched by that", self.action_leave)

    def _action_commands(self) -> Iterable[SystemCommand]:
        ours = self.pane
        for pane in sorted(PANES, key=lambda one: ours is None or one.name_ != ours.name_):
            for action in pane.actions:
                if action.changes and self.site.read_only:
                    continue
                more = "" if action.ask is not Ask.TYPED else " It cannot be undone."
                yield SystemCommand(
                    f"{pane.title}: {action.title}",
                    f"{action.key}: {action.doc}{more}",
                    self._acting(pane.name_, action),
                )

    def _going(self, number: int) -> Callable[[], None]:
        return lambda: self.action_pane(number)

    def _dressing(self, name: str) -> Callable[[], None]:
        def dress() -> None:
            self.theme = name
            self._complain(self.remembered.set_text("theme", name))

        return dress

    def _acting(self, name: str, action: Action) -> Callable[[], None]:
        def act() -> None:
            elsewhere = self._at != name
            if elsewhere:
                self._show_pane(name)
            if elsewhere and action.about_rows:
                self.notify(
                    f"{action.key}: with the row at the cursor, or the marked ones.", title=action.title
                )
            else:
                self.call_after_refresh(self.act, action)

        return act

    def open_console(self, vm_id: int, name: str) -> None:
        """Show the console of a desktop, and let keys go there."""
        self._show_pane(CONSOLES)
        self.consoles.open(vm_id, name)

    def action_explain(self) -> None:
        """Say what the shown pane is for, and which keys do what."""
        from appliance.tui.dialogs.message import Message
        from appliance.tui.help import explanation

        self.push_screen(Message("Keys", explanation(self.pane, self.site.read_only)))

    def action_columns(self) -> None:
        """Let somebody choose the columns of the shown table."""
        if isinstance(self.pane, TablePane):
            start(self, partial(self._choose_columns, self.pane), group="act")

    async def _choose_columns(self, pane: TablePane[Any]) -> None:
        from appliance.tui.dialogs.choices import Columns

        shown = [column.key for column in pane.table.columns]
        keys = await self.push_screen_wait(Columns(pane.columns, shown))
        if keys is not None:
            pane.choose_columns(keys)
            self._complain(self.remembered.set_columns(pane.name_, keys))

    def action_views(self) -> None:
        """Let somebody save how the table looks now, or choose what was saved."""
        if isinstance(self.pane, TablePane):
            start(self, partial(self._choose_view, self.pane), group="act")

    async def _choose_view(self, pane: TablePane[Any]) -> None:
        from appliance.tui.dialogs.choices import Views

        views = self.remembered.views(pane.name_)
        choice = await self.push_screen_wait(Views(views, pane.view("")))
        if choice is None:
            return
        view, drop = choice
        if drop:
            self._complain(self.remembered.drop_view(pane.name_, view.name))
        elif view in views:
            pane.look_as(view)
        else:
            why = self.remembered.save_view(view)
            self._complain(why)
            if why is None:
                self.notify(f"Saved the view {view.name!r}.")

    def _complain(self, why: str | None) -> None:
        if why is not None:
            self.notify(why, severity="warning")

    def action_command_palette(self) -> None:
        """Let somebody choose what to do by its name."""
        if not CommandPalette.is_open(self):  # type: ignore[arg-type]  # of any app
            self.push_screen(CommandPalette(placeholder="What to do", id="--command-palette"))

    def action_log(self) -> None:
        """Show or hide the commands."""
        self.query_one(CommandLog).toggle()

    def action_redraw(self) -> None:
        """Draw everything again, whatever has written over it."""
        self.refresh(repaint=True, layout=True)

    def action_copy(self) -> None:
        """Put the names of the chosen rows into the clipboard of the terminal."""
        pane = self.pane
        if pane is not None and (rows := pane.chosen()):
            self.copy_to_clipboard("\n".join(str(pane.name_of(row)) for row in rows))
            self.notify(f"Copied {len(rows)} names." if len(rows) > 1 else "Copied.")

    def action_leave(self) -> None:
        """End the TUI; desktops go on as they are."""
        if self.calls_under_way:
            start(self, self._leave_work, group="leave", exclusive=True)
        else:
            self.exit()

    async def _leave_work(self) -> None:
        """End it though work is under way, if that is meant; what is given up is tidied away first."""
        if await self.may_leave():
            for worker in [one for one in self.workers if one.group != "leave"]:
                worker.cancel()
                with suppress(WorkerError):
                    await worker.wait()
            self.exit()

    def action_interrupt(self) -> None:
        """Ctrl-c: nothing in particular, as it is pressed by habit; the second one within a moment quits."""
        if self._interrupted:
            self.action_leave()
            return
        self._interrupted = True
        self.set_timer(2.0, self._calm)
        self.notify("Press ctrl-c again, or q, to quit. Desktops go on as they are.")

    def _calm(self) -> None:
        self._interrupted = False
