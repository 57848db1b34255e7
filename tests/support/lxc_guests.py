"""What tests look at of running containers."""

from __future__ import annotations

import asyncio
import socket

from appliance.model import VmId
from appliance.runtime import lxc_process
from appliance.runtime.backend import Departure
from tests.support.contract import ONE, Rig
from tests.support.lxc_rig import Site
from tests.support.typist import typist

LONGEST_S = 20.0


async def departed(rig: Rig) -> VmId:
    async with asyncio.timeout(LONGEST_S):
        departure: Departure = await anext(aiter(rig.backend.departures()))
        return departure.vm_id


def processes(site: Site) -> lxc_process.Found:
    return lxc_process.find_all(site.installation)[ONE]


def is_reached(address: str) -> bool:
    """Whether a machine answers at all: no service listens, so it refuses."""
    with socket.socket() as probe:
        probe.settimeout(2)
        try:
            probe.connect((address, 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


async def make_root(rig: Rig, init: str) -> None:
    """The root of VM 1, with a script as its init, and its home."""
    mark = rig.guest().mark
    root = await rig.disks.clone_root(mark, keep=False)
    await rig.disks.ensure_home(mark, size_mib=None)
    path = root / "sbin" / "init"
    path.unlink()
    path.write_text(init)
    path.chmod(0o755)


async def rebooted(rig: Rig, site: Site) -> lxc_process.Found:
    """Reboot the guest from inside, and wait for its new init."""
    before = processes(site)
    async with typist(rig.backend, ONE) as desk:
        desk.send("reboot\n")
    async with asyncio.timeout(LONGEST_S):
        while (after := processes(site)).init in (before.init, None):
            await asyncio.sleep(0.05)
    return after
