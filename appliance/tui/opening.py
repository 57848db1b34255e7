"""Opens the TUI: shows desktops at once, and hands the terminal over to Textual once that is there.

Importing Textual takes several times as long as reading ten thousand desktops. So the first picture is drawn
without it. Keys that are pressed meanwhile wait in the terminal, and count when there is somebody to obey.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from appliance.storage.live import LiveReader
from appliance.tui.columns import Scene
from appliance.tui.first_picture import COLOURLESS, LOOKS, Look, Office, picture
from appliance.tui.remembered import Remembered
from appliance.tui.tally import Tally

if TYPE_CHECKING:
    from textual.driver import Driver

OTHER_SCREEN = "\x1b[?1049h"
LEAVE_SCREEN = "\x1b[?1049l\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"
DEFAULT_THEME = "qvd-dark"
LOCAL_FLAGS = 3
"""Where termios keeps them."""


class Opening:
    """The terminal while Textual is on its way; used in a `with` that lasts as long as the TUI.

    Entering raises StoreError if there is nothing to be shown. `reader` and `tally` are what was read for the
    picture, for whoever goes on from there, and closes the reader.
    """

    def __init__(
        self, database: Path, remembered: Remembered, scene: Scene, *, node: str, read_only: bool
    ) -> None:
        self._database = database
        self._remembered = remembered
        self._scene = scene
        self._node = node
        self._read_only = read_only
        self._before: list[Any] | None = None
        self.reader: LiveReader
        self.tally: Tally

    def __enter__(self) -> Self:
        gc.disable()  # what is made now stays: looking through it takes a third of the time
        try:
            self.reader = LiveReader(self._database)
            first = self.reader.look()
            assert first is not None
            self.tally = Tally(first.vms)
            self._draw()
        except BaseException:
            self._give_back(still_shown=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back(still_shown=kind is not None)

    def _give_back(self, *, still_shown: bool) -> None:
        """Give the terminal back as it was; off the picture, if Textual has not done that."""
        gc.enable()
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSANOW, self._before)
            if still_shown:
                _write(LEAVE_SCREEN)

    def driver(self) -> type[Driver] | None:
        """The driver for Textual that leaves the picture where it is; None: the usual one will do."""
        gc.freeze()
        gc.enable()
        if self._before is None:
            return None
        from appliance.tui.opened_driver import opened_driver

        return opened_driver(self._before)

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        office = Office(
            tally=self.tally,
            node=self._node,
            read_only=self._read_only,
            scene=self._scene,
            columns=self._remembered.columns("vms"),
            look=look_of(self._remembered.text("theme") or DEFAULT_THEME, os.environ),
            width=width,
            height=height,
        )
        drawn = picture(office)
        if not drawn:
            return
        self._before = termios.tcgetattr(0)
        quiet = termios.tcgetattr(0)
        quiet[LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(0, termios.TCSANOW, quiet)
        _write(f"{OTHER_SCREEN}{HIDE_CURSOR}{drawn}")


def look_of(theme: str, environment: Mapping[str, str]) -> Look:
    """The colours of a theme; those of the terminal if they are unknown, or it may not have as many."""
    if environment.get("NO_COLOR") or environment.get("COLORTERM", "") not in {"truecolor", "24bit"}:
        return COLOURLESS
    return LOOKS.get(theme, COLOURLESS)


def _write(text: str) -> None:
    """Write it even if the terminal's encoding lacks some letters."""
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, errors="replace"))
    sys.stdout.buffer.flush()
