"""Every command of this session, as one would have typed it, with what came of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from textual.content import Content
from textual.widgets import Static

from appliance.harmless import printable
from appliance.tui.glyphs import Glyphs

KEPT = 500
SHOWN = 8


@dataclass(slots=True)
class Line:
    """One command."""

    at: datetime
    command: str
    result: str = ""
    ok: bool | None = None
    """None: it is under way."""


class CommandLog(Static):
    """The last commands; one line as long as nobody wants to see more, and none before the first."""

    DEFAULT_CSS = """
    CommandLog {
        height: auto;
        max-height: 9;
        display: none;
        background: $surface;
        padding: 0 1;
        text-wrap: nowrap;
        text-overflow: ellipsis;
    }
    """

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="command-log")
        self._glyphs = glyphs
        self.lines: deque[Line] = deque(maxlen=KEPT)
        self._open = False

    def begin(self, at: datetime, command: str) -> Line:
        """A command is given."""
        line = Line(at, command)
        self.lines.append(line)
        self._draw()
        return line

    def say(self, line: Line, result: str) -> None:
        """How far it is."""
        line.result = result
        self._draw()

    def end(self, line: Line, result: str, *, ok: bool) -> None:
        """What came of it."""
        line.result, line.ok = result, ok
        self._draw()

    def toggle(self) -> None:
        """Show more or less."""
        self._open = not self._open
        self._draw()

    def _draw(self) -> None:
        shown = list(self.lines)[-(SHOWN if self._open else 1) :]
        self.display = bool(shown)
        self.update(Content("\n").join([self._line(line) for line in shown]))

    def _line(self, line: Line) -> Content:
        signs = self._glyphs
        if line.ok is None:
            sign, style = signs.states["starting"], "$text-accent"
        elif line.ok:
            sign, style = signs.ok, "$text-success"
        else:
            sign, style = signs.wrong, "bold $text-error"
        return Content.assemble(
            (f"{line.at.astimezone():%H:%M:%S} ", "$text-muted"),
            (f"{sign} ", style),
            (f"$ {printable(line.command)}", "bold"),
            (f"  {printable(line.result)}", style if line.ok is False else "$text-muted"),
        )
