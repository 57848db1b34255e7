"""What to make of a VM when the HKD starts: (row, sighting) -> machine and first actions. Total.

Guests outlive the daemon, so the row may claim too much (it runs ahead of the effects) but never
too little. What is seen running wins over what the row says; a host that has rebooted begins again
what had been running.
"""

from __future__ import annotations

from appliance.model import BackendKind, StartedBy, Vm, VmState
from appliance.runtime.actions import (
    Action,
    AdoptGuest,
    Arm,
    AskPoweroff,
    AwaitAnswer,
    Deadline,
    FenceGuest,
    WatchVma,
)
from appliance.runtime.backend import GuestSpec
from appliance.runtime.blame import GUEST
from appliance.runtime.machine import Phase, Step, VmMachine, clean, enter, queue, removal


def adopt(vm: Vm, guest: GuestSpec | None, *, backend: BackendKind, rebooted: bool) -> Step | None:
    """The machine of `vm` and its first orders; None if there is nothing to look after.

    `guest` is what was seen running, fully described, or None; `rebooted` says that the host has
    booted since the row was written.
    """
    state = vm.runtime.vm_state
    found = VmMachine(
        vm_id=vm.id,
        backend=backend,
        run=vm.runtime.run,
        started_by=vm.runtime.started_by,
        guest=guest,
        restart=vm.runtime.restart,
    )
    if guest is not None:
        asking = vm.runtime.expire_answered < vm.runtime.expire_asked
        return _alive(found, guest, state, asking=asking)
    return _gone(found, state, rebooted)


def _alive(found: VmMachine, guest: GuestSpec, state: VmState, *, asking: bool) -> Step:
    taken_up: tuple[Action, ...] = (AdoptGuest(guest), FenceGuest(guest))
    match state:
        case VmState.STARTING:
            return enter(
                found, Phase.AWAITING_VMA, *taken_up, WatchVma(guest, starting=True), Arm(Deadline.STARTING)
            )
        case VmState.STOPPING:
            return enter(found, Phase.SHUTTING_DOWN, *taken_up, AskPoweroff(guest), Arm(Deadline.SHUTDOWN))
        case VmState.ZOMBIE:
            return enter(found, Phase.REAPING, *removal())
        case VmState.RUNNING | VmState.DEBUGGING | VmState.STOPPED:
            watches: tuple[Action, ...] = (WatchVma(guest, starting=False),)
            if asking:
                watches += (AwaitAnswer(guest),)
            return enter(found, Phase.MONITORING, *taken_up, *watches, asking=asking)


def _gone(found: VmMachine, state: VmState, rebooted: bool) -> Step | None:
    match state:
        case VmState.STOPPED:
            return None
        case VmState.STARTING:
            started_by = StartedBy.HOST if rebooted else found.started_by or StartedBy.COMMAND
            return queue(found, started_by=started_by, run=found.run)
        case VmState.ZOMBIE:
            return enter(found, Phase.REAPING, *removal())
        case VmState.STOPPING:
            return clean(found)
        case VmState.RUNNING | VmState.DEBUGGING if rebooted:
            return queue(found, started_by=StartedBy.HOST, run=found.run + 1)
        case VmState.RUNNING | VmState.DEBUGGING:
            return clean(found, "the guest ended while the appliance was not looking", GUEST)
