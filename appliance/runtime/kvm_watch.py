"""Follows one QEMU to its end by a pidfd, so that libvirtd's own fate plays no part in it.

Meanwhile it sees to what must be done for a guest again and again: its log is kept small, and a guest that
was asked to power off while it did not listen yet is asked again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

LOOK_S = 1.0
PRESS_S = 1.0
PRESSES = 30


class Watch:
    """Calls `ended` once, when the process is gone, and `look` every so often before; `done` is then set."""

    def __init__(
        self, pid: int, ended: Callable[[], None], look: Callable[[], object] = lambda: None
    ) -> None:
        """`pid` may be gone already: then `ended` is called in the loop's next turn."""
        self.pid = pid
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = ended
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = None
            self._loop.call_soon(self._gone)
        else:
            self._loop.add_reader(self._pidfd, self._gone)
            self._again("look", LOOK_S, self._look_again)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._pidfd is not None

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is there."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def press(self, button: Callable[[], None]) -> None:
        """Press the power button every so often until the guest obeys, or for `PRESSES` times."""
        self._press_again(button, PRESSES)

    def close(self) -> None:
        """Stop following; the guest goes on."""
        self._forget()
        self.done.cancel()

    def _press_again(self, button: Callable[[], None], left: int) -> None:
        if self.alive and left > 0:
            button()
            self._again("press", PRESS_S, lambda: self._press_again(button, left - 1))

    def _look_again(self) -> None:
        self._look()
        self._again("look", LOOK_S, self._look_again)

    def _again(self, what: str, delay_s: float, call: Callable[[], None]) -> None:
        if earlier := self._timers.get(what):
            earlier.cancel()
        self._timers[what] = self._loop.call_later(delay_s, call)

    def _gone(self) -> None:
        self._forget()
        if not self.done.done():
            self.done.set_result(None)
            self._ended()

    def _forget(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
