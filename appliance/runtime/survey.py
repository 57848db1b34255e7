"""What was left behind on this host: (what the rows say, what there is) -> what is to be done. Pure.

Only what carries our mark, our installation's name or stands in our own folders is looked at, and only
of VMs at rest. A home is never removed for being found without its VM: it is kept for a while, like that
of a VM that was deleted. An image without a row is removed only if this database once knew it: an older
one that was restored, or a new one, knows less than there is. What is somebody else's is told of and left
alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from appliance.model import DiId, InstallationId, Kept, KeptKind, Mark, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the database knows."""

    vms: Mapping[VmId, str]
    """Each VM's uuid."""
    dis: Collection[DiId]
    given: Collection[DiId]
    """The numbers that it ever gave to an image, whatever became of that."""
    kept: Collection[Kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is on the host, looked at before the rows were read."""

    traces: Mapping[VmId, Collection[str]] = field(default_factory=dict)
    """By VM, in words: what a guest has while it runs, and leaves to nobody."""
    roots: Mapping[VmId, Mark | None] = field(default_factory=dict)
    homes: Mapping[VmId, Mark | None] = field(default_factory=dict)
    kept: Mapping[Path, Mark | None] = field(default_factory=dict)
    missing: Collection[int] = ()
    """Rows of `kept` of whose thing there is nothing."""
    consoles: Collection[VmId] = ()
    images: Collection[DiId] = ()
    half: Collection[Path] = ()
    """Volumes that are made in a moment, and have been there for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    tidy: Mapping[VmId, tuple[str, ...]]
    """VMs at rest of whose runs something is left, and what."""
    consoles: tuple[VmId, ...]
    """Files of the consoles of deleted VMs."""
    homes: tuple[Mark, ...]
    """Homes without a VM and without a row of `kept`."""
    kept: Mapping[Path, Mark]
    """Roots put aside, and snapshots of homes, of which there is no row."""
    gone: tuple[int, ...]
    """Rows of `kept` whose thing is gone."""
    images: tuple[DiId, ...]
    """Images that had a row, or were to get one, and have none."""
    half: tuple[Path, ...]
    strangers: tuple[str, ...]
    """What is not ours, a sentence for each."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left behind."""
        left = (self.tidy, self.consoles, self.homes, self.kept, self.gone, self.images, self.half)
        return not any(left)


def plan(
    rows: Rows, found: Found, *, installation: InstallationId, busy: Collection[VmId], keeps_roots: bool
) -> Plan:
    """What is left behind, and what is to be done about it.

    `busy` are the VMs that run or are on their way; `keeps_roots` says that roots survive a stop.
    """
    strangers: list[str] = []

    def is_ours(what: str, mark: Mark | None) -> bool:
        if mark is not None and mark.installation == installation:
            return True
        whose = "no mark" if mark is None else f"the mark of the installation {mark.installation}"
        strangers.append(f"{what} carries {whose}")
        return False

    tidy = {vm_id: [*traces] for vm_id, traces in found.traces.items() if traces and vm_id not in busy}
    for vm_id, mark in found.roots.items():
        at_home = vm_id in busy or (keeps_roots and vm_id in rows.vms)
        if not at_home and is_ours(f"the root of number {vm_id}", mark):
            tidy.setdefault(vm_id, []).append("root")
    known = {Path(kept.path) for kept in rows.kept}
    kept_homes = {kept.vm_id for kept in rows.kept if kept.kind is KeptKind.HOME}
    homes = []
    for vm_id, mark in found.homes.items():
        if not is_ours(home := f"the home of number {vm_id}", mark) or mark is None:
            continue
        if vm_id not in rows.vms and vm_id not in kept_homes:
            homes.append(mark)
        elif rows.vms.get(vm_id, mark.vm_uuid) != mark.vm_uuid:
            strangers.append(f"{home} belonged to another VM of this number")
    unknown = set(found.images) - set(rows.dis)
    strangers += [
        f"the image of number {di_id} was never given this number by this database"
        for di_id in sorted(unknown - set(rows.given))
    ]
    return Plan(
        tidy={vm_id: tuple(left) for vm_id, left in tidy.items()},
        consoles=tuple(sorted(set(found.consoles) - rows.vms.keys() - set(busy))),
        homes=tuple(homes),
        kept={
            path: mark
            for path, mark in found.kept.items()
            if path not in known and is_ours(str(path), mark) and mark is not None and mark.vm_id not in busy
        },
        gone=tuple(kept.id for kept in rows.kept if kept.id in found.missing and kept.vm_id not in busy),
        images=tuple(sorted(unknown & set(rows.given))),
        half=tuple(found.half),
        strangers=tuple(strangers),
    )
