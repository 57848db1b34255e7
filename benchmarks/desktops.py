"""The daemon's side of a benchmark of starts: wishes in the rows of a trial's VMs, and what its log says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from appliance.clock import SystemClock
from appliance.config import DATABASE_URL, NETWORK_BRIDGE, read_file
from appliance.filters import Filter
from appliance.model import StartedBy, Vm, VmState
from appliance.ops import bell, vms
from appliance.storage.store import Store
from benchmarks.probe import neighbour

STATE_S = 120.0
CARRIED_OUT = re.compile(
    r"^(\S+Z) .*order carried out vm=(\d+) action=(\w+) event=(\w+) took=([0-9.]+)s", re.MULTILINE
)
GIVEN = re.compile(r"^(\S+Z) .*domain is given to libvirtd vm=(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """An order of which the daemon's log tells that it has been carried out."""

    action: str
    vm_id: int
    ended: float
    """When, as seconds since the epoch; the log tells milliseconds."""
    took: float


class Desktops:
    """The VMs of a trial whose daemon runs, started and stopped as `qa` would."""

    def __init__(self, directory: Path, store: Store, desktops: Sequence[Vm]) -> None:
        self._settings = read_file(directory / "node.conf")
        self._log = directory / "appliance.log"
        self.store = store
        self.all = desktops

    @classmethod
    async def open(cls, directory: Path) -> Self:
        """What the trial in `directory` has."""
        settings = read_file(directory / "node.conf")
        store = await Store.open(settings[DATABASE_URL], SystemClock())
        async with store.read() as tx:
            desktops = await tx.vms.find(Filter())
        prefix = "54:52:00"
        for vm in desktops:
            octets = [f"{int(octet):02x}" for octet in str(vm.ip).split(".")[1:]]
            neighbour(str(vm.ip), ":".join([prefix, *octets]), settings[NETWORK_BRIDGE])
        return cls(directory, store, desktops)

    async def wish_start(self, chosen: Sequence[Vm]) -> None:
        """Write the wish that these start, and ring for the daemon."""
        async with self.store.write() as tx:
            asked = await vms.start(tx, [vm.id for vm in chosen], by="bench", started_by=StartedBy.COMMAND)
        assert asked == len(chosen)
        bell.ring(self._settings)

    async def stop(self, chosen: Sequence[Vm]) -> None:
        """Wish these stopped; returns when they are."""
        async with self.store.write() as tx:
            await vms.stop(tx, [vm.id for vm in chosen], by="bench")
        bell.ring(self._settings)
        await self.until(chosen, VmState.STOPPED)

    async def until(self, chosen: Sequence[Vm], state: VmState) -> None:
        """Return when all of these are in a state.

        :raises TimeoutError: they do not get there
        """
        numbers = {vm.id for vm in chosen}
        async with asyncio.timeout(STATE_S):
            while True:
                async with self.store.read() as tx:
                    found = [vm for vm in await tx.vms.find(Filter()) if vm.id in numbers]
                if all(vm.runtime.vm_state is state for vm in found):
                    return
                await asyncio.sleep(0.05)

    def carried_out(self) -> list[CarriedOut]:
        """Every order of which the log tells, oldest first; only at the level DEBUG it does."""
        return [
            CarriedOut(action, int(vm_id), datetime.fromisoformat(ended).timestamp(), float(took))
            for ended, vm_id, action, _event, took in CARRIED_OUT.findall(self._log.read_text())
        ]

    def given(self, vm_id: int) -> float:
        """When libvirtd was given the domain of a VM last, as seconds since the epoch."""
        instants = [at for at, number in GIVEN.findall(self._log.read_text()) if int(number) == vm_id]
        return datetime.fromisoformat(instants[-1]).timestamp()

    async def close(self) -> None:
        """Let go of the database."""
        await self.store.close()
