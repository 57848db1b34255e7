"""Types commands into a guest's root shell on tty1 and reads what it answers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.model import VmId
from appliance.runtime.backend import Backend

LONGEST_S = 10.0


class Typist:
    """Somebody at the guest's login."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A wide terminal: the shell redraws lines that it has to wrap.
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))

    def send(self, text: str) -> None:
        """Type and do not wait for an answer."""
        os.write(self._descriptor, text.encode())

    async def type(self, command: str) -> str:
        """Run a command, and give back what it printed."""
        end = secrets.token_hex(4)
        seen = b""
        # The quotes keep the echo of the command from looking like its end.
        os.write(self._descriptor, f"{command}; echo '{end}'''.\n".encode())
        async with asyncio.timeout(LONGEST_S):
            while f"\n{end}." not in seen.decode(errors="replace"):
                seen += await self._read()
        answer = seen.decode(errors="replace").rpartition(f"{end}'''.\r\n")[2]
        return answer.partition(f"{end}.")[0].replace("\r\n", "\n").strip()

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def typist(backend: Backend, vm_id: VmId) -> AsyncIterator[Typist]:
    """Sit down at the guest's login."""
    line = backend.console(vm_id)
    descriptor = await line.open()
    try:
        yield Typist(descriptor)
    finally:
        os.close(descriptor)
        line.close()
