"""One guest's console as a widget: draws what its hub sends, and sends what is typed.

What comes waits in a bounded backlog; the pane says when some of it may be drawn, and for how long. Only
lines that have changed are painted, a few times a second at most.
"""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path
from typing import TypeAlias

from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.timer import Timer

from appliance.clock import Clock
from appliance.tui.console.backlog import Backlog, Skipped
from appliance.tui.console.interpreter import Interpreter
from appliance.tui.console.keys import LEAVE, guest_bytes, pasted
from appliance.tui.console.link import Company, Link, Standing
from appliance.tui.console.mouse import CURSOR_KEYS, WHEEL_LINES, Mouse
from appliance.tui.console.reading import Position, Reading
from appliance.tui.console.screen import SCROLLBACK_LINES, GuestScreen
from appliance.tui.console.strips import marked, strip_of
from appliance.tui.console.typed import TypedInto

FIRST_SIZE = (80, 24)
"""Columns and lines, until the widget is laid out."""
SLICE_BYTES = 2048
PAINT_EVERY_S = 1 / 15
PAINT_A_FLOOD_EVERY_S = 1 / 6
IDLE_FOR_EACH_PAINTING = 4
"""A screen that is costly to paint is painted less often, but every PAINT_AT_LEAST_EVERY_S."""
PAINT_AT_LEAST_EVERY_S = 1.0
NOTICE_S = 6.0
"""How long a notice stays, unless keys go through before."""

PASTE_MODE = 2004

CURSOR = Style(reverse=True)
IDLE_CURSOR = Style(underline=True)
SELECTED = Style(reverse=True)
FOUND = Style(color="black", bgcolor="yellow")
FOUND_HERE = Style(color="black", bgcolor="bright_cyan", bold=True)

Cursor: TypeAlias = tuple[int, int, bool]


class Drag(Enum):
    """Whose a press of the mouse was, until it is let go."""

    OF_GUEST = auto()
    SELECTS = auto()


class Terminal(TypedInto):
    """The console of one VM. While `typing`, every key but Ctrl-] goes to the guest."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    Terminal { width: 1fr; height: 1fr; background: $background; color: $foreground; }
    """

    def __init__(
        self,
        control: Path,
        vm_id: int,
        name: str,
        *,
        who: str,
        read_only: bool,
        ring_bytes: int,
        clock: Clock,
    ) -> None:
        super().__init__()
        self.vm_id = vm_id
        self.vm_name = name
        self.read_only = read_only
        self.typing = False
        self.company = Company()
        self.standing = Standing.CONNECTING
        self.reason = ""
        self.since = clock.now()
        """When the link came to be as `standing` and, first, `reason` say."""
        self.notice = ""
        self.skipped_bytes = 0
        self.has_news = False
        """Whether something was shown since this was last in view."""
        self._clock = clock
        self._ring_bytes = ring_bytes
        self._history_bytes = 0
        self._is_arriving = False
        self._has_told = False
        self._notice_timer: Timer | None = None
        self._paint_timer: Timer | None = None
        self._painted_at = 0.0
        self._painting_s = 0.0
        self.is_flooded = False
        """Whether more comes than can be drawn, so that some is left out."""
        self._strips: dict[int, Strip] = {}
        self._painted_view: tuple[int, int, int] | None = None
        self._painted_cursor: Cursor | None = None
        self._drag: Drag | None = None
        self.link = Link(control, vm_id, who, self, clock, read_only=read_only, ring_bytes=ring_bytes)
        self._start_anew()

    @property
    def is_catching_up(self) -> bool:
        """Whether history is still to come or to be drawn: nothing is painted before it is."""
        return self._is_arriving or self._history_bytes > 0

    # What the pane does

    def on_mount(self) -> None:
        self.call_after_refresh(self._begin_link)  # laid out by then: history is wrapped at the right width

    def _begin_link(self) -> None:
        self.run_worker(self.link.run(), name=f"console of VM {self.vm_id}", group="console")

    def type(self, on: bool) -> None:
        """Give the keys to the guest, or take them back and release the writer's role."""
        self.typing = on and not self.read_only
        self.link.wants_to_write = self.typing
        self.link.order("claim" if self.typing else "release")
        self.notice = ""
        if self.typing:
            self.reading.show_from(self.screen_model.end)
        self.repaint()
        self.post_message(self.Changed())

    def draw_some(self, until: float) -> bool:
        """Draw what waits, until it is drawn or the clock says `until`; whether anything is left."""
        self._has_told = False
        if self._is_arriving:
            return False
        was_catching_up = self.is_catching_up

        def in_time() -> bool:
            return self._clock.monotonic() < until

        while in_time() and self._interpreter.work(in_time) and self._backlog:
            piece = self._backlog.take(SLICE_BYTES)
            if isinstance(piece, Skipped):
                self._skip(piece)
            else:
                self._interpreter.take(piece)
                self._history_bytes = max(0, self._history_bytes - len(piece))
        is_left = bool(self._backlog) or not self._interpreter.is_idle
        if self._history_bytes == 0:
            if was_catching_up:
                self.post_message(self.Changed())
            self._paint_soon()
        if self.is_flooded and not is_left:
            self.is_flooded = False
            self.post_message(self.Changed())
        return is_left

    def scroll_lines(self, lines: int) -> None:
        """Move the view over what has scrolled off."""
        self.reading.scroll(lines)
        self.repaint()
        self.post_message(self.Changed())

    def repaint(self) -> None:
        """Paint everything again."""
        self._strips.clear()
        self._painted_view = None
        self.paint()

    def paint(self) -> None:
        """Paint what has changed."""
        self._painted_at = self._clock.monotonic()
        self._painting_s = 0.0
        screen, reading = self.screen_model, self.reading
        view = (reading.first_in_view, screen.top, id(screen))
        if view != self._painted_view:
            self._strips.clear()
            self._painted_view = view
            self._painted_cursor = self._cursor()
            screen.dirty.clear()
            self.refresh()
            return
        cursor = self._cursor()
        rows = {screen.top + y for y in screen.dirty}
        if cursor != self._painted_cursor:
            rows |= {place[0] for place in (cursor, self._painted_cursor) if place is not None}
        self._painted_cursor = cursor
        screen.dirty.clear()
        regions: list[Region] = []
        for number in sorted(rows):
            self._strips.pop(number, None)
            y = number - view[0]
            if 0 <= y < self.size.height:
                regions.append(Region(0, y, self.size.width, 1))
        if regions:
            self.refresh(*regions)

    # What the link tells

    def attached(self) -> None:
        """Begin with an empty screen, and wait for the history."""
        self._start_anew()
        self._is_arriving = True

    def shown(self, output: bytes, *, history: bool) -> None:
        """Let what the guest has shown wait until the pane says that it may be drawn."""
        self._backlog.add(output, whole=history)
        if history:
            self._history_bytes += len(output)
        if output and not self._has_told:
            self._has_told = True
            self.post_message(self.Waiting(self.vm_id))

    def joined(self, company: Company) -> None:
        """Say who is there; the first time, the history is complete."""
        self.company = company
        self._fit()
        if self._is_arriving:
            self._has_arrived()
        self.post_message(self.Changed())

    def noticed(self, notice: str) -> None:
        """Say it for a while."""
        self.notice = notice
        if self._notice_timer is not None:
            self._notice_timer.stop()
        self._notice_timer = self.set_timer(NOTICE_S, self._forget_notice)
        self.post_message(self.Changed())

    def stands(self, standing: Standing, reason: str) -> None:
        """Say how the link is; what of a history has come before it was lost is shown."""
        if standing is not Standing.OPEN:
            self.company = Company()
            if self._is_arriving:
                self._has_arrived()
        if standing is Standing.REFUSED:
            self.reason = reason
        if standing != self.standing:
            self.since = self._clock.now()
            self.standing, self.reason = standing, reason
            self.repaint()
        self.post_message(self.Changed())

    def is_called(self, name: str | None) -> None:
        """What the VM is called now; None: it is deleted, so its console never comes back."""
        if name is None:
            self.workers.cancel_group(self, "console")
            self.stands(Standing.DELETED, "")
        elif name != self.vm_name:
            self.vm_name = name
            self.post_message(self.Changed())

    # What the person does

    def take_key(self, event: events.Key) -> None:
        """Send a key to the guest, or give the keys back if it is the one for that."""
        if event.key == LEAVE:
            self.type(False)  # now, and not a message later: the next key may be here already
            self.post_message(self.KeysBack())
            return
        keys = guest_bytes(
            event.key, event.character, cursor_keys=CURSOR_KEYS in self.screen_model.private_modes
        )
        if keys:
            self._send(keys)

    def on_key(self, event: events.Key) -> None:
        """For apps that let keys come this far: see `appliance.tui.console.keyboard`."""
        if self.typing:
            event.stop()
            event.prevent_default()
            self.take_key(event)

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        if self.typing:
            self._send(pasted(event.text, bracketed=PASTE_MODE in self.screen_model.private_modes))

    def on_blur(self) -> None:
        if self.typing and self.app.app_focus and self.screen.focused is not self:
            self.type(False)
            self.post_message(self.KeysBack())
        self.repaint()

    def on_focus(self) -> None:
        self.repaint()

    def on_resize(self, event: events.Resize) -> None:
        if event.size.width and event.size.height:
            self.link.resize(event.size.height, event.size.width)
            self._fit()
            self.repaint()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._turn_wheel(event, -WHEEL_LINES)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._turn_wheel(event, WHEEL_LINES)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if self._drag is None:
            self._begin_drag(event)
        if self._drag is Drag.OF_GUEST:
            self._tell_guest(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._drag is Drag.OF_GUEST:
            self._tell_guest(event)
        elif self._drag is Drag.SELECTS:
            self.reading.select(self._position(event), begin=False)
            self.repaint()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._drag is Drag.OF_GUEST:
            self._tell_guest(event)
        elif self._drag is Drag.SELECTS and self.reading.head is not None:
            self.post_message(self.Copied(self.reading.text()))
        elif self._drag is Drag.SELECTS:
            self.reading.select_nothing()
        if self._drag is not None:
            self._drag = None
            self.release_mouse()

    # How it is painted

    def render_line(self, y: int) -> Strip:
        number = self.reading.first_in_view + y
        strip = self._strips.get(number)
        if strip is None:
            began = self._clock.monotonic()
            strip = self._strips[number] = self._painted(number)
            self._painting_s += self._clock.monotonic() - began
        return strip

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()

    def _painted(self, number: int) -> Strip:
        screen, reading = self.screen_model, self.reading
        width, base = self.size.width, self.rich_style
        on_screen = number >= screen.top
        line = screen.line(number)
        strip = strip_of(line, width, base, reverse=on_screen and screen.is_reversed)
        strip = marked(strip, reading.occurrences(number), FOUND)
        if reading.found is not None and reading.found[0] == number:
            here = [place for place in reading.occurrences(number) if place[0] == reading.found[1]]
            strip = marked(strip, here, FOUND_HERE)
        if selected := reading.selected(number):
            strip = marked(strip, [selected], SELECTED)
        if (cursor := self._cursor()) and cursor[0] == number:
            column = cursor[1]
            place = (column, column + 1)
            strip = marked(strip, [place], CURSOR if cursor[2] else IDLE_CURSOR)
        return strip

    def _cursor(self) -> Cursor | None:
        """Line, column, and whether keys go there; None if it is not shown."""
        cursor = self.screen_model.cursor
        if cursor.hidden or self.standing is not Standing.OPEN:
            return None
        column = min(cursor.x, self.screen_model.columns - 1)
        return (self.screen_model.top + cursor.y, column, self.typing and self.has_focus)

    def _paint_soon(self) -> None:
        every = PAINT_A_FLOOD_EVERY_S if self.is_flooded else PAINT_EVERY_S
        every = max(every, min(IDLE_FOR_EACH_PAINTING * self._painting_s, PAINT_AT_LEAST_EVERY_S))
        wait = self._painted_at + every - self._clock.monotonic()
        if wait <= 0:
            self.paint()
        elif self._paint_timer is None:
            self._paint_timer = self.set_timer(wait, self._paint_now)

    def _paint_now(self) -> None:
        self._paint_timer = None
        self.paint()

    # The rest

    def _has_arrived(self) -> None:
        """Let the history be drawn."""
        self._is_arriving = False
        self._backlog.keep_lines(SCROLLBACK_LINES + self.screen_model.lines)
        self._history_bytes = len(self._backlog)
        self.post_message(self.Waiting(self.vm_id))

    def _forget_notice(self) -> None:
        self._notice_timer = None
        self.notice = ""
        self.post_message(self.Changed())

    def _start_anew(self) -> None:
        columns, lines = self.size if self.is_mounted and self.size.area else FIRST_SIZE
        self.screen_model = GuestScreen(columns, lines)
        self.reading = Reading(self.screen_model, height=lines)
        self._mouse = Mouse(self.screen_model)
        self._interpreter = Interpreter(self.screen_model)
        self._backlog = Backlog(self._ring_bytes)
        self._history_bytes = 0

    def _fit(self) -> None:
        """Give the model the guest's size, if somebody else decides on it, else ours."""
        columns, lines = self.size
        if columns and lines:
            self.reading.height = lines
        if self.company.size is not None and not self.company.you_write:
            lines, columns = self.company.size
        if columns and lines:
            self.screen_model.resize(lines, columns)
            self._paint_soon()

    def _skip(self, skipped: Skipped) -> None:
        if not self.is_flooded:
            self.is_flooded = True
            self.post_message(self.Changed())
        self._history_bytes = 0
        self.skipped_bytes += skipped.count
        self._interpreter.feed(skipped.lasting)
        if not self.screen_model.is_alternate:
            self._interpreter.feed(f"\r\n\x1b[2m… {skipped.count:,} bytes skipped\x1b[m\r\n".encode())

    def _send(self, keys: bytes) -> None:
        self._forget_selection()
        if self.reading.top is not None:
            self.reading.show_from(self.screen_model.end)
            self.repaint()
            self.post_message(self.Changed())
        if self.notice:
            self.notice = ""
            self.post_message(self.Changed())
        self.link.type(keys)

    def _begin_drag(self, event: events.MouseDown) -> None:
        if self._is_for_guest(event):
            self._drag = Drag.OF_GUEST
            self._forget_selection()
        elif event.button == 1:
            self._drag = Drag.SELECTS
            self.reading.select(self._position(event), begin=True)
            self.repaint()
        else:
            return
        self.capture_mouse()

    def _turn_wheel(self, event: events.MouseEvent, lines: int) -> None:
        event.stop()
        if self._is_for_guest(event):
            self._tell_guest(event)
        else:
            self.scroll_lines(lines)

    def _is_for_guest(self, event: events.MouseEvent) -> bool:
        """Whether the guest gets an event of the mouse: who types has it there, if the guest wants it."""
        return self._writes and self.reading.top is None and self._mouse.is_for_guest(event)

    def _tell_guest(self, event: events.MouseEvent) -> None:
        line, column = self._position(event)
        told = self._mouse.sent(event, column, line - self.screen_model.top)
        if told and self._writes:
            self._send(told)

    @property
    def _writes(self) -> bool:
        return self.typing and self.company.you_write

    def _forget_selection(self) -> None:
        if self.reading.anchor is not None:
            self.reading.select_nothing()
            self.repaint()

    def _position(self, event: events.MouseEvent) -> Position:
        offset = event.get_content_offset_capture(self)
        y = max(0, min(offset.y, self.size.height - 1))
        return (self.reading.first_in_view + y, max(0, min(offset.x, self.size.width - 1)))
