"""What real containers and a real host use, through everything: control groups, stream, `qa`'s end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from appliance.clock import SystemClock
from appliance.control import ControlServer
from appliance.model import Usage, VmId
from appliance.qa.samples import Round, samples
from appliance.runtime import host_usage
from appliance.runtime.samples import Samples
from tests.support.contract import ONE, TWO, Rig
from tests.support.lxc_rig import Site
from tests.support.typist import typist

pytestmark = pytest.mark.host

BURN = "while :; do :; done &"
MIB = 1 << 20


@asynccontextmanager
async def measured(site: Site, rig: Rig, *vms: VmId) -> AsyncIterator[None]:
    """The part of a daemon that serves samples, with these VMs running."""

    async def sample(vm_id: VmId) -> Usage:
        return await rig.backend.sample(vm_id)

    made = Samples(lambda: vms, sample, lambda: host_usage.look(site.paths.root), SystemClock())
    async with (
        asyncio.TaskGroup() as tasks,
        ControlServer(site.paths.control, {"samples": made.serve}, tasks),
    ):
        yield


async def until(site: Site, reached: Callable[[Round], bool], limit_s: float = 30) -> list[Round]:
    """Every round until `reached`, which may take a while where others keep the cores busy."""
    seen: list[Round] = []
    async with asyncio.timeout(limit_s), aclosing(samples(site.paths.control, every_s=0.5)) as rounds:
        async for look in rounds:
            seen.append(look)
            if reached(look):
                return seen
    raise AssertionError("samples end by an error only")


def cores(look: Round, vm_id: VmId) -> float:
    return look.vms[vm_id][0] or 0.0


async def test_a_loop_takes_a_core_or_what_the_limit_leaves(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start(rig.guest(ONE, cpus=None))
    await rig.start(rig.guest(TWO, cpus=0.25))
    async with measured(site, rig, ONE, TWO):
        (_, quiet) = await until(site, lambda look: look.host.cpu is not None)
        assert cores(quiet, ONE) < 0.2
        for vm_id in (ONE, TWO):
            async with typist(rig.backend, vm_id) as desk:
                desk.send(f"{BURN}\n")
        seen = await until(site, lambda look: cores(look, ONE) > 0.4 and cores(look, TWO) > 0.15)
        for look in seen[2:]:
            assert cores(look, ONE) < 1.1
            assert cores(look, TWO) < 0.35, "its limit is a quarter of a core"
        busy = seen[-1].host
        assert busy.cpu is not None
        assert busy.cpu * busy.cores > cores(seen[-1], ONE) + cores(seen[-1], TWO) - 0.3
        assert busy.load > 0


async def test_memory_grows_with_what_the_guest_allocates(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start()
    async with measured(site, rig, ONE):
        (before,) = await until(site, lambda look: True)
        async with typist(rig.backend, ONE) as desk:
            desk.send("x=0123456789abcdef; while [ ${#x} -lt 8388608 ]; do x=$x$x; done\n")
            (*_, after) = await until(site, lambda look: look.vms[ONE][1] > before.vms[ONE][1] + 7 * MIB)
        assert after.vms[ONE][1] < 64 * MIB, "the guest's limit"
        assert after.host.memory_bytes < after.host.memory_total_bytes


async def test_a_guest_that_has_ended_is_in_no_round(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    await rig.start(rig.guest(ONE))
    await rig.start(rig.guest(TWO))
    async with measured(site, rig, ONE, TWO):
        await until(site, lambda look: set(look.vms) == {ONE, TWO})
        await rig.backend.kill(ONE)
        await until(site, lambda look: set(look.vms) == {TWO})


async def test_the_pool_is_the_installations(site: Site) -> None:
    await site.connect()
    async with measured(site, site.rig()):
        (look,) = await until(site, lambda look: True)
    pool = look.host.pool_bytes, look.host.pool_total_bytes
    assert pool[1] == 1024 * MIB, "tests.support.pool makes it of one GiB"
    assert pool[0] is not None
    assert 0 < pool[0] < 512 * MIB
