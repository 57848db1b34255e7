"""A guest's console line for tests: a real pseudo terminal, with the guest's end in the test's hands."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from types import TracebackType
from typing import Self

from appliance.errors import BackendError


class PtyLine:
    """A line with one holder at a time; `guest` is the terminal inside the guest, in raw mode."""

    def __init__(self) -> None:
        self._master, self.guest = os.openpty()
        tty.setraw(self.guest)
        os.set_blocking(self.guest, False)
        self.busy = False
        self.opened = 0

    async def open(self) -> int:
        if self.busy:
            raise BackendError("somebody else holds the line")
        self.busy = True
        self.opened += 1
        descriptor = os.dup(self._master)
        os.set_blocking(descriptor, False)
        return descriptor

    def close(self) -> None:
        self.busy = False

    def hang_up(self) -> None:
        """What a reboot does: the guest's end goes away, and another line takes its place."""
        os.close(self.guest)
        os.close(self._master)
        self._master, self.guest = os.openpty()
        tty.setraw(self.guest)
        os.set_blocking(self.guest, False)

    def print(self, output: bytes) -> None:
        """Let the guest write."""
        assert os.write(self.guest, output) == len(output)

    def typed(self) -> bytes:
        """What the guest reads now; empty if there is nothing."""
        try:
            return os.read(self.guest, 65_536)
        except BlockingIOError:
            return b""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, as the guest sees them."""
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(self.guest, termios.TIOCGWINSZ, bytes(8)))
        return rows, columns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.guest)
        os.close(self._master)
