"""The terminal as Textual finds it after the first picture: on the other screen, with something on it."""

from __future__ import annotations

from typing import Any

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver

OTHER_SCREEN = "\x1b[?1049h"


def opened_driver(before: list[Any]) -> type[Driver]:
    """A driver that leaves the picture until it draws over it; `before`: how the terminal was at first."""

    class OpenedDriver(LinuxDriver):
        """Goes to the other screen when it comes back from being suspended, but not at the start."""

        _is_open = True

        def write(self, data: str) -> None:
            if data == OTHER_SCREEN and self._is_open:
                self._is_open = False
                return
            super().write(data)

        def start_application_mode(self) -> None:
            super().start_application_mode()  # type: ignore[no-untyped-call]
            self.attrs_before = before

    return OpenedDriver
