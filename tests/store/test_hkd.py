"""The HKD with a real database: wishes become guests, and a daemon that died finds its way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.errors import BackendError, ImageError, NetworkError
from appliance.model import BackendKind, FailureCause, StartedBy, UserState, VmId, VmState
from appliance.ops import vms
from appliance.runtime.backend import GuestSpec
from appliance.runtime.events import StopWanted
from appliance.runtime.machine import BOOTING, Phase
from appliance.runtime.performer import Equipment
from appliance.runtime.supervisor import Supervisor
from appliance.storage.runtimes import Claim
from appliance.storage.schema import di_tags, host_runtimes, osfs, vm_runtimes
from appliance.storage.schema import vms as vms_table
from tests.support.fake_backend import FakeBackend
from tests.support.host import Rig, rig
from tests.support.machines import NOW

ONE = VmId(1)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, desktops=3) as made:
        yield made


def calls(host: Rig, vm_id: VmId = ONE) -> list[str]:
    return [call for call, called in host.backend.calls if called == vm_id]


def phase(supervisor: Supervisor) -> Phase:
    machine = supervisor.machine(ONE)
    assert machine is not None
    return machine.phase


def stop_wanted(claim: Claim) -> StopWanted:
    return StopWanted(vm_id=claim.vm_id, at=NOW, cause="test", restart=claim.restart)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def note_rows(host: Rig) -> None:
    """From now on, keep every state that the row of ONE is given."""
    async with host.store.write() as tx:
        await tx.connection.exec_driver_sql("CREATE TABLE noted (vm_state, restart)")
        await tx.connection.exec_driver_sql(
            "CREATE TRIGGER note AFTER UPDATE ON vm_runtimes"
            " BEGIN INSERT INTO noted VALUES (NEW.vm_state, NEW.restart); END"
        )


async def noted(host: Rig) -> list[tuple[str, bool]]:
    async with host.store.read() as tx:
        rows = await tx.connection.exec_driver_sql("SELECT vm_state, restart FROM noted")
        return [(row.vm_state, bool(row.restart)) for row in rows]


async def test_a_start_boots_a_guest_and_a_stop_leaves_nothing(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until_state(ONE, VmState.RUNNING)
        assert (vm.runtime.current_di_id, vm.runtime.vm_address, vm.runtime.run) == (1, "127.0.0.10", 1)
        assert calls(host) == ["clone_root", "ensure_home", "define", "fence", "launch"]
        await host.wish("stop", ONE)
        vm = await host.until_state(ONE, VmState.STOPPED)
    assert (vm.runtime.current_di_id, vm.runtime.vm_address, vm.runtime.host_id) == (None, None, None)
    assert (host.backend.running, host.backend.roots, host.backend.fences) == ({}, {}, {})
    assert ONE in host.backend.homes
    assert vm.runtime.failure is None


async def test_a_restart_is_one_wish(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        await host.wish("stop", ONE, restart=True)
        vm = await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)
    assert not vm.runtime.restart
    assert calls(host).count("launch") == 2


async def test_a_restart_survives_the_daemon(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        host.backend.stops_when_asked = False
        await host.wish("stop", ONE, restart=True)
        await host.until_state(ONE, VmState.STOPPING)
    async with host.hkd():
        host.backend.depart(ONE)
        await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)


async def test_a_restart_claimed_while_an_older_state_waits_for_the_database_is_never_forgotten(
    host: Rig,
) -> None:
    async with host.hkd() as supervisor:
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        await note_rows(host)
        async with host.store.write() as tx:
            host.backend.depart(ONE)
            await until(lambda: phase(supervisor) == Phase.CLEANING)
            await vms.stop(tx, [ONE], by="test", restart=True)
            (claim,) = await tx.runtimes.claim(host.host_id)
        supervisor.post(stop_wanted(claim))
        await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)
        assert ("stopping", False) not in await noted(host)


async def test_a_restart_claimed_while_the_end_waits_for_the_database_keeps_its_host(host: Rig) -> None:
    async with host.hkd() as supervisor:
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        erasing = host.backend.hold("erase_root")
        host.backend.depart(ONE)
        await until(lambda: "erase_root" in calls(host))
        async with host.store.write() as tx:
            erasing.set()
            await until(lambda: phase(supervisor) == Phase.STOPPED)
            await vms.stop(tx, [ONE], by="test", restart=True)
            (claim,) = await tx.runtimes.claim(host.host_id)
        supervisor.post(stop_wanted(claim))
        vm = await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)
        assert vm.runtime.host_id == host.host_id
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPED)


async def test_a_stop_that_takes_a_restart_back_is_obeyed_whenever_the_state_is_saved(host: Rig) -> None:
    async with host.store.write() as tx:
        await vms.start(tx, [ONE], by="test", started_by=StartedBy.COMMAND)
        await tx.runtimes.claim(host.host_id)
        await vms.stop(tx, [ONE], by="test", restart=True)
        await tx.runtimes.claim(host.host_id)
        await vms.stop(tx, [ONE], by="test")
        await tx.runtimes.save(
            ONE,
            state=VmState.STOPPING,
            phase="stopping/cleaning",
            restart=True,
            run=1,
            started_by=None,
            placement=None,
        )
        (claim,) = await tx.runtimes.claim(host.host_id)
    assert not claim.restart


async def test_a_tag_without_an_image_is_the_reason_on_the_vm(host: Rig) -> None:
    async with host.store.write() as tx:
        await tx.connection.execute(di_tags.delete())
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.failure is not None)
        vm = await host.until_state(ONE, VmState.STOPPED)
    assert vm.runtime.failure is not None
    assert "no image of OSF small carries the tag default" in vm.runtime.failure
    assert "qa di add path=FILE osf=small" in vm.runtime.failure
    assert "launch" not in calls(host)


async def test_a_start_for_which_this_host_has_no_backend_waits_until_it_is_called_off(host: Rig) -> None:
    async with host.store.write() as tx:
        await tx.connection.execute(update(osfs).values(backend=BackendKind.KVM))
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.vm_phase == Phase.WAITING)
        assert "this host has no backend kvm" in str(vm.runtime.failure)
        assert (vm.runtime.vm_state, vm.runtime.waits_for, vm.runtime.run) == ("starting", "backend", 1)
        assert [(alarm.kind, alarm.object) for alarm in await host.alarms()] == [("host", "backend")]
        await host.wish("stop", ONE)
        vm = await host.until_state(ONE, VmState.STOPPED)
    assert "this host has no backend kvm" in str(vm.runtime.failure)
    assert (vm.runtime.waits_for, await host.alarms()) == (None, [])


async def test_a_machine_that_is_larger_than_the_host_is_never_made(host: Rig) -> None:
    host.more = {BackendKind.KVM: Equipment(host.backend, host.backend, host.backend)}
    async with host.store.write() as tx:
        await tx.connection.execute(update(osfs).values(backend=BackendKind.KVM, memory=1 << 30))
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.vm_phase == Phase.WAITING)
        assert "takes 1073741824 MiB of memory, of " in str(vm.runtime.failure)
        assert vm.runtime.failure_cause is FailureCause.HOST
        assert "clone_root" not in calls(host)
        async with host.store.write() as tx:
            await tx.connection.execute(update(osfs).values(memory=1))
        await host.until_state(ONE, VmState.RUNNING)


async def test_a_start_that_the_host_failed_is_tried_again_until_it_runs(host: Rig) -> None:
    host.backend.fail("launch", BackendError("no more ptys"))
    launching = host.backend.hold("clone_root", after=1)
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.failure is not None)
        assert vm.runtime.failure == "no more ptys"
        assert (vm.runtime.failure_cause, vm.runtime.blocked) == (FailureCause.HOST, False)
        await until(lambda: calls(host).count("clone_root") == 2)
        assert (await host.vm(ONE)).runtime.failure == "no more ptys", "told while it is tried again"
        launching.set()
        vm = await host.until_state(ONE, VmState.RUNNING)
        assert (vm.runtime.run, vm.runtime.failure, vm.runtime.waits_for) == (1, None, None)
        assert await host.alarms() == []


async def test_a_daemon_that_died_while_a_start_waited_begins_again(host: Rig) -> None:
    async with host.store.write() as tx:
        await tx.connection.execute(update(osfs).values(backend=BackendKind.KVM))
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until(ONE, lambda vm: vm.runtime.vm_phase == Phase.WAITING)
    async with host.store.write() as tx:
        await tx.connection.execute(update(osfs).values(backend=BackendKind.LXC))
    async with host.hkd():
        await host.until_state(ONE, VmState.RUNNING)
        assert await host.alarms() == []


async def test_an_image_that_does_not_boot_leaves_its_reason_console_and_root(host: Rig) -> None:
    host.backend.fail("launch", ImageError("the init of the image ended at once"))
    host.backend.messages = "line one\nkernel panic"
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until(
            ONE, lambda vm: vm.runtime.failure is not None and vm.runtime.vm_state is VmState.STOPPED
        )
        assert vm.runtime.failure == "the init of the image ended at once"
        assert vm.runtime.failure_console == "line one\nkernel panic"
        assert (vm.runtime.failure_cause, vm.runtime.failures) == (FailureCause.IMAGE, 1)
        assert host.backend.roots == {}
        async with host.store.read() as tx:
            (kept,) = await tx.kept.find()
        assert list(host.backend.kept) == [Path(kept.path)]
        assert (kept.vm, kept.owner, kept.reason) == ("desk1", "alice", vm.runtime.failure)
        await host.wish("start", ONE)
        vm = await host.until_state(ONE, VmState.RUNNING)
    assert (vm.runtime.failure, vm.runtime.failures) == (None, 0)


async def test_a_guest_that_ends_by_itself_is_cleaned_up(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        host.backend.depart(ONE)
        vm = await host.until_state(ONE, VmState.STOPPED)
    assert vm.runtime.failure == "the guest ended by itself"
    assert host.backend.roots == {}


async def test_what_cannot_be_cleaned_is_a_zombie_until_it_can(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        host.backend.fail("erase_root", BackendError("device or resource busy"))
        await host.wish("stop", ONE)
        await host.until(ONE, lambda vm: vm.runtime.failure == "device or resource busy")
        await host.until_state(ONE, VmState.STOPPED)
    assert host.backend.roots == {}


async def test_a_daemon_that_comes_back_finds_its_guests(host: Rig) -> None:
    async with host.hkd():
        for vm_id in (VmId(1), VmId(2), VmId(3)):
            await host.wish("start", vm_id)
            await host.until_state(vm_id, VmState.RUNNING)
    before = dict(host.backend.running)
    host.backend.depart(VmId(2))
    host.backend.calls.clear()
    async with host.hkd():
        vm = await host.until_state(VmId(2), VmState.STOPPED)
        assert vm.runtime.failure == "the guest ended while the appliance was not looking"
        for vm_id in (VmId(1), VmId(3)):
            assert (await host.vm(vm_id)).runtime.vm_state is VmState.RUNNING
            assert "adopt" in calls(host, vm_id)
        assert "launch" not in {call for call, _ in host.backend.calls}
        assert host.backend.running == {vm_id: before[vm_id] for vm_id in (VmId(1), VmId(3))}


async def test_a_guest_that_ends_while_it_is_adopted_is_cleaned_up(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
    adopting = host.backend.hold("adopt")
    async with host.hkd():
        await until(lambda: "adopt" in calls(host))
        host.backend.running.clear()
        adopting.set()
        await host.until_state(ONE, VmState.STOPPED)
    assert host.backend.roots == {}


async def test_fifty_at_once_boot_two_at_a_time_and_leave_nothing(tmp_path: Path) -> None:
    everyone = [VmId(number) for number in range(1, 51)]
    async with rig(tmp_path, desktops=len(everyone)) as host:

        async def states() -> set[VmState]:
            async with host.store.read() as tx:
                return {vm.runtime.vm_state for vm in await tx.vms.find()}

        async def all_are(state: VmState) -> None:
            async with asyncio.timeout(30):
                while await states() != {state}:
                    booting = sum(machine.phase in BOOTING for machine in supervisor.machines())
                    assert booting <= 2
                    await asyncio.sleep(0.01)

        async with host.hkd() as supervisor:
            async with host.store.write() as tx:
                assert await vms.start(tx, everyone, by="test", started_by=StartedBy.COMMAND) == 50
            await all_are(VmState.RUNNING)
            assert len(host.backend.running) == 50
            async with host.store.write() as tx:
                assert await vms.stop(tx, everyone, by="test") == 50
            await all_are(VmState.STOPPED)
    assert (host.backend.running, host.backend.roots, host.backend.fences) == ({}, {}, {})


async def test_a_host_that_rebooted_begins_again_what_ran(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
    host.backend.running.clear()
    async with host.store.write() as tx:
        await tx.connection.execute(update(host_runtimes).values(boot_id="another"))
    async with host.hkd():
        vm = await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)
    assert vm.runtime.started_by == "host"


async def test_a_first_try_after_a_reboot_that_comes_to_nothing_forgets_nobody(host: Rig) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
    host.backend.running.clear()
    async with host.store.write() as tx:
        await tx.connection.execute(update(host_runtimes).values(boot_id="another"))
    host.backend.fail("begin", NetworkError("the firewall cannot be set up"))
    with pytest.raises(ExceptionGroup):
        async with host.hkd():
            pass
    async with host.hkd():
        vm = await host.until(ONE, lambda vm: vm.runtime.run == 2 and vm.runtime.vm_state is VmState.RUNNING)
    assert (vm.runtime.started_by, vm.runtime.failure) == (StartedBy.HOST, None)


async def test_fences_that_two_kinds_share_begin_once_with_the_guests_of_both(host: Rig) -> None:
    begun: list[set[VmId]] = []

    class Shared(FakeBackend):
        async def begin(self, guests: Sequence[GuestSpec]) -> None:
            begun.append({guest.vm_id for guest in guests})

    async with host.hkd():
        for number in (1, 2):
            await host.wish("start", VmId(number))
        for number in (1, 2):
            await host.until_state(VmId(number), VmState.RUNNING)
    other = FakeBackend()
    other.running[VmId(2)] = host.backend.running.pop(VmId(2))
    shared = Shared()
    host.more = {BackendKind.KVM: Equipment(other, other, shared)}
    host.fences = shared
    async with host.hkd():
        pass
    assert begun == [{1, 2}]


async def test_sessions_of_a_dead_daemon_are_reset(host: Rig) -> None:
    async with host.store.write() as tx:
        await tx.connection.execute(
            update(vm_runtimes)
            .where(vm_runtimes.c.vm_id == ONE)
            .values(user_state=UserState.CONNECTED, l7r_session="s-1", l7r_host_id=1, user_cmd="abort")
        )
    async with host.hkd():
        vm = await host.vm(ONE)
    assert (vm.runtime.user_state, vm.runtime.l7r_session, vm.runtime.user_cmd) == (
        "disconnected",
        None,
        None,
    )


async def test_a_guest_without_a_row_is_left_alone(host: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
    async with host.store.write() as tx:
        await tx.connection.execute(vm_runtimes.delete().where(vm_runtimes.c.vm_id == ONE))
        await tx.connection.exec_driver_sql("DELETE FROM vms WHERE id = 1")
    async with host.hkd():
        pass
    assert ONE in host.backend.running
    assert "a guest with our mark has no row" in caplog.text


async def test_a_setting_that_cannot_be_read_changes_nothing(
    host: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.hkd():
        async with host.store.write() as tx:
            await tx.settings.set({"internal.hkd.poll_time": "soon", "hkd.vm.starting.max": "many"})
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPED)
    assert caplog.text.count("settings stay as they were") == 1


async def test_a_guest_whose_row_says_stopped_is_taken_up_and_can_be_stopped(
    host: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
    async with host.store.write() as tx:
        stopped = {"vm_state": VmState.STOPPED, "vm_phase": "stopped", "host_id": None}
        await tx.connection.execute(
            update(vm_runtimes)
            .where(vm_runtimes.c.vm_id == ONE)
            .values(**stopped, current_di_id=None, vm_address=None)
        )
    host.backend.calls.clear()
    async with host.hkd():
        vm = await host.until_state(ONE, VmState.RUNNING)
        assert (vm.runtime.current_di_id, vm.runtime.vm_address) == (1, "127.0.0.10")
        assert "launch" not in calls(host)
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPED)
    assert "found running though its row says stopped" in caplog.text


async def test_a_wish_made_while_the_daemon_was_down_is_served(host: Rig) -> None:
    await host.wish("start", ONE)
    assert (await host.vm(ONE)).runtime.vm_state is VmState.STOPPED
    async with host.hkd():
        await host.until_state(ONE, VmState.RUNNING)


async def test_a_persistent_root_outlives_the_run(host: Rig) -> None:
    host.settings = host.settings.with_database({"vm.overlay.persistent": "yes"})
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPED)
    assert ONE in host.backend.roots


async def test_a_guest_of_others_needs_no_image(host: Rig) -> None:
    async with host.store.write() as tx:
        await tx.connection.execute(di_tags.delete())
        await tx.connection.execute(update(osfs).values(backend=BackendKind.NOTHING))
    async with host.hkd():
        await host.wish("start", ONE)
        vm = await host.until_state(ONE, VmState.RUNNING)
        assert (vm.runtime.current_di_id, vm.runtime.vm_address) == (None, "127.0.0.10")
    async with host.hkd():
        assert (await host.vm(ONE)).runtime.vm_state is VmState.RUNNING
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.STOPPED)
    assert host.backend.calls == []


async def test_a_new_daemon_fences_what_it_finds_at_once(host: Rig) -> None:
    async with host.hkd():
        for vm_id in (VmId(1), VmId(2)):
            await host.wish("start", vm_id)
            await host.until_state(vm_id, VmState.RUNNING)
    host.backend.fences = {VmId(9): host.backend.defined[ONE]}
    async with host.hkd():
        assert set(host.backend.fences) == {1, 2}


@pytest.mark.parametrize("state", [VmState.STOPPED, VmState.RUNNING])
async def test_a_stranger_under_a_vms_number_is_never_touched_nor_shown(host: Rig, state: VmState) -> None:
    async with host.hkd():
        await host.wish("start", ONE)
        await host.until_state(ONE, VmState.RUNNING)
    async with host.store.write() as tx:
        await tx.connection.execute(update(vms_table).where(vms_table.c.id == ONE).values(uuid="another"))
        if state is VmState.STOPPED:
            values = {"vm_state": state, "current_di_id": None, "vm_address": None}
            await tx.connection.execute(update(vm_runtimes).values(**values))
    before = list(host.backend.calls)
    async with host.hkd():
        assert (await host.vm(ONE)).runtime.vm_address is None, "a session would reach the stranger"
        await host.wish("start", ONE)
        vm = await host.until(ONE, lambda vm: vm.runtime.failure is not None and vm.runtime.run == 2)
        assert vm.runtime.vm_state is VmState.STOPPED
        assert vm.runtime.failure is not None
        assert "no VM of this database runs as number 1" in vm.runtime.failure
    assert ONE in host.backend.running
    assert host.backend.calls == before
