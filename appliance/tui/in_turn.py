"""Keys one after the other: each is looked at when all that the key before it led to has happened.

Over a slow line several keys come in one packet. Textual hands each on at once to what has the focus then,
and the focus moves a few messages later; so in `/desk`, typed quickly, `d`, `e` and `s` would be actions on
the row at the cursor instead of letters of a filter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from textual import events
from textual.app import App
from textual.message_pump import MessagePump
from textual.timer import Timer

Input: TypeAlias = events.Key | events.Paste
ROUNDS = 4
"""How often the way of a key is gone: it may lead to a message, that to another, and that to a new focus."""
LOOK_AGAIN_S = 0.02
"""How soon is asked again whether what a key has begun is prepared."""
PATIENCE_S = 1.0
"""The next key waits no longer than this: a widget that was removed meanwhile passes nothing on."""


class Turns:
    """The keys and pastes that came to an app, and whose turn it is."""

    def __init__(
        self, app: App[None], deal: Callable[[Input], Awaitable[bool]], is_preparing: Callable[[], bool]
    ) -> None:
        """`deal` is given each in its turn, and says whether more may come of it than it has done itself.

        `is_preparing` says whether something else is read first: a dialog, or the rows of a pane.
        """
        self._app = app
        self._deal = deal
        self._is_preparing = is_preparing
        self._waiting: deque[Input] = deque()
        self._number = 0
        self._patience: Timer | None = None
        self._lost_patience = False
        """Whether what is prepared now takes so long that keys do not wait for it any more."""
        self.busy = False
        """Whether the next key would have to wait."""

    async def add(self, event: Input) -> None:
        """Deal with a key or a paste, now or in its turn."""
        self._waiting.append(event)
        if self.busy:
            return
        if self._is_awaited():
            self._wait()
        else:
            await self._next()

    async def _next(self) -> None:
        self.busy = True
        while self._waiting and self._app.is_running:
            if await self._deal(self._waiting.popleft()):
                self._wait()
                return
        self.busy = False

    def _wait(self) -> None:
        """Let the next key wait for what the one before it led to."""
        self.busy = True
        self._number += 1
        self._patience = self._app.set_timer(PATIENCE_S, partial(self._lose_patience, self._number))
        self._follow(self._number, ROUNDS)

    def _follow(self, number: int, rounds: int) -> None:
        """Go behind the key, from what has the focus up to the app, and then again."""
        if number != self._number:
            return
        if rounds and self._app.is_running:
            self._pass(self._app.focused or self._app.screen, number, rounds)
        elif self._app.is_running and self._is_awaited():
            self._app.set_timer(LOOK_AGAIN_S, partial(self._follow, number, ROUNDS))
        else:
            self._over(number)

    def _pass(self, node: MessagePump, number: int, rounds: int) -> None:
        """Wait for all that `node` has been sent so far, then for its parent; not for one that is closed."""
        if node is not self._app and node.call_later(self._pass, node._parent or self._app, number, rounds):
            return
        self._app.call_later(self._follow, number, rounds - 1)

    def _is_awaited(self) -> bool:
        is_preparing = self._is_preparing()
        self._lost_patience = self._lost_patience and is_preparing
        return is_preparing and not self._lost_patience

    def _lose_patience(self, number: int) -> None:
        self._lost_patience = number == self._number and self._is_preparing()
        self._over(number)

    def _over(self, number: int) -> None:
        if number == self._number:
            self._number += 1
            if self._patience is not None:
                self._patience.stop()
            self._app.call_later(self._next)
