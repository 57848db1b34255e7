"""The serial line of a virtual machine: a Unix socket on which its QEMU serves one caller at a time.

A second caller would be let in and hear nothing, so whoever calls holds a lock meanwhile. A caller that does
not read stops what the guest says, to the log as well: the line is for the hub, which always reads.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from appliance.errors import BackendError


class Line:
    """The line to the getty on the guest's ttyS0."""

    def __init__(self, vm: str, serial: Path, lock: Path) -> None:
        self._vm = vm
        self._serial = serial
        self._lock = lock
        self._held: int | None = None

    async def open(self) -> int:
        """A descriptor of the line, non-blocking, to be closed by the caller.

        :raises BackendError: the guest does not run, or somebody else holds the line
        """
        self.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            self._held = self._hold()
            connection.connect(str(self._serial))
            return connection.detach()
        except BlockingIOError as exc:
            self.close()
            raise BackendError(f"the serial line of {self._vm} is held by somebody else") from exc
        except OSError as exc:
            self.close()
            raise BackendError(
                f"{self._vm} does not run here, or has no serial line: {exc.strerror}"
            ) from exc
        finally:
            connection.close()

    def close(self) -> None:
        """Let somebody else have the line."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _hold(self) -> int:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
