"""The screen of a guest's console, with what has scrolled off it. Nothing here performs I/O.

pyte moves cursors and margins, and knows tabs and character sets. What it lacks or does wrong is done here:
the other screen of full-screen programs, dim text, erasing with the background alone, and keeping what
scrolls off. The rows are ours (`rows`), in a list where pyte has a dictionary, for scrolling moves them all.

Lines are numbered from the first that was ever shown: `first` is the oldest still kept, `top` the
uppermost of the screen, `end` comes after its last. A line keeps its number while it scrolls.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable
from typing import cast

import pyte
import pyte.charsets
import pyte.modes
from pyte.screens import Cursor
from rich.cells import get_character_cell_size

from appliance.tui.console.looks import PLAIN, Look, changed
from appliance.tui.console.rows import BLANK, Cell, Line, Row, cell_of

SCROLLBACK_LINES = 10_000
SCROLLBACK_BYTES = 8_388_608
"""Roughly; reached before the number of lines only by a guest that colours each character."""
LONGEST_CELL = 8
"""Characters in one cell: a letter and what combines with it."""


class GuestScreen(pyte.Screen):
    """What a guest has drawn; `dirty` holds the rows that have changed since its reader cleared it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.history: deque[Line] = deque()
        self._history_bytes = 0
        self.top = 0
        self._main: tuple[list[Row], Cursor] | None = None
        self._saved: dict[bool, tuple[Cursor, Look, object, object, int]] = {}
        self.private_modes: set[int] = set()
        super().__init__(columns, lines)

    @property
    def first(self) -> int:
        """The number of the oldest line kept."""
        return self.top - len(self.history)

    @property
    def end(self) -> int:
        """The number after that of the last line of the screen."""
        return self.top + self.lines

    @property
    def is_alternate(self) -> bool:
        """Whether a full-screen program shows the other screen."""
        return self._main is not None

    @property
    def is_reversed(self) -> bool:
        """Whether dark and light are exchanged on the whole screen."""
        return 5 in self.private_modes

    def line(self, number: int) -> Line:
        """The line of this number; empty if it is not kept."""
        if number < self.top:
            place = number - self.first
            return self.history[place] if place >= 0 else ()
        y = number - self.top
        return self._rows[y].line(self.columns) if y < self.lines else ()

    # What pyte calls and is called for

    def reset(self) -> None:
        """Everything as at first, but for what has scrolled off."""
        self._main = None
        self._saved.clear()
        self.private_modes.clear()
        super().reset()
        self._rows = [Row() for _ in range(self.lines)]
        self._use(PLAIN)
        self.last_drawn = " "

    def soft_reset(self) -> None:
        """Modes, margins and looks as at first; what is shown stays."""
        self.mode = {pyte.modes.DECAWM, pyte.modes.DECTCEM}
        self.private_modes.clear()
        self.margins = None
        self.charset = 0
        self.g0_charset, self.g1_charset = pyte.charsets.LAT1_MAP, pyte.charsets.VT100_MAP
        self.cursor.hidden = False
        self._use(PLAIN)

    def select_look(self, parameters: str) -> None:
        """SGR, with its parameters as they came."""
        self._use(changed(self._look, parameters))

    def draw(self, data: str) -> None:
        """Put text at the cursor, which moves on."""
        table = self.g1_charset if self.charset else self.g0_charset
        if table is not pyte.charsets.LAT1_MAP:
            data = data.translate(table)
        if data.isascii() and pyte.modes.IRM not in self.mode:
            self._draw_narrow(data)
        else:
            for character in data:
                self._draw_one(character)
        self.last_drawn = data[-1]

    def repeat(self, count: int = 1) -> None:
        """Draw the last character again, over one line's length at most."""
        self.draw(self.last_drawn * min(max(count, 1), self.columns))

    def index(self) -> None:
        """Move down a line, scrolling at the bottom margin; a line that leaves the main screen is kept."""
        bottom = self.margins.bottom if self.margins else self.lines - 1
        if self.cursor.y == bottom:
            self._scroll_up(self.margins.top if self.margins else 0, bottom)
        elif self.cursor.y < self.lines - 1:
            self.cursor.y += 1

    def reverse_index(self) -> None:
        """Move up a line, scrolling at the top margin."""
        top, bottom = self._region
        if self.cursor.y == top:
            self._move_down(top, bottom, 1)
        elif self.cursor.y > 0:
            self.cursor.y -= 1

    def scroll_up(self, count: int = 1) -> None:
        """Move what is between the margins up."""
        top, bottom = self._region
        for _ in range(min(max(count, 1), bottom - top + 1)):
            self._scroll_up(top, bottom)

    def scroll_down(self, count: int = 1) -> None:
        """Move what is between the margins down."""
        self._move_down(*self._region, count)

    def insert_lines(self, count: int | None = None) -> None:
        """Move the line of the cursor and those below it down."""
        top, bottom = self._region
        if top <= self.cursor.y <= bottom:
            self._move_down(self.cursor.y, bottom, count or 1)
            self.cursor.x = 0

    def delete_lines(self, count: int | None = None) -> None:
        """Move the lines below the cursor's up, over it."""
        top, bottom = self._region
        if top <= self.cursor.y <= bottom:
            self._move_up(self.cursor.y, bottom, count or 1)
            self.cursor.x = 0

    def tab_forward(self, count: int = 1) -> None:
        """Move on by tab stops."""
        for _ in range(min(max(count, 1), self.columns)):
            self.tab()

    def tab_back(self, count: int = 1) -> None:
        """Move back by tab stops."""
        for _ in range(min(max(count, 1), self.columns)):
            self.cursor.x = max((stop for stop in self.tabstops if stop < self.cursor.x), default=0)

    def save_cursor(self) -> None:
        """Remember place, look and character sets, one for each of the two screens."""
        place = Cursor(self.cursor.x, self.cursor.y)
        self._saved[self.is_alternate] = (
            place,
            self._look,
            self.g0_charset,
            self.g1_charset,
            self.charset,
        )

    def restore_cursor(self) -> None:
        """Go back to what was saved last."""
        place, look, g0, g1, charset = self._saved.get(
            self.is_alternate,
            (Cursor(0, 0), PLAIN, pyte.charsets.LAT1_MAP, pyte.charsets.VT100_MAP, 0),
        )
        self.cursor.x, self.cursor.y = place.x, place.y
        self.g0_charset, self.g1_charset, self.charset = cast("str", g0), cast("str", g1), charset
        self._use(look)
        self.ensure_hbounds()
        self.ensure_vbounds()

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        """Erase to the end (0), to the beginning (1), or all (2) of the line."""
        starts = {0: self.cursor.x, 1: 0, 2: 0}
        ends = {0: self.columns, 1: self.cursor.x + 1, 2: self.columns}
        if how in starts:
            self._erase(self.cursor.y, starts[how], min(ends[how], self.columns))

    def erase_characters(self, count: int | None = None) -> None:
        """Erase from the cursor on, without moving anything."""
        self._erase(self.cursor.y, self.cursor.x, min(self.cursor.x + (count or 1), self.columns))

    def insert_characters(self, count: int | None = None) -> None:
        """Move what is at the cursor to the right."""
        self.dirty.add(self.cursor.y)
        self._rows[self.cursor.y].insert(self.cursor.x, count or 1, self.columns, self._eraser)

    def delete_characters(self, count: int | None = None) -> None:
        """Move what is behind the cursor to the left, over as many characters."""
        self.dirty.add(self.cursor.y)
        self._rows[self.cursor.y].delete(self.cursor.x, count or 1, self.columns, self._eraser)

    def erase_in_display(self, how: int = 0, *_: object, **__: object) -> None:
        """Erase below (0), above (1), or everything (2); never what has scrolled off."""
        if how in {0, 1}:
            self.erase_in_line(how)
        rows = {0: range(self.cursor.y + 1, self.lines), 1: range(self.cursor.y), 2: range(self.lines)}
        for y in rows.get(how, ()):
            self._rows[y] = self._empty_row()
            self.dirty.add(y)

    def set_private_mode(self, mode: int, on: bool) -> None:
        """What `ESC [ ? mode h` and `l` do."""
        match mode:
            case 47 | 1047 | 1049:
                self._show_other(on, save=mode == 1049)
            case 1048:
                (self.save_cursor if on else self.restore_cursor)()
            case 7:
                self._set(pyte.modes.DECAWM, on)
            case 25:
                self.cursor.hidden = not on
                self.dirty.add(self.cursor.y)
            case 1000 | 1002:  # each is in the other's place
                self.private_modes -= {1000, 1002}
                if on:
                    self.private_modes.add(mode)
            case _:
                (self.private_modes.add if on else self.private_modes.discard)(mode)
                if mode == 5:
                    self.dirty.update(range(self.lines))

    def set_insert_mode(self, on: bool) -> None:
        """Whether drawing moves what is there to the right."""
        self._set(pyte.modes.IRM, on)

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Take another size: blank lines at the bottom go first, then lines at the top scroll off."""
        lines, columns = lines or self.lines, columns or self.columns
        if (lines, columns) == (self.lines, self.columns):
            return
        main, cursor = self._main or (self._rows, self.cursor)
        self._fit(main, cursor, lines, columns, self._push)
        if self._main:
            self._fit(self._rows, self.cursor, lines, columns, lambda _: None)
        self.tabstops |= set(range(-(-self.columns // 8) * 8, columns, 8))
        self.tabstops = {stop for stop in self.tabstops if stop < columns}
        self.lines, self.columns = lines, columns
        self.margins = None
        self.dirty = set(range(lines))

    def write_process_input(self, data: str) -> None:
        """Nothing: a console that somebody looks at answers no questions."""

    # How it is done

    @property
    def _rows(self) -> list[Row]:
        return self.buffer  # type: ignore[return-value]

    @_rows.setter
    def _rows(self, rows: list[Row]) -> None:
        self.buffer = rows  # type: ignore[assignment]  # a list of ours, where pyte has a dictionary of its own

    @property
    def _region(self) -> tuple[int, int]:
        return (self.margins.top, self.margins.bottom) if self.margins else (0, self.lines - 1)

    @property
    def default_char(self) -> pyte.screens.Char:
        """What pyte puts where nothing was drawn."""
        return cast("pyte.screens.Char", BLANK)

    def _use(self, look: Look) -> None:
        self._look = look
        self._eraser = BLANK if look.bg is None else Cell(" ", Look(bg=look.bg))
        self.cursor.attrs = cast("pyte.screens.Char", Cell(" ", look))

    def _set(self, mode: int, on: bool) -> None:
        (self.mode.add if on else self.mode.discard)(mode)

    def _empty_row(self) -> Row:
        row = Row()
        if self._eraser is not BLANK:
            row.erase(0, self.columns, self.columns, self._eraser)
        return row

    def _erase(self, y: int, start: int, end: int) -> None:
        self.dirty.add(y)
        self._rows[y].erase(start, end, self.columns, self._eraser)

    def _draw_narrow(self, text: str) -> None:
        """Text of which each character takes one place."""
        cursor, columns, look = self.cursor, self.columns, self._look
        wraps = pyte.modes.DECAWM in self.mode
        start, end = 0, len(text)
        while start < end:
            if cursor.x >= columns:
                if wraps:
                    cursor.x = 0
                    self.linefeed()
                else:
                    cursor.x, start = columns - 1, end - 1
            piece = text[start : start + columns - cursor.x]
            self._rows[cursor.y].write(cursor.x, piece, look)
            self.dirty.add(cursor.y)
            cursor.x += len(piece)
            start += len(piece)

    def _draw_one(self, character: str) -> None:
        width = get_character_cell_size(character)
        if width == 0:
            self._combine(character)
            return
        cursor = self.cursor
        if cursor.x + width > self.columns:
            if pyte.modes.DECAWM in self.mode:
                cursor.x = 0
                self.linefeed()
            else:
                cursor.x = max(self.columns - width, 0)
        if pyte.modes.IRM in self.mode:
            self.insert_characters(width)
        cells = self._rows[cursor.y].cells
        cells[cursor.x] = cell_of(character, self._look)
        if width == 2 and cursor.x + 1 < self.columns:
            cells[cursor.x + 1] = cell_of("", self._look)
        self.dirty.add(cursor.y)
        cursor.x = min(cursor.x + width, self.columns)

    def _combine(self, mark: str) -> None:
        """Add a mark to the character before the cursor; joiners and selectors are left out."""
        if not unicodedata.category(mark).startswith("M") or "\ufe00" <= mark <= "\ufe0f":
            return
        cells = self._rows[self.cursor.y].cells
        x = self.cursor.x - 1
        if x > 0 and x in cells and not cells[x].data:
            x -= 1
        cell = cells.get(x, BLANK)
        if x >= 0 and len(cell.data) < LONGEST_CELL:
            cells[x] = cell_of(unicodedata.normalize("NFC", cell.data + mark), cell.look)
            self.dirty.add(self.cursor.y)

    def _scroll_up(self, top: int, bottom: int) -> None:
        if top == 0 and self._main is None:
            self._push(self._rows[0].line(self.columns))
        self._move_up(top, bottom, 1)

    def _move_up(self, top: int, bottom: int, count: int) -> None:
        count = min(count, bottom - top + 1)
        rows = self._rows
        del rows[top : top + count]
        rows[bottom + 1 - count : bottom + 1 - count] = [self._empty_row() for _ in range(count)]
        self.dirty.update(range(top, bottom + 1))

    def _move_down(self, top: int, bottom: int, count: int) -> None:
        count = min(max(count, 1), bottom - top + 1)
        rows = self._rows
        del rows[bottom + 1 - count : bottom + 1]
        rows[top:top] = [self._empty_row() for _ in range(count)]
        self.dirty.update(range(top, bottom + 1))

    def _push(self, line: Line) -> None:
        self.history.append(line)
        self.top += 1
        self._history_bytes += _cost(line)
        while len(self.history) > SCROLLBACK_LINES or self._history_bytes > SCROLLBACK_BYTES:
            self._history_bytes -= _cost(self.history.popleft())

    def _show_other(self, other: bool, *, save: bool) -> None:
        if other == self.is_alternate:
            return
        if other:
            if save:
                self.save_cursor()
            self._main = (self._rows, Cursor(self.cursor.x, self.cursor.y))
            self._rows = [Row() for _ in range(self.lines)]
        else:
            assert self._main is not None
            self._rows, _ = self._main
            self._main = None
            if save:
                self.restore_cursor()
        self.margins = None
        self.dirty.update(range(self.lines))

    def _fit(
        self, rows: list[Row], cursor: Cursor, lines: int, columns: int, leave: Callable[[Line], None]
    ) -> None:
        """Give `rows` another size; those that must go at the top are passed to `leave`."""
        del rows[max(lines, cursor.y + 1) :]
        for row in rows[: max(0, len(rows) - lines)]:
            leave(row.line(self.columns))
        cursor.y -= max(0, len(rows) - lines)
        del rows[: max(0, len(rows) - lines)]
        for row in rows:
            row.cut(columns)
        rows += [Row() for _ in range(lines - len(rows))]
        cursor.x = min(cursor.x, columns - 1)


def _cost(line: Line) -> int:
    return 64 + sum(160 + len(text) for text, _ in line)
