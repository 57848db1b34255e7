"""A widget that is typed into, and what it says; apart from the terminal, which takes long to import."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widget import Widget


class TypedInto(Widget, can_focus=True):
    """While `typing`, every key goes to `take_key`, and no binding sees it."""

    typing = False

    class Changed(Message):
        """What the lines around a console say about it has changed."""

    class Waiting(Message):
        """Something has come and waits to be drawn."""

        def __init__(self, vm_id: int) -> None:
            super().__init__()
            self.vm_id = vm_id

    class KeysBack(Message):
        """The person wants the keys back."""

    class Copied(Message):
        """A selection was made with the mouse, and is over."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def take_key(self, event: events.Key) -> None:
        """Do with a key whatever it is for."""
        raise NotImplementedError


def typed_into(focused: Widget | None) -> TypedInto | None:
    """The widget that gets the keys, if the focused one is typed into."""
    return focused if isinstance(focused, TypedInto) and focused.typing else None
