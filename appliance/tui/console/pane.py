"""The consoles of guests inside the TUI, as tabs: one terminal for each VM.

Two modes. While typing, every key but Ctrl-] goes to the guest. After Ctrl-] the keys are commands; the
writer's role is released, and the consoles stay attached and live.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from appliance.clock import Clock, SystemClock
from appliance.tui.console.lines import BottomLine, TabLine
from appliance.tui.console.link import Standing
from appliance.tui.console.typed import TypedInto
from appliance.tui.console.words import ASCII, PRETTY, trouble

if TYPE_CHECKING:
    from appliance.tui.console.terminal import Terminal

RING_BYTES = 1_048_576
OVER = (Standing.NOT_RUNNING, Standing.DELETED)
DRAW_EVERY_S = 0.05
DRAW_FOR_S = 0.01
"""How much of every DRAW_EVERY_S may be spent on drawing, for all consoles together."""
DRAW_HISTORY_FOR_S = 0.03
"""The same while a console that was just opened catches up."""


class ConsolesPane(Vertical):
    """The open consoles. The app is a `GuestKeyboard`, or keys with priority bindings do not get here."""

    DEFAULT_CSS = """
    ConsolesPane { height: 1fr; }
    ConsolesPane #terminals { height: 1fr; layers: below above; }
    ConsolesPane Terminal, ConsolesPane #nothing { layer: below; }
    ConsolesPane #nothing { width: 1fr; height: 1fr; content-align: center middle; color: $text-muted; }
    ConsolesPane #trouble {
        layer: above; dock: top; height: auto; padding: 0 1; background: $error-muted; color: $text-error;
    }
    ConsolesPane #trouble.stopped { background: $panel; color: $text-muted; }
    ConsolesPane #search { height: 1; border: none; padding: 0 1; background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,i", "type", "Type"),
        Binding("t", "take", "Take over"),
        Binding("r", "release", "Release"),
        Binding("left,left_square_bracket", "tab(-1)", "Tab before", show=False),
        Binding("right,right_square_bracket", "tab(1)", "Next tab", show=False),
        Binding("up", "scroll(-1, False)", "Line up", show=False),
        Binding("down", "scroll(1, False)", "Line down", show=False),
        Binding("pageup", "scroll(-1, True)", "Page up", show=False),
        Binding("pagedown", "scroll(1, True)", "Page down", show=False),
        Binding("home", "scroll_to(True)", "First line", show=False),
        Binding("end", "scroll_to(False)", "Live", show=False),
        Binding("slash", "search", "Search"),
        Binding("n", "search_on(True)", "Older", show=False),
        Binding("N", "search_on(False)", "Newer", show=False),
        Binding("y", "copy", "Copy"),
        Binding("w", "close", "Close"),
        Binding("escape", "leave", "Leave"),
    ]

    class Left(Message):
        """The person wants to leave the pane, from command mode; consoles stay open."""

    class TypingChanged(Message):
        """Keys go to a guest from now on, or no longer."""

        def __init__(self, typing: bool) -> None:
            super().__init__()
            self.typing = typing

    class CountChanged(Message):
        """Another number of consoles is open."""

        def __init__(self, open: int) -> None:  # noqa: A002  # the word that the app reads
            super().__init__()
            self.open = open

    def __init__(
        self,
        control: Path,
        who: str,
        read_only: bool = False,
        ring_bytes: int = RING_BYTES,
        *,
        clock: Clock | None = None,
        ascii_only: bool = False,
        id: str | None = None,  # noqa: A002  # Textual's word
    ) -> None:
        """`who` is how other viewers see this one; `read_only` only ever watches."""
        super().__init__(id=id)
        self._control = control
        self._who = who
        self._read_only = read_only
        self._ring_bytes = ring_bytes
        self._clock: Clock = clock or SystemClock()
        self._glyphs = ASCII if ascii_only else PRETTY
        self._terminals: list[Terminal] = []
        self._draw_timer: Timer | None = None
        self._draw_from = 0.0
        self._drawn_until = 0.0
        self.active: Terminal | None = None
        """The console in view."""

    @property
    def typing(self) -> bool:
        """Whether keys go to a guest now."""
        return self.active is not None and self.active.typing

    @property
    def terminals(self) -> tuple[Terminal, ...]:
        """The open consoles, in the order of their tabs."""
        return tuple(self._terminals)

    def compose(self) -> ComposeResult:
        yield TabLine(self._glyphs)
        with Container(id="terminals"):
            yield Static("No console is open: choose a VM and open its console.", id="nothing")
            trouble_line = Static("", id="trouble", markup=False)
            trouble_line.display = False
            yield trouble_line
        search = Input(placeholder="search, upwards", id="search", compact=True)
        search.display = False
        yield search
        yield BottomLine(self._glyphs)

    def open(self, vm_id: int, name: str) -> None:
        """Open the console of a VM, or show it if it is open, and give the keys to the guest."""
        from appliance.tui.console.terminal import Terminal  # it takes long: not before it is needed

        terminal = next((each for each in self._terminals if each.vm_id == vm_id), None)
        if terminal is None:
            terminal = Terminal(
                self._control,
                vm_id,
                name,
                who=self._who,
                read_only=self._read_only,
                ring_bytes=self._ring_bytes,
                clock=self._clock,
            )
            terminal.link.wants_to_write = not self._read_only
            self._terminals.append(terminal)
            self.query_one("#terminals").mount(terminal)
            self.post_message(self.CountChanged(len(self._terminals)))
        self._show(terminal)
        self._type(True)

    async def close(self, terminal: Terminal) -> None:
        """Detach from a console and forget its tab."""
        at = self._terminals.index(terminal)
        self._terminals.remove(terminal)
        following = self._terminals[min(at, len(self._terminals) - 1)] if self._terminals else None
        if terminal is self.active:
            self._show(following)
        await terminal.remove()
        self.post_message(self.CountChanged(len(self._terminals)))
        self._tell()

    def vms_are_called(self, name_of: Callable[[int], str | None]) -> None:
        """What VMs are called now; None: there is none of this number."""
        for terminal in self._terminals:
            terminal.is_called(name_of(terminal.vm_id))

    def focus_console(self) -> None:
        """Give the focus to the console in view, else to the pane: to be called when the pane is shown."""
        self.can_focus = self.active is None
        (self.active or self).focus(scroll_visible=False)

    # Commands

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """No command works without a console, but to leave."""
        if self.active is None and action != "leave" and f"action_{action}" in vars(ConsolesPane):
            return False
        return not (action in {"type", "take", "release"} and self._read_only)

    def action_type(self) -> None:
        """Give the keys to the guest."""
        self._type(True)

    def action_take(self) -> None:
        """Type, and take the writer's role from whoever has it."""
        self._type(True)
        if self.active is not None:
            self.active.link.order("take")

    def action_release(self) -> None:
        """Let others write."""
        if self.active is not None:
            self.active.link.order("release")

    def action_tab(self, step: int) -> None:
        """Show the console that is so many tabs further."""
        if self.active is not None:
            at = self._terminals.index(self.active)
            self._show(self._terminals[(at + step) % len(self._terminals)])

    def action_scroll(self, step: int, page: bool) -> None:
        """Move the view by lines or pages, up if negative."""
        if self.active is not None:
            self.active.scroll_lines(step * (max(self.active.size.height - 1, 1) if page else 1))

    def action_scroll_to(self, beginning: bool) -> None:
        """Show the first line that is kept, or follow live again."""
        if self.active is not None:
            screen = self.active.screen_model
            self.active.scroll_lines(
                (screen.first - screen.end) if beginning else (screen.end - screen.first)
            )

    def action_search(self) -> None:
        """Ask what to search for."""
        search = self.query_one("#search", Input)
        search.display = True
        self.query_one(BottomLine).display = False
        search.focus()

    def action_search_on(self, older: bool) -> None:
        """Go to the next place above, or below, where it is found."""
        if self.active is not None:
            if not self.active.reading.search_on(older=older):
                self.active.noticed(
                    "nothing found" if self.active.reading.wanted else "nothing to search for"
                )
            self.active.scroll_lines(0)

    def action_copy(self) -> None:
        """Copy what is selected, else what is in view."""
        if self.active is not None:
            self._copy(self.active.reading.text())
            self.active.reading.select_nothing()
            self.active.repaint()

    async def action_close(self) -> None:
        """Close the console in view."""
        if self.active is not None:
            await self.close(self.active)

    def action_leave(self) -> None:
        """Ask the app for another pane."""
        self.post_message(self.Left())

    # What is told

    @on(TypedInto.KeysBack)
    def _keys_back(self, event: TypedInto.KeysBack) -> None:
        event.stop()
        self._type(False)
        self.post_message(self.TypingChanged(False))

    @on(TypedInto.Changed)
    def _changed(self, event: TypedInto.Changed) -> None:
        event.stop()
        self._tell()

    @on(TypedInto.Copied)
    def _copied(self, event: TypedInto.Copied) -> None:
        event.stop()
        self._copy(event.text)

    @on(TypedInto.Waiting)
    def _waiting(self, event: TypedInto.Waiting) -> None:
        event.stop()
        for terminal in self._terminals:
            if terminal.vm_id == event.vm_id and terminal is not self.active and not terminal.has_news:
                terminal.has_news = True
                self._tell()
        self._draw()

    @on(TabLine.Chosen)
    def _chosen(self, event: TabLine.Chosen) -> None:
        event.stop()
        terminal = next((each for each in self._terminals if each.vm_id == event.vm_id), None)
        if terminal is not None and terminal is not self.active:
            self._type(False)
            self._show(terminal)

    @on(Input.Submitted, "#search")
    def _search_for(self, event: Input.Submitted) -> None:
        event.stop()
        self._end_search()
        if self.active is not None:
            if not self.active.reading.search(event.value) and event.value:
                self.active.noticed(f"not found: {event.value}")
            self.active.scroll_lines(0)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self.query_one("#search", Input).has_focus:
            event.stop()
            event.prevent_default()
            self._end_search()

    def on_resize(self) -> None:
        self._tell()

    # How it is done

    def _type(self, on: bool) -> None:
        for terminal in self._terminals:
            if terminal.typing and terminal is not self.active:
                terminal.type(False)
        if self.active is not None:
            was_typing = self.active.typing
            self.active.type(on)
            if on:
                self.active.focus(scroll_visible=False)
            if self.active.typing != was_typing:
                self.post_message(self.TypingChanged(self.active.typing))
        self._tell()

    def _show(self, terminal: Terminal | None) -> None:
        if self.active is not None and self.active is not terminal and self.active.typing:
            self.active.type(False)
        self.active = terminal
        for each in self._terminals:
            each.display = each is terminal
        self.query_one("#nothing").display = terminal is None
        if terminal is None:
            self.can_focus = True
            self.focus(scroll_visible=False)
        else:
            self.can_focus = False
            terminal.has_news = False
            terminal.focus(scroll_visible=False)
            terminal.repaint()
        self._tell()

    def _end_search(self) -> None:
        self.query_one("#search", Input).display = False
        self.query_one(BottomLine).display = True
        if self.active is not None:
            self.active.focus(scroll_visible=False)

    def _copy(self, text: str) -> None:
        self.app.copy_to_clipboard(text)
        if self.active is not None:
            self.active.noticed(f"copied {len(text):,} characters")

    def _tell(self) -> None:
        """Say anew what the lines around the console say."""
        if not self.is_mounted:
            return
        self.query_one(TabLine).tell(self._terminals, self.active)
        self.query_one(BottomLine).tell(self.active)
        terminal = self.active
        words = ""
        if terminal is not None:
            words = trouble(terminal.standing, terminal.reason, terminal.since.astimezone())
        line = self.query_one("#trouble", Static)
        line.display = bool(words)
        line.update(words)
        line.set_class(terminal is not None and terminal.standing in OVER, "stopped")

    def _draw(self) -> None:
        """Draw what waits, the console in view first, for a part of each stretch of time."""
        now = self._clock.monotonic()
        catching_up = any(terminal.is_catching_up for terminal in self._terminals)
        if now >= self._draw_from + DRAW_EVERY_S:
            self._draw_from = now
            self._drawn_until = now + (DRAW_HISTORY_FOR_S if catching_up else DRAW_FOR_S)
        left = False
        for terminal in sorted(self._terminals, key=lambda each: each is not self.active):
            left |= terminal.draw_some(self._drawn_until)
        if left and self._draw_timer is None:
            wait = max(self._draw_from + DRAW_EVERY_S - self._clock.monotonic(), 0.001)
            self._draw_timer = self.set_timer(wait, self._draw_again)

    def _draw_again(self) -> None:
        self._draw_timer = None
        self._draw()
