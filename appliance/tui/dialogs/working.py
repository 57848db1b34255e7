"""A dialog that does what it is for while it is open, and stays if that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from textual.containers import Vertical

from appliance.tui.calls import Calls, Outcome
from appliance.tui.dialogs.dialog import Dialog, Item, Push, glyphs_of


class WorkingDialog(Dialog[Outcome | None]):
    """It has a `#problem` for what is wrong; its result is the outcome of the last call, if all was done."""

    def __init__(self, call: Calls, title: str) -> None:
        super().__init__(title)
        self.call = call
        self.is_busy = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show that it is under way: nobody begins it twice, or leaves it half done."""
        self._set_busy(True)
        try:
            yield
        finally:
            self._set_busy(False)

    def action_leave(self) -> None:
        """Leave; what has begun is not left alone."""
        if self.is_busy:
            self.show_problem("It is under way, and ends by itself.")
        else:
            self.dismiss(None)

    def show_problem(self, problem: str, hint: str | None = None) -> None:
        """Tell what is wrong, and what helps."""
        area = self.query_one("#problem", Vertical)
        area.display = True
        area.remove_children()
        area.mount(Item(glyphs_of(self.app).wrong, sentence(problem), "wrong"))
        if hint:
            area.mount(Item(glyphs_of(self.app).chevron, remedy(hint), "muted"))
        self.call_after_refresh(self.fit)

    def hide_problem(self) -> None:
        """Tell of none."""
        self.query_one("#problem").display = False

    def _set_busy(self, busy: bool) -> None:
        self.is_busy = busy
        if not self.is_open:
            return
        self.query_one("#do", Push).disabled = busy
        self.keys("working …" if busy else self.KEYS)


def remedy(hint: str) -> str:
    """A sentence, unless it is a command to copy."""
    return hint if hint.startswith(("qa ", "qvd-")) else sentence(hint)


def sentence(text: str) -> str:
    """The text as a sentence; a command stays as it is typed."""
    text = text.strip()
    if text.startswith("qa "):
        return text
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
