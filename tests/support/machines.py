"""A VM machine in any phase, the guest it looks after, and an event of any kind."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Interface
from typing import Any

from appliance.model import BackendKind, DiId, InstallationId, Mark, StartedBy, VmId
from appliance.runtime.actions import KillGuest, Question
from appliance.runtime.backend import GuestSpec
from appliance.runtime.events import (
    ActionFailed,
    AskDue,
    Event,
    GuestTold,
    RootReady,
    StartWanted,
    StopWanted,
    TimeUp,
    VmaSilent,
)
from appliance.runtime.machine import Phase, VmMachine

VM_ID = VmId(7)
NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)

GUEST = GuestSpec(
    mark=Mark(installation=InstallationId("0a1b2c3d"), vm_id=VM_ID, vm_uuid="u-7", di_id=DiId(3)),
    hostname="desk7",
    memory_mib=256,
    cpus=None,
    processes=4096,
    address=IPv4Interface("10.44.0.7/24"),
    gateway="10.44.0.1",
    resolver=None,
    domain=None,
    mac="54:52:00:2c:00:07",
    bridge="qvdnet",
    interface="qvd7",
    subid_first=1_000_000,
    home_mib=None,
    root_mib=None,
    keep_root=False,
)


def machine(phase: Phase) -> VmMachine:
    """A machine in `phase`, in the middle of its first run unless it is stopped."""
    if phase is Phase.STOPPED:
        return VmMachine(vm_id=VM_ID, backend=BackendKind.LXC)
    decided = phase not in (Phase.QUEUED, Phase.CLONING, Phase.WAITING)
    return VmMachine(
        vm_id=VM_ID,
        backend=BackendKind.LXC,
        phase=phase,
        entry=5,
        run=1,
        started_by=StartedBy.COMMAND,
        guest=GUEST if decided else None,
    )


QUESTION = Question(number=1, soft=NOW, hard=None, final=False, later_s=None, postponements=None)

PARTICULARS: dict[type[Event], dict[str, Any]] = {
    StartWanted: {"backend": BackendKind.LXC, "started_by": StartedBy.COMMAND, "run": 1},
    StopWanted: {"restart": False},
    RootReady: {"guest": GUEST},
    TimeUp: {"waited_s": 180.0},
    AskDue: {"question": QUESTION},
    GuestTold: {"answers": True},
    VmaSilent: {"silent_s": 321.0},
    ActionFailed: {"action": KillGuest(), "error": "the pool is full"},
}


def sample_event(kind: type[Event], **particulars: Any) -> Event:
    """An event of this kind, from outside."""
    return kind(vm_id=VM_ID, at=NOW, cause="test", **(PARTICULARS.get(kind, {}) | particulars))
