"""The two channels of a container's console: the login on tty1, and the log of what went to /dev/console.

The log is written by the monitor, bounded, and only ever read here. Attaching to /dev/console itself
could wedge the monitor for good, so nobody does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from appliance import console_log
from appliance.errors import BackendError
from appliance.runtime import lxc_command
from appliance.threads import in_thread

GETTY = 1


class Line:
    """The line to a guest's login: the master of tty1, handed over by the guest's monitor.

    The monitor's slot is ours until the line is closed or opened again: LXC frees it when the
    connection that asked for it closes, so that is kept.
    """

    def __init__(self, container: str, monitor: Callable[[], int]) -> None:
        self._container = container
        self._monitor = monitor
        self._connection: socket.socket | None = None

    async def open(self) -> int:
        """A descriptor of the line, non-blocking, to be closed by the caller.

        :raises BackendError: the guest does not run, or somebody else holds the line
        """
        opened: list[int] = []
        try:
            await in_thread(lambda: opened.append(self._open()))
        except asyncio.CancelledError:
            for descriptor in opened:
                os.close(descriptor)
            self.close()
            raise
        return opened[0]

    def close(self) -> None:
        """Let somebody else have the line."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> int:
        self.close()
        try:
            connection = lxc_command.dial(self._container, self._monitor())
        except OSError as exc:
            raise BackendError(f"the monitor of {self._container} does not answer: {exc}") from exc
        try:
            descriptor = lxc_command.terminal(connection, GETTY)
            os.set_blocking(descriptor, False)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return descriptor


def tail(log: Path, lines: int) -> str:
    """The last lines of a console's log, without anything that a terminal could act on.

    LXC moves a full log aside and begins another, so the lines before its first are in the other file.
    """
    return console_log.tail((log.with_name(f"{log.name}.1"), log), lines)
