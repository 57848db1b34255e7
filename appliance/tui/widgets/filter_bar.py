"""The line in which somebody says which rows to see: the grammar of `qa -f`, or plain words to search for."""

from __future__ import annotations

import re
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from appliance.harmless import printable

GRAMMAR = re.compile(r"[=<>]|\bin\s*\(", re.IGNORECASE)
SETTLE_S = 0.12
"""How long typing must pause before the filter is tried."""


def is_grammar(text: str) -> bool:
    """Whether a text is meant as a filter of `qa -f`, rather than as words to search for."""
    return GRAMMAR.search(text) is not None


class FilterBar(Horizontal):
    """Hidden until somebody filters."""

    DEFAULT_CSS = """
    FilterBar {
        height: 1;
        display: none;
        background: $panel;
        &.-open { display: block; }
        & > #sign { width: auto; color: $text-accent; padding: 0 1; }
        & > Input { border: none; height: 1; width: 1fr; padding: 0; background: $panel; }
        & > Input:focus { border: none; }
        & > #verdict { width: auto; max-width: 60%; padding: 0 1; color: $text-muted; }
        & > #verdict { text-wrap: nowrap; text-overflow: ellipsis; }
        &.-wrong > #verdict { max-width: 80%; color: $text-error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "drop", "Drop the filter", show=False),
        Binding("down", "leave", show=False),
    ]

    class Changed(Message):
        """Another filter is wanted; an empty one: all rows."""

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    class Left(Message):
        """Keys shall go to the table again."""

    class Abandoned(Message):
        """Keys go elsewhere."""

    _verdict = ""
    _pending: str | None = None
    """A filter that was written and is not tried yet."""

    def compose(self) -> ComposeResult:
        """The sign, the words, and what came of them."""
        yield Label("/", id="sign")
        yield Input(placeholder="words to find, or a filter: state=running,osf=off*", compact=True)
        yield Label("", id="verdict", markup=False)

    @property
    def text(self) -> str:
        """What is filtered by."""
        return self.query_one(Input).value.strip()

    @property
    def is_written_in(self) -> bool:
        """Whether keys go here."""
        return self.query_one(Input).has_focus

    def on_descendant_blur(self) -> None:
        """Say so, however it was left."""
        self.post_message(self.Abandoned())

    def open(self, text: str | None = None) -> None:
        """Let somebody write a filter, or put one there."""
        self.add_class("-open")
        field = self.query_one(Input)
        if text is not None:
            field.value = text
        field.focus()

    def tell(self, words: str, *, wrong: bool = False) -> None:
        """Say what came of the filter; its words may quote it, and are text."""
        words = printable(words)
        self.set_class(wrong, "-wrong")
        if words != self._verdict:  # told ten times a second; laying out the screen each time is dear
            self.query_one("#verdict", Label).update(words, layout=len(words) != len(self._verdict))
            self._verdict = words

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        text = event.value.strip()
        self._pending = text
        self.set_timer(SETTLE_S, lambda: self._settled(text))

    def _settled(self, text: str) -> None:
        if text == self._pending and self.is_mounted:
            self._try()

    def _try(self) -> None:
        if self._pending is not None:
            self.post_message(self.Changed(self._pending))
            self._pending = None

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_leave()

    def action_leave(self) -> None:
        """Go on in the table, with this filter: at once, as the next key means the rows that it leaves."""
        self._try()
        if not self.text:
            self.remove_class("-open")
        self.post_message(self.Left())

    def action_drop(self) -> None:
        """Show all rows again."""
        self.query_one(Input).value = ""
        self.remove_class("-open")
        self._pending = ""
        self._try()
        self.post_message(self.Left())
