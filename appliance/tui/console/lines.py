"""The line above the consoles, with their tabs, and the line below, with what keys do and who is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from appliance.tui.console.words import (
    CATCHING_UP,
    COMMANDS,
    KEYS_BACK,
    LESS_WANTED,
    READ_ONLY_HIDES,
    Glyphs,
    glyph,
    place,
    who_is_there,
)

if TYPE_CHECKING:
    from appliance.tui.console.terminal import Terminal

LONGEST_NAME = 24


class TabLine(Static):
    """One tab for each open console."""

    DEFAULT_CSS = """
    TabLine { height: 1; background: $panel; color: $text-muted; }
    """

    class Chosen(Message):
        """A tab was clicked."""

        def __init__(self, vm_id: int) -> None:
            super().__init__()
            self.vm_id = vm_id

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(markup=False)
        self._glyphs = glyphs
        self._edges: list[tuple[int, int, int]] = []

    def tell(self, terminals: Sequence[Terminal], active: Terminal | None) -> None:
        """Show these tabs; the active one is always in view."""
        tabs = [self._tab(terminal, terminal is active) for terminal in terminals]
        current = next((at for at, terminal in enumerate(terminals) if terminal is active), 0)
        first = _first_in_view([tab.cell_length for tab in tabs], current, self.size.width or 80)
        shown: list[Content] = [Content(f"{self._glyphs.more} ")] if first else []
        column = 2 if first else 0
        self._edges = []
        for at in range(first, len(tabs)):
            shown.append(tabs[at])
            self._edges.append((column, column + tabs[at].cell_length, terminals[at].vm_id))
            column += tabs[at].cell_length
        self.update(Content("").join(shown))

    def on_click(self, event: events.Click) -> None:
        for start, end, vm_id in self._edges:
            if start <= event.x < end:
                self.post_message(self.Chosen(vm_id))

    def _tab(self, terminal: Terminal, is_active: bool) -> Content:
        mark, colour = glyph(self._glyphs, terminal.standing, terminal.company)
        name = shortened(terminal.vm_name, LONGEST_NAME, self._glyphs.more)
        news = self._glyphs.news if terminal.has_news else " "
        style = "bold $foreground on $surface" if is_active else "$text-muted"
        return Content.assemble(
            (" ", style),
            (mark, f"${colour} on $surface" if is_active else f"${colour}"),
            (f" {name}", style),
            (news, "bold $text-warning" if not is_active else style),
        )


class BottomLine(Static):
    """What keys do now, and who is at the console. While keys go to the guest, the way back is shown."""

    DEFAULT_CSS = """
    BottomLine { height: 1; background: $panel; color: $text-muted; }
    BottomLine.typing { background: $primary; color: $text; }
    """

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(markup=False)
        self._glyphs = glyphs

    def tell(self, terminal: Terminal | None) -> None:
        """Say it for this console."""
        self.set_class(terminal is not None and terminal.typing, "typing")
        width = self.size.width or 80
        self.update(Content("") if terminal is None else bottom_line(terminal, width, self._glyphs))


def bottom_line(terminal: Terminal, width: int, glyphs: Glyphs) -> Content:
    """What the line below a console says, within `width`: the more important, the more to the left."""
    screen = terminal.screen_model
    news = terminal.notice or place(
        terminal.reading.lines_back,
        terminal.skipped_bytes if terminal.is_flooded else 0,
        (screen.lines, screen.columns),
        (terminal.size.height or screen.lines, terminal.size.width or screen.columns),
        glyphs.between,
    )
    there = who_is_there(terminal.standing, terminal.company, glyphs.between)
    there = CATCHING_UP if terminal.is_catching_up else there
    right = Content.assemble((news, "bold"), glyphs.between if news else "", there, " ")
    if terminal.typing:
        return _both(Content.assemble((f" {KEYS_BACK} ", "bold")), right, width, glyphs)
    hidden = list(READ_ONLY_HIDES) if terminal.read_only else []
    left = _keys(hidden, terminal.read_only)
    for key in LESS_WANTED:
        if left.cell_length + right.cell_length >= width:
            hidden.append(key)
            left = _keys(hidden, terminal.read_only)
    return _both(left, right, width, glyphs)


def _both(left: Content, right: Content, width: int, glyphs: Glyphs) -> Content:
    """Two parts at the two ends of a line; the right one gives way."""
    room = max(0, width - left.cell_length - 1)
    if right.cell_length > room:
        right = Content.assemble(right.truncate(max(0, room - 1)), glyphs.more if room else "")
    return Content.assemble(left, " " * (width - left.cell_length - right.cell_length), right)


def shortened(name: str, most: int, more: str) -> str:
    """A name in `most` places."""
    if cell_len(name) <= most:
        return name
    while cell_len(name) > most - cell_len(more):
        name = name[:-1]
    return name + more


def _keys(hidden: Sequence[str], read_only: bool) -> Content:
    parts: list[tuple[str, str]] = [(" read-only ", "bold $text-warning")] if read_only else []
    for key, does in COMMANDS:
        if key not in hidden:
            parts += [(f" {key}", "bold $text-accent"), (f" {does}", "$text-muted")]
    return Content.assemble(*parts)


def _first_in_view(widths: Sequence[int], current: int, width: int) -> int:
    """The first tab to show, so that the current one fits."""
    first = 0
    while first < current and sum(widths[first : current + 1]) + (2 if first else 0) > width:
        first += 1
    return first
