"""The lines at the edges of the screen: where one is and how things are; what can be done, and what was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from appliance.tui.columns import GAP

Tab: TypeAlias = tuple[str, str, str]
"""Its key, its title, and that where there is little room."""


class TopBar(Static):
    """Who we are, whether the daemon runs, and how many desktops are how."""

    DEFAULT_CSS = """
    TopBar { height: 1; width: 1fr; padding: 0 1; background: $primary-background; color: $text; }
    TopBar { text-wrap: nowrap; text-overflow: ellipsis; }
    TopBar.-down { background: $error-muted; }
    """

    class Resized(Message):
        """There is room for more, or for less."""

    def on_resize(self, event: events.Resize) -> None:
        """What fits must be told anew."""
        self.post_message(self.Resized())

    def tell(self, content: Content) -> None:
        """Show another text, if it is another."""
        if content != getattr(self, "_told", None):
            self._told = content
            self.update(content, layout=False)


class TabBar(Static):
    """The panes by number, and which is shown."""

    DEFAULT_CSS = """
    TabBar { height: 1; width: 1fr; background: $panel; text-wrap: nowrap; }
    """

    class Picked(Message):
        """Somebody clicked on a tab."""

        def __init__(self, number: int) -> None:
            self.number = number
            super().__init__()

    def tell(self, tabs: Sequence[Tab], active: str) -> None:
        """Show tabs, one of them as the active one, by its title."""
        self._tabs, self._active = list(tabs), active
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        """Titles are shortened as room demands."""
        self._draw()

    def on_click(self, event: events.Click) -> None:
        """Go where somebody clicks."""
        for start, end, number in self._places:
            if start <= event.x < end:
                self.post_message(self.Picked(number))

    def _draw(self) -> None:
        tabs = getattr(self, "_tabs", [])
        width = self.size.width
        self._places: list[tuple[int, int, int]] = []
        if not tabs or not width:
            return
        narrow = sum(len(key) + len(title) + 3 for key, title, _ in tabs) > width
        parts: list[tuple[str, str] | str] = []
        x = 0
        for number, (key, title, short) in enumerate(tabs):
            text = f" {key} {short if narrow else title} "
            style = "bold $text on $primary" if title == self._active else "$text-muted"
            parts.append((text, style))
            self._places.append((x, x + len(text), number))
            x += len(text)
        self.update(Content.assemble(*parts), layout=False)


class HintBar(Static):
    """The keys of the focused pane, as many as fit."""

    DEFAULT_CSS = """
    HintBar { height: 1; width: 1fr; padding: 0 1; background: $panel; text-wrap: nowrap; }
    """

    def tell(self, hints: Sequence[tuple[str, str]]) -> None:
        """Show keys with what they do."""
        self._hints = list(hints)
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        """As many as fit."""
        self._draw()

    def _draw(self) -> None:
        parts: list[tuple[str, str] | str] = []
        left = self.size.width - 2
        for key, words in getattr(self, "_hints", []):
            needed = len(key) + 1 + len(words) + 2 * GAP
            if needed > left:
                continue
            left -= needed
            parts += [(key, "bold $text-accent"), (f" {words}  ", "$text-muted")]
        self.update(Content.assemble(*parts), layout=False)
