"""The host goes down: guests are ordered off, and every row says what comes back (protocol.md 5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.clock import SystemClock
from appliance.model import BackendKind, HostCmd, HostState, StartedBy, VmId, VmState
from appliance.runtime import host_shutdown
from appliance.runtime.supervisor import Supervisor
from appliance.storage.schema import host_runtimes
from tests.support.host import Rig, rig

ONE, TWO, THREE = VmId(1), VmId(2), VmId(3)
OURS = {BackendKind.LXC}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, desktops=3) as made:
        yield made


async def off(host: Rig, supervisor: Supervisor, *, limit_s: float = 5) -> tuple[list[VmId], list[int]]:
    """Order the guests off; what is left, and the counts that were told."""
    told: list[int] = []
    host.boot_slots = 0
    left = await host_shutdown.order_off(
        supervisor, OURS, SystemClock(), limit_s=limit_s, tell=lambda count, seconds: told.append(count)
    )
    return left, told


async def running(host: Rig, *vm_ids: VmId) -> None:
    for vm_id in vm_ids:
        await host.wish("start", vm_id)
    for vm_id in vm_ids:
        await host.until_state(vm_id, VmState.RUNNING)


@asynccontextmanager
async def unreadable(host: Rig) -> AsyncIterator[None]:
    """Let the database refuse to say or note anything of this host and its VMs."""
    tables = ("vm_runtimes", "host_runtimes")
    async with host.store.write() as tx:
        for table in tables:
            await tx.connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_away")
    yield
    async with host.store.write() as tx:
        for table in tables:
            await tx.connection.exec_driver_sql(f"ALTER TABLE {table}_away RENAME TO {table}")


async def reboot(host: Rig) -> None:
    """As after a boot: nothing runs, and the row knows another boot."""
    host.backend.running.clear()
    async with host.store.write() as tx:
        await tx.connection.execute(update(host_runtimes).values(boot_id="another"))


async def test_what_ran_is_off_and_its_row_says_starting(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await running(host, ONE, TWO)

        left, told = await off(host, supervisor)

        assert (left, told) == ([], [2])
        assert (host.backend.running, host.backend.roots, host.backend.fences) == ({}, {}, {})
    for vm_id, state in ((ONE, VmState.STARTING), (TWO, VmState.STARTING), (THREE, VmState.STOPPED)):
        vm = await host.vm(vm_id)
        assert (vm.runtime.vm_state, vm.runtime.failure) == (state, None)


async def test_it_comes_back_after_the_boot_started_by_the_host(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await running(host, ONE)
        await off(host, supervisor)
    await reboot(host)

    host.boot_slots = 2
    async with host.hkd():
        vm = await host.until_state(ONE, VmState.RUNNING)

    assert (vm.runtime.started_by, vm.runtime.run) == (StartedBy.HOST, 2)
    assert (await host.vm(THREE)).runtime.vm_state is VmState.STOPPED


async def test_what_was_being_stopped_stays_stopped(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await running(host, ONE)
        host.backend.stops_when_asked = False
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPING)
        host.backend.stops_when_asked = True

        await off(host, supervisor)

        assert (await host.vm(ONE)).runtime.vm_state is VmState.STOPPED


async def test_what_was_being_restarted_comes_back(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await running(host, ONE)
        host.backend.stops_when_asked = False
        await host.wish("stop", ONE, restart=True)
        await host.until_state(ONE, VmState.STOPPING)

        await off(host, supervisor)

        assert (await host.vm(ONE)).runtime.vm_state is VmState.STARTING


async def test_what_was_being_started_stays_wanted(host: Rig) -> None:
    async with host.hkd() as supervisor:
        launching = host.backend.hold("launch")
        await host.wish("start", ONE)
        await host.until(ONE, lambda vm: vm.runtime.vm_phase == "starting/launching")

        left, _ = await off(host, supervisor)

        assert left == []
        assert host.backend.running == {}
    launching.set()
    host.boot_slots = 2
    async with host.hkd():
        await host.until_state(ONE, VmState.RUNNING)


async def test_a_guest_that_does_not_listen_is_killed_in_time(host: Rig) -> None:
    settings = {"internal.hkd.lxc.timeout.on_state.stopping.shutdown": "3600"}
    settings["internal.hkd.lxc.timeout.on_state.stopping.stop"] = "3600"
    host.settings = host.settings.with_database(settings)
    async with host.hkd() as supervisor:
        await running(host, ONE)
        host.backend.stops_when_asked = False

        left, _ = await off(host, supervisor, limit_s=0.3)

        assert left == []
        assert host.backend.running == {}
    assert (await host.vm(ONE)).runtime.vm_state is VmState.STARTING


async def test_a_daemon_killed_in_the_middle_loses_nothing(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await running(host, ONE, TWO)
        host.backend.stops_when_asked = False
        ending = asyncio.create_task(off(host, supervisor))
        await host.until_state(ONE, VmState.STOPPING)
        await host.until_state(TWO, VmState.STOPPING)
        ending.cancel()
    await reboot(host)

    host.boot_slots = 2
    async with host.hkd():
        await host.until_state(ONE, VmState.RUNNING)
        await host.until_state(TWO, VmState.RUNNING)


async def test_guests_are_asked_to_end_although_nothing_can_be_written(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await running(host, ONE)
        async with unreadable(host):
            assert host.latest is not None
            await host.latest.declare_ending(HostState.STOPPING, 1)
            left, _ = await off(host, supervisor)
        assert left == []
        assert host.backend.running == {}
        assert next(call for call, _ in host.backend.calls if call in {"stop", "kill"}) == "stop"
    await reboot(host)

    host.boot_slots = 2
    async with host.hkd():
        await host.until_state(ONE, VmState.RUNNING)


async def test_a_power_cut_loses_nothing(host: Rig) -> None:
    async with host.hkd():
        await running(host, ONE)
    await reboot(host)

    async with host.hkd():
        vm = await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)

    assert vm.runtime.started_by is StartedBy.HOST


async def test_the_row_of_the_host_can_order_it_once(host: Rig) -> None:
    async with host.hkd():
        async with host.store.write() as tx:
            await tx.hosts.order([host.host_id], HostCmd.STOP)
        async with asyncio.timeout(10):
            await host.told_to_stop.wait()

    async with host.store.write() as tx:
        assert await tx.hosts.claim(host.host_id) is None


async def test_an_order_to_a_daemon_that_is_gone_is_void(host: Rig) -> None:
    async with host.store.write() as tx:
        await tx.hosts.order([host.host_id], HostCmd.STOP)

    async with host.hkd():
        await running(host, ONE)
        assert not host.told_to_stop.is_set()
