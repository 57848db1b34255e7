"""The laws of a VM's life, one suite for every kind of guest: a whole HKD on a real database drives them.

A subclass named `Test…` gives the fixture `life`. VM ONE has a guest whose agent answers; the guest of VM TWO
has none, and does not end when it is asked to. What a kind of guest never does its `Life` says, and the laws
about that are then left out: `nothing` neither notices that a guest ends nor waits for one that should.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from appliance.model import FailureCause, StartedBy, UserState, Vm, VmId, VmState
from appliance.runtime.backend import Sighting
from appliance.runtime.machine import Phase
from tests.support.contract import Ends
from tests.support.host import Host

ONE, TWO = VmId(1), VmId(2)
PATIENCE_S = 90.0
GRACE = "internal.hkd.vmhandler.vma.failed.max_time.on.starting"
SIGNAL = "internal.hkd.lxc.timeout.on_state.stopping.stop"
CLEARED = (VmState.STOPPED, None, None, None, UserState.DISCONNECTED)


@dataclass(frozen=True, kw_only=True)
class Life:
    """A host with two stopped VMs, and what a test can see and do of their guests without its daemon."""

    host: Host
    seen: Callable[[], Awaitable[Mapping[VmId, Sighting]]]
    """What runs, as a daemon finds it that was just begun."""
    left: Callable[[], list[str]]
    """What there is of guests beside their homes."""
    end: Ends | None
    """None: this kind never notices that a guest ends by itself."""
    obeys_at_once: bool = False
    """Whether every guest of this kind is gone as soon as it is told to end."""

    def wait(self, key: str, seconds: float) -> None:
        """Let one of the machine's waits take so long from now on."""
        self.host.settings = self.host.settings.with_database({key: f"{seconds:g}"})

    async def until(self, vm_id: VmId, condition: Callable[[Vm], bool]) -> Vm:
        """Wait for a row to satisfy `condition`."""
        return await self.host.until(vm_id, condition, PATIENCE_S)

    async def until_state(self, vm_id: VmId, state: VmState) -> Vm:
        """Wait for a state in the row."""
        return await self.until(vm_id, lambda vm: vm.runtime.vm_state is state)

    async def until_boots(self, vm_id: VmId, run: int = 1) -> Vm:
        """Wait until a guest was launched and its agent is waited for."""
        return await self.until(
            vm_id, lambda vm: (vm.runtime.vm_phase, vm.runtime.run) == (Phase.AWAITING_VMA, run)
        )

    async def until_ended(self, vm_id: VmId) -> Vm:
        """Wait for the end of a run, of which nothing is left: neither in the row nor on the host."""
        vm = await self.until_state(vm_id, VmState.STOPPED)
        row = vm.runtime
        assert (row.vm_state, row.current_di_id, row.vm_address, row.host_id, row.user_state) == CLEARED
        assert await self.seen() == {}
        assert self.left() == []
        return vm

    async def boots(self, vm_id: VmId) -> Sighting:
        """Start a VM, and wait until its guest was launched."""
        await self.host.wish("start", vm_id)
        await self.until_boots(vm_id)
        return await self.only(vm_id)

    async def runs(self, vm_id: VmId) -> Sighting:
        """Start a VM, and wait until its agent has answered."""
        await self.host.wish("start", vm_id)
        await self.until_state(vm_id, VmState.RUNNING)
        return await self.only(vm_id)

    async def stops(self, vm_id: VmId) -> Vm:
        """Stop a VM, and wait until nothing is left of the run."""
        await self.host.wish("stop", vm_id)
        return await self.until_ended(vm_id)

    async def only(self, vm_id: VmId) -> Sighting:
        """The guest of a VM: one, and the only one."""
        seen = await self.seen()
        assert set(seen) == {vm_id}
        return seen[vm_id]

    async def launched_anew(self, vm_id: VmId, before: Sighting) -> Sighting:
        """Wait until another guest of a VM runs; the row claimed all the time that one does."""
        async with asyncio.timeout(PATIENCE_S):
            while (seen := (await self.seen()).get(vm_id)) in (None, before):
                await asyncio.sleep(0.02)
        assert seen is not None
        await self.until_boots(vm_id)
        return seen


class LifeCycle:
    """What holds for every VM, whatever its guest is."""

    async def test_a_start_runs_a_guest_a_restart_another_and_a_stop_leaves_nothing(self, life: Life) -> None:
        async with life.host.hkd():
            first = await life.runs(ONE)
            vm = await life.host.vm(ONE)
            assert (first.mark.vm_id, first.mark.vm_uuid) == (ONE, vm.uuid)
            assert (vm.runtime.run, vm.runtime.started_by) == (1, StartedBy.COMMAND)
            assert vm.runtime.vm_address == vm.ip
            await life.host.wish("stop", ONE, restart=True)
            vm = await life.until(
                ONE, lambda vm: (vm.runtime.vm_state, vm.runtime.run) == (VmState.RUNNING, 2)
            )
            assert not vm.runtime.restart
            second = await life.only(ONE)
            assert life.end is None or second != first
            vm = await life.stops(ONE)
        assert vm.runtime.failure is None

    async def test_a_running_guest_outlives_the_daemon_and_the_next_one_notices_its_end(
        self, life: Life
    ) -> None:
        async with life.host.hkd():
            guest = await life.runs(ONE)
        async with life.host.hkd():
            vm = await life.host.vm(ONE)
            assert (vm.runtime.vm_state, vm.runtime.run) == (VmState.RUNNING, 1)
            assert await life.only(ONE) == guest
            if life.end is None:
                await life.stops(ONE)
                return
            await life.end(ONE)
            vm = await life.until_ended(ONE)
        assert vm.runtime.failure == "the guest ended by itself"

    async def test_a_wish_made_while_the_daemon_was_down_is_served(self, life: Life) -> None:
        await life.host.wish("start", TWO)
        assert await life.seen() == {}
        async with life.host.hkd():
            await life.until_boots(TWO)
            await life.only(TWO)
            await life.stops(TWO)

    async def test_a_guest_that_never_answers_ends_with_the_reason(self, life: Life) -> None:
        life.wait(GRACE, 1)
        async with life.host.hkd():
            await life.host.wish("start", TWO)
            vm = await life.until(TWO, lambda vm: vm.runtime.failure is not None)
            assert "the VMA gave no answer within 1 s" in str(vm.runtime.failure)
            assert vm.runtime.failure_cause is FailureCause.IMAGE
            await life.until_ended(TWO)

    async def test_a_start_can_be_called_off_while_the_guest_boots(self, life: Life) -> None:
        async with life.host.hkd():
            await life.boots(TWO)
            vm = await life.stops(TWO)
        assert vm.runtime.failure is None

    async def test_a_guest_that_ends_while_it_boots_ends_the_run(self, life: Life) -> None:
        if life.end is None:
            return
        async with life.host.hkd():
            await life.boots(TWO)
            await life.end(TWO)
            vm = await life.until_ended(TWO)
        assert vm.runtime.failure == "the guest ended while it was booting"

    async def test_a_guest_that_boots_outlives_the_daemon(self, life: Life) -> None:
        async with life.host.hkd():
            guest = await life.boots(TWO)
        async with life.host.hkd():
            vm = await life.until_boots(TWO)
            assert vm.runtime.run == 1
            assert await life.only(TWO) == guest
            await life.stops(TWO)

    async def test_a_start_whose_guest_ended_while_nobody_looked_is_begun_again(self, life: Life) -> None:
        if life.end is None:
            return
        async with life.host.hkd():
            first = await life.boots(TWO)
        await life.end(TWO)
        assert await life.seen() == {}
        async with life.host.hkd():
            second = await life.launched_anew(TWO, first)
            assert (await life.host.vm(TWO)).runtime.run == 1
            assert second.mark == first.mark
            await life.stops(TWO)

    async def test_a_stop_goes_on_after_the_daemon_died(self, life: Life) -> None:
        if life.obeys_at_once:
            return
        life.wait(SIGNAL, PATIENCE_S)
        async with life.host.hkd():
            await life.boots(TWO)
            await life.host.wish("stop", TWO)
            await life.until_state(TWO, VmState.STOPPING)
            await life.only(TWO)
        life.wait(SIGNAL, 0.5)
        async with life.host.hkd():
            vm = await life.until_ended(TWO)
        assert vm.runtime.failure is None

    async def test_a_restart_wished_while_a_guest_stops_follows_its_end(self, life: Life) -> None:
        if life.obeys_at_once or life.end is None:
            return
        life.wait(SIGNAL, PATIENCE_S)
        async with life.host.hkd():
            first = await life.boots(TWO)
            await life.host.wish("stop", TWO)
            await life.until_state(TWO, VmState.STOPPING)
            await life.host.wish("stop", TWO, restart=True)
            await life.until(TWO, lambda vm: vm.runtime.restart)
            assert await life.only(TWO) == first
            await life.end(TWO)
            await life.until_boots(TWO, run=2)
            assert await life.only(TWO) != first
            life.wait(SIGNAL, 0.5)
            await life.stops(TWO)
