"""What there is to know of the record at the cursor, in sections that a person reads from the top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from appliance.harmless import printable
from appliance.tui.columns import Cell

PAINT = {
    "plain": "",
    "strong": "bold",
    "dim": "$text-muted",
    "good": "$text-success",
    "busy": "$text-accent",
    "warn": "$text-warning",
    "bad": "bold $text-error",
    "info": "$text-primary",
}
"""The colours of cells, as Textual's markup knows them."""
LABEL_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Section:
    """Facts under a heading: labels with cells, or lines without a label."""

    heading: str
    lines: Sequence[tuple[str, Cell]]


class Details(VerticalScroll, can_focus=True):
    """Sections about one record."""

    DEFAULT_CSS = """
    Details {
        background: $surface;
        padding: 0 1;
        scrollbar-size-vertical: 1;
    }
    Details:focus { background: $surface-lighten-1; }
    Details > Static { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static(id="facts")

    def on_mount(self) -> None:
        """Nothing is shown yet."""
        self._shown: Content | None = None

    def show(self, title: str, sections: Sequence[Section]) -> None:
        """Show these; the place to which somebody has scrolled stays while the title does."""
        content = render(title, sections)
        if self._shown is not None and content == self._shown:
            return
        if self._shown is None or not self._shown.plain.startswith(f"{title}\n"):
            self.scroll_home(animate=False)
        self._shown = content
        self.query_one(Static).update(content)


def render(title: str, sections: Sequence[Section]) -> Content:
    """The sections as a text."""
    parts: list[Content | str | tuple[str, str]] = [(printable(title), "bold $text-primary"), "\n"]
    for section in sections:
        parts.append((f"\n{section.heading}\n", "bold $text-muted"))
        for label, (text, style) in section.lines:
            shown = printable(text)
            if label:
                parts.append((f"{printable(label):<{LABEL_WIDTH}} ", "$text-muted"))
            parts.append((shown, PAINT[style]) if PAINT[style] else shown)
            parts.append("\n")
    return Content.assemble(*parts)
