"""A screen with nothing on it, to show dialogs on, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

from appliance.tui.dialogs.dialog import Dialog
from appliance.tui.glyphs import FULL, Glyphs

NOTHING_YET = object()


class Stage(App[None]):
    """Shows one dialog; `result` is what it ended with."""

    ENABLE_COMMAND_PALETTE = False

    def __init__(self, glyphs: Glyphs = FULL) -> None:
        super().__init__()
        self.glyphs = glyphs
        self.result: Any = NOTHING_YET
        self.notices: list[str] = []

    def show(self, dialog: Dialog[Any]) -> None:
        """Put a dialog on the screen."""
        self.push_screen(dialog, self._ended)

    def _ended(self, result: Any) -> None:
        self.result = result

    def notify(self, message: str, **_: Any) -> None:
        """Keep what would be shown in a corner."""
        self.notices.append(message)

    @property
    def is_done(self) -> bool:
        """Whether the dialog has ended."""
        return self.result is not NOTHING_YET


class Actor:
    """Somebody at the keys of a stage."""

    def __init__(self, pilot: Pilot[None], stage: Stage) -> None:
        self.pilot = pilot
        self.stage = stage

    async def press(self, *keys: str) -> None:
        """Press keys; nothing of what they begin need have ended."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def write(self, text: str) -> None:
        """Write a text in what has the focus."""
        await self.press(*[_key(char) for char in text])

    async def until(self, condition: Callable[[], bool], limit_s: float = 10.0) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(limit_s):
            while not condition():
                await asyncio.sleep(0.02)
        await self.pilot.pause()

    async def done(self) -> Any:
        """What the dialog ends with."""
        await self.until(lambda: self.stage.is_done)
        return self.stage.result

    @property
    def screen(self) -> Screen[Any]:
        return self.stage.screen

    @property
    def text(self) -> str:
        """All that the screen shows, line by line."""
        strips = self.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    def shows(self, text: str) -> bool:
        """Whether the screen shows a text."""
        return text in self.text


@asynccontextmanager
async def acting(
    dialog: Dialog[Any], *, size: tuple[int, int] = (80, 24), glyphs: Glyphs = FULL
) -> AsyncIterator[Actor]:
    """Show a dialog on a screen of so many columns and lines."""
    stage = Stage(glyphs)
    async with stage.run_test(size=size) as pilot:
        stage.show(dialog)
        await pilot.pause()
        await pilot.pause()
        yield Actor(pilot, stage)


def _key(char: str) -> str:
    return {" ": "space", "\n": "enter", "=": "equals_sign"}.get(char, char)
