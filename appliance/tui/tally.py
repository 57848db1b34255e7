"""Counts of desktops, kept as they change. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from appliance.model import VmState
from appliance.storage.live import Delta, VmLine


class Tally:
    """All desktops, and how many of them are how."""

    def __init__(self, vms: Mapping[int, VmLine] | None = None) -> None:
        self.vms: dict[int, VmLine] = dict(vms or {})
        self.states: Counter[str] = Counter()
        """By state; one that stands still because its last run failed is `failed`."""
        self.running: Counter[int] = Counter()
        """By the image that runs."""
        self.following: Counter[int] = Counter()
        """By the image of the next start."""
        self.osfs: Counter[str] = Counter()
        self.osfs_running: Counter[str] = Counter()
        self.osfs_outdated: Counter[str] = Counter()
        self.limited: set[int] = set()
        """Those that have a limit."""
        self.connected = 0
        self.outdated = 0
        self.blocked = 0
        for line in self.vms.values():
            self._count(line, 1)

    def take(self, delta: Delta) -> None:
        """Take in what changed of those that there are."""
        for vm_id, line in delta.vms.items():
            if (old := self.vms.get(vm_id)) is not None:
                self._count(old, -1)
            self.vms[vm_id] = line
            self._count(line, 1)
        for vm_id in delta.gone:
            if (old := self.vms.pop(vm_id, None)) is not None:
                self._count(old, -1)

    def deadlines(self, count: int) -> list[VmLine]:
        """The desktops with the nearest limits, the nearest first."""
        lines = [self.vms[vm_id] for vm_id in self.limited]
        return sorted(lines, key=nearest)[:count]

    def _count(self, vm: VmLine, by: int) -> None:
        self.states[kind(vm)] += by
        self.connected += by * vm.has_user
        self.outdated += by * vm.outdated
        self.blocked += by * bool(vm.blocked)
        self.osfs[vm.osf] += by
        self.osfs_running[vm.osf] += by * (vm.state == VmState.RUNNING)
        self.osfs_outdated[vm.osf] += by * vm.outdated
        if not self.osfs[vm.osf]:
            del self.osfs[vm.osf]
        if vm.di_id is not None:
            self.running[vm.di_id] += by
        if vm.next_di_id is not None:
            self.following[vm.next_di_id] += by
        if by > 0 and (vm.soft or vm.hard):
            self.limited.add(vm.id)
        elif by < 0:
            self.limited.discard(vm.id)


def kind(vm: VmLine) -> str:
    """Its state, or `failed`."""
    return "failed" if vm.failure is not None and vm.state == VmState.STOPPED else vm.state


def nearest(vm: VmLine) -> str:
    """The nearer limit of a desktop that has one."""
    return min(filter(None, (vm.soft, vm.hard)))


def people(vms: Iterable[VmLine]) -> list[str]:
    """Who is at these desktops."""
    return sorted({vm.real_user or vm.user for vm in vms if vm.has_user})
