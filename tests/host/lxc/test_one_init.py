"""A root has one init or none."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from appliance.errors import BackendError
from appliance.model import VmId
from appliance.runtime import lxc_process
from appliance.runtime.lxc import Lxc
from tests.support.contract import ONE
from tests.support.lxc_guests import LONGEST_S, departed, is_reached, make_root, processes, rebooted
from tests.support.lxc_rig import Site

pytestmark = pytest.mark.host


async def test_of_two_launches_at_once_one_wins(site: Site) -> None:
    await site.connect()
    first, second = site.rig(), site.rig()
    guest = first.guest()
    await first.disks.clone_root(guest.mark, keep=False)
    await first.disks.ensure_home(guest.mark, size_mib=None)
    await first.fences.fence(guest)
    for _ in range(5):
        await asyncio.gather(first.backend.define(guest), second.backend.define(guest))
        outcomes = await asyncio.gather(
            first.backend.launch(ONE), second.backend.launch(ONE), return_exceptions=True
        )
        assert [isinstance(outcome, BackendError) for outcome in outcomes].count(True) == 1
        assert outcomes.count(None) == 1
        assert is_reached(str(guest.address.ip))
        await first.backend.kill(ONE)


async def test_no_guest_process_holds_the_lock(site: Site) -> None:
    await site.connect()
    await site.rig().start()
    found, lock = processes(site), site.paths.root_lock(ONE)

    def holds(pid: int | None) -> bool:
        return any(link.readlink() == lock for link in Path(f"/proc/{pid}/fd").iterdir())

    assert holds(found.keeper)
    assert not holds(found.monitor)
    assert not holds(found.init)


@pytest.mark.parametrize("victim", ["init", "monitor", "keeper"])
async def test_whatever_dies_the_rest_follows(site: Site, victim: str) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    os.kill(getattr(processes(site), victim), signal.SIGKILL)
    assert await departed(rig) == ONE
    assert lxc_process.find_all(site.installation) == {}
    await rig.start()
    assert is_reached(str(rig.guest().address.ip))


async def test_an_init_that_outlives_its_monitor_is_found_and_blocks_the_root(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = rig.guest()
    await make_root(rig, "#!/bin/sh\nexec su user -c 'sleep 1000'\n")
    await rig.backend.define(guest)
    await rig.backend.launch(ONE)
    assert isinstance(rig.backend, Lxc)
    rig.backend.close()
    before = processes(site)
    assert before.init is not None
    async with asyncio.timeout(LONGEST_S):
        while lxc_process.command(before.init) != ["sleep", "1000"]:
            await asyncio.sleep(0.01)
    assert before.monitor is not None
    assert before.keeper is not None
    os.kill(before.monitor, signal.SIGKILL)
    async with asyncio.timeout(LONGEST_S):
        for pid in (before.monitor, before.keeper):
            while lxc_process.started(pid) is not None:
                await asyncio.sleep(0.01)
    assert lxc_process.started(before.init) is not None

    later = site.rig()
    assert (await later.backend.survey())[ONE].init_pid == before.init
    await later.backend.define(guest)
    with pytest.raises(BackendError, match="processes of an earlier run"):
        await later.backend.launch(ONE)
    await later.backend.kill(ONE)
    await later.start()
    assert processes(site).init != before.init


async def test_a_reboot_inside_is_not_a_departure(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    before = processes(site)
    after = await rebooted(rig, site)
    assert after.monitor == before.monitor
    await asyncio.sleep(0.3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(aiter(rig.backend.departures()))
    assert (await rig.backend.survey())[ONE].init_pid == after.init
    assert (await rig.backend.sample(ONE)).memory_bytes > 0
    await rig.backend.kill(ONE)
    assert await departed(rig) == ONE


async def test_many_come_and_go_at_once(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    many = [VmId(number) for number in range(1, 13)]
    await asyncio.gather(*(rig.start(rig.guest(vm_id)) for vm_id in many))
    assert set(await rig.backend.survey()) == set(many)
    await asyncio.gather(*(rig.remove(vm_id) for vm_id in many))
    assert sorted([await departed(rig) for _ in many]) == many
    assert await rig.backend.survey() == {}
