"""Rows of a guest's screen, and the lines that they become. Pure.

Most rows are written from left to right and then scroll off: such a row is pieces of text from end to end.
Only one that is written elsewhere is taken apart into cells, which costs about twenty times as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, repeat
from typing import NamedTuple, TypeAlias

from rich.cells import get_character_cell_size

from appliance.tui.console.looks import PLAIN, Look

Line: TypeAlias = tuple[tuple[str, Look], ...]
"""Pieces of text with one look each; blanks at the end are left out."""


class Cell(NamedTuple):
    """One place on the screen; `data` is empty in the second half of a wide character."""

    data: str
    look: Look


BLANK = Cell(" ", PLAIN)
cell_of = lru_cache(maxsize=16_384)(Cell)
"""The cell of a character and a look, shared by all places that show it."""


class Row:
    """One row: either pieces of text from its beginning to `_end`, or cells by column."""

    __slots__ = ("_cells", "_end", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[tuple[str, Look]] = []
        self._end = 0
        self._cells: dict[int, Cell] | None = None

    @property
    def cells(self) -> dict[int, Cell]:
        """The cells that are not blank, to be changed at will."""
        if self._cells is None:
            self._cells = {}
            x = 0
            for text, look in self._pieces:
                self._cells.update(
                    zip(range(x, x + len(text)), map(cell_of, text, repeat(look)), strict=True)
                )
                x += len(text)
            self._pieces = []
        return self._cells

    def write(self, x: int, text: str, look: Look) -> None:
        """Put text, of which each character takes one place, at a column."""
        if self._cells is None and x >= self._end:
            if x > self._end:
                self._add(" " * (x - self._end), PLAIN)
            self._add(text, look)
            self._end = x + len(text)
        else:
            self.cells.update(zip(range(x, x + len(text)), map(cell_of, text, repeat(look)), strict=True))

    def _add(self, text: str, look: Look) -> None:
        if self._pieces and self._pieces[-1][1] == look:
            text = self._pieces.pop()[0] + text
        self._pieces.append((text, look))

    def erase(self, start: int, end: int, columns: int, eraser: Cell) -> None:
        """Leave nothing but the eraser's background from a column up to another."""
        if eraser is not BLANK:
            self.cells.update(dict.fromkeys(range(start, end), eraser))
        elif start == 0 and end >= columns:
            self._pieces, self._end, self._cells = [], 0, None
        elif self._cells is not None or start < self._end:
            cells = self.cells
            for x in range(start, end):
                cells.pop(x, None)

    def insert(self, x: int, count: int, columns: int, eraser: Cell) -> None:
        """Move what is at a column and beyond to the right."""
        moved = {at + count: cell for at, cell in self.cells.items() if at >= x and at + count < columns}
        self.cut(x)
        self.cells.update(moved)
        if eraser is not BLANK:
            self.cells.update(dict.fromkeys(range(x, min(x + count, columns)), eraser))

    def delete(self, x: int, count: int, columns: int, eraser: Cell) -> None:
        """Move what is beyond some columns to the left, over them."""
        moved = {at - count: cell for at, cell in self.cells.items() if at >= x + count}
        self.cut(x)
        self.cells.update(moved)
        if eraser is not BLANK:
            self.cells.update(dict.fromkeys(range(max(x, columns - count), columns), eraser))

    def cut(self, columns: int) -> None:
        """Leave nothing from a column on."""
        if self._cells is not None or self._end > columns:
            cells = self.cells
            for x in [x for x in cells if x >= columns]:
                del cells[x]

    def line(self, columns: int) -> Line:
        """The row as pieces of text."""
        return _trimmed(self._pieces if self._cells is None else _pieces_of(self._cells, columns))


def text_of(line: Line) -> str:
    """A line without its looks."""
    return "".join([text for text, _ in line])


def _trimmed(pieces: list[tuple[str, Look]]) -> Line:
    if not pieces or (pieces[-1][1] is not PLAIN and pieces[-1][1] != PLAIN):
        return tuple(pieces)
    pieces = pieces.copy()
    while pieces and pieces[-1][1] == PLAIN:
        text = pieces.pop()[0].rstrip(" ")
        if text:
            pieces.append((text, PLAIN))
            break
    return tuple(pieces)


def _pieces_of(cells: dict[int, Cell], columns: int) -> list[tuple[str, Look]]:
    if not cells:
        return []
    count = min(max(cells) + 1, columns)
    row = list(map(cells.get, range(count), repeat(BLANK)))
    text = "".join([cell[0] for cell in row])
    if len(text) != count or not text.isascii():
        row = list(_whole(row))
        text = ""
    pieces: list[tuple[str, Look]] = []
    start = 0
    for look, same in groupby([cell[1] for cell in row]):
        end = start + len(list(same))
        pieces.append((text[start:end] or "".join([cell[0] for cell in row[start:end]]), look))
        start = end
    return pieces


def _whole(row: list[Cell]) -> Iterator[Cell]:
    """The cells with blanks for halves of wide characters of which something else has taken the other."""
    for x, cell in enumerate(row):
        if not cell.data:
            before = row[x - 1].data if x else ""
            is_half = bool(before) and get_character_cell_size(before[0]) == 2
            yield cell if is_half else Cell(" ", cell.look)
        elif get_character_cell_size(cell.data[0]) == 2:
            follows = x + 1 < len(row) and not row[x + 1].data
            yield cell if follows else Cell(" ", cell.look)
        else:
            yield cell
