"""Bells: `Doorbell` between processes, `ChangeFeed` inside one.

A ring says "look now" and nothing else: the database is the only truth, a lost ring costs a few
seconds, and ringing never fails because nobody is at home.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from appliance.errors import HostError
from appliance.model import VmId


def ring(path: Path) -> None:
    """Wake the daemon behind the doorbell at `path`, if it is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.setblocking(False)
        with contextlib.suppress(OSError):
            bell.sendto(b"", str(path))


class Doorbell:
    """The daemon's end: a Unix datagram socket whose datagrams carry nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rung = asyncio.Event()
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Listen.

        :raises HostError: the socket cannot be made
        """
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._path.unlink(missing_ok=True)
            bell.setblocking(False)
            bell.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError as exc:
            bell.close()
            raise HostError(f"the doorbell {self._path} cannot be made: {exc.strerror or exc}") from exc
        asyncio.get_running_loop().add_reader(bell, self._drain, bell)
        self._socket = bell
        return self

    def __exit__(self, *exc: object) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)

    def ring(self) -> None:
        """Ring from inside the process."""
        self._rung.set()

    async def wait(self, at_most: float) -> None:
        """Return when rung, or after `at_most` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._rung.wait()
        self._rung.clear()

    def _drain(self, bell: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                bell.recv(64)
                self._rung.set()


def is_heard(path: Path) -> bool:
    """Whether a daemon listens to the doorbell at `path`; it is not rung."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class ChangeFeed:
    """Tells those who wait for one VM that its row may have changed; they then re-read the row."""

    def __init__(self) -> None:
        self._watchers: dict[VmId | None, set[asyncio.Event]] = {}

    def announce(self, vm_id: VmId) -> None:
        """Wake everybody who watches `vm_id`."""
        for event in self._watchers.get(vm_id, ()):
            event.set()

    def announce_all(self) -> None:
        """Wake everybody: another process has committed something."""
        for events in self._watchers.values():
            for event in events:
                event.set()

    @contextlib.contextmanager
    def watch(self, vm_id: VmId | None) -> Iterator[Watch]:
        """Follow one VM, or with None only what other processes commit.

        Begin to watch *before* reading the row, so that no change falls between.
        """
        event = asyncio.Event()
        self._watchers.setdefault(vm_id, set()).add(event)
        try:
            yield Watch(event)
        finally:
            self._watchers[vm_id].discard(event)
            if not self._watchers[vm_id]:
                del self._watchers[vm_id]


class Watch:
    """One watcher's view of a VM."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def changed(self, at_most: float) -> None:
        """Return at the next announcement, or after `at_most` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._event.wait()
        self._event.clear()
