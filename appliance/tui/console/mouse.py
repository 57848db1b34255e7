"""From the mouse to the bytes that a terminal sends a guest which has asked for them. Performs no I/O.

Known are the ways that a hub lets a guest ask for: presses, drags, and their two encodings (ctlseqs of xterm,
"Mouse Tracking"; see `appliance.console_output`). A guest that has not asked and shows a full-screen program,
such as a pager, gets cursor keys for the wheel, as from most terminals.
"""

from __future__ import annotations

from textual import events

from appliance.tui.console.keys import guest_bytes
from appliance.tui.console.screen import GuestScreen

PRESSES, DRAGS, DECIMAL, CURSOR_KEYS = 1000, 1002, 1006, 1
"""Private modes of a guest's screen."""

WHEEL_LINES = 3
WHEEL: dict[type[events.MouseEvent], tuple[int, str]] = {
    events.MouseScrollUp: (64, "up"),
    events.MouseScrollDown: (65, "down"),
}
"""The number of each direction as a button, and the key that stands in for it."""
ANY_RELEASE = 3
"""What is let go, in the encoding that does not say."""
MOVED, SHIFT, ALT, CTRL = 32, 4, 8, 16
LAST_PLACE = 222
"""The last column or line that one byte can tell."""


class Mouse:
    """The mouse over one guest's screen."""

    def __init__(self, screen: GuestScreen) -> None:
        self._screen = screen
        self._place = (0, 0)
        """Where it was last."""

    def is_for_guest(self, event: events.MouseEvent) -> bool:
        """Whether the guest wants this. With shift, the mouse is its holder's own: to select, to scroll."""
        return not event.shift and (self._is_wanted or (type(event) in WHEEL and self._screen.is_alternate))

    def sent(self, event: events.MouseEvent, column: int, line: int) -> bytes:
        """What the guest gets for an event that is for it, at a place of its screen, counted from 0."""
        screen, modes, before = self._screen, self._screen.private_modes, self._place
        self._place = (min(max(column, 0), screen.columns - 1), min(max(line, 0), screen.lines - 1))
        if type(event) in WHEEL:
            number, key = WHEEL[type(event)]
            if self._is_wanted:
                return self._report(event, number)
            return guest_bytes(key, None, cursor_keys=CURSOR_KEYS in modes) * WHEEL_LINES
        if not self._is_wanted:
            return b""
        button = event.button - 1
        match event:
            case events.MouseDown() if button >= 0:
                return self._report(event, button)
            case events.MouseUp() if button >= 0:
                return self._report(event, button, is_over=True)
            case events.MouseMove() if button >= 0 and DRAGS in modes and self._place != before:
                return self._report(event, button + MOVED)
        return b""

    @property
    def _is_wanted(self) -> bool:
        return not self._screen.private_modes.isdisjoint((PRESSES, DRAGS))

    def _report(self, event: events.MouseEvent, number: int, *, is_over: bool = False) -> bytes:
        number += SHIFT * event.shift + ALT * event.meta + CTRL * event.ctrl
        column, line = self._place
        if DECIMAL in self._screen.private_modes:
            return f"\x1b[<{number};{column + 1};{line + 1}{'m' if is_over else 'M'}".encode()
        if max(column, line) > LAST_PLACE:
            return b""
        if is_over:
            number |= ANY_RELEASE
        return b"\x1b[M" + bytes(32 + value for value in (number, column + 1, line + 1))
