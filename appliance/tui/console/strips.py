"""From a line of a guest's screen to what Textual paints. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from appliance.tui.console.looks import Colour, Look
from appliance.tui.console.rows import Line


@lru_cache(maxsize=4096)
def style_of(look: Look, base: Style, *, reverse: bool = False) -> Style:
    """`look` on a widget whose own style is `base`; `reverse` exchanges dark and light once more."""
    return base + Style(
        color=_colour(look.fg),
        bgcolor=_colour(look.bg),
        bold=look.bold or None,
        dim=look.dim or None,
        italic=look.italic or None,
        underline=look.underline or None,
        strike=look.strike or None,
        reverse=(look.reverse != reverse) or None,
    )


def strip_of(line: Line, width: int, base: Style, *, reverse: bool = False) -> Strip:
    """A line, `width` places wide."""
    segments = [
        Segment(" " * cell_len(text) if look.hidden else text, style_of(look, base, reverse=reverse))
        for text, look in line
    ]
    blank = style_of(Look(), base, reverse=reverse)
    return Strip(segments).adjust_cell_length(width, blank)


def marked(strip: Strip, places: Iterable[tuple[int, int]], style: Style) -> Strip:
    """`strip` with `style` put over some places, each from a column up to another."""
    for start, end in places:
        start, end = max(0, start), min(end, strip.cell_length)
        if start < end:
            middle = [Segment(text, (own or Style.null()) + style) for text, own, _ in strip.crop(start, end)]
            parts = (strip.crop(0, start), Strip(middle), strip.crop(end, strip.cell_length))
            strip = Strip.join(parts)
    return strip


def _colour(colour: Colour) -> Color | None:
    match colour:
        case int(number):
            return Color.from_ansi(number)
        case (red, green, blue):
            return Color.from_rgb(red, green, blue)
    return None
