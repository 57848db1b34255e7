"""Keys in their order, and for the guest before any binding sees them."""

from __future__ import annotations

from textual import events
from textual.app import App

from appliance.tui.console.typed import typed_into
from appliance.tui.in_turn import Input, Turns


class GuestKeyboard(App[None]):
    """A base of the app: keys have their turn; while a console is typed into, its terminal gets every one.

    Textual asks bindings with priority, from the app down, before the focused widget hears of a key, so
    neither a widget nor `check_action` of one class can keep ctrl+q for the guest. The keys are therefore
    taken here, where they come in. A dialog on top has the focus of its own screen, and gets its keys.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns(self, self._deal_with, lambda: self.is_preparing)
        """The keys that have come."""

    @property
    def is_preparing(self) -> bool:
        """Whether what the last key began is still to come, so that the next one has to wait."""
        return False

    async def on_event(self, event: events.Event) -> None:
        """Let keys and pastes wait for their turn; leave anything else to Textual."""
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            await self.turns.add(event)
        else:
            await super().on_event(event)

    async def _deal_with(self, event: Input) -> bool:
        """Give a key to the terminal that is typed into, if there is one; anything else to Textual.

        Whether more may come of it: not of what a guest is sent.
        """
        if isinstance(event, events.Key):
            if not self.app_focus:
                self.app_focus = True
            terminal = typed_into(self.focused)
            if terminal is not None:
                terminal.take_key(event)
                return not terminal.typing
        await super().on_event(event)
        return True
