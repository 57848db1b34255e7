"""Keys for the guest, before any binding sees them."""

from __future__ import annotations

from textual import events
from textual.app import App

from appliance.tui.console.typed import typed_into


class GuestKeyboard(App[None]):
    """A base of the app: while a console is typed into, its terminal gets every key.

    Textual asks bindings with priority, from the app down, before the focused widget hears of a key, so
    neither a widget nor `check_action` of one class can keep ctrl+q for the guest. The keys are therefore
    taken here, where they come in. A dialog on top has the focus of its own screen, and gets its keys.
    """

    async def on_event(self, event: events.Event) -> None:
        """Give a key to the terminal that is typed into, if there is one; anything else to Textual."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            if not self.app_focus:
                self.app_focus = True
            terminal = typed_into(self.focused)
            if terminal is not None:
                terminal.take_key(event)
                return
        await super().on_event(event)
