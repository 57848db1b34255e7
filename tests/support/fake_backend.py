"""Guests without a hypervisor: `Backend`, `Disks` and `Fences` in memory, for tests of what drives them.

It keeps the laws of the contract suite (`tests.support.contract`). `fail("launch", error)` makes the
next call of that name raise, `hold("launch")` makes calls wait; `depart` ends a guest by itself; `calls`
is what was asked, in order.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from appliance.errors import BackendError, VolumeError
from appliance.model import DiId, Mark, Usage, VmId
from appliance.runtime.backend import Departure, GuestSpec, Sighting


class FakeBackend:
    """A host on which everything works at once, unless told otherwise."""

    sees_departures = True
    needs_image = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, VmId]] = []
        self.defined: dict[VmId, GuestSpec] = {}
        self.running: dict[VmId, Sighting] = {}
        self.roots: dict[VmId, Mark] = {}
        self.homes: dict[VmId, Mark] = {}
        self.kept: dict[Path, Mark] = {}
        self.fences: dict[VmId, GuestSpec] = {}
        self.stops_when_asked = True
        self.deaf: set[VmId] = set()
        """VMs whose guests do not stop when they are asked, even so."""
        self.messages = "booted"
        self.launched: Callable[[VmId], object] = lambda vm_id: None
        """Told of each guest that begins to run."""
        self.bad_images: dict[DiId, Exception] = {}
        """What launching a guest of these images raises."""
        self.lacks: dict[str, Exception] = {}
        """What every call of these names raises."""
        self._failures: dict[str, Exception] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._free: dict[str, int] = {}
        self._followed: set[VmId] = set()
        self._departed: asyncio.Queue[Departure] = asyncio.Queue()
        self._next_pid = 1000

    def fail(self, call: str, error: Exception) -> None:
        """Make the next call of that name raise."""
        self._failures[call] = error

    def hold(self, call: str, *, after: int = 0) -> asyncio.Event:
        """Make the calls of that name, but for the first few, wait for the event that is returned."""
        self._free[call] = after
        return self._gates.setdefault(call, asyncio.Event())

    def depart(self, vm_id: VmId) -> None:
        """End a guest, as if by itself."""
        if self.running.pop(vm_id, None) and vm_id in self._followed:
            self._followed.discard(vm_id)
            self._departed.put_nowait(Departure(vm_id=vm_id))

    async def _called(self, call: str, vm_id: VmId) -> None:
        self.calls.append((call, vm_id))
        if gate := self._gates.get(call):
            self._free[call] -= 1
            if self._free[call] < 0:
                await gate.wait()
        if error := self._failures.pop(call, None) or self.lacks.get(call):
            raise error

    async def check(self) -> None:
        await self._called("check", VmId(0))

    async def survey(self) -> Mapping[VmId, Sighting]:
        return dict(self.running)

    async def adopt(self, guest: GuestSpec) -> None:
        await self._called("adopt", guest.vm_id)
        if guest.vm_id not in self.running:
            self._departed.put_nowait(Departure(vm_id=guest.vm_id))
            return
        self.defined[guest.vm_id] = guest
        self._followed.add(guest.vm_id)

    async def define(self, guest: GuestSpec) -> None:
        await self._called("define", guest.vm_id)
        self.defined[guest.vm_id] = guest

    async def launch(self, vm_id: VmId) -> None:
        await self._called("launch", vm_id)
        if vm_id not in self.defined or vm_id in self.running:
            raise BackendError(f"VM {vm_id} is not defined, or something already runs on its root")
        if error := self.bad_images.get(self.defined[vm_id].mark.di_id):
            raise error
        self._next_pid += 1
        self.running[vm_id] = Sighting(mark=self.defined[vm_id].mark, init_pid=self._next_pid, init_started=1)
        self._followed.add(vm_id)
        self.launched(vm_id)

    async def stop(self, vm_id: VmId) -> None:
        await self._called("stop", vm_id)
        if self.stops_when_asked and vm_id not in self.deaf:
            self.depart(vm_id)

    async def kill(self, vm_id: VmId) -> None:
        await self._called("kill", vm_id)
        self.depart(vm_id)

    async def erase(self, vm_id: VmId) -> None:
        await self._called("erase", vm_id)
        if vm_id in self.running:
            raise BackendError(f"VM {vm_id} still runs")
        self.defined.pop(vm_id, None)

    async def departures(self) -> AsyncIterator[Departure]:
        while True:
            yield await self._departed.get()

    def console(self, vm_id: VmId) -> FakeConsole:
        return FakeConsole(self, vm_id)

    async def console_tail(self, vm_id: VmId, lines: int) -> str:
        return "\n".join(self.messages.splitlines()[-lines:]) if vm_id in self.defined else ""

    async def sample(self, vm_id: VmId) -> Usage:
        if vm_id not in self.running:
            raise BackendError(f"VM {vm_id} does not run")
        return Usage(cpu_s=0.5, memory_bytes=1 << 20)

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        await self._called("clone_root", mark.vm_id)
        self.roots[mark.vm_id] = mark
        return Path(f"/fake/rootfs/{mark.vm_id}-fs")

    async def ensure_home(self, mark: Mark, *, size_mib: int | None) -> Path:
        await self._called("ensure_home", mark.vm_id)
        self._check_home(mark)
        self.homes[mark.vm_id] = mark
        return Path(f"/fake/homefs/{mark.vm_id}-fs")

    async def home_used_with(self, mark: Mark) -> DiId | None:
        self._check_home(mark)
        return self.homes[mark.vm_id].di_id if mark.vm_id in self.homes else None

    def home_aside(self, vm_id: VmId, at: datetime) -> Path:
        return Path(f"/fake/kept/{vm_id}-home-{at:%Y%m%dT%H%M%S.%fZ}")

    async def snapshot_home(self, mark: Mark, path: Path) -> bool:
        await self._called("snapshot_home", mark.vm_id)
        self._check_home(mark)
        if mark.vm_id not in self.homes:
            return False
        self.kept[path] = self.homes[mark.vm_id]
        return True

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool:
        return mark.vm_id in self.homes and self.kept.get(path) == self.homes[mark.vm_id]

    def _check_home(self, mark: Mark) -> None:
        if self.homes.get(mark.vm_id, mark).vm_uuid != mark.vm_uuid:
            raise VolumeError(f"the home of VM {mark.vm_id} belongs to another VM")

    def aside(self, vm_id: VmId, at: datetime) -> Path:
        return Path(f"/fake/kept/{vm_id}-{at:%Y%m%dT%H%M%S.%fZ}")

    async def put_aside(self, vm_id: VmId, path: Path) -> bool:
        await self._called("put_aside", vm_id)
        if vm_id not in self.roots:
            return False
        self.kept[path] = self.roots.pop(vm_id)
        return True

    async def erase_root(self, vm_id: VmId) -> None:
        await self._called("erase_root", vm_id)
        self.roots.pop(vm_id, None)

    async def begin(self, guests: Sequence[GuestSpec]) -> None:
        if error := self._failures.pop("begin", None):
            raise error
        self.fences = {guest.vm_id: guest for guest in guests}

    async def fence(self, guest: GuestSpec) -> None:
        await self._called("fence", guest.vm_id)
        self.fences[guest.vm_id] = guest

    async def unfence(self, vm_id: VmId) -> None:
        await self._called("unfence", vm_id)
        self.fences.pop(vm_id, None)


class FakeConsole:
    """A line that says "login: " and then ends."""

    def __init__(self, backend: FakeBackend, vm_id: VmId) -> None:
        self._backend = backend
        self._vm_id = vm_id

    async def open(self) -> int:
        if self._vm_id not in self._backend.running:
            raise BackendError(f"VM {self._vm_id} does not run")
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(writer, b"login: ")
        os.close(writer)
        return reader

    def close(self) -> None:
        return None
