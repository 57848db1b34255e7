"""Reading what a console has shown: where the view is, what is searched for, what is selected. Pure.

Positions are pairs of a line's number and a column, as `GuestScreen` counts lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from rich.cells import cell_len, get_character_cell_size

from appliance.tui.console.rows import text_of
from appliance.tui.console.screen import GuestScreen

Position: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class Reading:
    """One reader's place in what a screen has shown; `top` is the first line in view, None follows live."""

    screen: GuestScreen
    height: int = 24
    top: int | None = None
    wanted: str = ""
    """What is searched for; capitals count only if there are any."""
    found: Position | None = None
    anchor: Position | None = None
    head: Position | None = None

    @property
    def live_top(self) -> int:
        """The first line in view that keeps the cursor in view."""
        screen = self.screen
        return screen.top + max(0, min(screen.cursor.y - self.height + 1, screen.lines - self.height))

    @property
    def first_in_view(self) -> int:
        """The number of the line in the first row of the view."""
        if self.top is None:
            return self.live_top
        return max(self.top, self.screen.first)

    @property
    def lines_back(self) -> int:
        """How many lines the view is above the live one."""
        return self.live_top - self.first_in_view

    def scroll(self, lines: int) -> None:
        """Move the view by `lines`, up if negative; at the bottom it follows live again."""
        self.show_from(self.first_in_view + lines)

    def show_from(self, top: int) -> None:
        """Move the view to begin at a line, as far as there are lines."""
        top = max(self.screen.first, top)
        self.top = None if top >= self.live_top else top

    def search(self, wanted: str) -> bool:
        """Look for the last occurrence above the end of the view; whether there is one."""
        self.wanted, self.found = wanted, None
        return self.search_on(older=True)

    def search_on(self, *, older: bool) -> bool:
        """Look for the next occurrence, above or below the last one, beginning anew at the other end."""
        if not self.wanted:
            return False
        self.found = self._next(older)
        if self.found is None:
            return False
        number = self.found[0]
        if not self.first_in_view <= number < self.first_in_view + self.height:
            self.show_from(number - self.height // 2)
        return True

    def occurrences(self, number: int) -> list[tuple[int, int]]:
        """Where in a line the wanted text is: from a column up to another."""
        if not self.wanted:
            return []
        text = text_of(self.screen.line(number))
        sought = text
        if self.wanted == self.wanted.lower():
            sought = text.lower()
            if len(sought) != len(text):
                sought = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
        places: list[tuple[int, int]] = []
        at, end, column = sought.find(self.wanted), 0, 0
        while at >= 0:
            column += cell_len(text[end:at])
            end = at + len(self.wanted)
            places.append((column, column + cell_len(text[at:end])))
            column = places[-1][1]
            at = sought.find(self.wanted, end)
        return places

    def _next(self, older: bool) -> Position | None:
        """The nearest occurrence above or below the last one, else above or below the end of the view."""
        screen, step = self.screen, -1 if older else 1
        here, column = self.found or (min(self.first_in_view + self.height, screen.end), 0)
        if older:
            ahead, around = range(here - 1, screen.first - 1, -1), range(screen.end - 1, here - 1, -1)
        else:
            ahead, around = range(max(here + 1, screen.first), screen.end), range(screen.first, here + 1)

        def places(numbers: range) -> Iterator[Position]:
            return ((number, place) for number in numbers for place, _ in self.occurrences(number)[::step])

        beside = ((here, place) for _, place in places(range(here, here + 1)) if (place - column) * step > 0)
        return next(chain(beside, places(ahead), places(around)), None)

    def select(self, position: Position, *, begin: bool) -> None:
        """Begin a selection at a place of the view, or extend it to there."""
        if begin:
            self.anchor, self.head = position, None
        elif self.anchor is not None:
            self.head = position

    def select_nothing(self) -> None:
        """Forget the selection."""
        self.anchor = self.head = None

    def selected(self, number: int) -> tuple[int, int] | None:
        """The columns of a line that are selected."""
        if self.anchor is None or self.head is None:
            return None
        (first, start), (last, end) = sorted((self.anchor, self.head))
        if not first <= number <= last:
            return None
        return (start if number == first else 0, end + 1 if number == last else self.screen.columns)

    def text(self) -> str:
        """What is selected; if nothing is, all that is in view."""
        if self.anchor is None or self.head is None:
            numbers = range(self.first_in_view, min(self.first_in_view + self.height, self.screen.end))
            lines = [text_of(self.screen.line(number)).rstrip() for number in numbers]
        else:
            (first, _), (last, _) = sorted((self.anchor, self.head))
            lines = [
                _cut(text_of(self.screen.line(number)), *places).rstrip()
                for number in range(first, last + 1)
                if (places := self.selected(number)) is not None
            ]
        return "\n".join(lines).rstrip("\n")


def _cut(text: str, start: int, end: int) -> str:
    """The part of a text between two columns."""
    column, kept = 0, []
    for character in text:
        if start <= column < end:
            kept.append(character)
        column += get_character_cell_size(character)
    return "".join(kept)
