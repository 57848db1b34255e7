"""The shell of the machines: order, boot slots, cancellation, stories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from appliance.clock import ManualClock
from appliance.model import BackendKind, StartedBy, VmId
from appliance.runtime.actions import (
    AdoptGuest,
    Arm,
    EraseGuest,
    LaunchGuest,
    Order,
    PrepareRoot,
    SaveState,
    WatchVma,
)
from appliance.runtime.events import (
    Done,
    Event,
    GuestDeparted,
    GuestErased,
    GuestLaunched,
    RootReady,
    StartWanted,
    StopWanted,
    VmaAnswered,
)
from appliance.runtime.machine import Phase, VmMachine
from appliance.runtime.supervisor import Supervisor
from tests.support.machines import GUEST, NOW, machine
from tests.support.mortal import mortal


class Script:
    """A performer under control: each action waits until it is allowed, and says when it is cancelled."""

    def __init__(self) -> None:
        self.begun: list[tuple[VmId, str]] = []
        self.cancelled: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.machines: dict[VmId, VmMachine] = {}

    def hold(self, action: str) -> None:
        self.gates[action] = asyncio.Event()

    async def __call__(self, order: Order) -> Event:
        name = type(order.action).__name__
        self.begun.append((order.vm_id, name))
        try:
            if isinstance(order.action, Arm) or (
                isinstance(order.action, WatchVma) and not order.action.starting
            ):
                await asyncio.Event().wait()
            if name in self.gates:
                await self.gates[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        outcomes: dict[type, Callable[..., Event]] = {
            PrepareRoot: lambda **base: RootReady(
                guest=replace(GUEST, mark=replace(GUEST.mark, vm_id=order.vm_id)), **base
            ),
            LaunchGuest: GuestLaunched,
            WatchVma: VmaAnswered,
            EraseGuest: GuestErased,
        }
        make: Callable[..., Event] = outcomes.get(type(order.action), Done)
        return make(vm_id=order.vm_id, at=NOW, cause=order.cause, entry=order.entry)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def supervisor(script: Script) -> AsyncIterator[Supervisor]:
    async with mortal() as tasks:
        yield Supervisor(
            script,
            tasks,
            ManualClock(NOW),
            boot_slots=lambda: 2,
            noticed=lambda vm: script.machines.update({vm.vm_id: vm}),
        )


def start(vm_id: int) -> StartWanted:
    return StartWanted(
        vm_id=VmId(vm_id), at=NOW, cause="test", backend=BackendKind.LXC, started_by=StartedBy.COMMAND, run=1
    )


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def phases(script: Script) -> dict[int, Phase]:
    return {vm_id: vm.phase for vm_id, vm in script.machines.items()}


async def test_nothing_is_remembered_of_vms_that_are_no_more(supervisor: Supervisor) -> None:
    for vm_id in (1, 2, 3):
        supervisor.post(start(vm_id))
    await settle()
    for vm_id in (1, 2):
        supervisor.post(StopWanted(vm_id=VmId(vm_id), at=NOW, cause="test", restart=False))
        await settle()
        supervisor.post(GuestDeparted(vm_id=VmId(vm_id), at=NOW, cause="test"))
    await settle()
    supervisor.forget(but=[VmId(1)])
    assert {machine.vm_id for machine in supervisor.machines()} == {1, 3}, "2 is gone, and 3 runs"
    assert supervisor.story(VmId(1))
    assert not supervisor.story(VmId(2))
    supervisor.post(start(2))
    await settle()
    assert supervisor.story(VmId(2))


async def test_a_start_runs_through_to_monitoring_in_order(supervisor: Supervisor, script: Script) -> None:
    supervisor.post(start(1))
    await settle()
    assert phases(script) == {1: Phase.MONITORING}
    effects = [name for _, name in script.begun if name not in {"SaveState", "Arm", "WatchVma"}]
    assert effects == ["PrepareRoot", "DefineGuest", "FenceGuest", "LaunchGuest"]
    assert script.begun[0][1] == "PrepareRoot", "which saves, for the queue as well"
    assert supervisor.story(VmId(1))[0].after is Phase.QUEUED


async def test_no_more_boot_at_once_than_there_are_slots(supervisor: Supervisor, script: Script) -> None:
    script.hold("PrepareRoot")
    for vm_id in (5, 3, 4, 1):
        supervisor.post(start(vm_id))
    await settle()
    assert phases(script) == {5: Phase.CLONING, 3: Phase.CLONING, 4: Phase.QUEUED, 1: Phase.QUEUED}
    supervisor.post(StopWanted(vm_id=VmId(3), at=NOW, cause="test", restart=False))
    await settle()
    assert phases(script)[4] is Phase.CLONING, "the one who waited longest is next"
    assert phases(script)[1] is Phase.QUEUED
    script.gates["PrepareRoot"].set()
    await settle()
    assert phases(script) == {5: Phase.MONITORING, 3: Phase.STOPPED, 4: Phase.MONITORING, 1: Phase.MONITORING}


async def test_leaving_a_phase_cancels_what_it_ordered(supervisor: Supervisor, script: Script) -> None:
    script.hold("LaunchGuest")
    supervisor.post(start(1))
    await settle()
    assert phases(script) == {1: Phase.LAUNCHING}
    supervisor.post(StopWanted(vm_id=VmId(1), at=NOW, cause="test", restart=False))
    await settle()
    assert script.cancelled == ["LaunchGuest"]
    assert phases(script) == {1: Phase.STOPPED}


async def test_a_state_under_way_to_the_disk_is_never_cancelled(
    supervisor: Supervisor, script: Script
) -> None:
    script.hold("SaveState")
    supervisor.post(start(1))
    await settle()
    supervisor.post(StopWanted(vm_id=VmId(1), at=NOW, cause="test", restart=False))
    await settle()
    script.gates["SaveState"].set()
    await settle()
    assert "SaveState" not in script.cancelled
    assert phases(script) == {1: Phase.STOPPED}
    ordered = [chapter.after for chapter in supervisor.story(VmId(1)) if SaveState() in chapter.actions]
    assert ordered == [Phase.QUEUED, Phase.LAUNCHING, Phase.CLEANING, Phase.STOPPED]
    left_to_another = (
        1  # nothing had begun to write that it queued when PrepareRoot came, which saves as well
    )
    assert script.begun.count((VmId(1), "SaveState")) == len(ordered) - left_to_another


async def test_timers_and_watches_end_with_their_phase(supervisor: Supervisor, script: Script) -> None:
    script.hold("WatchVma")
    supervisor.post(start(1))
    await settle()
    assert phases(script) == {1: Phase.AWAITING_VMA}
    supervisor.post(StopWanted(vm_id=VmId(1), at=NOW, cause="test", restart=False))
    await settle()
    assert sorted(script.cancelled) == ["Arm", "WatchVma"]


async def test_a_guest_is_adopted_although_its_vma_answers_first(
    supervisor: Supervisor, script: Script
) -> None:
    script.hold("SaveState")
    found = replace(machine(Phase.AWAITING_VMA), vm_id=VmId(1))
    orders = (SaveState(), AdoptGuest(GUEST), WatchVma(GUEST, starting=True))
    supervisor.adopt(found, orders, cause="adopted")
    await settle()
    assert phases(script) == {1: Phase.MONITORING}
    script.gates.pop("SaveState").set()
    await settle()
    assert (1, "AdoptGuest") in script.begun


async def test_what_is_left_of_a_vm_at_rest_is_erased_in_its_lane(
    supervisor: Supervisor, script: Script
) -> None:
    assert await supervisor.tidy(VmId(1), BackendKind.LXC, cause="survey")
    assert script.begun == [(VmId(1), "UnfenceGuest"), (VmId(1), "EraseGuest")]
    supervisor.post(start(1))
    await settle()
    assert not await supervisor.tidy(VmId(1), BackendKind.LXC, cause="survey")
    assert phases(script) == {1: Phase.MONITORING}


async def test_a_start_comes_before_what_was_left_and_meets_it_no_more(
    supervisor: Supervisor, script: Script
) -> None:
    script.hold("EraseGuest")
    tidying = asyncio.ensure_future(supervisor.tidy(VmId(1), BackendKind.LXC, cause="survey"))
    await settle()
    supervisor.post(start(1))
    assert not await tidying
    assert script.cancelled == ["EraseGuest"]
    effects = [name for _, name in script.begun]
    assert effects.index("EraseGuest") < effects.index("PrepareRoot")
    assert phases(script) == {1: Phase.MONITORING}
