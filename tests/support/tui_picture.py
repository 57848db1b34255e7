"""A screen as text that a person can review: its characters, and which style each cell has.

A style is a letter, explained in a legend; the commonest one is left blank, so that the plane of letters
shows at a glance what stands out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters, digits, punctuation
from typing import Any

from rich.cells import cell_len
from rich.color import Color as RichColor
from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.filter import Monochrome, monochrome_style
from textual.strip import Strip

LETTERS = ascii_letters + digits + punctuation
ATTRIBUTES = ("bold", "dim", "italic", "underline", "reverse", "strike")


@dataclass(frozen=True, slots=True)
class Picture:
    """What a screen shows."""

    strips: tuple[Strip, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Its characters, without blanks at the end."""
        return tuple(strip.text.rstrip() for strip in self.strips)

    @property
    def text(self) -> str:
        """All characters."""
        return "\n".join(self.lines)

    def without_colours(self) -> Picture:
        """The same as Textual shows it where NO_COLOR is set."""
        grey = Monochrome()
        return Picture(tuple(strip.apply_filter(grey, Color(0, 0, 0)) for strip in self.strips))

    def apart(self, other: Picture) -> int:
        """How far the colours of a cell are apart where they are furthest, from 0 to 255; else alike."""
        pairs = zip(_cells(self.strips), _cells(other.strips), strict=True)
        return max(_apart(one, two) for ours, theirs in pairs for one, two in zip(ours, theirs, strict=True))

    def __str__(self) -> str:
        """For a file: characters, a letter for each cell, and what it means with and without colours."""
        letters, cells = lettered(self.strips)
        legend = [
            f"{letter or 'blank'}: {look(style):<36} {look(grey(style))}" for style, letter in letters.items()
        ]
        return "\n".join([*self.lines, "", "== styles", *cells, "", *legend]) + "\n"


def take(app: App[Any]) -> Picture:
    """What an app shows now, with the screens that shine through a dialog."""
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    return Picture(tuple(Strip.join(list(line)) for line in update.strips))  # type: ignore[union-attr]


def lettered(strips: Sequence[Strip]) -> tuple[dict[Style, str], list[str]]:
    """Letters of styles, none for the commonest, and for each line the letters of its cells."""
    rows = [[(_bare(seg.style), cell_len(seg.text)) for seg in strip if seg.text] for strip in strips]
    sizes: Counter[Style] = Counter()
    for row in rows:
        for style, cells in row:
            sizes[style] += cells
    letters = {max(sizes, key=lambda style: (sizes[style], look(style))): ""}
    for row in rows:
        for style, _ in row:
            if style not in letters:
                letters[style] = LETTERS[len(letters) - 1]
    lines = ["".join((letters[style] or " ") * cells for style, cells in row).rstrip() for row in rows]
    return letters, lines


def grey(style: Style) -> Style:
    """A style where NO_COLOR is set."""
    return _bare(monochrome_style(style))


def _cells(strips: Sequence[Strip]) -> list[list[Style]]:
    return [[_bare(seg.style) for seg in strip for _ in range(cell_len(seg.text))] for strip in strips]


def _apart(one: Style, two: Style) -> int:
    distances = [0]
    for first, second in ((one.color, two.color), (one.bgcolor, two.bgcolor)):
        if first and second and first.triplet and second.triplet:
            distances += [abs(a - b) for a, b in zip(first.triplet, second.triplet, strict=True)]
    return max(distances)


def _bare(style: Style | None) -> Style:
    """A style by its looks alone: without what it does when it is clicked."""
    if style is None:
        return Style()
    return Style(
        color=style.color,
        bgcolor=style.bgcolor,
        bold=style.bold or None,
        dim=style.dim or None,
        italic=style.italic or None,
        underline=style.underline or None,
        reverse=style.reverse or None,
        strike=style.strike or None,
    )


def look(style: Style) -> str:
    """A style in words: its colours and what else it has."""
    words = [name for name in ATTRIBUTES if getattr(style, name)]
    return " ".join([f"{_colour(style.color)} on {_colour(style.bgcolor)}", *words])


def _colour(colour: RichColor | None) -> str:
    if colour is None:
        return "-"
    return colour.triplet.hex if colour.triplet else colour.name
