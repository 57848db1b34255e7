"""`:name`: one line in which the first letters of a pane's name are enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label


class GoTo(Horizontal):
    """Hidden until somebody presses the colon."""

    DEFAULT_CSS = """
    GoTo {
        height: 1;
        display: none;
        background: $panel;
        &.-open { display: block; }
        & > Label { width: auto; color: $text-accent; padding: 0 1; }
        & > Input { border: none; height: 1; width: 1fr; padding: 0; background: $panel; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "drop", "Never mind", show=False)]

    class Chosen(Message):
        """A pane by its number; None: nobody wants to go anywhere."""

        def __init__(self, number: int | None) -> None:
            self.number = number
            super().__init__()

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(id="go-to")
        self._names = [name.lower() for name in names]

    def compose(self) -> ComposeResult:
        """A sign, and the name."""
        yield Label(":")
        yield Input(
            placeholder=", ".join(self._names),
            suggester=SuggestFromList(self._names, case_sensitive=False),
            compact=True,
        )

    def open(self) -> None:
        """Ask."""
        self.add_class("-open")
        field = self.query_one(Input)
        field.value = ""
        field.focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        word = event.value.strip().lower()
        found = [number for number, name in enumerate(self._names) if word and name.startswith(word)]
        if not found and word:
            self.app.notify(f"There is no pane {word!r}: {', '.join(self._names)}", severity="error")
        self._close(found[0] if found else None)

    def action_drop(self) -> None:
        """Stay where one is."""
        self._close(None)

    def _close(self, number: int | None) -> None:
        self.remove_class("-open")
        self.post_message(self.Chosen(number))
