"""The backend for guests that somebody else runs: an address is all there is to them.

For load tests and for foreign VMAs. A file per VM under `path.run` remembers that the VM was
started, so that a restarted daemon finds it running.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from appliance.errors import BackendError
from appliance.model import DiId, InstallationId, Mark, Usage, VmId
from appliance.runtime.backend import ConsoleLine, Departure, GuestSpec, Sighting


class Nothing:
    """Backend, disks and fences of guests that are not ours to make."""

    sees_departures = False
    needs_image = False

    def __init__(self, run: Path, installation: InstallationId) -> None:
        self._run = run / "nothing"
        self._installation = installation
        self._defined: dict[VmId, GuestSpec] = {}
        self._gone: asyncio.Queue[Departure] = asyncio.Queue()

    async def check(self) -> None:
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def survey(self) -> Mapping[VmId, Sighting]:
        if not self._run.is_dir():
            return {}
        marks = [Mark(**json.loads(file.read_text())) for file in self._run.glob("*.json")]
        return {
            mark.vm_id: Sighting(mark=mark, init_pid=None, init_started=None)
            for mark in marks
            if mark.installation == self._installation
        }

    async def adopt(self, guest: GuestSpec) -> None:
        self._defined[guest.vm_id] = guest

    async def define(self, guest: GuestSpec) -> None:
        self._defined[guest.vm_id] = guest

    async def launch(self, vm_id: VmId) -> None:
        mark = dataclasses.asdict(self._defined[vm_id].mark)
        file = self._file(vm_id)
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(mark))
        beside.rename(file)

    async def stop(self, vm_id: VmId) -> None:
        self._forget(vm_id)

    async def kill(self, vm_id: VmId) -> None:
        self._forget(vm_id)

    async def erase(self, vm_id: VmId) -> None:
        self._defined.pop(vm_id, None)

    async def departures(self) -> AsyncIterator[Departure]:
        while True:
            yield await self._gone.get()

    def console(self, vm_id: VmId) -> ConsoleLine:
        return NoLine()

    async def console_tail(self, vm_id: VmId, lines: int) -> str:
        return ""

    async def sample(self, vm_id: VmId) -> Usage:
        return Usage(cpu_s=0.0, memory_bytes=0)

    async def clone_root(self, mark: Mark, *, keep: bool, limit_mib: int | None = None) -> Path:
        return self._run

    async def ensure_home(self, mark: Mark, *, size_mib: int | None) -> Path:
        return self._run

    async def home_used_with(self, mark: Mark) -> DiId | None:
        return None

    def home_aside(self, vm_id: VmId, at: datetime) -> Path | None:
        return None

    async def snapshot_home(self, mark: Mark, path: Path) -> bool:
        return False

    async def is_home_as_in(self, mark: Mark, path: Path) -> bool:
        return False

    def aside(self, vm_id: VmId, at: datetime) -> Path | None:
        return None

    async def put_aside(self, vm_id: VmId, path: Path) -> bool:
        return False

    async def erase_root(self, vm_id: VmId) -> None:
        return None

    async def begin(self, guests: Sequence[GuestSpec]) -> None:
        return None

    async def fence(self, guest: GuestSpec) -> None:
        return None

    async def unfence(self, vm_id: VmId) -> None:
        return None

    def _file(self, vm_id: VmId) -> Path:
        return self._run / f"{vm_id}.json"

    def _forget(self, vm_id: VmId) -> None:
        if self._file(vm_id).exists():
            self._file(vm_id).unlink()
            self._gone.put_nowait(Departure(vm_id=vm_id))


class NoLine:
    """There is no console to a guest that somebody else runs."""

    async def open(self) -> int:
        raise BackendError("this guest is run by somebody else: it has no console here")

    def close(self) -> None:
        return None
