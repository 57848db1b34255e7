"""What follows when runs fail: one alarm for a bad image, patience with a host that lacks something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from appliance.errors import BackendError, ImageError, PoolFullError
from appliance.filters import Filter
from appliance.model import (
    AlarmKind,
    BackendKind,
    BlockCause,
    DiId,
    FailureCause,
    KeptKind,
    Limit,
    StartedBy,
    Vm,
    VmId,
    VmState,
)
from appliance.ops import images, vms
from appliance.runtime.machine import Phase
from appliance.storage.schema import dis
from appliance.storage.schema import vms as vms_table
from tests.support.host import Rig, rig

ONE, TWO = VmId(1), VmId(2)
TEN = [VmId(number) for number in range(1, 11)]
GOOD, BAD = DiId(1), DiId(2)
NO_BOOT = "the init of the image ended at once"
LONGEST_S = 30.0


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Rig]:
    """Ten desktops that follow the tag `default`, and a second image, which does not boot."""
    async with rig(tmp_path, desktops=len(TEN)) as made:
        made.backend.bad_images[BAD] = ImageError(NO_BOOT)
        async with made.store.write() as tx:
            second = {"osf_id": 1, "path": "2-b.tar", "version": "two", "sha256": "", "size_bytes": 1}
            await tx.connection.execute(insert(dis).values(**second, created=tx.at))
        yield made


async def tag(host: Rig, di_id: DiId, name: str = "default") -> None:
    async with host.store.write() as tx:
        await images.tag(tx, await tx.images.get(di_id), name, by="test")


async def start(host: Rig, vm_ids: Collection[VmId] = (ONE,)) -> None:
    async with host.store.write() as tx:
        asked = await vms.start(tx, vm_ids, by="test", started_by=StartedBy.COMMAND)
    assert asked == len(vm_ids)


async def all_are(host: Rig, state: VmState, vm_ids: Collection[VmId] = TEN) -> list[Vm]:
    """Wait until VMs that nobody wishes anything of are in a state."""
    found: list[Vm] = []
    async with asyncio.timeout(LONGEST_S):
        while not found or not all(
            vm.runtime.vm_state is state and vm.runtime.vm_cmd is None for vm in found
        ):
            await asyncio.sleep(0.02)
            async with host.store.read() as tx:
                found = [vm for vm in await tx.vms.find() if vm.id in vm_ids]
    return found


async def fail(host: Rig, vm_ids: Collection[VmId] = (ONE,), *, times: int = 2) -> list[Vm]:
    """Start VMs on the bad image, so many times."""
    for _ in range(times):
        before = await all_are(host, VmState.STOPPED, vm_ids)
        await start(host, vm_ids)
        for vm in before:
            await host.until(vm.id, later_than(vm), LONGEST_S)
    return await all_are(host, VmState.STOPPED, vm_ids)


def later_than(before: Vm) -> Callable[[Vm], bool]:
    """Whether another run of a VM has begun since."""
    return lambda vm: vm.runtime.run > before.runtime.run


def launches(host: Rig) -> int:
    return sum(call == "launch" for call, _ in host.backend.calls)


# --- the image's fault ----------------------------------------------------------------------------


async def test_one_bad_image_under_ten_vms(host: Rig) -> None:
    await tag(host, BAD)
    async with host.hkd():
        for vm in await fail(host, TEN, times=1):
            assert not vm.runtime.blocked, "one failure is no proof"
        assert await host.alarms() == []
        for vm in await fail(host, TEN, times=1):
            assert (vm.runtime.failure, vm.runtime.failure_cause) == (NO_BOOT, FailureCause.IMAGE)
            assert (vm.runtime.block_cause, vm.runtime.failures) == (BlockCause.IMAGE, 2)
        (alarm,) = await host.alarms()
        assert (alarm.kind, alarm.object, alarm.count) == (AlarmKind.IMAGE, "di 2", 10)
        assert alarm.text == f"DI 2, version two of the OSF small, does not boot and blocks 10 VMs: {NO_BOOT}"
        assert launches(host) == 20, "no loop: each start was somebody's wish"

        await tag(host, GOOD)
        assert await host.alarms() == []
        for vm in await all_are(host, VmState.STOPPED):
            assert (vm.runtime.blocked, vm.runtime.failures, vm.runtime.failed_di_id) == (False, 0, None)
        await start(host, TEN)
        for vm in await all_are(host, VmState.RUNNING):
            assert (vm.runtime.failure, vm.runtime.current_di_id) == (None, GOOD)


async def test_only_the_newest_root_of_a_vm_is_kept(host: Rig) -> None:
    await tag(host, BAD)
    async with host.hkd():
        await fail(host, times=3)
    async with host.store.read() as tx:
        *older, newest = await tx.kept.find(Filter.where(kind=KeptKind.ROOT))
        assert [kept.path for kept in older] == [kept.path for kept in await tx.kept.due()]
    assert len(older) == 2
    assert newest.until is not None
    assert newest.until > newest.at
    assert {Path(kept.path) for kept in (*older, newest)} == set(host.backend.kept)
    assert host.backend.roots == {}


async def test_no_row_tells_of_a_root_that_was_not_kept(host: Rig) -> None:
    await tag(host, BAD)
    host.backend.lacks["put_aside"] = PoolFullError.of("it cannot be put aside")
    async with host.hkd():
        (vm,) = await fail(host, times=1)
    assert vm.runtime.failure == NO_BOOT
    async with host.store.read() as tx:
        assert await tx.kept.find() == []
    assert host.backend.roots == {}


async def test_no_end_of_the_daemon_loses_a_reason_or_counts_it_twice(host: Rig) -> None:
    await tag(host, BAD)
    killing = host.backend.hold("kill")
    async with host.hkd():
        await start(host)
        await host.until_state(ONE, VmState.STOPPING)
        assert (await host.vm(ONE)).runtime.failure == NO_BOOT, "the row that ends the run says why"
    killing.set()
    async with host.hkd():
        (vm,) = await all_are(host, VmState.STOPPED, [ONE])
    assert (vm.runtime.failure, vm.runtime.failures, vm.runtime.failed_di_id) == (NO_BOOT, 1, BAD)
    assert host.backend.roots == {}


async def test_what_a_guest_said_is_bounded_and_harmless(host: Rig) -> None:
    host.backend.messages = "\n".join(f"line {number} " + "x" * 1000 for number in range(1000))
    host.backend.bad_images[GOOD] = ImageError("bell \a, and much " + "more " * 1000)
    async with host.hkd():
        (vm,) = await fail(host, times=1)
    console, reason = vm.runtime.failure_console, vm.runtime.failure
    assert console is not None
    assert console.endswith("x")
    assert "line 999 " in console
    assert len(console) <= 32 * 1024
    assert reason is not None
    assert (reason[:11], len(reason), reason.isprintable()) == ("bell  , and", 1000, True)


async def test_roots_that_outlive_their_runs_stay_where_they_are(host: Rig) -> None:
    host.settings = host.settings.with_database({"vm.overlay.persistent": "yes"})
    await tag(host, BAD)
    async with host.hkd():
        await fail(host, times=1)
    assert (host.backend.kept, set(host.backend.roots)) == ({}, {ONE})


async def test_an_image_that_boots_after_all_is_forgiven(host: Rig) -> None:
    await tag(host, BAD)
    async with host.hkd():
        await fail(host, [ONE, TWO])
        host.backend.bad_images.clear()
        await start(host)
        await all_are(host, VmState.RUNNING, [ONE])
        vm = await host.vm(ONE)
        assert (vm.runtime.blocked, vm.runtime.failures) == (False, 0)
        assert (await host.vm(TWO)).runtime.block_cause is BlockCause.IMAGE
        assert await host.alarms() == [], "somebody runs it"


async def test_a_success_in_between_begins_the_count_anew(host: Rig) -> None:
    async with host.hkd():
        for _ in range(3):
            host.backend.bad_images[GOOD] = ImageError(NO_BOOT)
            (vm,) = await fail(host, times=1)
            assert vm.runtime.failures == 1
            host.backend.bad_images.clear()
            await start(host)
            await all_are(host, VmState.RUNNING, [ONE])
            await host.wish("stop", ONE)
            await all_are(host, VmState.STOPPED, [ONE])
    assert await host.alarms() == []


async def test_a_failure_is_not_held_against_an_image_that_is_not_booted_next(host: Rig) -> None:
    await tag(host, BAD)
    async with host.hkd():
        await fail(host, times=1)
        launching = host.backend.hold("launch")
        await start(host)
        await host.until(ONE, lambda vm: vm.runtime.vm_phase == Phase.LAUNCHING)
        await tag(host, GOOD)
        launching.set()
        (vm,) = await all_are(host, VmState.STOPPED, [ONE])
    assert vm.runtime.failure == NO_BOOT
    assert (vm.runtime.blocked, vm.runtime.failures) == (False, 0)


async def test_a_vm_that_follows_another_tag_is_unblocked(host: Rig) -> None:
    await tag(host, BAD)
    await tag(host, GOOD, "sound")
    async with host.hkd():
        await fail(host, [ONE, TWO])
        async with host.store.write() as tx:
            one = [await tx.vms.get(ONE)]
            await vms.edit(tx, host.settings, one, {"di_tag": "sound"}, by="test")
        assert not (await host.vm(ONE)).runtime.blocked
        assert (await host.vm(TWO)).runtime.blocked
        assert [alarm.object for alarm in await host.alarms()] == ["di 2"]


@pytest.mark.parametrize("lifted", ["untag", "unblock", "delete"])
async def test_a_block_and_its_alarm_end_together(host: Rig, lifted: str) -> None:
    await tag(host, BAD)
    async with host.hkd():
        await fail(host)
        assert len(await host.alarms()) == 1
        async with host.store.write() as tx:
            match lifted:
                case "untag":
                    await images.untag(tx, await tx.images.get(BAD), "default", by="test")
                case "unblock":
                    assert await vms.unblock(tx, [ONE], by="test") == 1
                case "delete":
                    await vms.delete(tx, host.settings, [await tx.vms.get(ONE)], by="test")
        assert await host.alarms() == []
    async with host.store.read() as tx:
        assert not any(vm.runtime.blocked or vm.runtime.failures for vm in await tx.vms.find())


async def test_a_block_by_hand_is_lifted_by_hand_alone(host: Rig) -> None:
    await tag(host, BAD)
    async with host.hkd():
        await fail(host)
        async with host.store.write() as tx:
            assert await vms.block(tx, [ONE, TWO], by="test") == 2
            assert await vms.block(tx, [ONE], by="test") == 0
        assert await host.alarms() == [], "no image blocks anybody now"
        await fail(host, times=1)
        await tag(host, GOOD)
        assert (await host.vm(ONE)).runtime.block_cause is BlockCause.ADMIN
        async with host.store.write() as tx:
            assert await vms.unblock(tx, [ONE, TWO], by="test") == 2
    assert not (await host.vm(ONE)).runtime.blocked


async def test_an_image_that_keeps_others_from_moving_is_an_alarm(host: Rig) -> None:
    async with host.hkd():
        await start(host, TEN[2:])
        await all_are(host, VmState.RUNNING, TEN[2:])
        async with host.store.write() as tx:
            bad = await tx.images.get(BAD)
            limits = {Limit.HARD: tx.at + timedelta(days=1)}
            await images.tag(tx, bad, "default", by="test", limits=limits)
        await fail(host, [ONE], times=1)
        assert await host.alarms() == []
        await fail(host, [TWO], times=1)
        (alarm,) = await host.alarms()
        assert "DI 2, version two of the OSF small, does not boot, and 8 VMs with limits" in alarm.text
        await tag(host, GOOD)
        assert await host.alarms() == []


async def test_a_tag_without_an_image_blocks_nobody(host: Rig) -> None:
    async with host.store.write() as tx:
        await images.untag(tx, await tx.images.get(GOOD), "default", by="test")
    async with host.hkd():
        (vm,) = await fail(host, times=3)
    assert "no image of OSF small carries the tag default" in str(vm.runtime.failure)
    assert (vm.runtime.failure_cause, vm.runtime.blocked) == (FailureCause.IMAGE, False)
    assert await host.alarms() == []


# --- the host's fault -----------------------------------------------------------------------------


async def test_a_full_pool_blocks_nobody_and_says_so(host: Rig) -> None:
    host.backend.lacks["clone_root"] = PoolFullError.of("no root can be made")
    waiting = TEN[:9]
    other = TEN[9]
    await let_others_run(host, other)
    async with host.hkd():
        await start(host, waiting)
        for vm_id in waiting:
            vm = await host.until(vm_id, lambda vm: vm.runtime.waits_for == "pool", LONGEST_S)
            assert "the storage pool is full" in str(vm.runtime.failure)
            assert (vm.runtime.failure_cause, vm.runtime.blocked) == (FailureCause.HOST, False)
            assert (vm.runtime.vm_state, vm.runtime.run) == (VmState.STARTING, 1)
        await until_told(host, "9 VMs wait for the host (pool)")
        (alarm,) = await host.alarms()
        assert (alarm.kind, alarm.object) == (AlarmKind.HOST, "pool")
        await start(host, [other])
        await all_are(host, VmState.RUNNING, [other])

        host.backend.lacks.clear()
        for vm in await all_are(host, VmState.RUNNING):
            assert (vm.runtime.failure, vm.runtime.waits_for, vm.runtime.run) == (None, None, 1)
        assert await host.alarms() == []


async def test_whoever_waits_can_be_stopped_and_nothing_stays(host: Rig) -> None:
    host.backend.lacks["launch"] = PoolFullError.of("no socket can be made")
    async with host.hkd():
        await start(host)
        await host.until(ONE, lambda vm: vm.runtime.vm_phase == Phase.WAITING)
        await host.wish("stop", ONE)
        (vm,) = await all_are(host, VmState.STOPPED, [ONE])
    assert "the storage pool is full" in str(vm.runtime.failure), "why it did not run while it could"
    assert await host.alarms() == []
    assert (host.backend.roots, host.backend.fences, host.backend.kept) == ({}, {}, {})


async def test_a_restart_tries_at_once(host: Rig) -> None:
    host.settings = host.settings.with_database({"internal.hkd.start.delay.first": "3600"})
    host.backend.fail("launch", PoolFullError.of("no socket can be made"))
    async with host.hkd():
        await start(host)
        await host.until(ONE, lambda vm: vm.runtime.vm_phase == Phase.WAITING)
        await host.wish("stop", ONE, restart=True)
        await all_are(host, VmState.RUNNING, [ONE])
    assert await host.alarms() == [], "nobody waits any more"


async def test_what_cannot_be_removed_is_an_alarm_for_as_long_as_it_cannot(host: Rig) -> None:
    async with host.hkd():
        await start(host)
        await all_are(host, VmState.RUNNING, [ONE])
        host.backend.lacks["erase"] = BackendError("processes of an earlier run live on")
        await host.wish("stop", ONE)
        await host.until_state(ONE, VmState.ZOMBIE)
        async with asyncio.timeout(LONGEST_S):
            while host.backend.calls.count(("erase", ONE)) < 4:
                await asyncio.sleep(0.02)
        (alarm,) = await host.alarms()
        assert "processes of an earlier run live on" in alarm.text
        host.backend.lacks.clear()
        (vm,) = await all_are(host, VmState.STOPPED, [ONE])
    assert await host.alarms() == []
    assert vm.runtime.waits_for is None


async def test_what_is_lacking_next_has_its_own_alarm(host: Rig) -> None:
    host.backend.fail("clone_root", PoolFullError.of("no root can be made"))
    host.backend.lacks["launch"] = OSError("too many open files")
    async with host.hkd():
        await start(host)
        await host.until(ONE, lambda vm: vm.runtime.waits_for == "host")
        assert [alarm.object for alarm in await host.alarms()] == ["host"]


async def until_told(host: Rig, text: str) -> None:
    """Wait until some open alarm says so."""
    async with asyncio.timeout(LONGEST_S):
        while not any(text in alarm.text for alarm in await host.alarms()):
            await asyncio.sleep(0.02)


async def let_others_run(host: Rig, vm_id: VmId) -> None:
    """Make a VM one whose guest somebody else runs."""
    async with host.store.write() as tx:
        foreign = await tx.osfs.add(
            name="foreign",
            memory_mib=64,
            cpus=None,
            use_overlay=True,
            user_storage_mib=None,
            backend=BackendKind.NOTHING,
        )
        await tx.connection.execute(update(vms_table).where(vms_table.c.id == vm_id).values(osf_id=foreign))


async def test_a_home_is_kept_before_another_image_gets_at_it(host: Rig) -> None:
    host.backend.bad_images.clear()
    async with host.hkd():
        await start(host)
        await all_are(host, VmState.RUNNING, (ONE,))
        await host.wish("stop", ONE)
        await all_are(host, VmState.STOPPED, (ONE,))
        await tag(host, BAD)
        await start(host)
        await all_are(host, VmState.RUNNING, (ONE,))
    made = ("clone_root", "snapshot_home", "ensure_home", "define")
    calls = [call for call, vm_id in host.backend.calls if vm_id == ONE and call in made]
    assert calls == ["clone_root", "ensure_home", "define", *made]
    async with host.store.read() as tx:
        (kept,) = await tx.kept.find()
    assert (kept.kind, kept.vm, kept.owner, kept.until) == (KeptKind.SNAPSHOT, "desk1", "alice", None)
    assert (kept.from_di_id, kept.to_di_id) == (GOOD, BAD)
    assert host.backend.kept[Path(kept.path)].di_id == GOOD


async def test_a_home_that_cannot_be_kept_is_shown_to_no_other_image(host: Rig) -> None:
    """The start waits as for any fault of the host."""
    host.backend.bad_images.clear()
    async with host.hkd():
        await start(host)
        await all_are(host, VmState.RUNNING, (ONE,))
        await host.wish("stop", ONE)
        await all_are(host, VmState.STOPPED, (ONE,))
        await tag(host, BAD)
        host.backend.fail("snapshot_home", PoolFullError.of("no snapshot can be taken"))
        await start(host)
        vm = await host.until(ONE, lambda vm: vm.runtime.failure is not None)
        assert (vm.runtime.failure_cause, vm.runtime.waits_for) == (FailureCause.HOST, "pool")
        assert not vm.runtime.blocked
        assert host.backend.homes[ONE].di_id == GOOD
        async with host.store.read() as tx:
            assert await tx.kept.find() == []
