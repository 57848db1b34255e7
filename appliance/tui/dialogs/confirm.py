"""Asks before something is done: how many it concerns, whom, what it costs, and by which command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from appliance.harmless import printable
from appliance.tui.dialogs.dialog import Dialog, Item, Push, Twin, glyphs_of

NAMED = 24
"""How many of those concerned are named."""


class Confirm(Dialog[bool]):
    """A question; its result says whether it is meant.

    `button` says what is done and to how many: "Stop 3 desktops". With `dangerous`, the focus is on Cancel.
    With `typed`, that word must be written before the button can be pressed: it cannot be undone.
    """

    KEYS = "y yes · n no · esc leave"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "app.focus_previous", "Previous", show=False),
        Binding("right,down", "app.focus_next", "Next", show=False),
        Binding("y", "mean", "Yes", show=False),
        Binding("n", "leave", "No", show=False),
    ]
    DEFAULT_CSS = """
    Confirm {
        #whom { height: auto; max-height: 5; }
        #costs { height: auto; margin-top: 1; }
        #word { margin-top: 1; height: auto; }
        #typed { height: 1; border: none; padding: 0 1; background: $foreground 10%; }
        #typed:focus { background: $foreground 20%; }
    }
    """

    def __init__(
        self,
        title: str,
        *,
        button: str,
        whom: Sequence[str] = (),
        costs: Sequence[str] = (),
        notes: Sequence[str] = (),
        calls: Sequence[Sequence[str]] = (),
        dangerous: bool = False,
        typed: str | None = None,
    ) -> None:
        super().__init__(title, danger=dangerous or typed is not None)
        self._button = button
        self._whom = list(whom)
        self._costs = list(costs)
        self._notes = list(notes)
        self._calls = calls
        self._dangerous = dangerous
        self._typed = None if typed is None else printable(typed).strip()
        self.SCROLLS = "#costs" if self._costs or self._notes else "#whom"

    def body(self) -> ComposeResult:
        """Whom, what for, and the twin."""
        glyphs = glyphs_of(self.app)
        with VerticalScroll(id="whom", can_focus=False):
            yield Static(named(self._whom), classes="note")
        if self._costs or self._notes:
            with VerticalScroll(id="costs", can_focus=False):
                for cost in self._costs:
                    yield Item(glyphs.up, cost, "warns")
                for note in self._notes:
                    yield Item(glyphs.dot, note, "muted")
        if self._typed is not None:
            yield Static(
                Content.assemble(
                    "It cannot be undone. Write ", (self._typed, "bold $text-error"), " to go on:"
                ),
                id="word",
            )
            yield Input(id="typed", compact=True)
        yield Twin(self._calls)

    def buttons(self) -> ComposeResult:
        """Cancel, and what is asked about."""
        yield Push("Cancel", id="cancel")
        yield Push(
            self._button,
            id="do",
            kind="danger" if self.has_class("-danger") else "main",
            disabled=self._typed is not None,
        )

    def on_mount(self) -> None:
        if self._typed is not None:
            self.keys("esc leave")
            self.query_one("#typed", Input).focus()
        else:
            self.query_one("#cancel" if self._dangerous else "#do", Push).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.query_one("#do", Push).disabled = event.value.strip() != self._typed

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_mean()

    def pressed(self, name: str) -> None:
        """It is meant."""
        self.action_mean()

    def action_mean(self) -> None:
        """End it with yes, if that may be said yet."""
        if not self.query_one("#do", Push).disabled:
            self.dismiss(True)

    def action_leave(self) -> None:
        """End it with no."""
        self.dismiss(False)


def named(names: Sequence[str]) -> Content:
    """The names, as far as there is room for them, and how many more there are."""
    if not names:
        return Content("")
    parts: list[Content | str] = []
    for name in names[:NAMED]:
        parts += ([", "] if parts else []) + [Content.styled(printable(name), "bold")]
    if len(names) > NAMED:
        parts.append(f" and {len(names) - NAMED:,} more")
    return Content("").join([part if isinstance(part, Content) else Content(part) for part in parts])
